// Which keys a query sees, as runs of keys and of key tiles; never as pairs.

import Tiles

/// Which keys each query sees.
///
/// Query row `r` stands at position `i = r + (keys − queries)`: masks are aligned at the bottom right,
/// for self- and cross-attention alike.
public enum Mask: Hashable, Sendable {
    /// Every query sees every key.
    case full
    /// Keys `j ≤ i`.
    case causal

    /// The keys that query `row` sees.
    public func visibleKeys(row: Int, in shape: SequenceShape) -> Range<Int> {
        switch self {
        case .full: 0..<shape.keys
        case .causal: 0..<max(0, min(shape.keys, row + shape.offset + 1))
        }
    }

    /// The keys that at least one, and the keys that every one, of consecutive query rows sees.
    func bounds(rows: Range<Int>, in shape: SequenceShape) -> (any: Runs, all: Runs) {
        let first = visibleKeys(row: rows.lowerBound, in: shape)
        let last = visibleKeys(row: rows.upperBound - 1, in: shape)
        // Both masks only ever widen from one row to the next.
        return (any: Runs(last), all: Runs(first))
    }

    /// The key tiles that a query tile sees.
    public func keyTiles(queryTile: Int, in shape: SequenceShape) -> VisibleTiles {
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        guard !rows.isEmpty, shape.keys > 0 else { return VisibleTiles(any: Runs(), all: Runs()) }
        let bounds = bounds(rows: rows, in: shape)
        var any = Runs()
        for range in bounds.any.ranges { any.append(TileGrid.tiles(covering: range)) }
        var all = Runs()
        for range in bounds.all.ranges {
            let first = (range.lowerBound + TileGrid.tileSize - 1) / TileGrid.tileSize
            // The last tile is whole as soon as the run reaches the end of the keys.
            let end = range.upperBound == shape.keys ? TileGrid.count(length: shape.keys) : range.upperBound / TileGrid.tileSize
            if first < end { all.append(first..<end) }
        }
        return VisibleTiles(any: any, all: all)
    }

    /// How many (query, key) pairs of a sequence are visible.
    public func visiblePairs(in shape: SequenceShape) -> Int {
        switch self {
        case .full: return shape.queries * shape.keys
        case .causal:
            // Rows at position i ≥ 0 see i + 1 keys.
            let first = max(0, shape.offset)
            let last = shape.keys - 1
            return last < first ? 0 : (first + 1 + last + 1) * (last - first + 1) / 2
        }
    }
}

/// The key tiles that a query tile sees, by their index in the sequence.
public struct VisibleTiles: Hashable, Sendable {
    /// Tiles of which at least one key is seen by at least one row (a superset where cheaper to tell).
    public let any: Runs
    /// Tiles of which every key is seen by every row.
    public let all: Runs

    public init(any: Runs, all: Runs) {
        self.any = any
        self.all = all
    }

    /// The same tiles, their numbers moved by `offset`.
    public func shifted(by offset: Int) -> VisibleTiles {
        VisibleTiles(any: any.shifted(by: offset), all: all.shifted(by: offset))
    }
}

/// The visible pairs of one query tile and one key tile as bits: the mask operand of the kernels.
public struct TileMask: ~Copyable {
    /// Words of a row: bit `c` of word `p` stands for key `64·p + c` of the tile.
    public static let wordsPerRow = TileGrid.tileSize / 64
    let words: UnsafeMutablePointer<UInt64>

    public init() { words = .allocate(capacity: TileGrid.tileSize * Self.wordsPerRow) }

    deinit { words.deallocate() }

    /// Fills in the bits for a pair of tiles of one sequence.
    public func fill(_ mask: Mask, queryTile: Int, keyTile: Int, in shape: SequenceShape) {
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
        for row in rows {
            let rowWords = words + (row - rows.lowerBound) * Self.wordsPerRow
            rowWords.update(repeating: 0, count: Self.wordsPerRow)
            let visible = mask.visibleKeys(row: row, in: shape).clamped(to: keys)
            Self.setBits(visible.lowerBound - keys.lowerBound..<visible.upperBound - keys.lowerBound, rowWords)
        }
    }

    private static func setBits(_ range: Range<Int>, _ words: UnsafeMutablePointer<UInt64>) {
        var start = range.lowerBound
        while start < range.upperBound {
            let end = min(range.upperBound, (start | 63) + 1)
            let ones = UInt64.max >> UInt64(64 - (end - start))
            words[start >> 6] |= ones << UInt64(start & 63)
            start = end
        }
    }
}
