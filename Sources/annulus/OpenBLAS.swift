// OpenBLAS, loaded while the command runs: a baseline of `bench gemm`, and what `doctor` says of it.

import Foundation
import Pipelines

/// The functions of an OpenBLAS that is on this machine. Nothing else needs it, so the command is not linked with it.
struct OpenBLAS: Sendable {
    /// The variable that names the library's file, where it is none that the system's loader finds.
    static let variable = "ANNULUS_OPENBLAS"

    /// How to come by it.
    static let advice =
        "install it (Debian, Ubuntu: apt-get install libopenblas0; macOS: brew install openblas), or name its file in \(variable)"

    /// C(m, n) = alpha·A(m, k)·B + beta·C in CBLAS's terms; its integers have 32 bits.
    private typealias Multiply =
        @Sendable @convention(c) (
            _ order: Int32, _ transposeA: Int32, _ transposeB: Int32, _ m: Int32, _ n: Int32, _ k: Int32,
            _ alpha: Float,
            _ a: UnsafePointer<Float>, _ strideA: Int32, _ b: UnsafePointer<Float>, _ strideB: Int32, _ beta: Float,
            _ c: UnsafeMutablePointer<Float>, _ strideC: Int32
        ) -> Void
    private typealias Tell = @convention(c) () -> UnsafePointer<CChar>?
    private typealias SetThreads = @Sendable @convention(c) (Int32) -> Void

    /// Its version and how it was built.
    let configuration: String
    /// The processor whose kernels it chose when it was loaded.
    let core: String
    private let multiplyFunction: Multiply
    private let setThreadsFunction: SetThreads

    /// The library of this process, loaded at the first call and kept; nil where there is none.
    /// - Throws: `JobError` with status `environment` where there is one that cannot be used.
    static func load() throws(JobError) -> OpenBLAS? { try loaded.get() }

    private static let loaded = Result { () throws(JobError) in
        try OpenBLAS(ProcessInfo.processInfo.environment[variable])
    }

    /// - Parameter named: the file to load; nil or empty: where the loader finds it.
    private init?(_ named: String?) throws(JobError) {
        let name = named.flatMap { $0.isEmpty ? nil : $0 }
        let candidates = name.map { [$0] } ?? Self.usualNames
        // Its constructor starts its threads. What is sent to this process is none of their business.
        let library = Self.withSignalsBlocked { () -> UnsafeMutableRawPointer? in
            for candidate in candidates {
                if let library = dlopen(candidate, RTLD_NOW | RTLD_LOCAL) { return library }
            }
            return nil
        }
        guard let library else {
            guard let name else { return nil }
            let reason = dlerror().map { String(cString: $0) } ?? "for a reason that the loader does not tell"
            throw JobError(
                .environment,
                "\(Self.variable) is '\(name)', which cannot be loaded (\(reason)); name a libopenblas, or unset it")
        }
        let place = name ?? "the OpenBLAS that the loader finds"
        func symbol<Function>(_ name: String, as type: Function.Type) throws(JobError) -> Function {
            guard let address = dlsym(library, name) else {
                throw JobError(
                    .environment,
                    "\(place) has no function '\(name)'; name an OpenBLAS with its C interface in \(Self.variable)")
            }
            return unsafeBitCast(address, to: type)
        }
        func text(_ tell: Tell) -> String { tell().map { String(cString: $0) } ?? "unknown" }
        configuration = text(try symbol("openblas_get_config", as: Tell.self))
        core = text(try symbol("openblas_get_corename", as: Tell.self))
        multiplyFunction = try symbol("cblas_sgemm", as: Multiply.self)
        setThreadsFunction = try symbol("openblas_set_num_threads", as: SetThreads.self)
        if configuration.contains("USE64BITINT") {
            throw JobError(
                .environment, "\(place) was built with integers of 64 bits; name one of 32 bits in \(Self.variable)")
        }
    }

    private static var usualNames: [String] {
        #if canImport(Darwin)
        ["libopenblas.0.dylib", "libopenblas.dylib"]
            + ["/opt/homebrew", "/usr/local", "/opt/local"].flatMap {
                [$0 + "/opt/openblas/lib/libopenblas.dylib", $0 + "/lib/libopenblas.dylib"]
            }
        #else
        ["libopenblas.so.0", "libopenblas.so"]
        #endif
    }

    /// How many threads its products use, this one included. The corresponding C function is
    /// `openblas_set_num_threads`.
    func setThreads(_ count: Int) {
        Self.withSignalsBlocked { setThreadsFunction(Int32(count)) }
    }

    /// y = x·Wᵀ with x (rows, inputs), W (outputs, inputs), y (rows, outputs), all row-major. The corresponding C
    /// function is `cblas_sgemm`.
    func multiply(
        rows: Int, inputs: Int, outputs: Int, x: UnsafePointer<Float>, weights: UnsafePointer<Float>,
        y: UnsafeMutablePointer<Float>
    ) {
        let (rowMajor, plain, transposed): (Int32, Int32, Int32) = (101, 111, 112)
        multiplyFunction(
            rowMajor, plain, transposed, Int32(rows), Int32(outputs), Int32(inputs), 1, x, Int32(inputs), weights,
            Int32(inputs), 0, y,
            Int32(outputs))
    }

    /// Runs `body`, whose new threads take no signal but those of their own faults.
    private static func withSignalsBlocked<Value>(_ body: () -> Value) -> Value {
        var (blocked, before) = (sigset_t(), sigset_t())
        sigfillset(&blocked)
        for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT] { sigdelset(&blocked, fault) }
        pthread_sigmask(SIG_SETMASK, &blocked, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        return body()
    }
}
