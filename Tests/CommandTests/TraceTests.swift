// What is kept and said of a job beside its results, as a user meets it: traces, summaries, logs of ranks, bindings, versions.

import Foundation
import Pipelines
import Plans
import Testing

@Suite(.serialized) struct TraceTests {
    private static let spreads: [Spread] = [.alone, .virtual(3), .mpirun(2), .mpirun(5)]

    /// The events of a trace, as a viewer reads them.
    private struct Trace {
        struct Event {
            let rank: Int
            let lane: String
            let name: String
            let start: Double
            let end: Double
            let bytes: Int
        }

        let facts: [String: Any]
        let events: [Event]
        let ranks: Set<Int>

        init(_ path: String) throws {
            let whole = try #require(
                try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: path))) as? [String: Any])
            facts = try #require(whole["otherData"] as? [String: Any])
            let all = try #require(whole["traceEvents"] as? [[String: Any]])
            // A process is a rank by its name alone.
            let names = all.filter { $0["name"] as? String == "process_name" }
            let numbers = try names.reduce(into: [Int: Int]()) { numbers, event in
                let name = try #require((event["args"] as? [String: Any])?["name"] as? String)
                let rank = try #require(Int(name.split(separator: " ")[1]), "\(name)")
                numbers[try #require(event["pid"] as? Int)] = rank
            }
            ranks = Set(numbers.values)
            #expect(ranks.count == names.count)
            var lanes: [Int: String] = [:]
            events = try all.filter { $0["ph"] as? String == "X" }.map { event in
                let (thread, process) = (try #require(event["tid"] as? Int), try #require(event["pid"] as? Int))
                let lane = try #require(event["cat"] as? String)
                // A viewer shows a row for each number: 0 is no thread's, and two lanes never share one.
                #expect(thread > 0 && lanes[thread, default: "\(process) \(lane)"] == "\(process) \(lane)")
                #expect(thread != process || lane == "phase")
                lanes[thread] = "\(process) \(lane)"
                let start = try #require(event["ts"] as? Double)
                return Event(
                    rank: try #require(numbers[process]), lane: lane,
                    name: try #require(event["name"] as? String), start: start,
                    end: start + (try #require(event["dur"] as? Double)),
                    bytes: (event["args"] as? [String: Any])?["bytes"] as? Int ?? 0)
            }
        }

        func lane(_ lane: String, of rank: Int) -> [Event] { events.filter { $0.lane == lane && $0.rank == rank } }
    }

    private func ranks(_ spread: Spread) -> Int {
        switch spread {
        case .virtual(let ranks), .mpirun(let ranks): ranks
        default: 1
        }
    }

    /// A trace of a benchmark has every rank, its spans lie one behind another in each lane, computing lies within exchanging
    /// where both are of one step, and its bytes are those that the benchmark counts. The output is the same with and without.
    @Test(arguments: spreads) func aBenchmarkIsTraced(spread: Spread) throws {
        let folder = try TemporaryFolder()
        let path = folder.path("trace.json")
        let job = [
            "bench", "attention", "--length", "2100", "--heads", "4", "--head-dim", "16", "--repetitions", "2",
            "--format",
            "json", "--threads", "1", "--strategy", "pass-kv", "--ranks-per-node", "1",
        ]
        let run = try CommandRun.annulus(job + ["--trace", path], spread)
        try #require(run.status == 0, "\(run.errors)")
        let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
        let plain = try CommandRun.annulus(job, spread)
        let other = try #require(try JSONSerialization.jsonObject(with: plain.output) as? [String: Any])
        #expect(row["sha256"] as? String == other["sha256"] as? String)
        let trace = try Trace(path)
        let count = ranks(spread)
        #expect(trace.ranks == Set(0..<count) && trace.facts["ranks"] as? Int == count)
        #expect((trace.facts["clock_error_us"] as? Double).map { $0 >= 0 && $0 < 1e5 } ?? false)
        // Three of everything: one is not counted.
        let bytes = trace.events.filter { $0.lane == "exchange" }.reduce(0) { $0 + $1.bytes }
        #expect(bytes == 3 * (row["bytes_sent"] as? Int ?? -1))
        for rank in 0..<count {
            // Ranks meet as often as each other.
            #expect(!trace.lane("meeting", of: rank).isEmpty)
            #expect(trace.lane("meeting", of: rank).count == trace.lane("meeting", of: 0).count)
            for lane in ["phase", "compute", "merge", "wait", "meeting", "exchange"] {
                let events = trace.lane(lane, of: rank)
                #expect(events.allSatisfy { $0.start >= 0 && $0.end >= $0.start })
                // A nanosecond for what is rounded.
                #expect(
                    zip(events, events.dropFirst()).allSatisfy { $0.end <= $1.start + 0.0011 }, "\(lane) of \(rank)")
            }
            // As many steps each time.
            let steps = trace.lane("compute", of: rank).count
            #expect(steps > 0 && steps % 3 == 0 && !trace.lane("phase", of: rank).isEmpty)
            #expect(count == 1 || trace.lane("exchange", of: rank).count >= 3)
            for exchange in trace.lane("exchange", of: rank) {
                let within = trace.lane("compute", of: rank).filter {
                    $0.start < exchange.end && $0.end > exchange.start
                }
                #expect(
                    within.count == 1 && within[0].start >= exchange.start - 0.0011
                        && within[0].end <= exchange.end + 0.0011)
            }
        }
        #expect(folder.names == ["trace.json"])
    }

    /// One clock: no rank has a message before its sender has posted it, within what the clocks may be off.
    @Test func messagesArriveAfterTheyAreSent() throws {
        let folder = try TemporaryFolder()
        let path = folder.path("trace.json")
        let run = try CommandRun.annulus(
            [
                "bench", "attention", "--length", "3000", "--heads", "4", "--head-dim", "16", "--repetitions", "3",
                "--threads",
                "1", "--strategy", "pass-kv", "--ranks-per-node", "1", "--trace", path,
            ], .mpirun(2))
        try #require(run.status == 0, "\(run.errors)")
        let trace = try Trace(path)
        let error = try #require(trace.facts["clock_error_us"] as? Double)
        let (first, second) = (trace.lane("exchange", of: 0), trace.lane("exchange", of: 1))
        #expect(first.count == second.count && !first.isEmpty)
        for (one, other) in zip(first, second) {
            #expect(one.end >= other.start - 2 * error - 0.002 && other.end >= one.start - 2 * error - 0.002)
        }
    }

    /// The verbs that run models: phases, dense layers and attention are there, and the vectors have the same bytes.
    @Test func documentsAreTraced() throws {
        let text = (0..<40).map { "a line of text number \($0)" }.joined(separator: "\n")
        for spread: Spread in [.alone, .mpirun(3)] {
            let folder = try TemporaryFolder()
            let path = folder.path("trace.json")
            let job = ["embed", "-m", checkpoint("tiny-bert"), "--truncate", "right", "--threads", "1"]
            let run = try CommandRun.annulus(job + ["--trace", path], spread, input: text)
            try #require(run.status == 0, "\(run.errors)")
            #expect(run.output == (try CommandRun.annulus(job, .alone, input: text)).output)
            let trace = try Trace(path)
            let phases = Set(trace.events.filter { $0.lane == "phase" }.map(\.name))
            #expect(phases.isSuperset(of: ["reading", "tokenizing", "encoding", "pooling"]), "\(phases)")
            #expect(Set(trace.events.map(\.lane)).isSuperset(of: ["phase", "dense", "compute"]))
            #expect(run.errors.contains("trace: \(path)"))
        }
    }

    /// A described cluster gives the same file: every rank, and a straggler that makes others wait.
    @Test func plansAreTraced() throws {
        let folder = try TemporaryFolder()
        let (path, cluster) = (folder.path("trace.json"), folder.path("cluster.json"))
        let kind = #""ranks_per_node": 1, "memory_gib": 1, "between": {"latency_us": 2, "gbit_per_s": 100}"#
        try Data(
            #"{"kinds": [{"nodes": 3, "gflops_per_rank": 100, \#(kind)}, {"name": "old", "nodes": 1, "gflops_per_rank": 40, \#(kind)}]}"#
                .utf8
        ).write(to: URL(fileURLWithPath: cluster))
        let plan = ["plan", "--cluster", cluster, "--trace", path, "--format", "json"]
        let run = try CommandRun.annulus(
            plan + ["--length", "65536", "--strategy", "pass-kv", "--layout", "contiguous"])
        try #require(run.status == 0, "\(run.errors)")
        let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
        let trace = try Trace(path)
        #expect(trace.ranks == [0, 1, 2, 3])
        let simulated = try #require(trace.facts["simulated_seconds"] as? Double)
        #expect(simulated >= 0.999 * (row["seconds"] as? Double ?? .infinity))
        #expect(abs((trace.events.map(\.end).max() ?? 0) * 1e-6 - simulated) < 1e-6)
        func waits(_ rank: Int) -> Double { trace.lane("wait", of: rank).reduce(0) { $0 + $1.end - $1.start } * 1e-6 }
        #expect(waits(3) < 0.01 * simulated && waits(0) > 0.2 * simulated, "\((0..<4).map(waits)) of \(simulated)")
        // Encoders have dense layers; what cannot be traced is refused by name.
        let encoder = try CommandRun.annulus(plan + ["--length", "4096", "--shape", "minilm"])
        try #require(encoder.status == 0, "\(encoder.errors)")
        #expect(Set(try Trace(path).events.map(\.lane)).isSuperset(of: ["dense", "compute", "exchange"]))
        let several = try CommandRun.annulus(plan + ["--length", "4096", "--gbit-per-s", "10,100"])
        #expect(several.status == 64 && several.errors.contains("--trace"))
        try Data(#"{"kinds": [{"nodes": 513, "gflops_per_rank": 100, \#(kind)}]}"#.utf8).write(
            to: URL(fileURLWithPath: cluster))
        let many = try CommandRun.annulus(
            plan + ["--length", "4096", "--strategy", "pass-kv", "--layout", "contiguous"])
        #expect(many.status == 64 && many.errors.contains("512 ranks"), "\(many.errors)")
    }

    /// Where a trace cannot be written is found before the work; a job that fails leaves none.
    @Test func aTraceIsWrittenWholeOrNot() throws {
        let bench = ["bench", "attention", "--length", "300", "--heads", "1", "--head-dim", "16", "--threads", "1"]
        for spread: Spread in [.alone, .mpirun(3)] {
            let nowhere = try CommandRun.annulus(bench + ["--trace", "/nonexistent/trace.json"], spread)
            #expect(nowhere.status == 73 && nowhere.errorLines.count == 1, "\(nowhere.errors)")
            let folder = try TemporaryFolder()
            let failed = try CommandRun.annulus(
                ["embed", "-m", folder.path("none"), "--trace", folder.path("trace.json")], spread, input: "a")
            #expect(failed.status != 0 && folder.names.isEmpty)
        }
        #expect(try CommandRun.annulus(bench + ["--trace", ""]).status == 64)
    }

    @Test func jobsAreSummedUp() throws {
        let text = (0..<20).map { "a line of text number \($0)" }.joined(separator: "\n")
        let job = ["embed", "-m", checkpoint("tiny-bert"), "--truncate", "right", "--threads", "1"]
        for (spread, ranks) in [(Spread.alone, 1), (.virtual(3), 3), (.mpirun(2), 2)] {
            let run = try CommandRun.annulus(job + ["--summary"], spread, input: text)
            try #require(run.status == 0, "\(run.errors)")
            for words in [
                "summary of \(ranks == 1 ? "1 rank" : "\(ranks) ranks")", "tokens", "share of peak", "time by phase",
                "reading",
                "dense layers", "attention", "peak memory", "would help",
            ] {
                #expect(run.errors.contains(words), "\(spread), \(words): \(run.errors)")
            }
            #expect(run.errors.contains("sent  ") == (ranks > 1))
            // Not a terminal: unless asked for there is none.
            for arguments in [job, job + ["--no-summary"], job + ["--quiet"]] {
                #expect(!(try CommandRun.annulus(arguments, spread, input: text)).errors.contains("summary of"))
            }
        }
        let both = try CommandRun.annulus(job + ["--quiet", "--summary"], input: text)
        #expect(both.status == 64 && both.errors.contains("--summary"))
    }

    @Test func everyRankHasALog() throws {
        let folder = try TemporaryFolder()
        let logs = folder.path("some/logs")
        let job = ["embed", "-m", checkpoint("tiny-bert"), "--truncate", "right", "--threads", "1", "--log-dir", logs]
        let run = try CommandRun.annulus(job + ["--quiet"], .mpirun(3), input: "a line\nanother")
        try #require(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        func log(_ rank: Int) throws -> String {
            try String(contentsOfFile: logs + "/rank-\(rank).log", encoding: .utf8)
        }
        for rank in 0..<3 {
            let log = try log(rank)
            for words in ["rank \(rank) of 3 on", "phase: tokenizing", "phase: encoding", "binding: ", "done after"] {
                #expect(log.contains(words), "\(words): \(log)")
            }
        }
        // An error is in the log of the rank that met it.
        let failed = try CommandRun.annulus(
            ["embed", "-m", folder.path("none"), "--log-dir", logs], .mpirun(2), input: "a")
        #expect(failed.status == 66 || failed.status == 65)
        #expect(try log(0).contains("error: ") && !(try log(0)).contains("done after"))
        let taken = try CommandRun.annulus(job.dropLast() + ["/dev/null/logs"], .mpirun(2), input: "a")
        #expect(taken.status == 73 && taken.errorLines.count == 1, "\(taken.errors)")
    }

    @Test func headersTellTheBinding() throws {
        let bench = ["bench", "attention", "--length", "300", "--heads", "1", "--head-dim", "16", "--repetitions", "1"]
        let run = try CommandRun.annulus(bench + ["--threads", "1"], .mpirun(2))
        #expect(run.errors.contains("binding: ranks 0-1 (") && run.errors.contains("processor"), "\(run.errors)")
        // More threads than any machine has processors: said once.
        let crowded = try CommandRun.annulus(bench + ["--threads", "1000"], .mpirun(2))
        #expect(crowded.errors.components(separatedBy: "threads of rank").count == 2, "\(crowded.errors)")
    }

    @Test func versionTellsTheBuild() throws {
        let run = try CommandRun.annulus(["--version"])
        let text = String(decoding: run.output, as: UTF8.self)
        #expect(run.status == 0 && text.hasPrefix("annulus \(Release.version)\n"))
        for words in ["commit", "Swift 6", "Clang", "MPI", "kernel sets  reference"] {
            #expect(text.contains(words), "\(text)")
        }
    }
}

