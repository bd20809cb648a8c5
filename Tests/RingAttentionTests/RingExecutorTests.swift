// The executor on virtual ranks: within the oracle's bound, and the same bits however the work is spread.

import Attention
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct RingExecutorTests {
    private static func outcome(_ ringCase: RingCase, ranks: Int, threads: Int = 1, kernels: KernelSet = .best) throws
        -> RingCase.Outcome
    {
        let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed &+ UInt64(ranks)) { transport in
            try ringCase.run(on: transport, threads: threads, kernels: kernels)
        }
        #expect(outcomes.allSatisfy { $0.sameBits(as: outcomes[0]) }, "the ranks gathered different results")
        var whole = outcomes[0]
        whole.bytesSent = outcomes.reduce(0) { $0 + $1.bytesSent }
        return whole
    }

    static let shapes: [[SequenceShape]] = [
        [SequenceShape(length: 1)], [SequenceShape(length: 2)], [SequenceShape(length: 255)],
        [SequenceShape(length: 256)],
        [SequenceShape(length: 257)], [SequenceShape(length: 1100)],
        [SequenceShape(length: 0), SequenceShape(length: 300), SequenceShape(length: 1), SequenceShape(length: 513)],
        [
            SequenceShape(queries: 70, keys: 600), SequenceShape(queries: 600, keys: 70),
            SequenceShape(queries: 5, keys: 0),
        ],
    ]

    @Test(arguments: shapes, [Mask.full, .causal]) func withinTheBoundAndTheSameBits(
        shapes: [SequenceShape], mask: Mask
    ) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        for heads in [
            HeadShape(heads: 2, headDimension: 32),
            HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 72),
        ] {
            var ringCase = RingCase(shapes, heads: heads, mask: mask, seed: seed, sharpness: 3)
            let one = try Self.outcome(ringCase, ranks: 1)
            if let disagreement = ringCase.disagreement(one) { Issue.record("\(disagreement) in \(ringCase)") }
            for (shift, layout) in Layout.allCases.enumerated() {
                ringCase.layout = layout
                for (index, ranks) in [1, 2, 3, 4, 5, 7, 8, 16].enumerated() {
                    ringCase.strategy = Strategy.allCases[(index + shift) % Strategy.allCases.count]
                    let other = try Self.outcome(ringCase, ranks: ranks, threads: 1 + ranks % 2)
                    #expect(other.sameBits(as: one), "\(ranks) ranks, \(ringCase)")
                    let plans = ringCase.plans(ranks: ranks)
                    #expect(other.bytesSent == plans.reduce(0) { $0 + $1.bytesSent })
                }
            }
        }
    }

    /// Keys and values that travel in bfloat16: within the bound of their rounding, the same bits on any ranks, in half
    /// the bytes.
    @Test(arguments: shapes, [Mask.full, .causal])
    func aBFloat16WireIsWithinItsBoundAndTheSameBits(shapes: [SequenceShape], mask: Mask) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        for heads in [
            HeadShape(heads: 2, headDimension: 32),
            HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 19, valueDimension: 71),
        ] {
            var ringCase = RingCase(shapes, heads: heads, mask: mask, seed: seed)
            let exact = try Self.outcome(ringCase, ranks: 1)
            ringCase.wire = .bfloat16
            let one = try Self.outcome(ringCase, ranks: 1)
            if let disagreement = ringCase.disagreement(one) { Issue.record("\(disagreement) in \(ringCase)") }
            // Rounded also where nothing travels.
            if shapes.contains(where: { $0.queries > 1 && $0.keys > 1 }) { #expect(!one.sameBits(as: exact)) }
            for (index, ranks) in [2, 3, 5, 8].enumerated() {
                for strategy in Strategy.allCases {
                    ringCase.layout = Layout.allCases[index % Layout.allCases.count]
                    ringCase.strategy = strategy
                    ringCase.ranksPerNode = 1 + index % 2
                    let other = try Self.outcome(ringCase, ranks: ranks, threads: 1 + ranks % 2)
                    #expect(other.sameBits(as: one), "\(ranks) ranks, \(ringCase)")
                    #expect(other.bytesSent == ByteFormula(ringCase.problem(ranks: ranks)).bytes(strategy))
                    var wide = ringCase
                    wide.wire = nil
                    if strategy == .passKeyValue {
                        #expect(2 * other.bytesSent == wide.plans(ranks: ranks).reduce(0) { $0 + $1.bytesSent })
                    }
                }
            }
        }
    }

    @Test(arguments: shapes, [Mask.full, .causal])
    func bfloat16IsWithinItsBoundAndTheSameBits(shapes: [SequenceShape], mask: Mask) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        for heads in [
            HeadShape(heads: 2, headDimension: 32),
            HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 19, valueDimension: 71),
        ] {
            var ringCase = RingCase(shapes, heads: heads, mask: mask, seed: seed)
            ringCase.element = .bfloat16
            let one = try Self.outcome(ringCase, ranks: 1)
            if let disagreement = ringCase.disagreement(one) { Issue.record("\(disagreement) in \(ringCase)") }
            for (index, ranks) in [2, 3, 5, 8].enumerated() {
                ringCase.layout = Layout.allCases[index % Layout.allCases.count]
                ringCase.strategy = Strategy.allCases[(Int(seed % 6) + index) % Strategy.allCases.count]
                let other = try Self.outcome(ringCase, ranks: ranks, threads: 1 + ranks % 2)
                #expect(other.sameBits(as: one), "\(ranks) ranks, \(ringCase)")
                let plans = ringCase.plans(ranks: ranks)
                #expect(other.bytesSent == plans.reduce(0) { $0 + $1.bytesSent })
            }
        }
    }

    @Test func bfloat16TilesTakeHalfTheBytes() {
        let ringCase = RingCase(
            [SequenceShape(length: 1024)], heads: HeadShape(heads: 2, headDimension: 64), mask: .full)
        var problem = ringCase.problem(ranks: 4)
        let wide = Strategy.passKeyValue.plan(problem, rank: Rank(1)).bytesSent
        problem.element = .bfloat16
        #expect(wide > 0 && Strategy.passKeyValue.plan(problem, rank: Rank(1)).bytesSent * 2 == wide)
    }

    @Test(arguments: [1, 2, 3, 7, 31, 64, 80, 129, 256]) func bfloat16AtAnyHeadDimension(dimension: Int) throws {
        var ringCase = RingCase(
            [SequenceShape(queries: 90, keys: 385)], heads: HeadShape(heads: 1, headDimension: dimension),
            mask: .causal,
            seed: UInt64(dimension))
        ringCase.element = .bfloat16
        let best = try Self.outcome(ringCase, ranks: 2)
        if let disagreement = ringCase.disagreement(best) { Issue.record("\(disagreement) in \(ringCase)") }
        for kernels in KernelSet.available where kernels.hasBits(of: .best) {
            #expect(
                try Self.outcome(ringCase, ranks: 1, kernels: kernels).sameBits(as: best),
                "\(kernels.name), \(ringCase)")
        }
    }

    @Test(arguments: ElementKind.allCases) func everyKernelSetIsWithinTheBound(element: ElementKind) throws {
        for kernels in KernelSet.available {
            var ringCase = RingCase(
                [SequenceShape(length: 300)], heads: HeadShape(heads: 1, headDimension: 33), mask: .causal)
            ringCase.element = element
            let outcome = try Self.outcome(ringCase, ranks: 2, kernels: kernels)
            if let disagreement = ringCase.disagreement(outcome) { Issue.record("\(kernels.name): \(disagreement)") }
        }
    }

    @Test func aSequenceHasTheSameBitsAloneAndAmongOthers() throws {
        let heads = HeadShape(heads: 2, headDimension: 16)
        let shapes = [SequenceShape(length: 300), SequenceShape(length: 700), SequenceShape(length: 3)]
        let among = RingCase(shapes, heads: heads, mask: .full, seed: 5)
        let inputs = among.inputs()
        let together = try Self.outcome(among, ranks: 3)
        var first = 0
        for shape in shapes {
            let alone = RingCase([shape], heads: heads, mask: .full)
            let range = first * 32..<(first + shape.keys) * 32
            let result = try VirtualRanks.run(count: 2, seed: 1) { transport in
                try alone.run(
                    on: transport,
                    inputs: (Array(inputs.queries[range]), Array(inputs.keys[range]), Array(inputs.values[range])))
            }
            #expect(result[0].output.map(\.bitPattern) == together.output[range].map(\.bitPattern))
            first += shape.keys
        }
    }

    /// A NaN in a key or value reaches exactly the rows that see it.
    @Test(
        arguments: [
            Mask.full, .causal, .window(left: 30, right: 5), .not(.prefix(300)),
            .or(.and(.causal, .window(left: 100, right: 0)), .prefix(38)),
        ], ElementKind.allCases)
    func aNotANumberReachesOnlyWhoSeesIt(mask: Mask, element: ElementKind) throws {
        let heads = HeadShape(heads: 1, headDimension: 16)
        var poisonedCase = RingCase([SequenceShape(length: 400), SequenceShape(length: 100)], heads: heads, mask: mask)
        poisonedCase.element = element
        let ringCase = poisonedCase
        for poisoned in [37, 38, 256, 399] {
            var inputs = ringCase.inputs()
            inputs.keys[poisoned * 16 + 3] = .nan
            inputs.values[poisoned * 16 + 5] = .nan
            let given = inputs
            let outcome = try VirtualRanks.run(count: 3, seed: 2) { try ringCase.run(on: $0, inputs: given) }[0]
            for row in 0..<500 {
                let sees = row < 400 && mask.sees(row: row, key: poisoned, in: ringCase.sequences[0])
                #expect(
                    outcome.output[row * 16..<row * 16 + 16].contains { $0.isNaN } == sees,
                    "row \(row), key \(poisoned)")
                #expect(outcome.logSumExp[row].isNaN == sees, "row \(row), key \(poisoned)")
            }
        }
    }

    /// A NaN in a query stays in its row.
    @Test func aQueryThatIsNotANumberStaysAlone() throws {
        let ringCase = RingCase(
            [SequenceShape(length: 400)], heads: HeadShape(heads: 1, headDimension: 16), mask: .causal)
        var inputs = ringCase.inputs()
        inputs.queries[300 * 16 + 2] = .nan
        let given = inputs
        let outcome = try VirtualRanks.run(count: 3, seed: 2) { try ringCase.run(on: $0, inputs: given) }[0]
        for row in 0..<400 {
            #expect(outcome.output[row * 16..<row * 16 + 16].allSatisfy { $0.isNaN } == (row == 300), "row \(row)")
            #expect(outcome.output[row * 16..<row * 16 + 16].contains { $0.isNaN } == (row == 300), "row \(row)")
        }
    }

    /// A row that sees no key: zeros and −∞, whether its tile sees some keys for other rows or none at all.
    @Test(
        arguments: [
            Mask.not(.full), .prefix(0), .and(.causal, .not(.causal)), .not(.window(left: -1, right: 100)),
            .not(.causal),
        ], Layout.allCases)
    func aRowWithoutAVisibleKeyIsZero(mask: Mask, layout: Layout) throws {
        let shape = SequenceShape(length: 700)
        let ringCase = RingCase([shape], heads: HeadShape(heads: 1, headDimension: 4), mask: mask, layout: layout)
        let outcome = try Self.outcome(ringCase, ranks: 3)
        for row in 0..<shape.queries
        where !(0..<shape.keys).contains(where: { mask.sees(row: row, key: $0, in: shape) }) {
            #expect(outcome.logSumExp[row] == -.infinity, "row \(row)")
            #expect(outcome.output[row * 4..<row * 4 + 4].allSatisfy { $0.bitPattern == 0 }, "row \(row)")
        }
        #expect(outcome.logSumExp.contains(-.infinity))
    }

    /// Thousands of documents, most of them short, some empty, a few long: packed or as a batch, on any ranks, one
    /// result.
    @Test func thousandsOfDocuments() throws {
        var generator = SplitMix(seed: 12)
        var lengths = (0..<3000).map { _ in Int.random(in: 0...12, using: &generator) }
        for (place, length) in [(17, 1500), (1203, 700), (2999, 257)] { lengths[place] = length }
        let batch = RingCase(
            lengths.map { SequenceShape(length: $0) }, heads: HeadShape(heads: 1, headDimension: 4), mask: .causal,
            layout: .balanced)
        let outcome = try Self.outcome(batch, ranks: 7)
        if let disagreement = batch.disagreement(outcome) { Issue.record("\(disagreement)") }
        for layout in Layout.allCases {
            let packed = RingCase(
                [SequenceShape(length: lengths.reduce(0, +))], heads: batch.heads,
                mask: .and(.causal, .documents(DocumentMask(queries: lengths, keys: lengths))), layout: layout)
            #expect(try Self.outcome(packed, ranks: layout == .balanced ? 16 : 2).sameBits(as: outcome), "\(layout)")
        }
    }
}
