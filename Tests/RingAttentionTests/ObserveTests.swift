// Statistics of rows: within the oracle's bounds, the same bits however the work is spread, attention's own bits
// untouched, and no byte more than the formula says.

import Attention
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct ObserveTests {
    /// Runs a case on virtual ranks and holds what was sent against the plans and the formula.
    private func run(_ ringCase: RingCase, ranks: Int, threads: Int = 1, topKeys: Int) throws -> RingCase.Observed {
        let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) {
            try ringCase.observe(on: $0, threads: threads, topKeys: topKeys)
        }
        #expect(outcomes.allSatisfy { $0.bits == outcomes[0].bits }, "the ranks gathered different results")
        var problem = ringCase.problem(ranks: ranks)
        problem.operation = .observe(ringCase.heads, topKeys: topKeys)
        let planner = ringCase.strategy.planner(TileDependencies(problem))
        let plans = (0..<ranks).map { planner.plan(Rank($0)) }
        try Plan.validate(plans)
        #expect(outcomes.map(\.outcome.bytesSent) == plans.map(\.bytesSent), "\(ranks) ranks, \(ringCase)")
        #expect(
            outcomes.reduce(0) { $0 + $1.outcome.bytesSent } == ByteFormula(problem).bytes(ringCase.strategy),
            "\(ranks) ranks, \(ringCase)")
        return outcomes[0]
    }

    @Test(arguments: 0..<8) func generatedCasesAgreeWithTheOracle(part: Int) throws {
        let cases = max(1, GeneratedCaseTests.casesPerPart / 5)
        for number in 0..<cases {
            let seed = GeneratedCaseTests.firstSeed &* 4_000_037 &+ UInt64(part * cases + number)
            var ringCase = RandomCase.ringCase(seed: seed)
            let (ranks, topKeys) = (1 + Int(seed % 16), [1, 2, 3, 8, 40][number % 5])
            let observed = try run(ringCase, ranks: ranks, threads: 1 + ranks % 2, topKeys: topKeys)
            if let disagreement = ringCase.disagreement(observed) {
                Issue.record("\(disagreement) on \(ranks) ranks in \(ringCase)")
                continue
            }
            let plain = ringCase
            let attended = try VirtualRanks.run(count: ranks, seed: 1) { try plain.run(on: $0) }[0]
            #expect(attended.sameBits(as: observed.outcome), "asking changed attention on \(ranks) ranks, \(ringCase)")
            for (index, strategy) in Strategy.allCases.enumerated() {
                ringCase.strategy = strategy
                ringCase.layout = Layout.allCases[(number + index) % Layout.allCases.count]
                let others = [1, 2, 3, 4, 5, 7, 8, 16][(Int(seed % 8) + 3 * index) % 8]
                let other = try run(ringCase, ranks: others, topKeys: topKeys)
                #expect(other.bits == observed.bits, "\(others) ranks, \(ringCase)")
            }
        }
    }

    /// A few keys and many that are equal: ties go to the lowest key, on every number of ranks.
    @Test func equalScoresAreInTheOrderOfKeys() throws {
        let ringCase = RingCase([SequenceShape(length: 700)], heads: HeadShape(heads: 1, headDimension: 8), mask: .full)
        var made = ringCase.inputs()
        for index in made.keys.indices { made.keys[index] = index / 8 % 100 == 37 ? 1 : 0.5 }
        for index in made.queries.indices { made.queries[index] = 1 }
        let inputs = made
        for ranks in [1, 2, 3, 5] {
            for strategy in [Strategy.passKeyValue, .passQueries, .tree] {
                var spread = ringCase
                spread.strategy = strategy
                let ready = spread
                let observed = try VirtualRanks.run(count: ranks, seed: 9) {
                    try ready.observe(on: $0, topKeys: 9, inputs: inputs)
                }[0]
                for row in 0..<700 {
                    #expect(Array(observed.topKeys[row * 9..<row * 9 + 9]) == [37, 137, 237, 337, 437, 537, 637, 0, 1])
                }
            }
        }
    }

    /// A row with a NaN says so in every statistic; its neighbours do not notice.
    @Test func aNotANumberStaysInItsRow() throws {
        let ringCase = RingCase(
            [SequenceShape(length: 300), SequenceShape(length: 40)], heads: HeadShape(heads: 1, headDimension: 16),
            mask: .causal)
        var inputs = ringCase.inputs()
        inputs.keys[200 * 16] = .nan
        let given = inputs
        for ranks in [1, 3] {
            let observed = try VirtualRanks.run(count: ranks, seed: 3) {
                try ringCase.observe(on: $0, topKeys: 2, inputs: given)
            }[0]
            for row in 0..<340 {
                let isHit = row >= 200 && row < 300
                for values in [observed.entropy, observed.largestScore, observed.meanDistance] {
                    #expect(values[row].isNaN == isHit, "row \(row)")
                }
                #expect((observed.largestKey[row] == -1) == isHit, "row \(row)")
                #expect(observed.topWeights[2 * row].isNaN == isHit, "row \(row)")
            }
        }
    }

    /// Scores of −∞ that are seen add nothing, and are among no row's keys.
    @Test func infinitelySmallScoresAddNothing() throws {
        let ringCase = RingCase([SequenceShape(length: 20)], heads: HeadShape(heads: 1, headDimension: 1), mask: .full)
        var inputs = ringCase.inputs()
        inputs.queries = Array(repeating: 1, count: 20)
        inputs.keys = (0..<20).map { $0 < 3 ? 0 : -.infinity }
        let given = inputs
        let observed = try VirtualRanks.run(count: 2, seed: 3) {
            try ringCase.observe(on: $0, topKeys: 5, inputs: given)
        }[0]
        for row in 0..<20 {
            #expect(abs(observed.entropy[row] - 1.0986123) < 1e-6)
            #expect(Array(observed.topKeys[5 * row..<5 * row + 5]) == [0, 1, 2, -1, -1])
        }
    }
}
