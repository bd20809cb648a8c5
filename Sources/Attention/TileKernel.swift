// The driver of the tile kernel: one query tile against one packed key tile, for one head.

import CAttentionKernels
import Matrices
import Tiles

/// How the keys and values of one tile and head lie in memory, which is also how they travel: K
/// transposed in panels of 64 keys, then V in panels of 64 channels (see `annulus_kernels.h`).
public struct PackedTile: Sendable, Hashable {
    public let headDimension: Int
    public let valueDimension: Int
    /// What keys and values are stored in. In bfloat16 a float's place holds a pair along the depth of the product: two
    /// channels of a key, or two keys of a channel of values.
    public let element: ElementKind

    public init(_ heads: HeadShape, _ element: ElementKind = .float32) {
        headDimension = heads.headDimension
        valueDimension = heads.valueDimension
        self.element = element
    }

    @inlinable func padded(_ n: Int) -> Int { (n + 15) & ~15 }

    /// From one row of query operands to the next, in floats.
    var queryStride: Int { element.slots(headDimension) }
    /// The floats of the K panels of a tile of `keys` keys.
    public func keyFloats(keys: Int) -> Int { padded(keys) * element.slots(headDimension) }
    /// The floats of the V panels of a tile of `keys` keys.
    public func valueFloats(keys: Int) -> Int { element.slots(keys) * padded(valueDimension) }
    /// The floats of both, rounded up so that every tile starts on a cache line.
    public func floats(keys: Int) -> Int { keyFloats(keys: keys) + padded(valueFloats(keys: keys)) }

    /// Packs some consecutive rows of a tile.
    /// - Parameters:
    ///   - rows: which rows of the tile; starts at a multiple of 64, and ends at one or at the tile's end.
    ///   - tileKeys: the tile's token count.
    ///   - keys, values: row-major, their first row being `rows.lowerBound`.
    ///   - tile: the packed tile, `floats(keys: tileKeys)` floats.
    public func pack(
        rows: Range<Int>, tileKeys: Int,
        keys: UnsafePointer<Float>, keyStride: Int, values: UnsafePointer<Float>, valueStride: Int,
        into tile: UnsafeMutablePointer<Float>, kernels: KernelSet
    ) {
        let functions = kernels.functions
        let bfloat16 = kernels.bfloat16Functions
        packKeys(rows: rows.count, keys, stride: keyStride, into: tile + rows.lowerBound * element.slots(headDimension), kernels: kernels)
        let packedValues = tile + keyFloats(keys: tileKeys)
        for column in stride(from: 0, to: valueDimension, by: 64) {
            let columns = min(64, valueDimension - column)
            let panel = packedValues + column * element.slots(tileKeys) + element.slots(rows.lowerBound) * padded(columns)
            switch element {
            case .float32: functions.pack_columns(values + column, valueStride, rows.count, columns, panel)
            case .bfloat16: bfloat16.pack_columns(values + column, valueStride, rows.count, columns, panel)
            }
        }
    }
}

extension PackedTile {
    /// Packs keys alone, from the start of a panel on.
    func packKeys(rows: Int, _ keys: UnsafePointer<Float>, stride: Int, into panels: UnsafeMutablePointer<Float>, kernels: KernelSet) {
        switch element {
        case .float32: kernels.functions.pack_transposed(keys, stride, rows, headDimension, panels)
        case .bfloat16: kernels.bfloat16Functions.pack_transposed(keys, stride, rows, headDimension, panels)
        }
    }
}

/// One thread's tile kernel: its scratch memory and the call sequence over the C microkernels.
public final class TileKernel {
    /// The rows of scores that the fused kernel keeps at a time.
    private static let fusedRows = 12
    /// Masked tiles go in the microkernel's own strips, so that what no row of a strip sees is skipped.
    private static let maskedRows = 6

    private let heads: HeadShape
    private let layout: PackedTile
    private let arithmetic: TileArithmetic
    private var scale: Float = 1
    private let scores: AlignedBuffer
    private let queries: AlignedBuffer
    private var masks: TileMaskCache
    private let mask: Mask
    private let modifiers: ScoreModifiers
    private var head = 0
    private let positions: PositionScores?
    private var contents: PositionContents?

