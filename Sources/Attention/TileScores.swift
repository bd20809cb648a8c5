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
    /// Scores of a strip, or scratch of the fused kernel.
    let buffer = AlignedBuffer(count: Int(ANNULUS_SCRATCH_ROWS) * TileGrid.tileSize)
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
    /// at `buffer.pointer + r · stride`. Of keys that no row of the strip sees, in whole panels, there are none.
    func forEachStrip(of pair: TilePair, _ body: (Strip) -> Void) {
        let (keys, rows, distance) = (pair.keys.count, pair.rows.count, pair.distance)
        let visible = visible(of: pair)
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
        for key in Swift.stride(from: 0, to: keys, by: PackedTile.productColumns) {
            let any = strip.seen(key..<min(key + PackedTile.productColumns, keys)).any
            if any == 0 { continue }
            // From the first panel that is seen to the last.
            let first = key + any.trailingZeroBitCount & ~15
            let last = key + layout.padded(64 - any.leadingZeroBitCount)
            arithmetic.scores(
                operands, rows: strip.rows, panels: pair.columns + first * layout.queryStride,
                columns: last - first, into: buffer.pointer + first, stride: Self.stride)
            let there = first..<min(last, keys)
            if let positions, let contents {
                positions.add(
                    contents, to: buffer.pointer, stride: Self.stride, row: strip.row, rows: strip.rows, keys: there)
            }
            modify(
                buffer.pointer + there.lowerBound, stride: Self.stride, rows: strip.rows, keys: there.count,
                distance: distance + there.lowerBound)
        }
    }

    /// Which keys the rows of a pair see, where some do not see all.
    func visible(of pair: TilePair) -> TileMask? {
        pair.isWhole ? nil : masks.mask(mask, queryTile: pair.queryTile, keyTile: pair.keyTile, in: pair.sequence)
    }

    /// Makes the scores of some of the loaded rows against the keys of one product, seen or not; without relative positions.
    /// - Parameters:
    ///   - key: the first of them.
    ///   - target: row r of them goes to `target + r · productColumns`.
    ///   - capped: takes the scores as the softcap leaves them, in natural units, before biases; nil where nobody asks.
    func score(
        _ rows: Range<Int>, from key: Int, of pair: TilePair, into target: UnsafeMutablePointer<Float>,
        capped: UnsafeMutablePointer<Float>? = nil
    ) {
        precondition(positions == nil, "relative positions are added strip by strip")
        let (keys, stride) = (min(PackedTile.productColumns, pair.keys.count - key), PackedTile.productColumns)
        arithmetic.scores(
            queries.pointer + rows.lowerBound * layout.queryStride, rows: rows.count,
            panels: pair.columns + key * layout.queryStride, columns: layout.padded(keys), into: target,
            stride: stride)
        modify(
            target, stride: stride, rows: rows.count, keys: keys, distance: pair.distance + key - rows.lowerBound,
            capped: capped)
    }

    /// What is left of the scale, cap and biases of some scores, the first of which are `distance` apart; see `score`.
    private func modify(
        _ scores: UnsafeMutablePointer<Float>, stride: Int, rows: Int, keys: Int, distance: Int,
        capped: UnsafeMutablePointer<Float>? = nil
    ) {
        if modifiers.leavesScores { return }
        var (scale, cap) = (self.scale, modifiers.softcap ?? 0)
        if let capped {
            // In two steps, with the bits of one: times 1 is exact.
            arithmetic.modify(
                scores, stride: stride, rows: rows, keys: keys, scale: scale, cap: cap, bias: nil, reach: 0, slope: 0,
                distance: distance, steps: 1)
            for row in 0..<rows { (capped + row * stride).update(from: scores + row * stride, count: keys) }
            (scale, cap) = (1, 0)
        }
        let slope = modifiers.alibiSlopes?[head] ?? 0
        func call(_ bias: UnsafePointer<Float>?, _ reach: Int) {
            arithmetic.modify(
                scores, stride: stride, rows: rows, keys: keys, scale: scale, cap: cap, bias: bias, reach: reach,
                slope: slope, distance: distance, steps: Float(ANNULUS_STEPS))
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
