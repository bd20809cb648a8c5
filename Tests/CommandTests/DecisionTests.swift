// What ranks agree on before a job: a strategy that is measured for, memory that suffices, and the same plan inputs.

import Foundation
import Testing

@Suite(.serialized) struct DecisionTests {
    private static let attention = [
        "bench", "attention", "--length", "3000", "--heads", "4", "--head-dim", "16", "--repetitions", "1", "--threads",
        "1", "--format", "json",
    ]

    /// What a host's memory does not hold is refused on every rank, with the figures, and nothing is written.
    @Test(arguments: [Spread.alone, .mpirun(3), .virtual(4)]) func tooLittleMemoryIsRefused(spread: Spread) throws {
        let folder = try TemporaryFolder()
        let model = checkpoint("tiny-bert")
        try Data("[2, 3, 4]\n".utf8).write(to: URL(fileURLWithPath: folder.path("in.ids")))
        for (arguments, named) in [
            (Self.attention, "GiB"),
            (["bench", "encoder", "--shape", "minilm", "--length", "2000", "--repetitions", "1"], "GiB"),
            (["embed", "-m", model, "-i", folder.path("in.ids"), "-o", folder.path("out.npy")], "weights"),
        ] {
            let run = try CommandRun.annulus(arguments, spread, environment: ["ANNULUS_MEMORY_GIB": "0.00001"])
            #expect(run.status == 71, "\(arguments): \(run.errors)")
            #expect(
                run.errorLines.count == 1 && run.errors.contains("free") && run.errors.contains(named), "\(run.errors)")
            #expect(run.output.isEmpty && folder.names == ["in.ids"])
        }
    }

    /// Without a limit of our own: a job beyond any machine's memory.
    @Test func aJobBeyondTheMachineIsRefused() throws {
        let run = try CommandRun.annulus(
            ["bench", "attention", "--length", "100000000", "--heads", "512", "--repetitions", "1"], .mpirun(2))
        #expect(run.status == 71 && run.errorLines.count == 1, "\(run.errors)")
    }

    @Test(arguments: ["0", "-1", "much", "nan"]) func aLimitThatIsNoneIsAUsageError(limit: String) throws {
        let run = try CommandRun.annulus(Self.attention, environment: ["ANNULUS_MEMORY_GIB": limit])
        #expect(run.status == 64 && run.errors.contains("ANNULUS_MEMORY_GIB"), "\(run.errors)")
    }

    /// Memory decides too: where only the strategy of least memory fits, it is taken.
    @Test func aStrategyThatFitsIsChosen() throws {
        let cluster = try TemporaryFolder()
        try Data(
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 4, "gflops_per_rank": 100, "memory_gib": 1, "inside": {"latency_us": 5, "gbit_per_s": 32}}]}"#
                .utf8
        )
        .write(to: URL(fileURLWithPath: cluster.path("c.json")))
        let plan = try CommandRun.annulus([
            "plan", "--cluster", cluster.path("c.json"), "--length", "3000", "--heads", "4", "--head-dim", "16",
            "--layout", "contiguous", "--format", "json",
        ])
        let memory = try plan.output.split(separator: UInt8(ascii: "\n")).map { line -> (String, Double) in
            let row = try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])
            return (try #require(row["strategy"] as? String), try #require(row["memory_per_node"] as? Double))
        }.sorted { $0.1 < $1.1 }
        // Between the two that need least; the processes themselves, 24 MiB each in a plan, are there already.
        let limit = ((memory[0].1 + (memory.first { $0.1 > memory[0].1 }?.1 ?? 0)) / 2 - 4 * 24 * 0x1p20) / 0x1p30
        let run = try CommandRun.annulus(Self.attention, .mpirun(4), environment: ["ANNULUS_MEMORY_GIB": "\(limit)"])
        try #require(run.status == 0, "\(run.errors)")
        let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
        #expect(row["strategy"] as? String == memory[0].0)
        // The others, asked for by name, are refused.
        let named = try CommandRun.annulus(
            Self.attention + ["--strategy", memory[5].0], .mpirun(4), environment: ["ANNULUS_MEMORY_GIB": "\(limit)"])
        #expect(named.status == 71 && named.errors.contains(memory[5].0), "\(named.errors)")
    }

    /// The choice is logged with its reason; what was measured is kept and used again, unless it is damaged.
    @Test func measurementsAreKept() throws {
        let cache = try TemporaryFolder()
        let environment = ["XDG_CACHE_HOME": cache.url.path]
        let folder = cache.url.appendingPathComponent("annulus/measured")
        func bench() throws -> (row: [String: Any], errors: String) {
            let run = try CommandRun.annulus(Self.attention, .mpirun(2), environment: environment)
            try #require(run.status == 0, "\(run.errors)")
            return (try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any]), run.errors)
        }
        let first = try bench()
        #expect((first.row["predicted_seconds"] as? Double ?? 0) > 0)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        try #require(names.count == 1)
        let file = folder.appendingPathComponent(names[0])
        // To a hundredth, or what changes from run to run would change the plan: two or three digits, the last of them
        // even, or five, or none, as the first is 1, below 5, or more.
        var kept = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
        let ranks = try #require(kept["ranks"] as? [[[Double]]])
        let link = try #require(kept["inside"] as? [String: [[Double]]])
        let rates = ranks + [link["bytes"] ?? [], link["messages"]?.map { [$0[0], 1 / $0[1]] } ?? []]
        #expect(rates.count == 4 && rates.allSatisfy { $0.count == 1 && $0[0].count == 2 })
        for number in rates.map({ $0[0][1] }) {
            let digits = Int(String(format: "%.5e", number).prefix { $0 != "e" }.filter(\.isNumber)) ?? 0
            #expect(
                digits > 0 && digits % (digits < 200_000 ? 2_000 : digits < 500_000 ? 5_000 : 10_000) == 0, "\(number)")
        }
        // Ranks a thousand times slower than any: the prediction follows the file.
        kept["ranks"] = ranks.map { $0.map { [$0[0], 1e6] } }
        try JSONSerialization.data(withJSONObject: kept).write(to: file)
        let slow = try bench()
        #expect((slow.row["predicted_seconds"] as? Double ?? 0) > 100)
        #expect(slow.row["sha256"] as? String == first.row["sha256"] as? String)
        let job =
            #""job": \#(try String(decoding: JSONSerialization.data(withJSONObject: kept["job"] ?? []), as: UTF8.self))"#
        for damaged in ["", "{", #"{"ranks": [[[2e9, 1e6]]]}"#, "{\(job), \"ranks\": [[[2e9, 1e6]], [[2e9, -1]]]}"] {
            try Data(damaged.utf8).write(to: file)
            #expect(try bench().row["predicted_seconds"] as? Double ?? 1e9 < 100)
            #expect(try Data(contentsOf: file).count > 20)
        }
        #expect(first.errors.isEmpty || first.errors.contains("strategy"))
    }

    /// Messages over TCP go outright, unless somebody chose otherwise: two ranks that send to each other lose a third
    /// otherwise.
    @Test(arguments: [nil, "send"]) func whatIsSentOverTCPIsSentOutright(chosen: String?) throws {
        let name = "OMPI_MCA_btl_tcp_flags"
        let run = try CommandRun.annulus(["doctor"], .mpirun(2), environment: chosen.map { [name: $0] } ?? [:])
        #expect(run.status == 0, "\(run.errors)")
        let line = String(decoding: run.output, as: UTF8.self).split(separator: "\n").first { $0.contains(name) }
        #expect(
            line?.hasSuffix("\(name)=\(chosen ?? "send,inplace,need-ack,need-csum")") ?? false, "\(line ?? "no line")")
    }

    @Test(arguments: [["attention", "--length", "3000"], ["train", "--shape", "minilm", "--length", "600"]])
    func theChoiceIsLogged(work: [String]) throws {
        let run = try CommandRun.annulus(["bench"] + work + ["--repetitions", "1"], .mpirun(2))
        #expect(run.status == 0 && run.errors.contains("strategy ") && run.errors.contains(": "), "\(run.errors)")
    }

    /// Ranks that were started with different jobs end with a line instead of waiting for each other.
    @Test(arguments: [["--length", "3001"], ["--mask", "causal"], ["--layout", "zigzag"]])
    func ranksThatPlanDifferentlyAreRefused(other: [String]) throws {
        let run = try CommandRun.annulus(Self.attention, .lastWith(other, ranks: 3))
        #expect(run.status == 78, "\(run.errors)")
        #expect(
            run.errorLines.count == 1 && run.errorLines[0].contains("\(other[0]) is '\(other[1])' on rank 2"),
            "\(run.errors)")
    }
}
