// What keys receive: within the oracle's bound, all of what rows give, the same bits however the work is spread, and no
// byte more than the formula says.

import Attention
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct ReceiveTests {
    /// Runs a case on virtual ranks and holds what was sent against the plans and the formula.
    private func run(_ ringCase: RingCase, ranks: Int, threads: Int = 1, rowWeights: [Float]) throws
        -> RingCase.Received
    {
        let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) {
            try ringCase.receive(on: $0, threads: threads, rowWeights: rowWeights)
        }
        #expect(
            outcomes.allSatisfy { $0.mass.map(\.bitPattern) == outcomes[0].mass.map(\.bitPattern) },
            "the ranks gathered different results")
        var problem = ringCase.problem(ranks: ranks)
        problem.operation = .receive(ringCase.heads)
        let planner = ringCase.strategy.planner(TileDependencies(problem))
        let plans = (0..<ranks).map { planner.plan(Rank($0)) }
        try Plan.validate(plans)
        #expect(outcomes.map(\.bytesSent) == plans.map(\.bytesSent), "\(ranks) ranks, \(ringCase)")
        #expect(outcomes.map(\.messagesSent) == plans.map(\.messagesSent), "\(ranks) ranks, \(ringCase)")
        #expect(
            outcomes.reduce(0) { $0 + $1.bytesSent } == ByteFormula(problem).bytes(ringCase.strategy),
            "\(ranks) ranks, \(ringCase)")
        return outcomes[0]
    }

    @Test(arguments: 0..<8) func generatedCasesAgreeWithTheOracle(part: Int) throws {
        let cases = max(1, GeneratedCaseTests.casesPerPart / 5)
        for number in 0..<cases {
            let seed = GeneratedCaseTests.firstSeed &* 2_000_003 &+ UInt64(part * cases + number)
            var ringCase = RandomCase.ringCase(seed: seed)
            let ranks = 1 + Int(seed % 16)
            // All rows alike, so that the mass of all keys can be counted, or each with a weight of its own.
            let weights = number % 2 == 0 ? ringCase.rowWeights().map { _ in 1 } : ringCase.rowWeights()
            let outcome = try run(ringCase, ranks: ranks, threads: 1 + ranks % 2, rowWeights: weights)
            if let disagreement = ringCase.disagreement(outcome, rowWeights: weights) {
                Issue.record("\(disagreement) on \(ranks) ranks in \(ringCase)")
                continue
            }
            for (index, strategy) in Strategy.allCases.enumerated() {
                ringCase.strategy = strategy
                ringCase.layout = Layout.allCases[(number + index) % Layout.allCases.count]
                let others = index == 0 ? 1 : 1 + (ranks + 4 + 5 * index) % 16
                let other = try run(ringCase, ranks: others, rowWeights: weights)
                #expect(other.mass.map(\.bitPattern) == outcome.mass.map(\.bitPattern), "\(others) ranks, \(ringCase)")
            }
        }
    }

    /// A NaN in a key or a query reaches exactly the keys that it meets.
    @Test func aNotANumberReachesOnlyWhatItMeets() throws {
        let ringCase = RingCase(
            [SequenceShape(length: 300), SequenceShape(length: 40)], heads: HeadShape(heads: 1, headDimension: 16),
            mask: .causal)
        var weights = ringCase.rowWeights().map { _ in Float(1) }
        // A row's own weight is given to all keys that it sees.
        weights[100] = .nan
        let given = weights
        let mass = try VirtualRanks.run(count: 3, seed: 3) { try ringCase.receive(on: $0, rowWeights: given) }[0].mass
        for key in mass.indices { #expect(mass[key].isNaN == (key <= 100), "key \(key)") }
    }

    @Test func keysThatNobodySeesReceiveNothing() throws {
        let shape = SequenceShape(queries: 5, keys: 700)
        let ringCase = RingCase(
            [shape], heads: HeadShape(heads: 2, headDimension: 8), mask: .window(left: 10, right: 0), layout: .zigzag)
        let weights = ringCase.rowWeights().map { _ in Float(1) }
        for ranks in [1, 2, 5] {
            let received = try run(ringCase, ranks: ranks, rowWeights: weights)
            #expect(received.mass[..<(2 * 600)].allSatisfy { $0.bitPattern == 0 })
            if let disagreement = ringCase.disagreement(received, rowWeights: weights) {
                Issue.record("\(disagreement)")
            }
        }
    }
}
