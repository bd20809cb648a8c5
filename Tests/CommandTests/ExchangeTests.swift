// `bench exchange`: every pattern for every size, on ranks of either kind; one rank has nobody to talk to.

import Foundation
import Testing

struct ExchangeTests {
    @Test(arguments: [Spread.virtual(3), .mpirun(2), .mpirun(3)])
    func aRowForEachPatternAndSize(spread: Spread) throws {
        let run = try CommandRun.annulus(
            ["bench", "exchange", "--bytes", "512:2048", "--repetitions", "1", "--format", "json"], spread)
        #expect(run.status == 0, "\(run.errors)")
        struct Row: Decodable {
            let pattern: String
            let bytes: Int
            let microseconds: Double
        }
        let rows = try run.output.split(separator: UInt8(ascii: "\n")).map {
            try JSONDecoder().decode(Row.self, from: Data($0))
        }
        #expect(rows.map(\.bytes) == [512, 1024, 2048].flatMap { Array(repeating: $0, count: 4) })
        #expect(rows.prefix(4).map(\.pattern) == ["latency", "bandwidth", "both", "ring"])
        #expect(rows.allSatisfy { $0.microseconds > 0 })
    }

    /// The exposed time of every strategy, and the same output.
    @Test(arguments: [Spread.virtual(3), .mpirun(2)]) func aRowForEachStrategy(spread: Spread) throws {
        let run = try CommandRun.annulus(
            [
                "bench", "exchange", "--strategies", "--length", "2000", "--heads", "4", "--mask", "causal",
                "--repetitions", "2", "--format", "json",
                "--ranks-per-node", "1", "--threads", "1",
            ], spread)
        try #require(run.status == 0, "\(run.errors)")
        let rows = try run.output.split(separator: UInt8(ascii: "\n")).map {
            try #require(try JSONSerialization.jsonObject(with: Data($0)) as? [String: Any])
        }
        #expect(
            rows.compactMap { $0["strategy"] as? String } == [
                "pass-kv", "pass-q", "all-gather", "head-exchange", "hybrid", "tree",
            ])
        #expect(Set(rows.compactMap { $0["sha256"] as? String }).count == 1)
        for row in rows {
            for key in ["bytes_sent", "messages", "seconds", "exposed_seconds", "predicted_seconds"] {
                #expect((row[key] as? Double).map { $0 > 0 } == true, "\(key)")
            }
        }
    }

    @Test(arguments: [
        [], ["--bytes", "0"], ["--bytes", "8:4"], ["--bytes", "4:x"], ["--window", "0", "--virtual-ranks", "2"],
    ])
    func whatCannotBeMeasuredIsAUsageError(arguments: [String]) throws {
        let run = try CommandRun.annulus(["bench", "exchange"] + arguments)
        #expect(run.status == 64)
        #expect(run.errorLines.count == 1, "\(run.errors)")
    }
}
