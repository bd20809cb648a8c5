// The tile: up to 256 consecutive tokens of one sequence, the unit of sharding, masks, merges and messages.

/// The grid that cuts a sequence of tokens at 0, 256, 512, …
///
/// The size is one constant of the program: every reduction over tokens merges per-tile values on the
/// fixed tree, so another size would give other bits. Measured alternatives: 128 doubles the number
/// of merges; 256 keeps the K and V of a tile and head (d = 64) in 128 KiB, inside an L2 cache.
public enum TileGrid {
    /// The tokens of a full tile.
    public static let tileSize = 256

    /// The number of tiles of a sequence of `length` tokens; none for an empty one.
    @inlinable public static func count(length: Int) -> Int { (length + tileSize - 1) / tileSize }

    /// The tokens that tile `tile` of a sequence of `length` tokens holds; the last tile may be shorter.
    @inlinable public static func tokens(of tile: Int, length: Int) -> Range<Int> {
        tile * tileSize..<min((tile + 1) * tileSize, length)
    }

    /// The tokens that a non-empty run of tiles of a sequence of `length` tokens holds.
    @inlinable public static func tokens(of tiles: Range<Int>, length: Int) -> Range<Int> {
        tiles.lowerBound * tileSize..<min(tiles.upperBound * tileSize, length)
    }

    /// The tiles that hold at least one of the given tokens.
    @inlinable public static func tiles(covering tokens: Range<Int>) -> Range<Int> {
        let first = tokens.lowerBound / tileSize
        return first..<(tokens.isEmpty ? first : (tokens.upperBound - 1) / tileSize + 1)
    }
}

/// The tiles of several sequences (the documents of a batch), numbered one after another. The grid
/// restarts at every sequence, so no tile spans two.
///
/// A sequence that is to grow has numbers for all tokens that it has room for: its tiles keep their numbers, and those
/// that have no tokens yet are empty.
public struct TileNumbering: Sendable, Equatable {
    /// The token counts of the sequences.
    public let lengths: [Int]
    /// The tokens that each sequence has room for: its length, unless it is to grow.
    public let capacities: [Int]
    /// `firstTile[s]` is the number of the first tile of sequence `s`; one more element than sequences.
    public let firstTile: [Int]

    /// - Parameters:
    ///   - lengths: the tokens of each sequence.
    ///   - capacities: the tokens that each sequence has room for, at least its length; nil: just its length.
    public init(lengths: [Int], capacities: [Int]? = nil) {
        let capacities = capacities ?? lengths
        precondition(
            capacities.count == lengths.count && zip(lengths, capacities).allSatisfy { $0 <= $1 },
            "room for every token")
        self.lengths = lengths
        self.capacities = capacities
        var next = 0
        firstTile =
            [0]
            + capacities.map { length in
                next += TileGrid.count(length: length)
                return next
            }
    }

    /// The number of tiles of all sequences together.
    public var tileCount: Int { firstTile[firstTile.count - 1] }

    /// The sequence that a tile belongs to.
    public func sequence(of tile: Int) -> Int {
        var low = 0
        var high = lengths.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if firstTile[middle] <= tile { low = middle } else { high = middle }
        }
        // Empty sequences own no tile: their first tile is that of the next one.
        return low
    }

    /// The numbers of the tiles of one sequence.
    public func tiles(of sequence: Int) -> Range<Int> { firstTile[sequence]..<firstTile[sequence + 1] }

    /// The tokens of a tile, as positions in its own sequence.
    public func tokens(of tile: Int) -> Range<Int> {
        let sequence = sequence(of: tile)
        let first = (tile - firstTile[sequence]) * TileGrid.tileSize
        return first..<max(first, min(first + TileGrid.tileSize, lengths[sequence]))
    }

    /// The tokens that a tile has room for.
    public func capacity(of tile: Int) -> Int {
        let sequence = sequence(of: tile)
        return TileGrid.tokens(of: tile - firstTile[sequence], length: capacities[sequence]).count
    }
}
