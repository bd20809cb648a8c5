// Dropout of attention weights, forward and back: the oracle's own draws, the same bits however the work is spread, and gradients
// that are those of what is left.

import Attention
import Foundation
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct WeightDropoutTests {
    private func outcome(_ ringCase: RingCase, ranks: Int) throws -> RingCase.Outcome {
        let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) {
            try ringCase.run(on: $0, threads: 1 + ranks % 2)
        }
        #expect(outcomes.allSatisfy { $0.sameBits(as: outcomes[0]) }, "the ranks gathered different results")
        return outcomes[0]
    }

    private func gradients(_ ringCase: RingCase, ranks: Int) throws -> RingCase.Gradients {
        let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) {
            try ringCase.differentiate(on: $0, threads: 1 + ranks % 2)
        }
        #expect(outcomes.allSatisfy { $0.bits == outcomes[0].bits }, "the ranks gathered different results")
        return outcomes[0]
    }

    /// Generated cases with dropout: every mask, modifier, group of heads and batch.
    private static func ringCase(_ number: Int) -> RingCase? {
        let seed = GeneratedCaseTests.firstSeed &* 7_000_003 &+ UInt64(number)
        var ringCase = RandomCase.ringCase(seed: seed, longest: number % 5 == 0 ? 540 : 280)
        // What falls apart into documents is a batch of these.
        if ringCase.sequences.count == 1, ringCase.mask.pieces(of: ringCase.sequences[0]).pieces.count != 1 {
            return nil
        }
        ringCase.element = .float32
        ringCase.dropout = WeightDropout(
            probability: [0.1, 0.5, 0.9][number % 3], seed: seed, step: number, layer: number % 4,
            documents: ringCase.sequences.indices.map { 3 * $0 + number })
        return ringCase
    }

    @Test(arguments: 0..<8) func generatedCasesAgreeWithTheOracle(part: Int) throws {
        var checked = 0
        for number in 0..<max(8, GeneratedCaseTests.casesPerPart / 4) {
            guard var ringCase = Self.ringCase(part * 1000 + number) else { continue }
            let ranks = 1 + number % 9
            let (found, gradients) = try (outcome(ringCase, ranks: ranks), gradients(ringCase, ranks: ranks))
            if let disagreement = ringCase.disagreement(found) ?? ringCase.disagreement(gradients) {
                Issue.record("\(disagreement) on \(ranks) ranks in \(ringCase)")
                continue
            }
            ringCase.strategy = Strategy.allCases[number % Strategy.allCases.count]
            ringCase.layout = Layout.allCases[number % Layout.allCases.count]
            let others = number % 4 == 1 ? 1 : 1 + (ranks + 4 + number) % 16
            #expect(try outcome(ringCase, ranks: others).sameBits(as: found), "\(others) ranks, \(ringCase)")
            #expect(
                try self.gradients(ringCase, ranks: others).bits == gradients.bits, "\(others) ranks, \(ringCase)")
            checked += 1
        }
        #expect(checked > 3)
    }

    /// Heads as wide as a panel and wider, several panels of keys, tiles that all rows see.
    @Test func wideHeads() throws {
        for (index, (width, valueWidth)) in [(64, 64), (128, 80), (33, 130), (96, 17)].enumerated() {
            for mask in [Mask.full, .causal, .window(left: 70, right: 10)] {
                var ringCase = RingCase(
                    [SequenceShape(queries: 300, keys: 330), SequenceShape(length: 70)],
                    heads: HeadShape(
                        queryHeads: 2, keyValueHeads: 1 + index % 2, headDimension: width, valueDimension: valueWidth),
                    mask: mask, seed: UInt64(width))
                ringCase.dropout = WeightDropout(probability: 0.3, seed: 5, step: 2, layer: 1, documents: [4, 9])
                ringCase.modifiers.softcap = index % 2 == 0 ? nil : 3
                let (found, gradients) = try (outcome(ringCase, ranks: 1), gradients(ringCase, ranks: 1))
                if let disagreement = ringCase.disagreement(found) ?? ringCase.disagreement(gradients) {
                    Issue.record("\(disagreement) in \(ringCase)")
                }
                for (ranks, strategy) in zip([2, 3, 5, 4, 7, 8], Strategy.allCases) {
                    ringCase.strategy = strategy
                    #expect(try outcome(ringCase, ranks: ranks).sameBits(as: found), "\(ranks) ranks, \(ringCase)")
                    #expect(
                        try self.gradients(ringCase, ranks: ranks).bits == gradients.bits, "\(ranks) ranks, \(ringCase)"
                    )
                }
            }
        }
    }

    /// The statistics of rows are those of all weights, to the bit; the output is another. No probability is no dropout.
    @Test func statisticsAreThoseOfAllWeights() throws {
        var ringCase = RingCase(
            [SequenceShape(length: 300)], heads: HeadShape(heads: 2, headDimension: 16), mask: .causal)
        let whole = try outcome(ringCase, ranks: 2)
        ringCase.dropout = WeightDropout(probability: 0.4, seed: 1, step: 0, layer: 0, documents: [0])
        let dropped = try outcome(ringCase, ranks: 2)
        #expect(dropped.logSumExp.map(\.bitPattern) == whole.logSumExp.map(\.bitPattern))
        #expect(dropped.output != whole.output)
        // The first row sees itself alone: its output is its value times the factor, or nothing.
        let value = ringCase.inputs().values[..<32]
        for head in 0..<2 {
            let share = dropped.output[head * 16..<head * 16 + 16]
            let isDropped =
                CountedDraws(seed: 1, step: 0, site: .attentionWeights, layer: 0, head: head).bits(
                    document: 0, row: 0, channel: 0) < CountedDraws.threshold(0.4)
            for (found, own) in zip(share, value.dropFirst(head * 16)) {
                #expect(abs(found - (isDropped ? 0 : own / 0.6)) <= 4 * 0x1p-24 * abs(own / 0.6))
            }
        }
        ringCase.dropout = WeightDropout(probability: 0, seed: 1, step: 0, layer: 0, documents: [0])
        #expect(try outcome(ringCase, ranks: 2).sameBits(as: whole))
    }

    /// Everything that weights are drawn for changes what is dropped, and nothing else does: neither which other sequences there
    /// are nor where this one stands among them.
    @Test func whatIsDroppedIsADocumentsOwn() throws {
        let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 8, valueDimension: 8)
        func output(_ dropout: WeightDropout) throws -> [Float] {
            var ringCase = RingCase([SequenceShape(length: 290)], heads: heads, mask: .full, seed: 3)
            ringCase.dropout = dropout
            return try outcome(ringCase, ranks: 2).output
        }
        let one = WeightDropout(probability: 0.5, seed: 1, step: 2, layer: 3, documents: [4])
        let first = try output(one)
        for other in [
            WeightDropout(probability: 0.5, seed: 2, step: 2, layer: 3, documents: [4]),
            WeightDropout(probability: 0.5, seed: 1, step: 3, layer: 3, documents: [4]),
            WeightDropout(probability: 0.5, seed: 1, step: 2, layer: 2, documents: [4]),
            WeightDropout(probability: 0.5, seed: 1, step: 2, layer: 3, documents: [5]),
        ] { #expect(try output(other) != first, "\(other)") }
        #expect(try output(one) == first)
        // The oracle draws by the place in the batch.
        var batch = RingCase(
            [SequenceShape(length: 5), SequenceShape(length: 290), SequenceShape(length: 300)], heads: heads,
            mask: .full,
            seed: 3)
        batch.dropout = WeightDropout(probability: 0.5, seed: 1, step: 2, layer: 3, documents: [7, 4, 8])
        let found = try outcome(batch, ranks: 3)
        if let disagreement = batch.disagreement(found) { Issue.record("\(disagreement)") }
    }
}
