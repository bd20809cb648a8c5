// One job, many ways to run it: the output file has the same bytes.

import Foundation
import Matrices
import Testing

@Suite(.serialized) struct SameBytesTests {
    static let lengths = [1, 2, 255, 256, 257, 4099]
    static let spreads: [Spread] = [.alone] + (1...5).map { .mpirun($0) } + (1...16).map { .virtual($0) }

    /// Token ids of the given lengths, one document a line.
    private func documents(_ lengths: [Int]) -> String {
        lengths.map { length in "[" + (0..<length).map { "\(($0 * 7 + length) % 90)" }.joined(separator: ", ") + "]\n" }
            .joined()
    }

    @Test func statesHaveTheSameBytesOnAnyRanksThreadsAndLayout() throws {
        let folder = try TemporaryFolder()
        let input = folder.path("documents.ids")
        try documents(Self.lengths).write(toFile: input, atomically: true, encoding: .utf8)
        var first: Data?
        for spread in Self.spreads {
            for (threads, layout) in [(1, "contiguous"), (2, "zigzag")] {
                let output = folder.path("states.safetensors")
                let run = try CommandRun.annulus(
                    [
                        "embed", "-m", checkpoint("tiny-bert"), "-i", input, "--pooling", "none", "-o", output,
                        "--force",
                        "--threads", "\(threads)", "--layout", layout, "--quiet",
                    ], spread)
                try #require(run.status == 0, "\(spread): \(run.errors)")
                let bytes = try Data(contentsOf: URL(fileURLWithPath: output))
                if first == nil { first = bytes }
                #expect(bytes == first, "\(spread), \(threads) threads, \(layout)")
            }
        }
        #expect(folder.names == ["documents.ids", "states.safetensors"], "temporary files are left")
    }