@Suite struct ReportTests {
    /// Clocks that began at other times and run at other speeds: a straight line between two readings finds rank 0's time
    /// within what the readings may be off.
    @Test func clocksAreAligned() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<100 {
            let began = Int.random(in: -1_000_000_000_000...1_000_000_000_000, using: &random)
            let drift = Double.random(in: -5e-5...5e-5, using: &random)
            /// This rank's clock at a moment of rank 0's.
            func own(_ moment: Int) -> Int { began + moment + Int((Double(moment) * drift).rounded()) }
            func reading(_ moment: Int) -> ClockReading {
                let error = Int.random(in: 0...20_000, using: &random)
                let wrong = Int.random(in: -error...error, using: &random)
                return ClockReading(time: own(moment), offset: moment - own(moment) + wrong, error: error)
            }
            let (start, length) = (5_000_000_000, 3_600_000_000_000)
            let (first, last) = (reading(start), reading(start + length))
            let clock = AlignedClock(origin: own(start), first: first, last: last, zero: start)
            for _ in 0..<20 {
                let moment = Int.random(in: 0...length, using: &random)
                let found = clock.time(own(start + moment) - own(start))
                #expect(abs(found - moment) <= max(first.error, last.error) + 10, "\(found) for \(moment)")
            }
        }
    }

    @Test func listsOfProcessorsReadBack() {
        for _ in 0..<200 {
            let numbers = (0..<70).filter { _ in Bool.random() }
            #expect(Binding.numbers(Binding.list(numbers)) == numbers)
        }
        #expect(Binding.list([0, 1, 2, 3, 8, 10, 11]) == "0-3,8,10-11")
    }

    private func binding(_ host: String, _ processors: [Int], threads: Int, quota: Double? = nil) -> Binding {
        var bytes = [UInt8](repeating: 0, count: 16)
        for processor in processors { bytes[processor / 8] |= 1 << UInt8(processor % 8) }
        return Binding(
            ProcessorAllowance(
                host: host, mask: ProcessorMask(bytes: bytes),
                quotas: quota.map { [.init(group: [1, 2], processors: $0)] } ?? []),
            threads: threads, nodes: processors.contains { $0 >= 8 } ? [0, 1] : [0])
    }

    @Test func crowdingIsNamed() throws {
        let own = [
            binding("a", [0, 1], threads: 2), binding("a", [2, 3], threads: 2), binding("b", [0, 1], threads: 2),
        ]
        #expect(Binding.crowding(own) == nil)
        #expect(
            Binding.text(own)
                == "ranks 0,2 (2 hosts): processors 0-1 of NUMA node 0; rank 1 (a): processors 2-3 of NUMA node 0")
        let bound = try #require(Binding.crowding([binding("a", [3], threads: 4)]))
        #expect(bound.contains("4 threads of rank 0 on a share 1 processor:"))
        let shared = try #require(Binding.crowding(Array(repeating: binding("a", [0, 1], threads: 2), count: 3)))
        #expect(shared.contains("6 threads of 3 ranks on a share 2 processors"))
        let quota = try #require(Binding.crowding([binding("a", Array(0..<8), threads: 8, quota: 2.5)]))
        #expect(quota.contains("8 threads of 1 rank on a may take the time of 2.50 processors"))
        #expect(Binding.crowding([binding("a", Array(0..<8), threads: 2, quota: 2.5)]) == nil)
        for one in own { #expect(Binding(one.message.bytes) == one) }
    }

    private func figures(work: Double, wait: Double, writing: Double = 0) -> RankFigures {
        var figures = RankFigures()
        figures.host = "a"
        figures.phases = [("encoding", work + wait), ("writing", writing)]
        figures.lanes = [.compute: work, .wait: wait]
        figures.peakMemory = 100 << 20
        figures.bytesSent = 1_000_000
        figures.messagesSent = 10
        return figures
    }

    @Test func summariesSayWhatWouldHelp() {
        func advice(_ ranks: [RankFigures], seconds: Double = 10, crowding: String? = nil, kernel: String = "avx2")
            -> String
        {
            RunSummary(seconds: seconds, ranks: ranks, crowding: crowding, kernel: kernel).advice.joined(
                separator: "\n")
        }
        #expect(advice([figures(work: 9.5, wait: 0.1)]).contains("nothing stands out: 95%"))
        #expect(advice([figures(work: 5, wait: 5), figures(work: 10, wait: 0)]).contains("--layout balanced"))
        #expect(
            advice([figures(work: 5, wait: 5), figures(work: 5, wait: 5)]).contains("wait 50% of the time for messages")
        )
        #expect(advice([figures(work: 5, wait: 0, writing: 5)]).contains("50% of the time is reading, tokenizing"))
        #expect(advice([figures(work: 9, wait: 0)], crowding: "too many threads").hasPrefix("too many threads"))
        #expect(advice([figures(work: 9, wait: 0)], kernel: "reference").contains("portable kernels"))
        let lines = RunSummary(
            seconds: 10, ranks: [figures(work: 5, wait: 5), figures(work: 10, wait: 0)], tokens: 1000, flop: 1e12,
            peak: 2e11,
            kernel: "avx2"
        ).lines.joined(separator: "\n")
        #expect(
            lines.contains("1000, 100 a second") && lines.contains("50% of 200 GFLOP/s")
                && lines.contains("2 MB in 20 messages"))
        let one = figures(work: 3, wait: 1, writing: 2)
        #expect(RankFigures(one.message.bytes) == one && RankFigures(one.message.bytes).lanes[.wait] == 1)
    }
}
