// OpenBLAS, loaded at run time: a baseline where it is, and nothing that anybody needs where it is not.

import Foundation
import Testing

@Suite struct OpenBLASTests {
    private static let gemm = [
        "bench", "gemm", "--tokens", "300", "--inputs", "40", "--outputs", "50", "--repetitions", "1", "--threads", "1",
    ]

    /// Whether the loader finds it here.
    private static let isInstalled = (try? CommandRun.annulus(gemm).errors.isEmpty) ?? false

    private func row(_ run: CommandRun) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any], "\(run.errors)")
    }

    /// A folder that the loader searches first, where files of its names are no libraries.
    private func without() throws -> (folder: TemporaryFolder, environment: [String: String]) {
        let folder = try TemporaryFolder()
        for name in ["libopenblas.so.0", "libopenblas.so"] {
            try "none".write(toFile: folder.path(name), atomically: false, encoding: .utf8)
        }
        return (folder, ["LD_LIBRARY_PATH": folder.url.path])
    }

    #if os(Linux)
    @Test func whereThereIsNoneOursIsMeasuredAlone() throws {
        let (folder, environment) = try without()
        for spread in [Spread.alone, .virtual(2), .mpirun(2)] {
            let run = try CommandRun.annulus(Self.gemm + ["--format", "json"], spread, environment: environment)
            #expect(run.status == 0, "\(run.errors)")
            let line = run.errors.split(separator: "\n").filter { $0.contains("OpenBLAS") }
            #expect(line.count == 1 && line.first?.contains("libopenblas0") == true, "\(run.errors)")
            let row = try row(run)
            #expect(row["seconds"] is Double && row["sha256"] is String)
            for field in ["openblas_core", "openblas_seconds", "openblas_seconds_all", "openblas_gflops", "ratio"] {
                #expect(row[field] is NSNull, "\(field): \(String(describing: row[field]))")
            }
        }
        let table = try CommandRun.annulus(Self.gemm, environment: environment)
        #expect(
            table.status == 0 && !String(decoding: table.output, as: UTF8.self).contains("openblas"), "\(table.errors)")
        let doctor = try CommandRun.annulus(["doctor"], environment: environment)
        #expect(doctor.status == 0, "\(doctor.errors)")
        #expect(
            String(decoding: doctor.output, as: UTF8.self).contains("OpenBLAS     none; "),
            "\(String(decoding: doctor.output, as: UTF8.self))")
        withExtendedLifetime(folder) {}
    }

    /// The same product has the same bytes with and without a rival.
    @Test(.enabled(if: isInstalled, "no OpenBLAS is installed")) func whereItIsItIsABaselineOnly() throws {
        let (folder, environment) = try without()
        let alone = try row(CommandRun.annulus(Self.gemm + ["--format", "json"], environment: environment))
        for spread in [Spread.alone, .mpirun(2)] {
            let row = try row(CommandRun.annulus(Self.gemm + ["--format", "json"], spread))
            #expect(row["ratio"] is Double && row["openblas_core"] is String)
            #expect(row["sha256"] as? String == alone["sha256"] as? String)
        }
        let doctor = try CommandRun.annulus(["doctor"])
        #expect(String(decoding: doctor.output, as: UTF8.self).contains("OpenBLAS     OpenBLAS "), "\(doctor.errors)")
        withExtendedLifetime(folder) {}
    }

    /// Its threads, which would take signals, begin in its constructor.
    @Test(.enabled(if: isInstalled, "no OpenBLAS is installed"), arguments: [SIGTERM, SIGUSR1])
    func itsThreadsTakeNoSignals(signal: Int32) throws {
        let folder = try TemporaryFolder()
        for name in ["output", "errors"] { try "".write(toFile: folder.path(name), atomically: false, encoding: .utf8) }
        let process = CommandRun.process(
            ["bench", "gemm", "--repetitions", "1000000", "--threads", "2"], .alone, folder: folder)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("output")))
        process.standardError = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("errors")))
        try process.run()
        func isLoaded() -> Bool {
            (try? String(contentsOfFile: "/proc/\(process.processIdentifier)/maps", encoding: .utf8).contains(
                "libopenblas")) ?? false
        }
        while process.isRunning, !isLoaded() { Thread.sleep(forTimeInterval: 0.01) }
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        let errors = try String(contentsOfFile: folder.path("errors"), encoding: .utf8)
        #expect(
            process.terminationReason == .exit && process.terminationStatus == 75,
            "\(process.terminationStatus): \(errors)")
        #expect(errors.hasPrefix("annulus: ") && errors.contains("was interrupted by SIG"), "\(errors)")
    }
    #endif

    @Test func aNamedFileThatIsNoneIsRefused() throws {
        let folder = try TemporaryFolder()
        try "none".write(toFile: folder.path("blas.so"), atomically: false, encoding: .utf8)
        for name in ["/nowhere/libopenblas.so", folder.path("blas.so")] {
            for spread in [Spread.alone, .mpirun(2)] {
                let run = try CommandRun.annulus(Self.gemm, spread, environment: ["ANNULUS_OPENBLAS": name])
                #expect(
                    run.status == 78 && run.errorLines.count == 1 && run.errors.contains(name),
                    "\(run.status): \(run.errors)")
            }
            let doctor = try CommandRun.annulus(["doctor"], environment: ["ANNULUS_OPENBLAS": name])
            #expect(
                doctor.status == 0
                    && String(decoding: doctor.output, as: UTF8.self).contains("! ANNULUS_OPENBLAS is '\(name)'"),
                "\(doctor.errors)")
        }
    }
}
