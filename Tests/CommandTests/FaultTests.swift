// The real binary with a model, met by a signal in the middle of its work: it ends in time, says why in one line, and
// leaves nothing. Tests/Faults/trials.py does the same at random moments.

#if os(Linux)
import Foundation
import Testing

@Suite(.serialized) struct FaultTests {
    /// Seconds without a sign of life; larger than a busy machine needs, since other tests run meanwhile.
    private static let watchdog = 4

    @Test(arguments: [SIGKILL, SIGSTOP, SIGSEGV, SIGTERM, SIGUSR1], [2, 3]) func aSignalToARankEndsTheJob(
        signal: Int32, ranks: Int
    ) throws {
        let job = try FaultJob(.mpirun(ranks), watchdog: Self.watchdog)
        defer { job.endByForce() }
        // Rank 0 of two, and one that is not rank 0 of three.
        let rank = ranks - 2
        try job.waitForPartial()
        let target = try #require(job.ranks[rank])
        let start = ContinuousClock.now
        kill(target, signal)
        #expect(
            job.waitForEnd(seconds: Self.watchdog + 5),
            "after \(ContinuousClock.now - start) still there: \(job.living)")
        let errors = try job.errors
        let lines = errors.split(separator: "\n").filter { $0.hasPrefix("annulus:") }
        try #require(lines.count == 1, "\(errors)")
        switch signal {
        case SIGKILL:
            #expect(lines[0].contains("rank \(rank) ") && lines[0].contains("killed"), "\(errors)")
            #expect(job.status == 137)
        case SIGSTOP:
            #expect(lines[0].contains("rank \(rank) ") && lines[0].contains("not been heard of"), "\(errors)")
            #expect(job.status == 70)
        case SIGSEGV:
            #expect(
                lines[0].contains("rank \(rank) ") && lines[0].contains("crashed") && lines[0].contains("SIGSEGV"),
                "\(errors)")
            #expect(job.status == 139)
        case SIGTERM:
            #expect(lines[0].contains("interrupted by SIGTERM"), "\(errors)")
            // mpirun may show a status of its own.
            #expect([75, 1, 143].contains(job.status))
        default:
            #expect(lines[0].contains("interrupted by SIGUSR1"), "\(errors)")
            #expect(job.status == 75)
        }
        #expect(job.left == [])
    }

    @Test(arguments: [Spread.alone, .virtual(3)]) func aSignalToALoneProcessEndsItWithALine(spread: Spread) throws {
        for (signal, name) in [(SIGTERM, "SIGTERM"), (SIGUSR1, "SIGUSR1"), (SIGSEGV, "SIGSEGV")] {
            let job = try FaultJob(spread, watchdog: Self.watchdog)
            defer { job.endByForce() }
            try job.waitForPartial()
            kill(job.identifier, signal)
            #expect(job.waitForEnd(seconds: Self.watchdog + 5), "\(name), \(spread)")
            let errors = try job.errors
            let lines = errors.split(separator: "\n")
            #expect(lines.filter { $0.hasPrefix("annulus:") }.count == 1, "\(name), \(spread): \(errors)")
            if signal == SIGSEGV {
                // It dies of the signal, and behind the line is the call stack.
                #expect(job.status == 139)
                let first = try #require(
                    lines.firstIndex { $0.hasPrefix("annulus:") && $0.contains("crashed: SIGSEGV") }, "\(errors)")
                #expect(lines[first...].filter { $0.contains("0x") }.count >= 3, "\(errors)")
            } else {
                #expect(job.status == 75)
                #expect(errors.contains("interrupted by \(name)"), "\(errors)")
            }
            #expect(job.left == [], "\(name), \(spread)")
        }
    }

    @Test func aLoneProcessThatIsStoppedAndContinuedFinishes() throws {
        let job = try FaultJob(.alone, watchdog: 2)
        defer { job.endByForce() }
        try job.waitForPartial()
        kill(job.identifier, SIGSTOP)
        // The watchdog must not count this.
        Thread.sleep(forTimeInterval: 3)
        kill(job.identifier, SIGCONT)
        #expect(job.waitForEnd(seconds: 120))
        #expect(try job.status == 0 && job.errors == "")
        #expect(job.outputs == ["vectors.npy"])
    }

    @Test func aJobOutlivesItsLauncherByNoMoreThanTheWatchdog() throws {
        let job = try FaultJob(.mpirun(3), watchdog: Self.watchdog)
        defer { job.endByForce() }
        try job.waitForPartial()
        kill(job.identifier, SIGKILL)
        #expect(job.waitForEnd(seconds: Self.watchdog + 5), "still there: \(job.living)")
        #expect(job.outputs == [])
    }
}

