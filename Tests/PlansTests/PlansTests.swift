// Plans are valid, complete and send the least for every layout, mask and rank count.

import Attention
import Plans
import Testing
import Tiles

@Suite struct PlansTests {
    static let lengthLists = [
        [1], [2], [255], [256], [257], [4099], [70_000], [], [0, 0], [3, 0, 900, 256, 20_000, 1],
    ]
    static let rankCounts = [1, 2, 3, 4, 5, 7, 8, 16]

    @Test(arguments: Layout.allCases, lengthLists) func everyTileHasOneOwner(
        layout: Layout, lengths: [Int]
    ) {
        for count in Self.rankCounts {
            let sharding = Sharding(lengths: lengths, layout: layout, rankCount: count)
            var owners = Array(repeating: 0, count: sharding.numbering.tileCount)
            var tokens = 0
            for rank in (0..<count).map({ Rank($0) }) {
                let tiles = sharding.tiles(of: rank)
                for sequence in lengths.indices {
                    #expect(tiles.intersection(sharding.numbering.tiles(of: sequence)).ranges.count <= 2)
                }
                for run in tiles.ranges {
                    for tile in run {
                        owners[tile] += 1
                        #expect(sharding.owner(of: tile) == rank)
                    }
                }
                tokens += sharding.tokenCount(of: rank)
            }
            #expect(owners.allSatisfy { $0 == 1 })
            #expect(tokens == lengths.reduce(0, +))
        }
    }

