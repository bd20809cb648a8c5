// The scope in which MPI may be used: initialised on entry, finalised on the way out.

import CMPI

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// How threads may use MPI, from least to most (MPI 3.1 §12.4.3).
public enum ThreadSupport: Int, Comparable, Sendable {
    /// One thread only. The corresponding C constant is `MPI_THREAD_SINGLE`.
    case single
    /// Only the thread that initialised calls MPI. The corresponding C constant is `MPI_THREAD_FUNNELED`.
    case funneled
    /// Any thread calls MPI, one at a time. The corresponding C constant is `MPI_THREAD_SERIALIZED`.
    case serialized
    /// Any thread calls MPI at any time. The corresponding C constant is `MPI_THREAD_MULTIPLE`.
    case multiple

    /// Whether the left allows threads less than the right, as the standard orders the levels.
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

    var constant: Int32 {
        switch self {
        case .single: cmpi_thread_single()
        case .funneled: cmpi_thread_funneled()
        case .serialized: cmpi_thread_serialized()
        case .multiple: cmpi_thread_multiple()
        }
    }

    init(constant: Int32) {
        self = [.multiple, .serialized, .funneled].first { $0.constant <= constant } ?? .single
    }
}

/// The scope in which MPI may be used.
public enum MPIEnvironment {
    /// Initialises MPI, runs `body` with the world communicator, and finalises, also when `body` throws.
    ///
    /// Finalising is collective: `body` should leave on every rank, or the job be aborted. MPI can be
    /// initialised once in the life of a process.
    /// The corresponding C functions are `MPI_Init_thread` and `MPI_Finalize` (MPI 3.1 §12.4.3, §8.7).
    /// - Throws: `MPIError` where MPI was initialised before or gives less thread support than asked;
    ///   whatever `body` throws.
    public static func run<Result: ~Copyable>(
        threadSupport: ThreadSupport = .multiple,
        _ body: (borrowing Communicator) throws -> Result
    ) throws -> Result {
        guard !wasInitialized else {
            throw MPIError(.other, operation: "MPI_Init_thread", message: "MPI was initialised before in this process")
        }
        var provided: Int32 = 0
        var rankInWorld = 0
        try check(cmpi_init_thread(threadSupport.constant, &provided), "MPI_Init_thread")
        defer {
            OpenHandles.waitForCommunicators()
            OpenHandles.show(rank: rankInWorld)
            _ = cmpi_finalize()
        }
        let given = ThreadSupport(constant: provided)
        guard given >= threadSupport else {
            throw MPIError(
                .other, operation: "MPI_Init_thread",
                message: "this MPI library supports threads up to '\(given)', and '\(threadSupport)' is needed; "
                    + "use a build of MPI with thread support")
        }
        let world = try Communicator(world: cmpi_comm_world())
        rankInWorld = world.rank
        return try body(world)
    }

    /// Whether MPI was ever initialised in this process. The corresponding C function is `MPI_Initialized` (MPI 3.1
    /// §8.7).
    public static var wasInitialized: Bool {
        var flag: Int32 = 0
        return cmpi_initialized(&flag) == cmpi_success() && flag != 0
    }

    /// Whether MPI was finalised. The corresponding C function is `MPI_Finalized` (MPI 3.1 §8.7).
    public static var wasFinalized: Bool {
        var flag: Int32 = 0
        return cmpi_finalized(&flag) == cmpi_success() && flag != 0
    }

    /// Whether communication is possible now: after initialising, before finalising.
    public static var isRunning: Bool { wasInitialized && !wasFinalized }

    /// Ends every process of the job with `status`, from any thread, as far as the launcher can.
    ///
    /// Where MPI is not running only this process ends. Nothing is flushed and no `deinit` runs.
    /// The corresponding C function is `MPI_Abort` on `MPI_COMM_WORLD` (MPI 3.1 §8.7).
    public static func abort(status: Int32) -> Never {
        if isRunning { _ = cmpi_abort(cmpi_comm_world(), status) }
        _exit(status)
    }

    /// The library's name and version. Callable at any time. The corresponding C function is
    /// `MPI_Get_library_version` (MPI 3.1 §8.1.1).
    public static var libraryVersion: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4096) { text in
            text.initialize(repeating: 0)
            _ = cmpi_get_library_version(text.baseAddress, 4096)
            return String(cString: text.baseAddress!)
        }
    }

    /// The version of the standard that the library follows. Callable at any time. The corresponding C
    /// function is `MPI_Get_version` (MPI 3.1 §8.1.1).
    public static var standardVersion: (major: Int, minor: Int) {
        var major: Int32 = 0
        var minor: Int32 = 0
        _ = cmpi_get_version(&major, &minor)
        return (Int(major), Int(minor))
    }
}