/// A job of some seconds, in a folder of its own, whose processes are known by a variable of their environment.
private final class FaultJob {
    private let folder: TemporaryFolder
    private let process: Process
    private let token = UUID().uuidString

    init(_ spread: Spread, watchdog: Int) throws {
        folder = try TemporaryFolder()
        for name in ["out", "temporary"] {
            try FileManager.default.createDirectory(atPath: folder.path(name), withIntermediateDirectories: true)
        }
        let words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
        let documents = (0..<12_000).map { number in
            (0..<5 + number % 50).map { words[(number + $0 * $0) % words.count] }.joined(separator: " ") + "\n"
        }
        try documents.joined().write(toFile: folder.path("documents"), atomically: false, encoding: .utf8)
        process = CommandRun.process(
            [
                "embed", "-m", checkpoint("tiny-bert"), "-i", folder.path("documents"), "--input-format", "lines",
                "--quiet",
                "--watchdog", "\(watchdog)", "-o", folder.path("out/vectors.npy"),
            ],
            spread, environment: ["ANNULUS_FAULT_TEST": token, "TMPDIR": folder.path("temporary")], folder: folder)
        for name in ["output", "errors"] { try "".write(toFile: folder.path(name), atomically: false, encoding: .utf8) }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("output")))
        process.standardError = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("errors")))
        try process.run()
    }

    var identifier: Int32 { process.processIdentifier }
    var errors: String { get throws { try String(contentsOfFile: folder.path("errors"), encoding: .utf8) } }

    /// As a shell shows it.
    var status: Int32 {
        process.isRunning ? -1 : process.terminationStatus + (process.terminationReason == .uncaughtSignal ? 128 : 0)
    }

    /// The processes of the job, and their ranks where a launcher told them.
    var living: [(identifier: Int32, rank: Int?)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { name in
            guard let identifier = Int32(name), let data = FileManager.default.contents(atPath: "/proc/\(name)/environ")
            else { return nil }
            let variables = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            guard variables.contains("ANNULUS_FAULT_TEST=\(token)") else { return nil }
            let rank = variables.first { $0.hasPrefix("OMPI_COMM_WORLD_RANK=") }.flatMap { Int($0.dropFirst(21)) }
            return (identifier, rank)
        }
    }

    var ranks: [Int: Int32] {
        Dictionary(
            living.compactMap { one in one.rank.map { ($0, one.identifier) } }, uniquingKeysWith: { first, _ in first })
    }

    /// What is in the output's folder.
    var outputs: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: folder.path("out"))) ?? []).sorted()
    }

    /// What a job that failed must not leave: outputs, and anything in the folder for temporary files.
    var left: [String] {
        outputs + ((try? FileManager.default.contentsOfDirectory(atPath: folder.path("temporary"))) ?? [])
    }

    /// Waits until the unfinished output is there: the work has begun.
    func waitForPartial() throws {
        for _ in 0..<6000 where process.isRunning {
            if outputs.contains(where: { $0.hasSuffix(".partial") }) { return }
            Thread.sleep(forTimeInterval: 0.01)
        }
        try #require(Bool(false), "the job did not begin: \((try? errors) ?? "")")
    }

    func waitForEnd(seconds: Int) -> Bool {
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            if !process.isRunning && living.isEmpty { return true }
            Thread.sleep(forTimeInterval: 0.02)
        }
        return false
    }

    func endByForce() {
        for one in living { kill(one.identifier, SIGKILL) }
    }
}
#endif
