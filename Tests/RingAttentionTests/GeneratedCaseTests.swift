// A thousand generated cases of mask × modifier × layout × strategy × heads × lengths × ranks against the float64
// oracle.

import Attention
import Foundation
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct GeneratedCaseTests {
    /// The first seed is fixed; ANNULUS_TEST_SEED moves to others.
    static let firstSeed = ProcessInfo.processInfo.environment["ANNULUS_TEST_SEED"].flatMap { UInt64($0) } ?? 1
    #if DEBUG
    // Unoptimised code is some fifty times slower: a sample.
    private static let usualCases = 10
    #else
    private static let usualCases = 125
    #endif
    /// Eight times so many cases; ANNULUS_TEST_CASES asks for more, or for a quick look.
    static let casesPerPart =
        ProcessInfo.processInfo.environment["ANNULUS_TEST_CASES"].flatMap { Int($0) } ?? usualCases

    /// Runs a case and holds what was sent against the plans and the strategy's formula.
    private func run(_ ringCase: RingCase, ranks: Int) throws -> RingCase.Outcome {
        let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) {
            try ringCase.run(on: $0, threads: 1 + ranks % 2)
        }
        #expect(outcomes.allSatisfy { $0.sameBits(as: outcomes[0]) })
        let plans = ringCase.plans(ranks: ranks)
        try Plan.validate(plans)
        // No step is full of nothing.
        #expect(
            plans.allSatisfy {
                $0.steps.allSatisfy {
                    $0.attend.allSatisfy { !$0.queries.isEmpty && !$0.heads.isEmpty && !$0.keys.isEmpty }
                }
            })
        #expect(outcomes.map(\.bytesSent) == plans.map(\.bytesSent), "\(ranks) ranks, \(ringCase)")
        #expect(outcomes.map(\.messagesSent) == plans.map(\.messagesSent), "\(ranks) ranks, \(ringCase)")
        let formula = ByteFormula(ringCase.problem(ranks: ranks)).bytes(ringCase.strategy)
        #expect(outcomes.reduce(0) { $0 + $1.bytesSent } == formula, "\(ranks) ranks, \(ringCase)")
        return outcomes[0]
    }

    @Test(arguments: 0..<8) func generatedCasesAgreeWithTheOracle(part: Int) throws {
        for number in 0..<Self.casesPerPart {
            let seed = Self.firstSeed &* 1_000_003 &+ UInt64(part * Self.casesPerPart + number)
            var ringCase = RandomCase.ringCase(seed: seed)
            let ranks = 1 + Int(seed % 16)
            let outcome = try run(ringCase, ranks: ranks)
            if let disagreement = ringCase.disagreement(outcome) {
                Issue.record("\(disagreement) on \(ranks) ranks in \(ringCase)")
                continue
            }
            // Every strategy, other layouts and rank counts: the same bits. All on one rank is one of them.
            for (index, strategy) in Strategy.allCases.enumerated() {
                ringCase.strategy = strategy
                ringCase.layout = Layout.allCases[(number + index) % Layout.allCases.count]
                let others = index == 0 ? 1 : 1 + (ranks + 4 + 5 * index) % 16
                #expect(try run(ringCase, ranks: others).sameBits(as: outcome), "\(others) ranks, \(ringCase)")
            }
        }
    }

    /// A document packed among others has the bytes it has alone, and a NaN in one reaches no other.
    @Test func packedDocumentsAreAlone() throws {
        let heads = HeadShape(heads: 2, headDimension: 16)
        let lengths = [300, 0, 1, 513, 40]
        for rest in [Mask.full, .causal, .window(left: 50, right: 3)] {
            let mask = Mask.and(.documents(DocumentMask(queries: lengths, keys: lengths)), rest)
            let packed = RingCase(
                [SequenceShape(length: lengths.reduce(0, +))], heads: heads, mask: mask, layout: .balanced, seed: 9)
            var inputs = packed.inputs()
            let poisoned = 301 + 100
            inputs.keys[poisoned * 32] = .nan
            inputs.values[poisoned * 32 + 1] = .nan
            let given = inputs
            let together = try VirtualRanks.run(count: 3, seed: 4) { try packed.run(on: $0, inputs: given) }[0]
            var first = 0
            for length in lengths {
                let range = first * 32..<(first + length) * 32
                let alone = RingCase([SequenceShape(length: length)], heads: heads, mask: rest)
                let result = try VirtualRanks.run(count: 2, seed: 5) {
                    try alone.run(
                        on: $0,
                        inputs: (Array(given.queries[range]), Array(given.keys[range]), Array(given.values[range])))
                }[0]
                let bits = together.output[range].map(\.bitPattern)
                #expect(result.output.map(\.bitPattern) == bits, "\(length) tokens, \(rest)")
                #expect(together.output[range].contains { $0.isNaN } == (length == 513), "\(length) tokens, \(rest)")
                first += length
            }
        }
    }
}
