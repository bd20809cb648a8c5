// Keys and values that several attentions read, and that grow.

import Attention
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct KeyValueTilesTests {
    /// Sequences that grow panel by panel have, at every length, the bits that they have when they are packed at once.
    @Test(arguments: [ElementKind.float32, .bfloat16], [1, 2, 3]) func aGrowingSequenceHasTheBitsOfAWholeOne(
        element: ElementKind, ranks: Int
    ) throws {
        let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 72)
        let capacities = [1024, 512]
        // Each stage begins a panel; the last one ends amid one.
        let stages = [[64, 0], [256, 64], [320, 448], [640 + 37, 512]]
        for strategy in Strategy.allCases {
            for (number, lengths) in stages.enumerated() {
                var whole = RingCase(
                    lengths.map { SequenceShape(queries: 70, keys: $0) }, heads: heads,
                    mask: number % 2 == 0 ? .full : .causal, seed: 9)
                whole.element = element
                whole.strategy = strategy
                whole.ranksPerNode = 1 + number % 2
                let atOnce = whole
                let last = RingCase(
                    stages[stages.count - 1].map { SequenceShape(queries: 70, keys: $0) }, heads: heads, mask: .full,
                    seed: 10)
                let inputs = last.inputs()
                let given = Self.prefix(inputs, of: stages[stages.count - 1], lengths: lengths, heads)
                let expected = try VirtualRanks.run(count: 1) { try atOnce.run(on: $0, inputs: given) }[0]
                let grown = try VirtualRanks.run(count: ranks, seed: 5, fillsReceives: true) { transport in
                    let keys = Sharding(lengths: capacities, layout: .contiguous, rankCount: ranks)
                    let start = Self.problem(atOnce, keys.holding(lengths: [0, 0]), ranks)
                    let keyValues = try KeyValueTiles(of: start, sharedOver: transport, kernels: .best)
                    for stage in stages[...number] {
                        let part = Self.prefix(inputs, of: stages[stages.count - 1], lengths: stage, heads)
                        for sequence in capacities.indices {
                            let before = keyValues.keys.numbering.lengths[sequence]
                            let first = stage[..<sequence].reduce(0, +)
                            keyValues.append(stage[sequence] - before, to: sequence) { tile, rows in
                                let token = keyValues.keys.numbering.tokens(of: tile).lowerBound + rows.lowerBound
                                return (
                                    Self.rows(
                                        part.keys, first + token, rows.count, heads.keyValueHeads, heads.headDimension),
                                    Self.rows(
                                        part.values, first + token, rows.count, heads.keyValueHeads,
                                        heads.valueDimension)
                                )
                            }
                        }
                    }
                    let problem = Self.problem(atOnce, keyValues.keys, ranks)
                    let executor = try RingExecutor(
                        plan: strategy.plan(problem, rank: transport.rank), transport: transport,
                        threads: ThreadPool(threads: 1), kernels: .best)
                    let part = try atOnce.attend(executor, to: keyValues, queries: given.queries, on: transport)
                    return try atOnce.gather(part, over: transport)
                }
                #expect(grown[0].sameBits(as: expected), "\(strategy), lengths \(lengths), \(ranks) ranks")
            }
        }
    }

    /// Layers that see the same keys through different masks, and queries of another sequence, read one packed copy.
    @Test func severalAttentionsReadTheSameTiles() throws {
        let heads = HeadShape(heads: 2, headDimension: 16)
        let full = RingCase([SequenceShape(length: 900)], heads: heads, mask: .full, seed: 3)
        let masks: [Mask] = [.full, .causal, .window(left: 100, right: 3)]
        let expected = try masks.map { mask in
            var one = full
            one.mask = mask
            let ringCase = one
            return try VirtualRanks.run(count: 1) { try ringCase.run(on: $0) }[0]
        }
        for (ranks, perNode) in [(2, 1), (3, 3), (4, 2)] {
            let outcomes = try VirtualRanks.run(count: ranks, seed: 8, fillsReceives: true) { transport in
                var shared = full
                shared.ranksPerNode = perNode
                let jobs = masks.map { mask in
                    var problem = shared.problem(ranks: ranks)
                    problem.mask = mask
                    return problem
                }
                let setup = try AttentionSetup(
                    jobs, .passKeyValue, transport: transport, threads: ThreadPool(threads: 1), kernels: .best
                ) {
                    .attend(heads: heads, mask: $0.mask, kernels: .best)
                }
                let inputs = shared.inputs()
                shared.pack(setup.keyValues, keys: inputs.keys, values: inputs.values)
                return try setup.executors.map { executor in
                    try shared.gather(
                        try shared.attend(executor, to: setup.keyValues, queries: inputs.queries, on: transport),
                        over: transport)
                }
            }
            for (outcome, wanted) in zip(outcomes[0], expected) {
                #expect(outcome.sameBits(as: wanted), "\(ranks) ranks, \(perNode) a node")
            }
        }
    }

    private static func problem(_ ringCase: RingCase, _ keys: Sharding, _ ranks: Int) -> AttentionProblem {
        let shapes = zip(ringCase.sequences, keys.numbering.lengths).map {
            SequenceShape(queries: $0.queries, keys: $1)
        }
        let queries = Sharding(lengths: shapes.map(\.queries), layout: .contiguous, rankCount: ranks)
        var problem = AttentionProblem(
            shapes: shapes, queries: queries, keys: keys, mask: ringCase.mask, heads: ringCase.heads)
        problem.element = ringCase.element
        problem.topology = Topology(hosts: (0..<ranks).map { $0 / ringCase.ranksPerNode })
        return problem
    }

    /// The same queries, and the first keys and values of each sequence.
    private static func prefix(
        _ inputs: (queries: [Float], keys: [Float], values: [Float]), of all: [Int], lengths: [Int], _ heads: HeadShape
    ) -> (queries: [Float], keys: [Float], values: [Float]) {
        var (keys, values): ([Float], [Float]) = ([], [])
        var first = 0
        let (width, valueWidth) = (
            heads.keyValueHeads * heads.headDimension, heads.keyValueHeads * heads.valueDimension
        )
        for (length, count) in zip(all, lengths) {
            keys += inputs.keys[first * width..<(first + count) * width]
            values += inputs.values[first * valueWidth..<(first + count) * valueWidth]
            first += length
        }
        return (inputs.queries, keys, values)
    }

    private static func rows(_ all: [Float], _ token: Int, _ count: Int, _ heads: Int, _ width: Int) -> HeadRows {
        let buffer = AlignedBuffer(count: count * heads * width)
        for index in 0..<buffer.count { buffer[index] = all[token * heads * width + index] }
        return HeadRows(buffer, tokenStride: heads * width, headStride: width)
    }
}
