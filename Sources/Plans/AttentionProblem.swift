// What is to be attended, as the planner sees it: sequences, their shards, the mask, the heads and the operation.

import Attention
import Matrices
import Tiles

/// One attention over a batch of sequences: queries of sequence s see keys of sequence s only.
public struct AttentionProblem: Sendable {
    /// The sequences of the batch; pieces of a longer one know their place in it.
    public let shapes: [SequenceShape]
    /// Where the query tiles live.
    public let queries: Sharding
    /// Where the key and value tiles live.
    public let keys: Sharding
    /// Which keys of its own sequence each query sees.
    public var mask: Mask
    /// The heads of queries, keys and values, and their widths; the same in all sequences.
    public private(set) var heads: HeadShape
    /// What is done with queries and keys that meet.
    public var operation: OperationShape
    /// What keys and values are stored in.
    public var element = ElementKind.float32
    /// What keys and values travel in, if not in `element`. In bfloat16 those of a float32 job are rounded where they
    /// are packed, also on one rank, so that the bits are the same however often they travel.
    public var wire: ElementKind?

    /// Whether keys and values travel in half of the bytes that they are attended in.
    public var narrowsWire: Bool { element == .float32 && wire == .bfloat16 }
    /// Which ranks share memory; at first none do.
    public var topology: Topology

    /// - Precondition: the shardings are of these sequences, over equally many ranks.
    public init(shapes: [SequenceShape], queries: Sharding, keys: Sharding, mask: Mask, heads: HeadShape) {
        precondition(shapes.map(\.queries) == queries.numbering.lengths && shapes.map(\.keys) == keys.numbering.lengths)
        precondition(queries.rankCount == keys.rankCount)
        self.shapes = shapes
        self.queries = queries
        self.keys = keys
        self.mask = mask
        self.heads = heads
        operation = .attend(heads)
        topology = Topology(separate: queries.rankCount)
    }

    /// Deals the sequences out to ranks.
    /// - Parameters:
    ///   - shapes: the sequences of the batch.
    ///   - mask: which keys of its own sequence each query sees.
    ///   - heads: the heads of queries, keys and values, and their widths.
    ///   - layout: how tiles are dealt out.
    ///   - rankCount: how many ranks they are dealt out to.
    ///   - denseFlopPerToken: floating-point operations of a token in everything but attention, for `balanced`.
    ///   - speeds: the ranks' relative speeds, for `balanced`.
    public init(
        shapes: [SequenceShape], mask: Mask, heads: HeadShape, layout: Layout, rankCount: Int,
        denseFlopPerToken: Double = 0, speeds: [Double]? = nil
    ) {
        let costs =
            layout == .balanced
            ? Self.costs(shapes: shapes, mask: mask, heads: heads, denseFlopPerToken: denseFlopPerToken) : nil
        let queries = Sharding(
            lengths: shapes.map(\.queries), layout: layout, rankCount: rankCount, costs: costs, speeds: speeds)
        // Self-attention: a token's keys live where its queries do.
        let isSelf = shapes.allSatisfy { $0.queries == $0.keys }
        let keys =
            isSelf
            ? queries : Sharding(lengths: shapes.map(\.keys), layout: layout, rankCount: rankCount, speeds: speeds)
        self.init(shapes: shapes, queries: queries, keys: keys, mask: mask, heads: heads)
    }

    /// The modelled cost of every query tile: the operations of attention to its visible pairs and of its tokens' dense
    /// layers.
    public static func costs(
        shapes: [SequenceShape], mask: Mask, heads: HeadShape, denseFlopPerToken: Double = 0
    ) -> [Double] {
        let flopPerPair = Double(OperationShape.attend(heads).flopPerPair * heads.queryHeads)
        return shapes.flatMap { shape in
            (0..<TileGrid.count(length: shape.queries)).map { tile in
                let tokens = TileGrid.tokens(of: tile, length: shape.queries).count
                return Double(mask.visiblePairs(queryTile: tile, in: shape)) * flopPerPair + Double(tokens)
                    * denseFlopPerToken
            }
        }
    }

    /// Makes it an attention with other heads.
    mutating func attend(_ heads: HeadShape) {
        self.heads = heads
        operation = .attend(heads)
    }

    /// How many ranks the tiles are dealt out to; some may have none.
    public var rankCount: Int { queries.rankCount }

    /// The key tiles, by their number in the batch, that a query tile (by its number) sees.
    public func visibleTiles(queryTile: Int) -> VisibleTiles {
        let sequence = queries.numbering.sequence(of: queryTile)
        let visible = mask.keyTiles(queryTile: queryTile - queries.numbering.firstTile[sequence], in: shapes[sequence])
        return visible.shifted(by: keys.numbering.firstTile[sequence])
    }

    /// The key tiles that the queries of a rank need.
    public func dependencies(of rank: Rank) -> Runs {
        Runs(queries.tiles(of: rank).flatMap { visibleTiles(queryTile: $0).any.ranges })
    }

    /// Floating-point operations of the visible pairs.
    public var visibleFlop: Double {
        shapes.reduce(0) { $0 + Double(mask.visiblePairs(in: $1)) } * Double(operation.flopPerPair * heads.queryHeads)
    }

    /// Bytes in memory of what is packed of some key tiles, of one head.
    public func packedBytes(of tiles: Runs, _ columns: OperationShape.Columns = .keysAndValues) -> Int {
        let packed = PackedTile(heads, element)
        return tiles.reduce(0) { $0 + packed.floats(of: columns, capacity: keys.numbering.capacity(of: $1)) * 4 }
    }

    /// The query rows of some tiles.
    public func rows(of tiles: Runs) -> Int {
        tiles.reduce(0) { $0 + queries.numbering.tokens(of: $1).count }
    }

    /// The heads that the column results of some query heads belong to.
    public func columnResultHeads(of queryHeads: Range<Int>) -> Range<Int> {
        operation.columnResultHeads == .query ? queryHeads : heads.keyValueHeads(of: queryHeads)
    }
}