    public init(
        heads: HeadShape, element: ElementKind = .float32, mask: Mask, modifiers: ScoreModifiers = ScoreModifiers(),
        kernels: KernelSet
    ) {
        self.heads = heads
        self.mask = mask
        masks = TileMaskCache(mask)
        self.modifiers = modifiers
        layout = PackedTile(heads, element)
        arithmetic = TileArithmetic(layout: layout, modified: !modifiers.leavesScores, kernels: kernels)
        scores = AlignedBuffer(count: Self.fusedRows * TileGrid.tileSize)
        queries = AlignedBuffer(count: TileGrid.tileSize * layout.queryStride)
        let (layout, arithmetic) = (layout, arithmetic)
        positions = modifiers.relativePositions.map {
            PositionScores($0, rows: Self.maskedRows, layout: layout, arithmetic: arithmetic)
        }
    }

    /// Takes the queries of one tile and head, multiplied by the score scale, for the calls of `attend` that follow.
    /// - Parameter contents: what the relative positions are to this attention, where its modifiers have them.
    public func load(
        queries source: UnsafePointer<Float>, stride: Int, rows: Int, head: Int, scale: Float, contents: PositionContents? = nil
    ) {
        precondition((contents != nil) == (positions != nil), "relative positions come with their contents")
        self.head = head
        self.contents = contents
        self.scale = arithmetic.load(queries: source, stride: stride, rows: rows, scale: scale, into: queries.pointer)
    }

    /// The partial attention of the loaded queries to a key tile.
    /// - Parameters:
    ///   - tile: the packed key tile of the head.
    ///   - keyTile: its index in the sequence.
    ///   - isWhole: whether every row sees every key; where not, the mask is looked at pair by pair.
    ///   - next: the packed tile that comes next, if it is known: it is fetched into the cache meanwhile.
    public func attend(
        to tile: UnsafePointer<Float>, queryTile: Int, keyTile: Int, in shape: SequenceShape, isWhole: Bool,
        next: UnsafePointer<Float>? = nil, into partial: PartialAttention
    ) {
        let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
        if isWhole && modifiers.leavesScores {
            arithmetic.attend(
                queries.pointer, tile: tile, next: next ?? tile, keys: keys.count, scale: scale, into: partial, scratch: scores.pointer)
            return
        }
        let visible = isWhole ? nil : masks.mask(mask, queryTile: queryTile, keyTile: keyTile, in: shape)
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        let distance = shape.position(ofKey: keys.lowerBound) - shape.position(ofQuery: rows.lowerBound)
        if let positions, let contents {
            positions.load(contents, head: head, tile: tile, keys: keys.count, rows: partial.rows, distance: distance)
        }
        withExtendedLifetime(visible) {
            for row in Swift.stride(from: 0, to: partial.rows, by: Self.maskedRows) {
                attendStrip(
                    row: row, rows: min(Self.maskedRows, partial.rows - row), to: tile, keys: keys.count,
                    bits: visible.map { UnsafePointer($0.words + row * TileMask.wordsPerRow) }, distance: distance - row, into: partial)
            }
        }
    }

    /// Some rows against a tile, step by step; what no row of the strip sees is skipped a panel at a time.
    /// - Parameter distance: position of the tile's first key minus that of the strip's first row.
    private func attendStrip(
        row: Int, rows: Int, to tile: UnsafePointer<Float>, keys: Int, bits: UnsafePointer<UInt64>?, distance: Int,
        into partial: PartialAttention
    ) {
        let values = tile + layout.keyFloats(keys: keys)
        let words = TileMask.wordsPerRow
        if let positions, let contents {
            positions.load(contents, head: head, queries: queries.pointer + row * layout.queryStride, rows: rows)
        }
        for key in Swift.stride(from: 0, to: keys, by: 64) {
            let any = panelBits(bits, rows, key).any
            if any == 0 { continue }
            let granules = Self.granules(any, width: layout.padded(min(64, keys - key)))
            scoreBlock(row: row, rows: rows, key: key, keys: keys, granules: granules, tile: tile)
            if let positions, let contents {
                positions.add(
                    contents, to: scores.pointer, stride: TileGrid.tileSize, row: row, rows: rows,
                    keys: key + granules.lowerBound..<min(key + granules.upperBound, keys))
            }
            modify(
                rows: rows, key: key + granules.lowerBound, keys: min(granules.upperBound, keys - key) - granules.lowerBound,
                distance: distance + key + granules.lowerBound)
        }
        arithmetic.softmax(
            scores.pointer, stride: TileGrid.tileSize, rows: rows, keys: keys, bits: bits, words: words,
            scale: scale, rowMax: partial.rowMax + row, rowSum: partial.rowSum + row)
        forEachValuePanel { column, width in
            let output = partial.output + row * partial.outputStride + column
            let panel = values + column * layout.element.slots(keys)
            var accumulate = false
            func product(_ keys: Range<Int>, _ bits: UnsafePointer<UInt64>?) {
                arithmetic.product(
                    scores.pointer + layout.element.slots(keys.lowerBound), TileGrid.tileSize, rows,
                    panel + layout.element.slots(keys.lowerBound) * width, keys.count, width, output, partial.outputStride,
                    accumulate: accumulate, bits: bits, words: words)
                accumulate = true
            }
            // Panels that every row sees are one product, whose sums stay in registers.
            var open = 0..<0
            for key in Swift.stride(from: 0, to: keys, by: 64) {
                let end = min(key + 64, keys)
                let seen = panelBits(bits, rows, key)
                if seen.any == 0 { continue }
                let everyBit = UInt64.max >> UInt64(64 - (end - key))
                if seen.all & everyBit == everyBit {
                    if open.upperBound != key, !open.isEmpty { product(open, nil) }
                    open = open.upperBound == key && !open.isEmpty ? open.lowerBound..<end : key..<end
                } else {
                    if !open.isEmpty { product(open, nil) }
                    open = 0..<0
                    product(key..<end, bits.map { $0 + key / 64 })
                }
            }
            if !open.isEmpty { product(open, nil) }
            if !accumulate {
                for r in 0..<rows { (output + r * partial.outputStride).update(repeating: 0, count: width) }
            }
        }
    }

