// Whole jobs that go wrong, each run as processes of their own, and what is seen of them from outside.

import Foundation
import MPI
import Pipelines
import RingAttention
import Tiles

/// Jobs to be started as `distributed-tests --scenario NAME [FOLDER]`.
enum Scenario: String {
    case succeeds, agreedFailure, failsLater, failsOnAll, rankZeroFails, standsStill, rankStopped, rankZeroStopped
    case rankZeroStoppedAmidWork, crashes, killed
    case slowRank, rankZeroLast, waitsForSignal, hangsAtTheEnd, stoppedAtTheEnd

    /// Runs the scenario and returns its status.
    func run(folder: String) -> Int32 {
        // A library may have threads of its own before the job begins, which a signal may meet.
        Thread { while true { sleep(600) } }.start()
        var options = JobOptions()
        options.watchdogSeconds = 2
        let status = Job.run(options) { context in
            let file = folder.isEmpty ? nil : folder + "/out"
            if let file { try ParallelFile.checkWritable(file, force: false, transport: context.group.transport) }
            context.watchdog.progress(.encoding, layer: 4, tile: 17)
            let last = context.group.rank.index == context.group.size - 1
            switch self {
            case .succeeds:
                if let file {
                    let output = try ParallelFile.create(file, force: false, transport: context.group.transport)
                    let byte = Bytes([UInt8(context.group.rank.index)])
                    try output.write([(offset: context.group.rank.index, bytes: UnsafeRawBufferPointer(byte.all))])
                    try output.commit()
                }
            case .agreedFailure:
                try context.group.agree { if last { throw JobError(.missingFile, "poem.txt: no such file") } }
            case .failsLater, .failsOnAll, .rankZeroFails:
                if let file { _ = try ParallelFile.create(file, force: false, transport: context.group.transport) }
                let fails = self == .failsOnAll || (self == .failsLater ? last : context.group.rank.index == 0)
                let memory = Bytes(count: 1000)
                try context.group.transport.exchange(
                    receive: [
                        Incoming(
                            from: Rank((context.group.rank.index + 1) % context.group.size), pieces: memory.pieces(2),
                            keeping: [memory])
                    ],
                    send: [],
                    while: { _ in if fails { throw JobError(.memory, "no memory left for tile 3") } })
            case .standsStill:
                if last { Thread.sleep(forTimeInterval: 600) } else { try context.group.transport.barrier() }
            case .rankStopped, .rankZeroStopped:
                if self == .rankStopped ? last : context.group.rank.index == 0 { raise(SIGSTOP) }
                try context.group.transport.barrier()
            case .rankZeroStoppedAmidWork:
                if context.group.rank.index == 0 { raise(SIGSTOP) }
                // The others have work of their own for long.
                for _ in 0..<600 {
                    Thread.sleep(forTimeInterval: 0.1)
                    context.watchdog.progress()
                }
            case .crashes, .killed:
                if let file { _ = try ParallelFile.create(file, force: false, transport: context.group.transport) }
                try context.group.transport.barrier()
                if last, self == .killed { kill(getpid(), SIGKILL) }
                if last { UnsafeMutablePointer<Int>(bitPattern: 4096)?.pointee = 1 }
                try context.group.transport.barrier()
            case .slowRank:
                // Longer than the watchdog's limit, but never still for so long.
                if last {
                    for _ in 0..<16 {
                        Thread.sleep(forTimeInterval: 0.25)
                        context.watchdog.progress()
                    }
                }
                try context.group.transport.barrier()
            case .rankZeroLast:
                // A part that counts its steps, then one that waits for a reader, both beyond the limit.
                guard context.group.isRoot else { return }
                for _ in 0..<16 {
                    Thread.sleep(forTimeInterval: 0.25)
                    context.watchdog.progress()
                }
                context.watchdog.whileWaiting { Thread.sleep(forTimeInterval: 5) }
            case .waitsForSignal:
                if let file { _ = try ParallelFile.create(file, force: false, transport: context.group.transport) }
                if context.group.isRoot { say("ready") }
                while true {
                    Thread.sleep(forTimeInterval: 0.1)
                    context.watchdog.progress()
                }
            case .hangsAtTheEnd, .stoppedAtTheEnd:
                break
            }
        }
        // After MPI has ended, only the rank's own timer is left.
        if self == .hangsAtTheEnd { Thread.sleep(forTimeInterval: 600) }
        // And then only the rank that goes last, which comes here when the others are gone.
        if self == .stoppedAtTheEnd { raise(SIGSTOP) }
        return status
    }
}

