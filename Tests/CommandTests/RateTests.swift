// What is believed of a machine's speed: noise is not believed for long, a slower machine in the end, and each kind of
// job has rates of its own.

import Attention
import Foundation
import Pipelines
import Plans
import TestSupport
import Testing

@Suite(.serialized) struct RateTests {
    private static let start = 1e9

    /// Noise only slows. Within four minutes of a run free of it the true rate is believed, whatever was seen before and
    /// since; what is believed is never above the true rate, nor below what was seen last.
    @Test(arguments: 1...20) func noiseIsMendedByTheFirstRunWithoutIt(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let rate = Double.random(in: 1e9...1e12, using: &random)
        var history = RateHistory()
        var (time, lastQuiet) = (Self.start, -Double.infinity)
        for step in 0..<200 {
            time += Double.random(in: 0...(Bool.random(using: &random) ? 10 : 300), using: &random)
            let isQuiet = Int.random(in: 0..<8, using: &random) == 0
            if isQuiet { lastQuiet = time }
            let seen = isQuiet ? rate : rate * Double.random(in: 0.01..<1, using: &random)
            history.add(seen, at: time)
            let best = history.best ?? .nan
            #expect(seen <= best && best <= rate, "seed \(seed), step \(step)")
            if time - lastQuiet < 240 { #expect(best == rate, "seed \(seed), step \(step)") }
            #expect(history.sightings.count <= RateHistory.length)
        }
    }

    /// A machine that has become slower is believed when five runs, each a minute from the one before, have said so; as
    /// many runs as there may be within four minutes say nothing.
    @Test(arguments: 1...20) func aSlowerMachineIsBelievedInTheEnd(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var history = RateHistory()
        history.add(2e11, at: Self.start)
        var time = Self.start
        for _ in 0..<100 {
            time = min(time + Double.random(in: 0...5, using: &random), Self.start + 239)
            history.add(1e11, at: time)
            #expect(history.best == 2e11, "seed \(seed)")
        }
        for run in 1...RateHistory.length {
            time += Double.random(in: 60...3600, using: &random)
            history.add(1e11, at: time)
            if run == RateHistory.length { #expect(history.best == 1e11, "seed \(seed)") }
        }
        // And a faster one at once.
        history.add(3e11, at: time + 1)
        #expect(history.best == 3e11)
    }

    /// What is a day old is forgotten, and what a clock wrote that was ahead.
    @Test func ratesAreForgottenAfterADay() {
        var history = RateHistory()
        history.add(5, at: Self.start)
        history.add(3, at: Self.start + 1000)
        history.forget(at: Self.start + RateHistory.lifetime)
        #expect(history.best == 5)
        history.forget(at: Self.start + RateHistory.lifetime + 1)
        #expect(history.best == 3)
        history.forget(at: Self.start)
        #expect(history.best == nil)
        for rate in [0, -1, .infinity, .nan] { history.add(rate, at: Self.start) }
        #expect(history.best == nil)
    }

    private func cache(
        _ folder: TemporaryFolder, ranks: [(host: String, threads: Int)] = [("one", 2), ("two", 2)],
        isVirtual: Bool = false, kernel: String = "avx2", element: String = "float32",
        heads: HeadShape = HeadShape(heads: 1, headDimension: 64)
    ) throws -> MeasurementCache {
        try #require(
            MeasurementCache(
                ranks: ranks, isVirtual: isVirtual, kernel: kernel, element: element, heads: heads,
                environment: ["XDG_CACHE_HOME": folder.url.path]))
    }

    private func history(_ rates: [Double]) -> MachineHistory {
        var history = MachineHistory(rankCount: rates.count)
        for (rank, rate) in rates.enumerated() {
            for number in 0..<rank + 3 {
                history.ranks[rank].add(rate / Double(number + 1), at: 1e9 + 70 * Double(number))
            }
        }
        history.inside.bytes.add(2e9, at: 1e9)
        history.inside.messages.add(1e6, at: 1e9)
        history.inside.processed.add(1e10, at: 1e9)
        return history
    }

    /// Threads, element types, kernels, widths, hosts and rank counts have files of their own; the number of heads,
    /// which changes no rate, has not.
    @Test func everyKindOfJobHasItsOwnFile() throws {
        let folder = try TemporaryFolder()
        let (wide, many) = (
            HeadShape(queryHeads: 1, keyValueHeads: 1, headDimension: 64, valueDimension: 32),
            HeadShape(heads: 12, headDimension: 64)
        )
        let paths = try [
            cache(folder), cache(folder, element: "bfloat16"), cache(folder, kernel: "avx512"),
            cache(folder, ranks: [("one", 1), ("two", 1)]), cache(folder, ranks: [("one", 2), ("two", 1)]),
            cache(folder, ranks: [("one", 2), ("one", 2)]), cache(folder, ranks: [("one", 2)]),
            cache(folder, isVirtual: true), cache(folder, heads: wide),
        ].map(\.path)
        #expect(Set(paths).count == paths.count, "\(paths)")
        #expect(try cache(folder, heads: many).path == paths[0])
        #expect(paths.allSatisfy { $0.hasPrefix(folder.url.path + "/annulus/measured/") })
    }

    /// What is written is read again; a file that is cut anywhere, or is another job's, is none.
    @Test func damagedAndForeignFilesAreIgnored() throws {
        let folder = try TemporaryFolder()
        let cache = try cache(folder)
        #expect(cache.read(at: 1e9) == nil)
        let known = history([1e11, 2e11])
        cache.write(known)
        #expect(cache.read(at: 1e9 + 500) == known)
        #expect(cache.read(at: 1e9 + 500 + RateHistory.lifetime) == nil)
        let whole = try Data(contentsOf: URL(fileURLWithPath: cache.path))
        // The last byte is the line's end.
        for count in 0..<whole.count - 1 {
            try whole.prefix(count).write(to: URL(fileURLWithPath: cache.path))
            #expect(cache.read(at: 1e9 + 500) == nil, "\(count) bytes")
        }
        let text = String(decoding: whole, as: UTF8.self)
        for (old, new) in [
            ("float32", "bfloat16"), ("\"ranks\": [", "\"ranks\": [[], "), ("\"ranks\": [[", "\"ranks\": [[], ["),
            ("\"ranks\"", "\"rank\""), ("{", "["),
        ] {
            try Data(text.replacingOccurrences(of: old, with: new).utf8).write(to: URL(fileURLWithPath: cache.path))
            #expect(cache.read(at: 1e9 + 500) == nil, "\(new)")
        }
        cache.write(known)
        #expect(cache.read(at: 1e9 + 500) == known)
        #expect(known.measurements?.inside == Cluster.Link(latency: 1e-6, bandwidth: 2e9, processing: 1e-10))
    }

    /// A folder that cannot be made is no fault.
    @Test func aJobDoesWithoutAFolder() throws {
        let folder = try TemporaryFolder()
        try Data().write(to: URL(fileURLWithPath: folder.path("annulus")))
        let cache = try cache(folder)
        cache.write(history([1e11, 2e11]))
        #expect(cache.read(at: 1e9) == nil && folder.names == ["annulus"])
        let run = try CommandRun.annulus(
            ["bench", "attention", "--length", "600", "--repetitions", "1", "--quiet"],
            environment: ["XDG_CACHE_HOME": folder.url.path])
        #expect(run.status == 0 && folder.names == ["annulus"], "\(run.errors)")
    }

    /// Makes all of a file's ranks a hundred times slower than they are, as of two minutes ago.
    /// - Returns: their true rates.
    private static func slow(_ file: URL) throws -> [Double] {
        var kept = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
        let ranks = try #require(kept["ranks"] as? [[[Double]]])
        kept["ranks"] = ranks.map { $0.map { [$0[0] - 120, $0[1] / 100] } }
        try JSONSerialization.data(withJSONObject: kept).write(to: file)
        return ranks.compactMap { $0.map { $0[1] }.max() }
    }

    /// What was measured amid noise, a hundredth of the true rate, is mended by the first run that computes for long
    /// enough, on any ranks; and the output is the same all along.
    @Test(arguments: [Spread.alone, .mpirun(2), .virtual(2)]) func aNoisyMeasurementIsMendedByARun(spread: Spread)
        throws
    {
        let folder = try TemporaryFolder()
        func bench(_ more: [String] = [], threads: Int = 1, length: Int = 6000) throws -> (
            predicted: Double, sha256: String
        ) {
            let run = try CommandRun.annulus(
                [
                    "bench", "attention", "--length", "\(length)", "--heads", "8", "--repetitions", "1", "--threads",
                    "\(threads)", "--format", "json",
                ] + more, spread, environment: ["XDG_CACHE_HOME": folder.url.path])
            try #require(run.status == 0, "\(run.errors)")
            let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
            return (
                try #require(row["predicted_seconds"] as? Double), try #require(row["sha256"] as? String)
            )
        }
        let measured = folder.url.appendingPathComponent("annulus/measured")
        func files() throws -> [URL] {
            try FileManager.default.contentsOfDirectory(at: measured, includingPropertiesForKeys: nil)
        }
        let first = try bench()
        let file = try #require(try files().first)
        _ = try Self.slow(file)
        // Too short a run tells nothing.
        let short = try bench(length: 600)
        let noisy = try bench()
        let mended = try bench()
        #expect(short.predicted > 0)
        #expect(noisy.predicted > 20 * first.predicted, "\(noisy.predicted) after \(first.predicted)")
        #expect(mended.predicted < 5 * first.predicted, "\(mended.predicted) after \(first.predicted)")
        #expect(noisy.sha256 == first.sha256 && mended.sha256 == first.sha256)
        // Rates of another type, and of another number of threads, are others' and stay.
        let float32 = try Data(contentsOf: file)
        _ = try bench(["--dtype", "bfloat16"])
        _ = try bench(threads: 2, length: 600)
        #expect(try files().count == 3)
        #expect(try Data(contentsOf: file) == float32)
    }

    /// Whatever encodes long documents corrects the rates of its model's widths, also of documents that are whole on
    /// their ranks.
    @Test func encodingCorrectsToo() throws {
        let folder = try TemporaryFolder()
        let environment = ["XDG_CACHE_HOME": folder.url.path]
        func run(_ arguments: [String]) throws {
            let run = try CommandRun.annulus(arguments + ["--threads", "1", "--quiet"], environment: environment)
            try #require(run.status == 0, "\(run.errors)")
        }
        try run(["bench", "encoder", "--shape", "minilm", "--length", "600", "--repetitions", "1"])
        let measured = folder.url.appendingPathComponent("annulus/measured")
        let files = try FileManager.default.contentsOfDirectory(at: measured, includingPropertiesForKeys: nil)
        let file = try #require(files.first)
        let made = try CommandRun.annulus([
            "init", "--shape", "minilm", "--positions", "6000", "-o", folder.path("model"),
        ])
        try #require(made.status == 0, "\(made.errors)")
        let ids = (0..<5000).map { "\(1000 + $0 % 20_000)" }.joined(separator: ", ")
        try Data("[\(ids)]\n[\(ids)]\n".utf8).write(to: URL(fileURLWithPath: folder.path("in.ids")))
        for arguments in [
            ["bench", "encoder", "--shape", "minilm", "--length", "5000", "--repetitions", "1"],
            ["embed", "-m", folder.path("model"), "-i", folder.path("in.ids"), "-o", folder.path("out.npy")],
        ] {
            let rate = try #require(try Self.slow(file).first)
            try run(arguments)
            let kept = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any]
            let sightings = try #require((kept?["ranks"] as? [[[Double]]])?.first)
            #expect((sightings.last?[1] ?? 0) > rate / 5, "\(arguments): \(sightings), \(rate)")
        }
    }
}
