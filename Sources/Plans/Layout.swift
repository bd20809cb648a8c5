// Which rank holds which tiles.

import Tiles

/// How the tiles of a batch are dealt out to ranks.
public enum Layout: String, CaseIterable, Sendable {
    /// One run of consecutive tiles a rank.
    case contiguous
    /// Two runs a rank, one from each end (rank 0 the first and the last, and so on), which evens out causal masks
    /// (Brandon et al. 2023, *Striped Attention*; zhuzilin's zigzag ring).
    case zigzag
}

/// The owner of every tile of a batch: at most two runs of consecutive tiles a rank.
///
/// The batch's tiles are numbered through (`TileNumbering`) and cut into chunks of nearly equal token
/// counts; a rank may be left without any. A pure function of its arguments.
public struct Sharding: Sendable, Equatable {
    public let numbering: TileNumbering
    public let rankCount: Int
    public let layout: Layout
    /// Chunk `c` holds the tiles `bounds[c]..<bounds[c + 1]`.
    private let bounds: [Int]

    public init(lengths: [Int], layout: Layout, rankCount: Int) {
        precondition(rankCount > 0)
        let numbering = TileNumbering(lengths: lengths)
        self.numbering = numbering
        self.rankCount = rankCount
        self.layout = layout
        let chunks = layout == .zigzag ? 2 * rankCount : rankCount
        let total = lengths.reduce(0, +)
        var bounds = [0]
        var before = 0
        var tile = 0
        // A tile goes to the chunk that its middle token falls into.
        for length in lengths {
            for index in 0..<TileGrid.count(length: length) {
                let tokens = TileGrid.tokens(of: index, length: length).count
                let chunk = (2 * before + tokens) * chunks / (2 * total)
                while bounds.count <= chunk { bounds.append(tile) }
                before += tokens
                tile += 1
            }
        }
        while bounds.count <= chunks { bounds.append(tile) }
        self.bounds = bounds
    }

    /// The tiles of a rank, in ascending order.
    public func tiles(of rank: Rank) -> Runs {
        switch layout {
        case .contiguous:
            return Runs(bounds[rank.index]..<bounds[rank.index + 1])
        case .zigzag:
            let mirror = 2 * rankCount - 1 - rank.index
            return Runs([bounds[rank.index]..<bounds[rank.index + 1], bounds[mirror]..<bounds[mirror + 1]])
        }
    }

    /// The rank that holds a tile.
    public func owner(of tile: Int) -> Rank {
        var low = 0
        var high = bounds.count - 1
        while high - low > 1 {
            let middle = (low + high) / 2
            if bounds[middle] <= tile { low = middle } else { high = middle }
        }
        return Rank(low < rankCount ? low : 2 * rankCount - 1 - low)
    }

    /// The number of tokens that a rank holds.
    public func tokenCount(of rank: Rank) -> Int {
        tiles(of: rank).ranges.reduce(0) { sum, run in
            run.reduce(sum) { $0 + numbering.tokens(of: $1).count }
        }
    }
}
