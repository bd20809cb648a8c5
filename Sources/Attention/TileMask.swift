// The visible pairs of a query tile and a key tile as bits: the mask operand of the kernels.

import Tiles

/// What one row sees of a tile: a bit for each of up to 256 keys.
struct TileBits {
    private(set) var words: SIMD4<UInt64>

    init() { words = .zero }

    private init(words: SIMD4<UInt64>) { self.words = words }

    /// The bits of a range within 0…256.
    init(_ range: Range<Int>) {
        words = .zero
        for word in 0..<4 {
            let low = max(range.lowerBound, word * 64) - word * 64
            let high = min(range.upperBound, word * 64 + 64) - word * 64
            if low < high { words[word] = (UInt64.max >> UInt64(64 - (high - low))) << UInt64(low) }
        }
    }

    /// The bits of those keys of `range` that lie in the tile `keys`.
    init(clamping range: Range<Int>, to keys: Range<Int>) {
        let inside = range.clamped(to: keys)
        self.init(inside.lowerBound - keys.lowerBound..<inside.upperBound - keys.lowerBound)
    }

    func union(_ other: TileBits) -> TileBits { TileBits(words: words | other.words) }
    func intersection(_ other: TileBits) -> TileBits { TileBits(words: words & other.words) }
    func subtracting(_ other: TileBits) -> TileBits { TileBits(words: words & ~other.words) }

    var count: Int { (0..<4).reduce(0) { $0 + words[$1].nonzeroBitCount } }
}

/// The visible pairs of one query tile and one key tile: rows × 4 words, bit `c` of word `p` for key `64·p + c`.
public final class TileMask {
    static let wordsPerRow = TileGrid.tileSize / 64
    let words: UnsafeMutablePointer<UInt64>

    init(_ mask: Mask, queryTile: Int, keyTile: Int, in shape: SequenceShape) {
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
        let wholeKeys = keys.lowerBound + shape.firstKey..<keys.upperBound + shape.firstKey
        words = .allocate(capacity: max(1, rows.count) * Self.wordsPerRow)
        for row in rows {
            let bits = mask.bits(row: row + shape.firstQuery, keys: wholeKeys, in: shape)
            let target = words + (row - rows.lowerBound) * Self.wordsPerRow
            for word in 0..<Self.wordsPerRow { target[word] = bits.words[word] }
        }
    }

    deinit { words.deallocate() }
}

/// The masks that a thread made last, which the heads of a query tile share, and under a mask that only looks at
/// distances also the tiles that stand to each other alike.
struct TileMaskCache {
    private struct Key: Hashable {
        let rows: Int
        let keys: Int
        let distance: Int
        /// The tile and its sequence, where they matter.
        let place: Place?
    }
    private struct Place: Hashable {
        let queryTile: Int
        let shape: SequenceShape
    }

    private let looksAtDistanceOnly: Bool
    private var masks: [Key: TileMask] = [:]
    private let capacity = 32

    init(_ mask: Mask) { looksAtDistanceOnly = mask.looksAtDistanceOnly }

    mutating func mask(_ mask: Mask, queryTile: Int, keyTile: Int, in shape: SequenceShape) -> TileMask {
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
        let key = Key(
            rows: rows.count, keys: keys.count,
            distance: shape.position(ofKey: keys.lowerBound) - shape.position(ofQuery: rows.lowerBound),
            place: looksAtDistanceOnly ? nil : Place(queryTile: queryTile, shape: shape))
        if let made = masks[key] { return made }
        if masks.count == capacity { masks.removeAll(keepingCapacity: true) }
        let made = TileMask(mask, queryTile: queryTile, keyTile: keyTile, in: shape)
        masks[key] = made
        return made
    }
}
