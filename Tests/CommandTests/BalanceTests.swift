// The balanced layout on ranks of really different speed.

import Foundation
import Testing

@Suite(.serialized) struct BalanceTests {
    private func bench(_ spread: Spread) throws -> (tokens: [Double], sha256: String) {
        let run = try CommandRun.annulus(
            [
                "bench", "attention", "--length", "9000", "--heads", "2", "--head-dim", "16", "--mask", "causal",
                "--layout", "balanced",
                "--repetitions", "1", "--threads", "1", "--format", "json",
            ], spread)
        try #require(run.status == 0, "\(run.errors)")
        let row = try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
        return (try #require(row["rank_tokens"] as? [Double]), try #require(row["sha256"] as? String))
    }

    /// A rank that is stopped three quarters of the time measures itself slow and is dealt fewer tokens; the output is
    /// the same. Speeds are measured while other tests run, so a rank may be unlucky: one of three runs must show it.
    @Test func aSlowRankIsDealtLess() throws {
        let alone = try bench(.alone)
        #expect(alone.tokens == [9000])
        var seen: [[Double]] = []
        for _ in 0..<3 {
            let slowed = try bench(.lastSlowed(3))
            #expect(slowed.sha256 == alone.sha256)
            #expect(slowed.tokens.count == 3 && slowed.tokens.reduce(0, +) == 9000)
            seen.append(slowed.tokens)
            if slowed.tokens[2] < 0.75 * min(slowed.tokens[0], slowed.tokens[1]) { return }
        }
        Issue.record("the slow rank got as much as the others: \(seen)")
    }
}
