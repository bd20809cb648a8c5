// `plan`: prices as a table, JSON and CSV, for attention and encoders; bad cluster files and hostile values are refused
// by name.

import Foundation
import Testing

@Suite struct PlanTests {
    private static let good = """
        {"kinds": [
          {"name": "thin", "nodes": 3, "ranks_per_node": 2, "gflops_per_rank": 100, "memory_gib": 1,
           "inside": {"latency_us": 1, "gbit_per_s": 80}, "between": {"latency_us": 20, "gbit_per_s": 10}},
          {"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 50, "memory_gib": 4, "between": {"latency_us": 20, "gbit_per_s": 1}}]}
        """

    private func plan(_ cluster: String, _ arguments: [String]) throws -> CommandRun {
        let folder = try TemporaryFolder()
        try Data(cluster.utf8).write(to: URL(fileURLWithPath: folder.path("cluster.json")))
        return try CommandRun.annulus(["plan", "--cluster", folder.path("cluster.json")] + arguments)
    }

    private func rows(_ run: CommandRun) throws -> [[String: Any]] {
        try run.output.split(separator: UInt8(ascii: "\n")).map {
            try #require(try JSONSerialization.jsonObject(with: Data($0)) as? [String: Any])
        }
    }

    @Test func everyStrategyAndLayoutHasARow() throws {
        let run = try plan(
            Self.good, ["--length", "9000", "--heads", "4", "--kv-heads", "2", "--mask", "causal", "--format", "json"])
        try #require(run.status == 0, "\(run.errors)")
        let rows = try rows(run)
        #expect(Set(rows.map { "\($0["strategy"]!) \($0["layout"]!)" }).count == 18)
        #expect(rows.filter { $0["chosen"] as? Bool == true }.count == 1)
        for row in rows {
            #expect(row["ranks"] as? Int == 7 && row["nodes"] as? Int == 4 && row["length"] as? Int == 9000)
            for key in [
                "seconds", "balance", "memory_per_rank", "memory_per_node", "memory_of_node", "exposed_seconds",
                "bytes_sent", "messages",
            ] {
                #expect((row[key] as? Double).map { $0 >= 0 } == true, "\(key)")
            }
            #expect((row["rank_gflop"] as? [Double])?.count == 7)
            #expect((row["reason"] as? String)?.isEmpty == (row["chosen"] as? Bool != true))
        }
    }

    /// The bytes of a plan are those that a job sends, of attention and of its gradients.
    @Test(
        arguments: ["pass-kv", "pass-q", "all-gather", "head-exchange", "hybrid", "tree"], [[], ["--backward"]])
    func bytesAreThoseOfARun(strategy: String, pass: [String]) throws {
        let job =
            pass + [
                "--length", "3000", "--heads", "4", "--head-dim", "16", "--mask", "causal", "--strategy", strategy,
                "--layout", "zigzag", "--format", "json",
            ]
        let cluster =
            #"{"kinds": [{"nodes": 4, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 1, "between": {"latency_us": 1, "gbit_per_s": 1}}]}"#
        let planned = try rows(try plan(cluster, job))
        let run = try CommandRun.annulus(
            ["bench", "attention", "--repetitions", "1", "--threads", "1"] + job, .virtual(4))
        try #require(run.status == 0 && planned.count == 1, "\(run.errors)")
        let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
        #expect(planned[0]["bytes_sent"] as? Int == row["bytes_sent"] as? Int && row["bytes_sent"] as? Int != 0)
    }

