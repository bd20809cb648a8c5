// The plan of one rank: what it sends, receives and attends, step by step, and the bytes of it.

import Attention
import Matrices
import Tiles

/// What one rank does in one attention.
///
/// A pure function of the job and the strategy: no rank needs to hear from another to know what it will do. Whatever
/// the strategy, a unit gives the same partials and partials merge on the fixed tree, so the bits are the same too.
public struct Plan: Sendable {
    public let rank: Rank
    public let job: AttentionJob
    public let strategy: Strategy
    public package(set) var steps: [Step]

    init(_ job: AttentionJob, _ strategy: Strategy, rank: Rank, steps: [Step]) {
        self.job = job
        self.strategy = strategy
        self.rank = rank
        self.steps = steps
    }

    /// The bytes that this rank sends.
    public var bytesSent: Int {
        steps.reduce(0) { $0 + $1.sends.reduce(0) { $0 + $1.payloads.reduce(0) { $0 + job.bytes(of: $1) } } }
    }

    /// The messages that this rank sends.
    public var messagesSent: Int { steps.reduce(0) { $0 + $1.sends.count } }
}

extension AttentionJob {
    /// The bytes of what a message carries.
    ///
    /// Keys and values: the packed panels of each tile, once for each key/value head, in half of the bytes where `narrowsWire`. Queries: 4·d a row and head.
    /// Partials: 4·(2 + dv) a row, head and maximal subtree, with dv rounded up to whole vectors of 16.
    public func bytes(of payload: Payload) -> Int {
        switch payload {
        case .keyValues(let tiles, let heads): return packedBytes(of: tiles) * heads.count / (narrowsWire ? 2 : 1)
        case .queries(let tiles, let heads): return rows(of: tiles) * 4 * self.heads.headDimension * heads.count
        case .partials(let units):
            let perRow = 4 * (2 + heads.paddedValueDimension) * units.heads.count
            return units.queries.reduce(0) {
                $0 + queries.numbering.tokens(of: $1).count * perRow * subtrees(of: $1, in: units.keys).count
            }
        }
    }

    /// Bytes of the packed keys and values of some tiles in memory, of one head.
    public func packedBytes(of tiles: Runs) -> Int {
        let packed = PackedTile(heads, element)
        return tiles.reduce(0) { $0 + packed.floats(keys: keys.numbering.tokens(of: $1).count) * 4 }
    }

    /// The query rows of some tiles.
    public func rows(of tiles: Runs) -> Int {
        tiles.reduce(0) { $0 + queries.numbering.tokens(of: $1).count }
    }

    /// The maximal subtrees of a query tile's fixed tree that some key tiles fill, nodes counted within its sequence.
    public func subtrees(of queryTile: Int, in keyTiles: Runs) -> [TreeNode] {
        let first = keys.numbering.firstTile[queries.numbering.sequence(of: queryTile)]
        return TreeNode.maximal(
            in: keyTiles.shifted(by: -first), of: visibleTiles(queryTile: queryTile).any.shifted(by: -first))
    }
}

extension HeadShape {
    /// The key/value heads that some query heads read.
    public func keyValueHeads(of queryHeads: Range<Int>) -> Range<Int> {
        queryHeads.isEmpty ? 0..<0 : queryHeads.lowerBound / groupSize..<(queryHeads.upperBound - 1) / groupSize + 1
    }
}
