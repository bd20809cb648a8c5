// The scores of a query tile against a key tile, strip by strip: what every operation recomputes in the same way.

import CKernels
import Matrices
import Tiles

/// One thread's scores: the loaded queries, and a strip of rows at a time against a key tile.
///
/// In order: relative positions, scale, softcap, bias; then the mask, which is handed on as bits.
final class TileScores {
    /// A strip has the microkernel's own rows, so that what none of them sees is skipped.
    static let stripRows = 6
    /// From one row of scores to the next.
    static let stride = TileGrid.tileSize

    /// Some rows against a key tile.
    struct Strip {
        /// The first row, and how many.
        let row: Int
        let rows: Int
        /// What each row sees, `TileMask.wordsPerRow` words a row; nil: every key.
        let bits: UnsafePointer<UInt64>?
    }

    let heads: HeadShape
    let layout: PackedTile
    let arithmetic: TileArithmetic
    let modifiers: ScoreModifiers
    /// Scores of a strip, or scratch of the fused kernel: up to 12 rows.
    let buffer = AlignedBuffer(count: 12 * TileGrid.tileSize)
    /// The loaded queries as operands.
    let queries: AlignedBuffer
    /// What the scores of these operands have still to be multiplied by; see `TileArithmetic.load`.
    private(set) var scale: Float = 1
    private(set) var head = 0
    private let mask: Mask
    private var masks: TileMaskCache
    private let positions: PositionScores?
    private var contents: PositionContents?

    init(heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, kernels: KernelSet) {
        self.heads = heads
        self.mask = mask
        self.modifiers = modifiers
        masks = TileMaskCache(mask)
        let layout = PackedTile(heads, element)
        let arithmetic = TileArithmetic(layout: layout, modified: !modifiers.leavesScores, kernels: kernels)
        self.layout = layout
        self.arithmetic = arithmetic
        queries = AlignedBuffer(count: TileGrid.tileSize * layout.queryStride)
        positions = modifiers.relativePositions.map {
            PositionScores($0, rows: Self.stripRows, layout: layout, arithmetic: arithmetic)
        }
    }

    /// Takes the queries of one tile and head.
    func load(_ queries: TileRows.Plane, rows: Int, head: Int, of call: TileCall) {
        precondition((call.contents != nil) == (positions != nil), "relative positions come with their contents")
        self.head = head
        contents = call.contents
        scale = arithmetic.load(
            queries: queries.rows, stride: queries.stride, rows: rows, scale: call.scale, into: self.queries.pointer)
    }

    /// Makes the scores of every strip of a pair, one after another, and calls `body` with each: row r of the strip is
    /// at `buffer.pointer + r · stride`. Of keys that no row of the strip sees, in whole granules, there are none.
    func forEachStrip(of pair: TilePair, _ body: (Strip) -> Void) {
        let (keys, rows, distance) = (pair.keys.count, pair.rows.count, pair.distance)
        let visible =
            pair.isWhole ? nil : masks.mask(mask, queryTile: pair.queryTile, keyTile: pair.keyTile, in: pair.sequence)
        if let positions, let contents {
            positions.load(
                contents, head: head, tile: pair.columns, keys: keys, capacity: pair.capacity, rows: rows,
                distance: distance)
        }
        withExtendedLifetime(visible) {
            for row in Swift.stride(from: 0, to: rows, by: Self.stripRows) {
                let strip = Strip(
                    row: row, rows: min(Self.stripRows, rows - row),
                    bits: visible.map { UnsafePointer($0.words + row * TileMask.wordsPerRow) })
                score(strip, pair, keys: keys, distance: distance - row)
                body(strip)
            }
        }
    }

    /// - Parameter distance: position of the tile's first key minus that of the strip's first row.
    private func score(_ strip: Strip, _ pair: TilePair, keys: Int, distance: Int) {
        let operands = queries.pointer + strip.row * layout.queryStride
        if let positions, let contents { positions.load(contents, head: head, queries: operands, rows: strip.rows) }
        for key in Swift.stride(from: 0, to: keys, by: PackedTile.panelWidth) {
            let width = layout.width(at: key, of: pair.capacity)
            let any = strip.seen(key..<min(key + PackedTile.panelWidth, keys)).any
            if any == 0 { continue }
            // From the first granule that is seen to the last.
            let first = key + any.trailingZeroBitCount & ~15
            let last = key + min(width, (64 - any.leadingZeroBitCount + 15) & ~15)
            arithmetic.scores(
                operands, rows: strip.rows, panel: pair.columns + key * layout.queryStride + (first - key),
                width: width,
                columns: last - first, into: buffer.pointer + first, stride: Self.stride)
            let there = first..<min(last, keys)
            if let positions, let contents {
                positions.add(
                    contents, to: buffer.pointer, stride: Self.stride, row: strip.row, rows: strip.rows, keys: there)
            }
            modify(rows: strip.rows, keys: there, distance: distance)
        }
    }

    /// What is left of the scale, cap and biases of some keys' scores.
    private func modify(rows: Int, keys: Range<Int>, distance: Int) {
        if modifiers.leavesScores { return }
        let slope = modifiers.alibiSlopes?[head] ?? 0
        func call(_ bias: UnsafePointer<Float>?, _ reach: Int) {
            arithmetic.modify(
                buffer.pointer + keys.lowerBound, stride: Self.stride, rows: rows, keys: keys.count, scale: scale,
                cap: modifiers.softcap ?? 0,
                bias: bias, reach: reach, slope: slope, distance: distance + keys.lowerBound)
        }
        guard let relative = modifiers.relativeBias else { return call(nil, 0) }
        relative.table.withUnsafeBufferPointer { table in
            call(table.baseAddress.map { $0 + head * (2 * relative.reach + 1) }, relative.reach)
        }
    }
}

extension TileScores.Strip {
    /// Which of some keys any row, and which all rows of the strip see, bit c for key `keys.lowerBound + c`. They lie
    /// within 64 keys from a multiple of 64 on.
    func seen(_ keys: Range<Int>) -> (any: UInt64, all: UInt64) {
        let inside = UInt64.max >> UInt64(64 - keys.count)
        guard let bits else { return (inside, inside) }
        var any: UInt64 = 0
        var all = UInt64.max
        for row in 0..<rows {
            let word = bits[row * TileMask.wordsPerRow + keys.lowerBound / 64] >> UInt64(keys.lowerBound % 64)
            any |= word
            all &= word
        }
        return (any & inside, all & inside)
    }
}
