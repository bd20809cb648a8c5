// Which keys a query sees, as an algebra over ranges of keys; pairs are never materialised.

import Tiles

/// Which keys each query sees.
///
/// Query row `r` stands at position `i = r + (keys − queries)`: masks are aligned at the bottom right, for self- and
/// cross-attention alike. Keys `j` count from 0.
public indirect enum Mask: Hashable, Sendable {
    /// Every query sees every key.
    case full
    /// Keys `j ≤ i`.
    case causal
    /// Keys `i − left ≤ j ≤ i + right`; −1 is without limit.
    case window(left: Int, right: Int)
    /// Queries of a document see the keys of the same document.
    case documents(DocumentMask)
    /// Keys `j < n`.
    case prefix(Int)
    /// The listed tokens see every key, and every query sees them. For self-attention only.
    case global(Runs)
    /// Blocks of equally many rows and keys, each seen or not.
    case blocks(BlockMask)
    case not(Mask)
    case and(Mask, Mask)
    case or(Mask, Mask)

    /// Whether a query row sees a key, both counted in the whole sequence: the definition.
    public func sees(row: Int, key: Int, in shape: SequenceShape) -> Bool {
        let position = row + shape.offset
        switch self {
        case .full: return true
        case .causal: return key <= position
        case .window(let left, let right):
            return (left < 0 || key >= position - left) && (right < 0 || key <= position + right)
        case .documents(let documents): return documents.sees(row: row, key: key)
        case .prefix(let count): return key < count
        case .global(let tokens): return tokens.contains(row) || tokens.contains(key)
        case .blocks(let blocks): return blocks.sees(row: row, key: key)
        case .not(let mask): return !mask.sees(row: row, key: key, in: shape)
        case .and(let left, let right):
            return left.sees(row: row, key: key, in: shape) && right.sees(row: row, key: key, in: shape)
        case .or(let left, let right):
            return left.sees(row: row, key: key, in: shape) || right.sees(row: row, key: key, in: shape)
        }
    }

    /// Whether the mask is made of others, so that what is known of its parts may be too little to classify a tile.
    private var isCompound: Bool {
        switch self {
        case .and, .or: true
        case .not(let mask): mask.isCompound
        default: false
        }
    }

    /// Whether a pair is visible or not by the distance j − i alone.
    var looksAtDistanceOnly: Bool {
        switch self {
        case .full, .causal, .window: true
        case .documents, .prefix, .global, .blocks: false
        case .not(let mask): mask.looksAtDistanceOnly
        case .and(let left, let right), .or(let left, let right): left.looksAtDistanceOnly && right.looksAtDistanceOnly
        }
    }

    /// The keys of the whole that at least one, and that every one, of consecutive rows of the whole sees. Exact for a
    /// simple mask; for a compound one `any` may hold more, and `all` fewer.
    func bounds(rows: Range<Int>, in shape: SequenceShape) -> (any: Runs, all: Runs) {
        let keys = 0..<shape.wholeKeys
        let first = rows.lowerBound + shape.offset
        let last = rows.upperBound - 1 + shape.offset
        func upTo(_ end: Int) -> Runs { Runs(0..<max(0, min(end, shape.wholeKeys))) }
        switch self {
        case .full: return (Runs(keys), Runs(keys))
        case .causal: return (upTo(last + 1), upTo(first + 1))
        case .window(let left, let right):
            func range(_ low: Int, _ high: Int) -> Runs {
                let start = left < 0 ? 0 : max(0, low - left)
                let end = right < 0 ? shape.wholeKeys : min(shape.wholeKeys, high + right + 1)
                return Runs(start..<max(start, end))
            }
            return (range(first, last), range(last, first))
        case .documents(let documents): return documents.bounds(rows: rows)
        case .prefix(let count): return (upTo(count), upTo(count))
        case .global(let tokens):
            let seen = tokens.intersection(keys)
            return (
                any: tokens.intersects(rows) ? Runs(keys) : seen,
                all: tokens.intersection(rows).count == rows.count ? Runs(keys) : seen
            )
        case .blocks(let blocks): return blocks.bounds(rows: rows, keyCount: shape.wholeKeys)
        case .not(let mask):
            let inner = mask.bounds(rows: rows, in: shape)
            return (any: inner.all.complement(in: keys), all: inner.any.complement(in: keys))
        case .and(let left, let right):
            let (a, b) = (left.bounds(rows: rows, in: shape), right.bounds(rows: rows, in: shape))
            return (any: a.any.intersection(b.any), all: a.all.intersection(b.all))
        case .or(let left, let right):
            let (a, b) = (left.bounds(rows: rows, in: shape), right.bounds(rows: rows, in: shape))
            return (any: a.any.union(b.any), all: a.all.union(b.all))
        }
    }

    /// What a row of the whole sees of a tile of keys: bit c stands for the tile's key c.
    func bits(row: Int, keys: Range<Int>, in shape: SequenceShape) -> TileBits {
        let position = row + shape.offset
        switch self {
        case .full: return TileBits(0..<keys.count)
        case .causal: return TileBits(clamping: 0..<max(0, position + 1), to: keys)
        case .window(let left, let right):
            let start = left < 0 ? keys.lowerBound : position - left
            let end = right < 0 ? keys.upperBound : position + right + 1
            return TileBits(clamping: start..<max(start, end), to: keys)
        case .documents(let documents): return TileBits(clamping: documents.keys(ofRow: row), to: keys)
        case .prefix(let count): return TileBits(clamping: 0..<max(0, count), to: keys)
        case .global(let tokens):
            if tokens.contains(row) { return TileBits(0..<keys.count) }
            return tokens.intersection(keys).ranges.reduce(TileBits()) { $0.union(TileBits(clamping: $1, to: keys)) }
        case .blocks(let blocks): return blocks.bits(row: row, keys: keys)
        case .not(let mask): return TileBits(0..<keys.count).subtracting(mask.bits(row: row, keys: keys, in: shape))
        case .and(let left, let right):
            return left.bits(row: row, keys: keys, in: shape).intersection(right.bits(row: row, keys: keys, in: shape))
        case .or(let left, let right):
            return left.bits(row: row, keys: keys, in: shape).union(right.bits(row: row, keys: keys, in: shape))
        }
    }

    /// The key tiles that a query tile sees.
    public func keyTiles(queryTile: Int, in shape: SequenceShape) -> VisibleTiles {
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        guard !rows.isEmpty, shape.keys > 0 else { return VisibleTiles(any: Runs(), all: Runs()) }
        let whole = bounds(rows: rows.lowerBound + shape.firstQuery..<rows.upperBound + shape.firstQuery, in: shape)
        let piece = shape.firstKey..<shape.firstKey + shape.keys
        var any = Runs()
        for range in whole.any.intersection(piece).shifted(by: -shape.firstKey).ranges {
            any.append(TileGrid.tiles(covering: range))
        }
        var all = Runs()
        for range in whole.all.intersection(piece).shifted(by: -shape.firstKey).ranges {
            let first = (range.lowerBound + TileGrid.tileSize - 1) / TileGrid.tileSize
            // The last tile is whole as soon as the run reaches the end of the keys.
            let end =
                range.upperBound == shape.keys
                ? TileGrid.count(length: shape.keys) : range.upperBound / TileGrid.tileSize
            if first < end { all.append(first..<end) }
        }
        guard isCompound else { return VisibleTiles(any: any, all: all) }
        // Look into the tiles of which the parts alone do not tell.
        var exactAny = all
        for tile in any.subtracting(all) {
            let visible = visiblePairs(queryTile: queryTile, keyTile: tile, in: shape)
            if visible > 0 { exactAny = exactAny.union(Runs(tile..<tile + 1)) }
            if visible == rows.count * TileGrid.tokens(of: tile, length: shape.keys).count {
                all = all.union(Runs(tile..<tile + 1))
            }
        }
        return VisibleTiles(any: exactAny, all: all)
    }

    /// How many pairs of a query tile and a key tile are visible, by looking at every row.
    private func visiblePairs(queryTile: Int, keyTile: Int, in shape: SequenceShape) -> Int {
        let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
        let wholeKeys = keys.lowerBound + shape.firstKey..<keys.upperBound + shape.firstKey
        return TileGrid.tokens(of: queryTile, length: shape.queries).reduce(0) {
            $0 + bits(row: $1 + shape.firstQuery, keys: wholeKeys, in: shape).count
        }
    }

    /// How many (query, key) pairs of a query tile are visible.
    public func visiblePairs(queryTile: Int, in shape: SequenceShape) -> Int {
        let visible = keyTiles(queryTile: queryTile, in: shape)
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries).count
        let whole = visible.all.ranges.reduce(0) { $0 + TileGrid.tokens(of: $1, length: shape.keys).count } * rows
        return visible.any.subtracting(visible.all).reduce(whole) {
            $0 + visiblePairs(queryTile: queryTile, keyTile: $1, in: shape)
        }
    }

    /// How many (query, key) pairs of a sequence are visible.
    public func visiblePairs(in shape: SequenceShape) -> Int {
        (0..<TileGrid.count(length: shape.queries)).reduce(0) { $0 + visiblePairs(queryTile: $1, in: shape) }
    }
}

/// The key tiles that a query tile sees, by their index in the sequence.
public struct VisibleTiles: Hashable, Sendable {
    /// Tiles of which at least one key is seen by at least one row.
    public let any: Runs
    /// Tiles of which every key is seen by every row.
    public let all: Runs

    /// - Parameters:
    ///   - any: tiles of which at least one key is seen by at least one row, those of `all` among them.
    ///   - all: tiles of which every key is seen by every row.
    public init(any: Runs, all: Runs) {
        self.any = any
        self.all = all
    }

    /// The same tiles, their numbers moved by `offset`.
    public func shifted(by offset: Int) -> VisibleTiles {
        VisibleTiles(any: any.shifted(by: offset), all: all.shifted(by: offset))
    }
}