    /// The columns of a panel from the first to the last that is seen, in granules of 16.
    private static func granules(_ any: UInt64, width: Int) -> Range<Int> {
        any.trailingZeroBitCount & ~15..<min(width, (64 - any.leadingZeroBitCount + 15) & ~15)
    }

    /// What is left of the scale, cap and biases of one panel of scores.
    private func modify(rows: Int, key: Int, keys: Int, distance: Int) {
        if modifiers.leavesScores { return }
        let slope = modifiers.alibiSlopes?[head] ?? 0
        func call(_ bias: UnsafePointer<Float>?, _ reach: Int) {
            arithmetic.modify(
                scores.pointer + key, stride: TileGrid.tileSize, rows: rows, keys: keys, scale: scale, cap: modifiers.softcap ?? 0,
                bias: bias, reach: reach, slope: slope, distance: distance)
        }
        guard let relative = modifiers.relativeBias else { return call(nil, 0) }
        relative.table.withUnsafeBufferPointer { table in
            call(table.baseAddress.map { $0 + head * (2 * relative.reach + 1) }, relative.reach)
        }
    }

    /// Merges the sink of a head into the whole of a query tile's partials.
    public func mergeSink(of head: Int, into whole: PartialAttention, pool: PartialPool) {
        guard let sink = modifiers.sinks?[head] else { return }
        let part = PartialAttention(rows: whole.rows, from: pool)
        part.rowMax.update(repeating: Float(Double(sink) * ANNULUS_STEPS), count: whole.rows)
        part.rowSum.update(repeating: 1, count: whole.rows)
        part.output.update(repeating: 0, count: whole.rows * part.outputStride)
        whole.merge(right: part)
    }

    /// The scores of some rows against some granules of one panel of keys.
    private func scoreBlock(row: Int, rows: Int, key: Int, keys: Int, granules: Range<Int>, tile: UnsafePointer<Float>) {
        arithmetic.scores(
            queries.pointer + row * layout.queryStride, rows: rows, panel: tile + key * layout.queryStride + granules.lowerBound,
            width: layout.padded(min(64, keys - key)), columns: granules.count,
            into: scores.pointer + key + granules.lowerBound, stride: TileGrid.tileSize)
    }

    /// Which keys of a panel any, and all, of some rows see; without bits, every key.
    private func panelBits(_ bits: UnsafePointer<UInt64>?, _ rows: Int, _ key: Int) -> (any: UInt64, all: UInt64) {
        guard let bits else { return (.max, .max) }
        var any: UInt64 = 0
        var all = UInt64.max
        for row in 0..<rows {
            let word = bits[row * TileMask.wordsPerRow + key / 64]
            any |= word
            all &= word
        }
        return (any, all)
    }

    /// Calls `body` with the first column and the padded width of each panel of value channels.
    private func forEachValuePanel(_ body: (_ column: Int, _ width: Int) -> Void) {
        for column in Swift.stride(from: 0, to: heads.valueDimension, by: 64) {
            body(column, layout.padded(min(64, heads.valueDimension - column)))
        }
    }
}