    @Test func equalShardsAreWithinATile() {
        for layout in Layout.allCases {
            for count in Self.rankCounts {
                let sharding = Sharding(lengths: [70_000], layout: layout, rankCount: count)
                let tokens = (0..<count).map { sharding.tokenCount(of: Rank($0)) }
                let slack = layout == .contiguous ? 1 : 2
                #expect(
                    tokens.max()! - tokens.min()! <= slack * TileGrid.tileSize, "\(layout), \(count) ranks")
            }
        }
    }

    @Test(arguments: Strategy.allCases) func whatIsWholeStaysInPlace(strategy: Strategy) {
        for (lengths, whole) in [
            ([256, 200, 150, 250], true), ([1100], false), ([256, 600, 256], false),
            ([0, 256, 0, 200, 150, 250, 0], true),
        ] {
            let problem = AttentionProblem(
                shapes: lengths.map { SequenceShape(length: $0) }, mask: .full,
                heads: HeadShape(heads: 4, headDimension: 8),
                layout: .contiguous, rankCount: 4)
            #expect(problem.queries.keepsSequencesWhole == whole, "\(lengths)")
            let planner = strategy.planner(TileDependencies(problem))
            let moves = (0..<4).contains { planner.plan(Rank($0)).messagesSent > 0 }
            #expect(moves != (whole && strategy.keepsWholeSequencesInPlace), "\(lengths)")
        }
    }

    /// Operations that give keys something, or both sides, each query head or each key/value head.
    private static func operations(_ heads: HeadShape) -> [OperationShape] {
        [
            .receive(heads),
            .differentiate(
                heads, ScoreModifiers(relativeBias: .init(table: Array(repeating: 0, count: 9), reach: 1))),
        ]
    }

    @Test(arguments: Layout.allCases, [Mask.full, .causal]) func plansAreValidAndSendTheLeast(
        layout: Layout, mask: Mask
    ) throws {
        let heads = HeadShape(heads: 3, headDimension: 8)
        for lengths in Self.lengthLists {
            for count in Self.rankCounts {
                for keyLengths in [lengths, lengths.map { $0 / 2 + 300 }] {
                    let shapes = zip(lengths, keyLengths).map { SequenceShape(queries: $0, keys: $1) }
                    let problem = AttentionProblem(
                        shapes: shapes, mask: mask, heads: heads, layout: layout, rankCount: count)
                    let dependencies = TileDependencies(problem)
                    func made(_ strategy: Strategy) -> [Plan] {
                        let planner = strategy.planner(dependencies)
                        return (0..<count).map { planner.plan(Rank($0)) }
                    }
                    let plans = made(.passKeyValue)
                    try Plan.validate(plans)
                    for strategy in Strategy.allCases where problem.keys.numbering.tileCount < 50 {
                        try Plan.validate(made(strategy))
                        for operation in Self.operations(heads) {
                            var other = problem
                            other.operation = operation
                            let planner = strategy.planner(TileDependencies(other))
                            try Plan.validate((0..<count).map { planner.plan(Rank($0)) })
                        }
                    }
                    // The definition of the least: each tile once to every rank that needs it and does not own it.
                    var least = 0
                    for tile in 0..<problem.keys.numbering.tileCount {
                        for rank in (0..<count).map({ Rank($0) }) where problem.keys.owner(of: tile) != rank {
                            if problem.dependencies(of: rank).contains(tile) {
                                least += plans[0].bytes(of: .columns(Runs(tile..<tile + 1), heads: 0..<3))
                            }
                        }
                    }
                    #expect(plans.reduce(0) { $0 + $1.bytesSent } == least)
                }
            }
        }
    }

    /// The slowest rank's modelled time over the least possible, all work over all speeds, is at most 1.05, or no rank
    /// has more than one tile's cost above its share. Of ranks of one speed: largest over mean.
    @Test func balancedLayoutsAreBalanced() {
        let heads = HeadShape(heads: 12, headDimension: 64)
        let whole = SequenceShape(length: 40_000)
        let mixed =
            [3, 20_000, 17, 256, 4_000, 1_000, 600, 60_000, 5, 0] + (0..<400).map { 20 + $0 % 380 }
        let packed = Mask.documents(DocumentMask(queries: mixed, keys: mixed)).pieces(
            of: SequenceShape(length: mixed.reduce(0, +)))
        let cases: [(mask: Mask, shapes: [SequenceShape])] = [
            (.causal, [whole]), (.full, [whole]), (.window(left: 512, right: 512), [whole]),
            (.window(left: 4000, right: 0), [whole]),
            (.or(.global(Runs(0..<300)), .window(left: 200, right: 200)), [whole]),
            (.not(.causal), [whole]),
            // Documents that stay one sequence, since they are only one side of a disjunction.
            (
                .or(
                    .documents(DocumentMask(queries: [30_000, 9_000, 1_000], keys: [30_000, 9_000, 1_000])),
                    .prefix(1)),
                [whole]
            ),
            (packed.mask, packed.pieces), (.full, mixed.map { SequenceShape(length: $0) }),
            (.causal, mixed.map { SequenceShape(length: $0) }),
        ]
        for (mask, shapes) in cases {
            let costs = AttentionProblem.costs(
                shapes: shapes, mask: mask, heads: heads, denseFlopPerToken: 4e6)
            let total = costs.reduce(0, +)
            for count in [1, 2, 3, 5, 8] {
                let uneven = (0..<count).map { 1 + Double($0 % 3) }
                let oneSlow = (0..<count).map { $0 == count - 1 ? 0.125 : 1 }
                for speeds in [nil, uneven, oneSlow] {
                    let problem = AttentionProblem(
                        shapes: shapes, mask: mask, heads: heads, layout: .balanced, rankCount: count,
                        denseFlopPerToken: 4e6, speeds: speeds)
                    #expect(problem.queries.numbering.tileCount >= 16 * count)
                    let speed = speeds ?? Array(repeating: 1, count: count)
                    let least = total / speed.reduce(0, +)
                    let loads = (0..<count).map {
                        problem.queries.tiles(of: Rank($0)).ranges.joined().reduce(0.0) { $0 + costs[$1] }
                    }
                    #expect(abs(loads.reduce(0, +) - total) <= 1e-9 * total)
                    let slowest = zip(loads, speed).map { $0 / $1 }.max()!
                    let withinATile = zip(loads, speed).allSatisfy { $0 <= $1 * least + costs.max()! }
                    #expect(
                        slowest <= 1.05 * least || withinATile,
                        "\(count) ranks of speeds \(speed): \(slowest / least), \(mask)")
                    let tokens = (0..<count).map { problem.queries.tokenCount(of: Rank($0)) }
                    let mostTokens =
                        Sharding.tokenCap * Double(tokens.reduce(0, +)) / Double(count)
                        + Double(TileGrid.tileSize)
                    #expect(Double(tokens.max()!) <= mostTokens)
                }
            }
        }
    }

    @Test func aFasterRankGetsMore() {
        let sharding = Sharding(
            lengths: [100_000], layout: .balanced, rankCount: 3, speeds: [1, 0.5, 0.5])
        let tokens = (0..<3).map { Double(sharding.tokenCount(of: Rank($0))) }
        #expect(abs(tokens[0] - 50_000) <= 256 && abs(tokens[1] - 25_000) <= 256)
    }

    /// A tile goes where its middle falls: a small example by hand, costs of the order of one.
    @Test(arguments: [
        ([3.0, 1], [0, 1]), ([1, 3], [0, 1]), ([1, 1, 1, 1], [0, 0, 1, 1]),
        ([2, 1, 1, 2], [0, 0, 1, 1]),
        ([1, 1, 4, 1, 1], [0, 0, 1, 1, 1]),
    ]) func smallCostsAreBalanced(costsInOrder: [Double], owners: [Int]) {
        // The folded order: place 0, 1, 2, … are tiles 0, n − 1, 1, …
        let count = costsInOrder.count
        let tiles = (0..<count).map { $0 % 2 == 0 ? $0 / 2 : count - 1 - $0 / 2 }
        var costs = Array(repeating: 0.0, count: count)
        for (place, tile) in tiles.enumerated() { costs[tile] = costsInOrder[place] }
        let sharding = Sharding(lengths: [count * 256], layout: .balanced, rankCount: 2, costs: costs)
        #expect(tiles.map { sharding.owner(of: $0).index } == owners, "\(costsInOrder)")
    }

    /// A sequence is poured over the ranks that stand lowest, each measured by its own speed, up to a common level.
    @Test(arguments: [0, 3]) func aSequenceFillsTheLowestRanks(slow: Int) {
        // Single tiles leave the slow rank at 20/0.25 = 80 and the others at 90, 65 and 61; what follows costs 15, and
        // lifts the last two to 70.5.
        let first: [Double] = [90, 65, 61, 20]
        let poured = Array(repeating: 0.5, count: 30)
        let free = Array(repeating: 0.0, count: 70)  // room below the token cap
        let lengths = first.map { _ in 256 } + [poured.count * 256] + free.map { _ in 256 }
        let sharding = Sharding(
            lengths: lengths, layout: .balanced, rankCount: 4, costs: first + poured + free,
            speeds: (0..<4).map { $0 == slow ? 0.25 : 1 })
        let fast = (0..<4).filter { $0 != slow }
        #expect((0..<4).map { sharding.owner(of: $0).index } == fast + [slow])
        let owners = (first.count..<first.count + poured.count).map { sharding.owner(of: $0).index }
        #expect((fast + [slow]).map { rank in owners.count { $0 == rank } } == [0, 11, 19, 0])
    }

    /// One tile that costs as much as all others: tokens do not pile up behind it beyond the cap, whichever rank is
    /// last.
    @Test(arguments: [2, 3, 4, 5, 8]) func theTokenCapHolds(ranks: Int) {
        for heavy in [0, 1, 5, 11, 20, 39] {
            for others in [0.0, 1e-6, 0.001] {
                var costs = Array(repeating: others, count: 40)
                costs[heavy] = 1
                let sharding = Sharding(
                    lengths: [40 * 256], layout: .balanced, rankCount: ranks, costs: costs)
                let tokens = (0..<ranks).map { sharding.tokenCount(of: Rank($0)) }
                let mean = Double(40 * 256) / Double(ranks)
                #expect(
                    tokens.allSatisfy { Double($0) <= Sharding.tokenCap * mean },
                    "\(ranks) ranks, tile \(heavy), \(others): \(tokens)")
                #expect(tokens.reduce(0, +) == 40 * 256)
                #expect((0..<ranks).allSatisfy { sharding.tiles(of: Rank($0)).ranges.count <= 2 })
            }
        }
    }

    /// Cheap documents do not pile up beyond the cap on the one rank that no costly document fills.
    @Test(arguments: [3, 4, 5, 8]) func theTokenCapHoldsForWholeDocuments(ranks: Int) {
        let costs = Array(repeating: 1000.0, count: ranks - 1) + Array(repeating: 1, count: 40)
        let sharding = Sharding(
            lengths: costs.map { _ in 256 }, layout: .balanced, rankCount: ranks, costs: costs)
        let tokens = (0..<ranks).map { sharding.tokenCount(of: Rank($0)) }
        let cap = Sharding.tokenCap * Double(256 * costs.count) / Double(ranks)
        #expect(tokens.allSatisfy { Double($0) <= cap }, "\(ranks) ranks: \(tokens)")
        // The light rank is filled as far as it goes before others take of them.
        #expect(tokens.max().map(Double.init) ?? 0 > cap - 256)
    }

    /// A document of little cost stays whole, however level the ranks stand; a faster rank takes it before a slower.
    @Test func shortDocumentsAreWhole() {
        let level = Sharding(lengths: [100 * 256, 100 * 256, 512], layout: .balanced, rankCount: 2)
        #expect(level.owner(of: 200) == level.owner(of: 201))
        for speeds in [[0.5, 1], [1, 0.5]] {
            let sharding = Sharding(lengths: [256], layout: .balanced, rankCount: 2, speeds: speeds)
            #expect(speeds[sharding.owner(of: 0).index] == 1)
        }
        // The costliest document is a single tile, and is not cut nor moved by the level of the others.
        let single = Sharding(
            lengths: [256, 256, 256], layout: .balanced, rankCount: 3, costs: [5, 5, 5])
        #expect(Set((0..<3).map { single.owner(of: $0).index }).count == 3)
    }

    @Test func theWorkIsCounted() {
        let heads = HeadShape(queryHeads: 6, keyValueHeads: 2, headDimension: 8, valueDimension: 20)
        let shapes = [SequenceShape(length: 300), SequenceShape(queries: 5, keys: 600)]
        let problem = AttentionProblem(
            shapes: shapes, mask: .full, heads: heads, layout: .contiguous, rankCount: 2)
        // A multiply and an add for each channel of a key and of a value.
        let flop = Double((300 * 300 + 5 * 600) * 6 * (2 * 8 + 2 * 20))
        #expect(problem.visibleFlop == flop)
        let costs = AttentionProblem.costs(
            shapes: shapes, mask: .full, heads: heads, denseFlopPerToken: 7)
        #expect(costs.count == 3 && costs.reduce(0, +) == flop + 305 * 7)
    }

    /// Heads in a round: two stages of their tiles take at most a tenth of a rank's own keys and values, or 4 MiB, and
    /// never less than one head's.
    @Test(arguments: [
        // (heads, tokens of a rank, rounds); a token of a head takes 512 bytes.
        (12, 1024, 3), (13, 1024, 4), (12, 2048, 6), (12, 256, 1), (12, 4096, 12), (12, 1 << 20, 12),
        (64, 1 << 20, 22),
        (40, 1 << 18, 20), (200, 1 << 20, 20), (1, 1 << 20, 1),
    ]) func roundsAreAsLargeAsTheBound(heads: Int, tokens: Int, rounds: Int) {
        let problem = AttentionProblem(
            shapes: [SequenceShape(length: 2 * tokens)], mask: .full,
            heads: HeadShape(heads: heads, headDimension: 64),
            layout: .contiguous,
            rankCount: 2)
        let groups = Set(
            Strategy.passKeyValue.plan(problem, rank: Rank(1)).steps.flatMap { $0.attend.map(\.heads) })
        #expect(groups.count == rounds)
        #expect(groups.flatMap { Array($0) }.sorted() == Array(0..<heads))
        // A rank alone has nothing in flight, and one round.
        let alone = AttentionProblem(
            shapes: [SequenceShape(length: tokens)], mask: .full,
            heads: HeadShape(heads: heads, headDimension: 64),
            layout: .contiguous, rankCount: 1)
        #expect(
            Strategy.passKeyValue.plan(alone, rank: Rank(0)).steps.map { $0.attend.map(\.heads) } == [
                [0..<heads]
            ])
    }

    @Test func headGroupsCoverEveryHeadOnce() {
        let problem = AttentionProblem(
            shapes: [SequenceShape(length: 1_000_000)], mask: .full,
            heads: HeadShape(heads: 13, headDimension: 64),
            layout: .contiguous, rankCount: 2)
        let groups = Strategy.passKeyValue.plan(problem, rank: Rank(1)).steps.flatMap {
            $0.attend.map(\.heads)
        }
        #expect(Set(groups).count > 1)
        #expect(Set(groups).flatMap { Array($0) }.sorted() == Array(0..<13))
    }
}
