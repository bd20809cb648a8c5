// Fewer tiles than ranks, down to none: every layout deals them out, every strategy plans and is priced.

import Attention
import Matrices
import Plans
import Testing
import Tiles

@Suite struct FewTilesTests {
    private static let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 16, valueDimension: 24)

    /// From nothing at all to a tile a rank and one more, the last one short.
    private static func shapes(ranks: Int) -> [[SequenceShape]] {
        var shapes: [[SequenceShape]] = [
            [], [SequenceShape(length: 0)], [SequenceShape(length: 0), SequenceShape(length: 1)],
        ]
        for tiles in Set([1, 2, 3, ranks - 1, ranks, ranks + 1]).sorted() where tiles > 0 {
            shapes.append([SequenceShape(length: tiles * 256 - 19)])
        }
        // Nobody asks, nobody answers, few of either.
        return shapes + [
            [SequenceShape(queries: 0, keys: 300)], [SequenceShape(queries: 300, keys: 0)],
            [SequenceShape(queries: 5, keys: 2000)],
            [SequenceShape(queries: 600, keys: 3)],
        ]
    }

    private static let masks: [Mask] = [.full, .causal, .window(left: 0, right: 0), .not(.full)]

    private func problem(_ shapes: [SequenceShape], _ mask: Mask, _ layout: Layout, _ ranks: Int) -> AttentionProblem {
        AttentionProblem(shapes: shapes, mask: mask, heads: Self.heads, layout: layout, rankCount: ranks)
    }

    @Test(arguments: [1, 2, 3, 5, 8]) func everyPlanIsValid(ranks: Int) throws {
        for shapes in Self.shapes(ranks: ranks) {
            for mask in Self.masks {
                for layout in Layout.allCases {
                    let dependencies = TileDependencies(problem(shapes, mask, layout, ranks))
                    for strategy in Strategy.allCases {
                        let planner = strategy.planner(dependencies)
                        try Plan.validate((0..<ranks).map { planner.plan(Rank($0)) })
                    }
                }
            }
        }
    }

    /// All ranks looked at, and some for all: no value is infinite, negative or no number, and there is a choice with a
    /// reason.
    @Test(arguments: [1, 2, 3, 8, 40]) func everyPriceIsANumber(ranks: Int) {
        for shapes in Self.shapes(ranks: ranks) {
            for mask in Self.masks {
                for (most, each) in [(64, 8), (4, 2)] {
                    let prices = Pricing(on: PriceTests.cluster(ranks: ranks), mostRanks: most, sampledRanks: each) {
                        problem(shapes, mask, $0, ranks)
                    }.prices()
                    for price in prices {
                        let values =
                            [
                                price.seconds, price.exposedSeconds, price.bytes, price.messages, price.memory,
                                price.nodeMemory, price.nodeLimit, price.balance,
                            ] + price.work.map(\.flop)
                        #expect(values.allSatisfy { $0.isFinite && $0 >= 0 }, "\(shapes), \(mask), \(price)")
                    }
                    #expect(Choice(of: prices).map { !$0.reason.isEmpty } == true, "\(shapes), \(mask)")
                }
            }
        }
    }

    /// Ranks that have a tile are looked at, however few they are among ranks that have none; a rank with two is.
    @Test(arguments: [1, 2, 5, 30, 100, 103]) func theRanksThatHaveTilesAreLookedAt(tiles: Int) {
        let cluster = PriceTests.cluster(ranks: 100)
        for layout in Layout.allCases {
            func price(_ most: Int, _ each: Int) -> Price {
                Pricing(on: cluster, mostRanks: most, sampledRanks: each) {
                    problem([SequenceShape(length: tiles * 256)], .full, $0, 100)
                }
                .prices([.passKeyValue], [layout])[0]
            }
            let (whole, sample) = (price(100, 8), price(8, 4))
            #expect(sample.work.count < 40 && whole.work.count == 100)
            func most(_ price: Price) -> Double { price.work.map(\.flop).max() ?? 0 }
            #expect(most(sample) == most(whole), "\(layout)")
            // Work is spread as it is, so what all do together is the estimate's too.
            #expect(abs(sample.balance / whole.balance - 1) < 1e-9, "\(layout): \(sample.balance), \(whole.balance)")
            // Neighbours differ in what they wait for by a tile or two.
            #expect(
                sample.seconds <= whole.seconds * (1 + 1e-9) && sample.seconds >= whole.seconds / 2,
                "\(layout): \(sample.seconds), \(whole.seconds)")
        }
    }

    /// No rank of the balanced layout is given more than one of the contiguous, but for a tile that cannot be cut: so
    /// its job takes no longer but for that tile and what its messages make it wait.
    @Test(arguments: [2, 3, 8, 40]) func balancedIsAsGoodAsContiguous(ranks: Int) {
        let speed = 1e11
        for tiles in 1...ranks + 1 {
            for mask in [Mask.full, .causal] {
                let shapes = [SequenceShape(length: tiles * 256 - 19)]
                let largest = (AttentionProblem.costs(shapes: shapes, mask: mask, heads: Self.heads).max() ?? 0) / speed
                // Under a causal mask the layout levels queries: strategies that compute where keys are do not profit.
                let strategies = mask == .full ? Strategy.allCases : [.passKeyValue, .allGather]
                let prices = Pricing(on: PriceTests.cluster(ranks: ranks, flops: speed)) {
                    problem(shapes, mask, $0, ranks)
                }
                .prices(strategies, [.contiguous, .balanced])
                for (contiguous, balanced) in zip(prices, prices.dropFirst(strategies.count)) {
                    #expect(
                        balanced.seconds <= (contiguous.seconds + largest + balanced.exposedSeconds) * (1 + 1e-9),
                        "\(balanced.strategy), \(tiles) tiles, \(mask): \(balanced.seconds), \(contiguous.seconds)")
                }
            }
        }
    }

    /// A rank has room for a tile also where the mean is less.
    @Test(arguments: [2, 3, 8, 100, 4096]) func noRankIsGivenAllTiles(ranks: Int) {
        for tiles in Set([1, 2, 3, ranks / 2, ranks - 1, ranks]) where tiles > 0 && tiles <= ranks {
            for speeds in [nil, (0..<ranks).map { 1 + Double($0 % 2) }] {
                let sharding = Sharding(lengths: [tiles * 256], layout: .balanced, rankCount: ranks, speeds: speeds)
                let counts = (0..<ranks).map { sharding.tiles(of: Rank($0)).count }
                // A mean of a tile has room for two.
                #expect(counts.reduce(0, +) == tiles && counts.max() ?? 0 <= (tiles == ranks ? 2 : 1), "\(tiles) tiles")
            }
        }
    }
}