    @Test func bfloat16StatesHaveTheSameBytesAndAreNearFloat32() throws {
        let folder = try TemporaryFolder()
        func states(_ dtype: String, _ spread: Spread, kernel: String = "") throws -> Data {
            let output = folder.path("states.safetensors")
            let run = try CommandRun.annulus(
                [
                    "embed", "-m", checkpoint("tiny-bert"), "--input-format", "ids", "--pooling", "none", "-o", output,
                    "--force", "--dtype", dtype,
                ],
                spread, input: documents([1, 300, 513]), environment: ["ANNULUS_KERNEL": kernel])
            try #require(run.status == 0, "\(spread), \(kernel): \(run.errors)")
            return try Data(contentsOf: URL(fileURLWithPath: output))
        }
        let first = try states("bfloat16", .alone)
        for spread: Spread in [.mpirun(2), .mpirun(3), .virtual(7)] {
            #expect(try states("bfloat16", spread) == first, "\(spread)")
        }
        for kernel in KernelSet.available where kernel.hasBits(of: .best) {
            #expect(try states("bfloat16", .alone, kernel: kernel.name) == first, "\(kernel.name)")
        }
        let wide = try states("float32", .alone)
        try #require(wide.count == first.count && wide != first)
        func floats(_ data: Data) -> [Double] {
            let start = 8 + data[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
            return stride(from: start, to: data.count, by: 4).map { at in
                Double(Float(bitPattern: data[at..<at + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }))
            }
        }
        // Each layer's products are off by a few 2⁻⁸, and norms keep the states at size 1.
        let (a, b) = (floats(first), floats(wide))
        let difference = zip(a, b).reduce(0.0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
        #expect((difference / b.reduce(0.0) { $0 + $1 * $1 }).squareRoot() < 4 * 0x1p-8)
    }

    @Test func aDocumentHasTheSameBytesAloneAndAmongOthers() throws {
        let folder = try TemporaryFolder()
        func states(_ lengths: [Int], ranks: Int) throws -> [Data] {
            let output = folder.path("states.safetensors")
            let run = try CommandRun.annulus(
                [
                    "embed", "-m", checkpoint("tiny-bert"), "--input-format", "ids", "--pooling", "none", "-o", output,
                    "--force",
                ],
                .virtual(ranks), input: documents(lengths))
            try #require(run.status == 0, "\(run.errors)")
            let file = try Data(contentsOf: URL(fileURLWithPath: output))
            let header = file[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
            var start = 8 + header
            return lengths.map { length in
                defer { start += length * 48 * 4 }
                return file[start..<start + length * 48 * 4]
            }
        }
        let together = try states(Self.lengths, ranks: 3)
        for (length, bytes) in zip(Self.lengths, together) {
            #expect(try states([length], ranks: 2) == [bytes], "\(length) tokens")
        }
    }

    @Test func pooledVectorsHaveTheSameBytesInEveryFormat() throws {
        let folder = try TemporaryFolder()
        let text = "Attention is computed over the whole sequence.\nCafé naïve 北京 한국어 👍🏽\n\n"
        for name in ["vectors.npy", "vectors.safetensors", "vectors.jsonl"] {
            var first: Data?
            for spread: Spread in [.alone, .mpirun(3), .virtual(4)] {
                let output = folder.path(name)
                let run = try CommandRun.annulus(
                    ["embed", "-m", checkpoint("tiny-bert-sentence"), "-o", output, "--force"], spread, input: text)
                try #require(run.status == 0, "\(spread): \(run.errors)")
                let bytes = try Data(contentsOf: URL(fileURLWithPath: output))
                first = first ?? bytes
                #expect(bytes == first, "\(name), \(spread)")
            }
        }
        let alone = try CommandRun.annulus(["embed", "-m", checkpoint("tiny-bert-sentence")], input: text)
        #expect(try alone.output == Data(contentsOf: URL(fileURLWithPath: folder.path("vectors.jsonl"))))
        #expect(String(decoding: alone.output, as: UTF8.self).split(separator: "\n").count == 3)
    }

    @Test func theMergesOfTheTreeAreCounted() throws {
        let run = try CommandRun.annulus(
            [
                "bench", "merge", "--length", "1300", "--heads", "3", "--head-dim", "20", "--repetitions", "1",
                "--format", "json",
            ])
        try #require(run.status == 0, "\(run.errors)")
        let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
        // Six tiles of keys for each head.
        #expect(row["merges"] as? Int == 15)
        #expect(
            (row["seconds"] as? Double ?? 0) > 0 && (row["unmerged_seconds"] as? Double ?? 0) > 0
                && row["cost"] is Double)
    }

    @Test func benchmarksHashTheSameOutputOnAnyRanks() throws {
        for arguments in [
            [
                "attention", "--length", "700", "--heads", "4", "--kv-heads", "2", "--head-dim", "24", "--mask",
                "causal",
            ],
            ["encoder", "--shape", "minilm", "--length", "300"],
            [
                "attention", "--length", "700", "--heads", "4", "--kv-heads", "2", "--head-dim", "23", "--mask",
                "causal", "--dtype", "bfloat16",
            ],
            ["encoder", "--shape", "minilm", "--length", "300", "--dtype", "bfloat16"],
            [
                "attention", "--length", "700", "--heads", "4", "--kv-heads", "2", "--head-dim", "23", "--mask",
                "causal", "--wire", "bfloat16",
            ],
            ["encoder", "--shape", "minilm", "--length", "300", "--wire", "bfloat16"],
            ["gemm", "--tokens", "1021", "--inputs", "70", "--outputs", "130"],
        ] {
            var first: String?
            for spread: Spread in [.alone, .mpirun(2), .mpirun(3), .virtual(5)] {
                let run = try CommandRun.annulus(
                    ["bench"] + arguments + ["--repetitions", "1", "--format", "json", "--threads", "1"], spread)
                try #require(run.status == 0, "\(spread): \(run.errors)")
                let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
                let hash = try #require(row["sha256"] as? String)
                #expect(hash.count == 64)
                first = first ?? hash
                #expect(hash == first, "\(arguments[0]), \(spread)")
                let keys = [
                    "ranks", "threads", "kernel", "seconds", "seconds_all", "gflops", "peak_gflops", "fraction_of_peak",
                    "bytes_sent", "exposed_seconds",
                ]
                #expect(keys.allSatisfy { row[$0] != nil })
            }
        }
    }

    /// Ranks of one host send no keys and values; as if on hosts of their own they do; the output is the same.
    @Test func ranksOfANodeShareMemory() throws {
        func bench(_ arguments: [String], _ spread: Spread) throws -> (bytes: Int, sha256: String) {
            let run = try CommandRun.annulus(
                [
                    "bench", "attention", "--length", "2000", "--heads", "2", "--head-dim", "16", "--repetitions", "2",
                    "--format", "json",
                    "--threads", "1", "--strategy", "pass-kv",
                ] + arguments, spread)
            try #require(run.status == 0, "\(spread): \(run.errors)")
            let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
            return (try #require(row["bytes_sent"] as? Int), try #require(row["sha256"] as? String))
        }
        let apart = try bench(["--ranks-per-node", "1"], .mpirun(4))
        let pairs = try bench(["--ranks-per-node", "2"], .mpirun(4))
        let together = try bench([], .mpirun(4))
        // Each tile goes to three ranks, or to one node, or nowhere.
        #expect(apart.bytes == 3 * pairs.bytes && pairs.bytes > 0 && together.bytes == 0)
        let virtual = [try bench([], .virtual(4)), try bench(["--ranks-per-node", "2"], .virtual(4))]
        #expect(virtual.map(\.bytes) == [apart.bytes, pairs.bytes])
        #expect(Set([apart, pairs, together, virtual[0], virtual[1]].map(\.sha256)).count == 1)
        let refused = try CommandRun.annulus(["bench", "attention", "--ranks-per-node", "0"])
        #expect(refused.status == 64 && refused.errors.contains("--ranks-per-node"))
    }

    /// Ranks of a node read a part of the weights each, and run on all of them; a copy a rank gives the same bytes.
    @Test(arguments: ["tiny-bert", "tiny-modernbert", "tiny-deberta-v2"]) func ranksOfANodeShareWeights(name: String)
        throws
    {
        var hashes: Set<String> = []
        for (arguments, spread) in [
            ([], .alone), ([], .mpirun(3)), (["--ranks-per-node", "2"], .mpirun(3)),
            (["--ranks-per-node", "1"], .mpirun(3)), ([], .virtual(3)),
            (["--ranks-per-node", "1"], .virtual(3)),
        ] as [([String], Spread)] {
            let run = try CommandRun.annulus(
                [
                    "bench", "encoder", "-m", checkpoint(name), "--length", "40", "--repetitions", "1", "--format",
                    "json", "--threads", "1",
                ]
                    + arguments, spread)
            try #require(run.status == 0, "\(arguments), \(spread): \(run.errors)")
            let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
            hashes.insert(try #require(row["sha256"] as? String))
        }
        #expect(hashes.count == 1)
    }

    /// Cross-attention and each modifier change the output, and ranks do not.
    @Test func benchAttentionReachesEveryModifier() throws {
        let small = ["--length", "600", "--heads", "4", "--kv-heads", "2", "--head-dim", "16"]
        var hashes: [String: [String]] = [:]
        for options in [
            [], ["--query-length", "301", "--mask", "causal"], ["--value-dim", "24"], ["--softcap", "3"], ["--alibi"],
            ["--relative-bias", "40"], ["--sinks"], ["--backward"], ["--backward", "--softcap", "3"],
        ] {
            for spread: Spread in [.alone, .mpirun(3), .virtual(7)] {
                let run = try CommandRun.annulus(
                    ["bench", "attention"] + small + options + [
                        "--repetitions", "1", "--format", "json", "--threads", "1",
                    ], spread)
                try #require(run.status == 0, "\(spread): \(run.errors)")
                let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
                hashes[try #require(row["sha256"] as? String), default: []].append("\(options), \(spread)")
            }
        }
        #expect(hashes.count == 9 && hashes.values.allSatisfy { $0.count == 3 }, "\(hashes)")
        for (options, named) in [
            (["--softcap", "-1"], "--softcap"), (["--relative-bias", "-1"], "--relative-bias"),
            (["--query-length", "0"], "--query-length"),
            (["--query-length", "30", "--mask", "global(1)"], "self-attention"),
            (["--backward", "--top-k", "3"], "--top-k"),
        ] {
            let run = try CommandRun.annulus(["bench", "attention"] + small + options, .virtual(2))
            #expect(run.status == 64 && run.errors.contains(named), "\(run.errors)")
        }
    }
}