func registerScenarioChecks(_ checks: inout Checks) {
    func register(
        _ name: String, _ scenario: Scenario, ranks: [Int] = [1, 3], status: Int32, line: @escaping (Int) -> String?
    ) {
        checks.registerForMPI("from outside: \(name)") { context in
            for count in ranks {
                let start = ContinuousClock.now
                let outcome = try runJob(scenario, ranks: count)
                try expect(
                    ContinuousClock.now - start < .seconds(scenario == .rankZeroStoppedAmidWork ? 20 : 600),
                    "it took too long")
                let seen = "\(count) ranks: status \(outcome.status), output: \(outcome.output)"
                try expectEqual(outcome.status, status, seen)
                if let words = line(count) {
                    try expectEqual(outcome.lines.count, 1, seen)
                    try expect(outcome.lines[0].contains(words), "no '\(words)' in: \(seen)")
                } else {
                    try expectEqual(outcome.lines, [], seen)
                    try expectEqual(outcome.output, "", seen)
                }
                try expectEqual(outcome.files, scenario == .succeeds ? ["out"] : [], seen)
            }
        }
    }

    register("a job that succeeds is silent and leaves its output", .succeeds, ranks: [1, 2, 3], status: 0) { _ in nil }
    register("an agreed failure is one line", .agreedFailure, status: 66) {
        $0 == 1 ? "poem.txt: no such file" : "poem.txt: no such file (rank 2 on "
    }
    register("a failure of one rank amid an exchange ends all with one line", .failsLater, status: 71) {
        $0 == 1 ? "no memory left for tile 3" : "no memory left for tile 3 (rank 2 on "
    }
    register("a failure of rank 0 ends all with one line", .rankZeroFails, ranks: [3], status: 71) { _ in
        "no memory left for tile 3 (rank 0 on "
    }
    register("a failure of all ranks is still one line", .failsOnAll, ranks: [3], status: 71) { _ in
        "no memory left for tile 3 (rank "
    }
    register("a job that stands still is ended", .standsStill, status: 70) {
        $0 == 1
            ? "has not moved for 2 seconds, at phase 'encoding', layer 4, tile 17" : "no rank has moved for 2 seconds"
    }
    register("a rank that is stopped is noticed", .rankStopped, ranks: [3], status: 70) { _ in
        "rank 2 on \(LocalHost.name) has not been heard of for "
    }
    for scenario in [Scenario.rankZeroStopped, .rankZeroStoppedAmidWork] {
        register(
            "a job whose rank 0 is stopped is ended by another rank: \(scenario)", scenario, ranks: [3], status: 70
        ) { _ in
            "rank 0 on \(LocalHost.name) has not been heard of for 2 seconds; it was last at phase 'encoding', layer 4, tile 17"
        }
    }
    register("a rank that is killed is named by the others", .killed, ranks: [2, 3], status: 137) {
        "rank \($0 - 1) on \(LocalHost.name) (process "
    }
    register("a rank that waits for a slower one is no failure", .slowRank, ranks: [3], status: 0) { _ in nil }
    register("the timer runs on after MPI has ended", .hangsAtTheEnd, ranks: [1, 2], status: 70) { _ in
        "has not moved for"
    }
    register("a rank that is stopped when all is done is named", .stoppedAtTheEnd, ranks: [2, 3], status: 70) { _ in
        "has not been heard of for 2 seconds; the work was done, and so is the output"
    }

    checks.registerForMPI("from outside: SIGTERM removes unfinished outputs and ends with 75") { context in
        let outcome = try runJob(.waitsForSignal, ranks: 1, signal: SIGTERM)
        try expectEqual(outcome.status, 75, outcome.output)
        try expectEqual(outcome.files, [])
        try expectEqual(outcome.lines.count, 1, outcome.output)
        try expect(outcome.output.contains("interrupted by SIGTERM"), outcome.output)
    }

    checks.registerForMPI("from outside: a signal to mpirun removes unfinished outputs on all ranks") { context in
        for signal in [SIGTERM, SIGUSR1, SIGINT] {
            let outcome = try runJob(.waitsForSignal, ranks: 3, signal: signal)
            try expect(outcome.status != 0, outcome.output)
            try expectEqual(outcome.files, [], "signal \(signal): \(outcome.output)")
            try expectEqual(outcome.lines.count, 1, outcome.output)
            // mpirun makes a SIGTERM of an interrupt.
            try expect(
                outcome.output.contains("was interrupted by \(signal == SIGUSR1 ? "SIGUSR1" : "SIGTERM")"),
                outcome.output)
        }
    }

    checks.registerForMPI("from outside: SIGINT ends a process as it always does") { context in
        let outcome = try runJob(.waitsForSignal, ranks: 1, signal: SIGINT)
        try expect(outcome.wasKilled && outcome.status == SIGINT, "status \(outcome.status): \(outcome.output)")
        try expectEqual(outcome.files, [])
        try expect(outcome.output.contains("was interrupted by SIGINT"), outcome.output)
    }

    checks.registerForMPI("from outside: a crash says so, shows where, and stays one") { context in
        let outcome = try runJob(.crashes, ranks: 1)
        try expect(outcome.wasKilled && outcome.status == SIGSEGV, "status \(outcome.status): \(outcome.output)")
        try expectEqual(outcome.lines.count, 1, outcome.output)
        try expect(
            outcome.lines[0].contains("crashed: SIGSEGV at address 0x1000, at phase 'encoding', layer 4"),
            outcome.output)
        try expect(outcome.output.contains("distributed-tests("), "no call stack: \(outcome.output)")
        try expectEqual(outcome.files, [])
        let several = try runJob(.crashes, ranks: 3)
        try expectEqual(several.status, 139, several.output)
        try expectEqual(several.lines.count, 1, several.output)
        try expect(several.lines[0].contains("rank 2 on \(LocalHost.name) crashed: SIGSEGV"), several.output)
        try expectEqual(several.files, [])
    }

    checks.registerForMPI("from outside: work of rank 0 after the others have left is no failure") { context in
        let outcome = try runJob(.rankZeroLast, ranks: 3)
        try expectEqual(outcome.status, 0, outcome.output)
        try expectEqual(outcome.output, "")
    }
}

