// Plans are valid, complete and send the least for every layout, mask and rank count.

import Attention
import Plans
import Testing
import Tiles

@Suite struct PlansTests {
    static let lengthLists = [[1], [2], [255], [256], [257], [4099], [70_000], [], [0, 0], [3, 0, 900, 256, 20_000, 1]]
    static let rankCounts = [1, 2, 3, 4, 5, 7, 8, 16]

    @Test(arguments: Layout.allCases, lengthLists) func everyTileHasOneOwner(layout: Layout, lengths: [Int]) {
        for count in Self.rankCounts {
            let sharding = Sharding(lengths: lengths, layout: layout, rankCount: count)
            var owners = Array(repeating: 0, count: sharding.numbering.tileCount)
            var tokens = 0
            for rank in (0..<count).map({ Rank($0) }) {
                let tiles = sharding.tiles(of: rank)
                #expect(tiles.ranges.count <= 2)
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
                let slack = layout == .zigzag ? 2 : 1
                #expect(tokens.max()! - tokens.min()! <= slack * TileGrid.tileSize, "\(layout), \(count) ranks")
            }
        }
    }

    @Test(arguments: Layout.allCases, [Mask.full, .causal]) func plansAreValidAndSendTheLeast(layout: Layout, mask: Mask) throws {
        let heads = HeadShape(heads: 3, headDimension: 8)
        for lengths in Self.lengthLists {
            for count in Self.rankCounts {
                for keyLengths in [lengths, lengths.map { $0 / 2 + 300 }] {
                    let job = AttentionJob(
                        queries: Sharding(lengths: lengths, layout: layout, rankCount: count),
                        keys: Sharding(lengths: keyLengths, layout: layout, rankCount: count), mask: mask, heads: heads)
                    let plans = (0..<count).map { Plan.passKeyValue(job, rank: Rank($0)) }
                    try Plan.validate(plans)
                    // The definition of the least: each tile once to every rank that needs it and does not own it.
                    var least = 0
                    for tile in 0..<job.keys.numbering.tileCount {
                        for rank in (0..<count).map({ Rank($0) }) where job.keys.owner(of: tile) != rank {
                            if job.needs(of: rank).contains(tile) { least += plans[0].bytes(of: Runs(tile..<tile + 1)) }
                        }
                    }
                    #expect(plans.reduce(0) { $0 + $1.bytesSent } == least)
                }
            }
        }
    }

    @Test func headGroupsCoverEveryHeadOnce() {
        let job = AttentionJob(
            sharding: Sharding(lengths: [1_000_000], layout: .contiguous, rankCount: 2), mask: .full,
            heads: HeadShape(heads: 13, headDimension: 64))
        let groups = Plan.passKeyValue(job, rank: Rank(1)).headGroups
        #expect(groups.count > 1)
        #expect(groups.flatMap { Array($0) } == Array(0..<13))
    }
}