    @Test func anEncoderHasLayersAndWeights() throws {
        let run = try plan(
            Self.good,
            [
                "--shape", "minilm", "--length", "4096", "--strategy", "pass-kv", "--layout", "contiguous", "--format",
                "json",
            ])
        try #require(run.status == 0, "\(run.errors)")
        let row = try #require(try rows(run).first)
        // Six layers of 4·384² + 2·384·1536 weights and the tables of 30522 + 4096 rows, in float32.
        let weights: Double = 4 * (6 * 1_769_472 + 34_618 * 384)
        #expect((row["memory_per_rank"] as? Double ?? 0) > weights)
        // Seven ranks on 4 nodes with a copy each: beside the weights and 24 MiB a process, hidden states, queries,
        // keys and values of 4,096 tokens, a share of which is on every rank, and less than two tiles' rows of
        // everything for a thread.
        #expect(
            (row["memory_per_rank"] as? Double ?? 0) < weights + 24 * 0x1p20 + 4 * 4096 * 384 * 4 + 2 * 256 * 4
                * (3 * 384 + 1536))
        // A token costs 2 operations a weight, and 4·384 a key.
        let flopPerToken: Double = 2 * 1_769_472 + 4 * 384 * 4096
        let planned: Double = (row["rank_gflop"] as? [Double] ?? []).reduce(0, +) * 1e9
        #expect(abs(planned / (6 * 4096 * flopPerToken) - 1) < 1e-6)
    }

    @Test func aTablePerBandwidth() throws {
        let run = try plan(Self.good, ["--length", "5000", "--gbit-per-s", "10,0.1"])
        try #require(run.status == 0, "\(run.errors)")
        let text = String(decoding: run.output, as: UTF8.self)
        #expect(
            text.components(separatedBy: "Choice: ").count == 3 && text.components(separatedBy: "<- chosen").count == 3,
            "\(text)")
        let csv = try plan(Self.good, ["--length", "5000", "--format", "csv"])
        let lines = String(decoding: csv.output, as: UTF8.self).split(separator: "\n")
        #expect(lines.count == 19 && lines[0].hasPrefix("plan,length,"))
    }

    /// A row for each number of nodes, each the choice that the whole table of such a cluster has.
    @Test func theChoiceOfEachNumberOfNodes() throws {
        func cluster(nodes: Int) -> String {
            """
            {"kinds": [{"nodes": \(nodes), "ranks_per_node": 2, "gflops_per_rank": 100, "memory_gib": 1,
              "inside": {"latency_us": 1, "gbit_per_s": 80}, "between": {"latency_us": 20, "gbit_per_s": 1}}]}
            """
        }
        let run = try plan(cluster(nodes: 7), ["--length", "9000", "--nodes", "1,3,5"])
        try #require(run.status == 0, "\(run.errors)")
        let lines = String(decoding: run.output, as: UTF8.self).split(separator: "\n").dropFirst(2)
            .map { $0.split(separator: " ").map(String.init) }
        try #require(lines.count == 3)
        var first: Double?
        for (line, nodes) in zip(lines, [1, 3, 5]) {
            let all = try rows(try plan(cluster(nodes: nodes), ["--length", "9000", "--format", "json"]))
            let chosen = try #require(all.first { $0["chosen"] as? Bool == true })
            let seconds = try #require(chosen["seconds"] as? Double)
            #expect(line[0] == chosen["strategy"] as? String && line[1] == chosen["layout"] as? String)
            #expect(line[2] == "\(nodes)" && line[3] == "\(2 * nodes)")
            #expect(abs((Double(line[5]) ?? 0) - seconds) <= 1e-3 * seconds)
            let speedUp = (first ?? seconds) / seconds
            #expect(abs((Double(line[9]) ?? 0) - speedUp) <= 1e-3 * speedUp)
            #expect(abs((Double(line[10].dropLast()) ?? 0) - 100 * speedUp / Double(nodes)) <= 0.06)
            first = first ?? seconds
        }
        let json = try rows(
            try plan(
                cluster(nodes: 7), ["--length", "9000", "--nodes", "1,3", "--strategy", "tree", "--format", "json"]))
        #expect(json.map { $0["nodes"] as? Int } == [1, 1, 1, 3, 3, 3])
    }

    /// Two kinds of nodes cannot be multiplied, and several nodes need a link.
    @Test func numbersOfNodesThatMakeNoClusterAreRefused() throws {
        let kinds = try plan(Self.good, ["--nodes", "2"])
        #expect(
            kinds.status == 65 && kinds.errors.contains("2 kinds of nodes, and --nodes is for one"), "\(kinds.errors)")
        let alone = #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 1}]}"#
        let links = try plan(alone, ["--nodes", "1,2"])
        #expect(links.status == 65 && links.errors.contains("'kinds[0].between'"), "\(links.errors)")
        for number in ["1.5", "70000"] {
            let run = try plan(alone, ["--nodes", number])
            #expect(run.status == 64 && run.errors.contains("--nodes takes whole numbers"), "\(run.errors)")
        }
    }

    @Test func whatFitsNowhereIsSaid() throws {
        let cluster = #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 0.001}]}"#
        let run = try plan(cluster, ["--length", "100000"])
        #expect(run.status == 0 && String(decoding: run.output, as: UTF8.self).contains("None fits"))
    }

    @Test(arguments: [
        ("", "ends"), ("[]", "an array"), ("{}", "'kinds'"), (#"{"kinds": []}"#, "at least one"),
        (#"{"kinds": [7]}"#, "'kinds[0]' is a number"),
        (#"{"kinds": [{}], "levels": 1}"#, "'levels' is unknown"), (#"{"kinds": [{}]}"#, "'kinds[0].nodes' is missing"),
        (#"{"kinds": [{"nodes": 0}]}"#, "'kinds[0].nodes' must"),
        (#"{"kinds": [{"nodes": -1}]}"#, "'kinds[0].nodes' must"),
        (#"{"kinds": [{"nodes": 1e300}]}"#, "'kinds[0].nodes' must"),
        (#"{"kinds": [{"nodes": 9223372036854775807}]}"#, "'kinds[0].nodes' must"),
        (#"{"kinds": [{"nodes": 65536, "ranks_per_node": 65536}]}"#, "more than 65536 ranks"),
        (
            #"{"kinds": [{"nodes": 2, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 1}]}"#,
            "'kinds[0].between' is missing"
        ),
        (
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 2, "gflops_per_rank": 1, "memory_gib": 1}]}"#,
            "'kinds[0].inside' is missing"
        ),
        (
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 0, "memory_gib": 1}]}"#,
            "'kinds[0].gflops_per_rank' must"
        ),
        (
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": "a"}]}"#,
            "'kinds[0].memory_gib' must"
        ),
        (
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 1, "disk": 1}]}"#,
            "'kinds[0].disk' is unknown"
        ),
        (
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 1, "inside": {"latency_us": -1}}]}"#,
            "'kinds[0].inside.latency_us' must"
        ),
        (
            #"{"kinds": [{"nodes": 1, "ranks_per_node": 1, "gflops_per_rank": 1, "memory_gib": 1, "inside": {"latency_us": 1, "gbit_per_s": 0}}]}"#,
            "'kinds[0].inside.gbit_per_s' must"
        ),
    ]) func badClustersAreRefusedByName(cluster: String, named: String) throws {
        let run = try plan(cluster, [])
        #expect(run.status == 65 && run.errorLines.count == 1, "\(run.errors)")
        #expect(
            run.errors.contains("cluster.json: ") && (named == "ends" || run.errors.contains(named)), "\(run.errors)")
    }

    @Test(arguments: [
        ["--length", "0"], ["--length", "-4"], ["--length", "99999999999999999999"], ["--length", "9000000000"],
        ["--heads", "0"], ["--heads", "3", "--kv-heads", "2"],
        ["--head-dim", "9999999"], ["--mask", "causl"], ["--mask", "documents(3)"], ["--strategy", "auto"],
        ["--layout", "round"], ["--gbit-per-s", "0"],
        ["--gbit-per-s", "nan"], ["--shape", "gpt"], ["--shape", "minilm", "-m", "x"],
    ]) func badOptionsAreUsageErrors(arguments: [String]) throws {
        let run = try plan(Self.good, arguments)
        #expect(run.status == 64 && run.errorLines.count == 1, "\(run.errors)")
    }

    @Test func aMissingFileIsMissing() throws {
        let run = try CommandRun.annulus(["plan", "--cluster", "/nowhere/cluster.json"])
        #expect(run.status == 66 && run.errors.contains("/nowhere/cluster.json"))
    }

    /// Fewer tiles than ranks: a row for each strategy and layout, all of numbers, and no layout that heaps them on a
    /// rank.
    @Test(arguments: [1, 256, 257, 1000, 100_000, 200_000, 1_048_575, 1_048_576, 1_048_833])
    func fewerTilesThanRanksArePriced(length: Int) throws {
        let cluster = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
            .appendingPathComponent("hostfiles/cluster-4096.json").path
        let run = try CommandRun.annulus(["plan", "--cluster", cluster, "--length", "\(length)", "--format", "json"])
        try #require(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        let rows = try rows(run)
        #expect(rows.count == 18 && rows.filter { $0["chosen"] as? Bool == true }.count == 1)
        func seconds(_ strategy: String, _ layout: String) throws -> Double {
            try #require(
                rows.first { $0["strategy"] as? String == strategy && $0["layout"] as? String == layout }?["seconds"]
                    as? Double)
        }
        for row in rows {
            for key in [
                "seconds", "balance", "memory_per_rank", "memory_per_node", "exposed_seconds", "bytes_sent", "messages",
            ] {
                #expect((row[key] as? Double).map { $0.isFinite && $0 >= 0 } == true, "\(key)")
            }
            // Something is attended, so it takes time.
            #expect((row["seconds"] as? Double ?? 0) > 0)
        }
        for strategy in ["pass-kv", "pass-q", "all-gather", "head-exchange", "hybrid", "tree"] {
            // Twice: the shares are the same, what they wait for is not quite.
            #expect(try seconds(strategy, "balanced") <= 2 * seconds(strategy, "contiguous"), "\(strategy)")
        }
    }

    /// The largest sizes that are taken are priced, not trapped.
    @Test func theLargestHeadsDoNotOverflow() throws {
        let run = try plan(
            Self.good,
            [
                "--length", "1000000", "--heads", "4096", "--head-dim", "16384", "--strategy", "pass-q", "--layout",
                "zigzag", "--format", "json",
            ])
        #expect(run.status == 0, "\(run.errors)")
    }
}