/// What is seen of a job from outside.
private struct Outcome {
    var status: Int32
    /// Whether a signal ended it; the status is the signal then.
    var wasKilled: Bool
    /// All of standard error, without what the launcher itself says.
    var output: String
    /// The lines of it that tell of a failure.
    var lines: [String]
    /// What the job left in its folder.
    var files: [String]
}

/// Starts a scenario as a job of `ranks` processes and waits for its end.
private func runJob(_ scenario: Scenario, ranks: Int, signal: Int32? = nil) throws -> Outcome {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    // This process may itself run under mpirun, of which the new job must know nothing.
    var environment = ProcessInfo.processInfo.environment.filter { name, _ in
        !["OMPI_", "PMIX_", "PMI_", "ORTE_", "PRTE_"].contains { name.hasPrefix($0) }
    }
    environment["SWIFT_BACKTRACE"] = nil
    environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
    environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    let executable = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().path
    let process = Process()
    process.environment = environment
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments =
        (ranks == 1 ? [] : ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "\(ranks)"])
        + [executable, "--scenario", scenario.rawValue, folder.path]
    let errors = Pipe()
    let output = Pipe()
    process.standardError = errors
    process.standardOutput = output
    process.standardInput = FileHandle.nullDevice
    try process.run()
    if let signal {
        // Rank 0 says when it is ready.
        _ = output.fileHandleForReading.availableData
        kill(process.processIdentifier, signal)
    }
    let data = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    let text = String(decoding: data, as: UTF8.self)
    return Outcome(
        status: process.terminationStatus, wasKilled: process.terminationReason == .uncaughtSignal, output: text,
        lines: text.split(separator: "\n").filter { $0.hasPrefix("annulus:") }.map(String.init),
        files: try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted())
}
