// What is to be attended, as the planner sees it: sequences, their shards, the mask and the heads.

import Attention
import Matrices
import Tiles

/// One attention over a batch of sequences: queries of sequence s see keys of sequence s only.
public struct AttentionJob: Sendable {
    /// Where the query tiles live.
    public let queries: Sharding
    /// Where the key and value tiles live.
    public let keys: Sharding
    public let mask: Mask
    public let heads: HeadShape
    /// What keys and values are stored in, in memory and in messages.
    public var element = ElementKind.float32

    /// - Precondition: both shardings speak of equally many sequences and ranks.
    public init(queries: Sharding, keys: Sharding, mask: Mask, heads: HeadShape) {
        precondition(queries.numbering.lengths.count == keys.numbering.lengths.count)
        precondition(queries.rankCount == keys.rankCount)
        self.queries = queries
        self.keys = keys
        self.mask = mask
        self.heads = heads
    }

    /// Self-attention: one sharding for both.
    public init(sharding: Sharding, mask: Mask, heads: HeadShape) {
        self.init(queries: sharding, keys: sharding, mask: mask, heads: heads)
    }

    public var rankCount: Int { queries.rankCount }

    public func shape(of sequence: Int) -> SequenceShape {
        SequenceShape(queries: queries.numbering.lengths[sequence], keys: keys.numbering.lengths[sequence])
    }

    /// The key tiles, by their number in the batch, that a query tile (by its number) sees.
    public func visibleTiles(queryTile: Int) -> VisibleTiles {
        let sequence = queries.numbering.sequence(of: queryTile)
        let visible = mask.keyTiles(queryTile: queryTile - queries.numbering.firstTile[sequence], in: shape(of: sequence))
        return visible.shifted(by: keys.numbering.firstTile[sequence])
    }

    /// The key tiles that the queries of a rank need.
    public func needs(of rank: Rank) -> Runs {
        var ranges: [Range<Int>] = []
        for run in queries.tiles(of: rank).ranges {
            for tile in run { ranges += visibleTiles(queryTile: tile).any.ranges }
        }
        return Runs(ranges)
    }

    /// Floating-point operations of the visible pairs: 2·d for a score and 2·dv for its value, each head.
    public var visibleFlop: Double {
        let perPair = Double(2 * (heads.headDimension + heads.valueDimension) * heads.queryHeads)
        return queries.numbering.lengths.indices.reduce(0) {
            $0 + Double(mask.visiblePairs(in: shape(of: $1))) * perPair
        }
    }
}
