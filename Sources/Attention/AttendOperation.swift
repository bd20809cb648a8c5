// Attention itself as a tile operation: rows bring queries, columns keys and values, rows get m, ℓ and O.

import CKernels
import Matrices
import Tiles

extension OperationShape {
    /// Attention of these heads.
    public static func attend(_ heads: HeadShape) -> OperationShape {
        OperationShape(
            "attend", rowOperands: [heads.headDimension], columns: .keysAndValues,
            rowResults: PartialAttention.planes(heads),
            // 2·d for a score and 2·dv for its value.
            flopPerPair: 2 * (heads.headDimension + heads.valueDimension))
    }
}

extension TileOperation {
    /// softmax(QKᵀ·scale + bias)V. A ``TileCall/attend(queries:scale:output:logSumExp:rowMax:rowSum:contents:dropout:)`` says
    /// of what.
    /// - Parameters:
    ///   - heads: the heads of queries, keys and values, and their widths.
    ///   - element: what keys and values are stored in.
    ///   - mask: which keys of its own sequence each query sees.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - kernels: those that compute products, softmaxes and merges.
    public static func attend(
        heads: HeadShape, element: ElementKind = .float32, mask: Mask, modifiers: ScoreModifiers = ScoreModifiers(),
        kernels: KernelSet
    ) -> TileOperation {
        TileOperation(.attend(heads), mergeRows: PartialAttention.merge(heads, kernels)) {
            AttendWorker(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        }
    }
}

extension TileCall {
    /// - Parameters:
    ///   - queries: this rank's query rows, unscaled. With the scale they have to stay below 2¹²² in size, for they are
    ///     multiplied by the steps of `annulus_kernels.h`, 46.2, before they meet keys.
    ///   - scale: what scores are multiplied by, 1/√d as a rule.
    ///   - output: where O/ℓ goes; may be the memory of `queries`, a head's rows being written only after their last
    ///     use.
    ///   - logSumExp: where m + ln ℓ goes, if anywhere.
    ///   - rowMax: where m goes, in steps of ln2/32, which `receive` reads. A sink is in it. A row that sees nothing at
    ///     all has −∞.
    ///   - rowSum: where ℓ goes, likewise. A row that sees nothing at all has 0.
    ///   - contents: what the relative positions of the modifiers are to this attention, where there are any.
    ///   - dropout: what is dropped of the weights, if anything; keys and values are float32 then.
    public static func attend(
        queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil, rowMax: HeadRows? = nil,
        rowSum: HeadRows? = nil, contents: PositionContents? = nil, dropout: WeightDropout? = nil
    ) -> TileCall {
        TileCall(
            scale: scale, contents: contents, dropout: dropout, rowOperands: [queries],
            rowResults: [output, logSumExp, rowMax, rowSum])
    }
}

/// One thread's attention.
final class AttendWorker: TileWorker {
    let scores: TileScores
    let kernels: KernelSet
    /// What is dropped of the loaded rows' weights.
    private var dropout: TileDropout?

    init(heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, kernels: KernelSet) {
        scores = TileScores(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        self.kernels = kernels
    }

    func load(_ rows: TileRows, of call: TileCall) {
        scores.load(rows.planes[0], rows: rows.count, head: rows.head, of: call)
        dropout = call.dropout.map { TileDropout($0, head: rows.head, kernels: kernels) }
        precondition(dropout == nil || scores.layout.element == .float32, "weights that are dropped are float32")
    }

    func run(_ pair: TilePair, rows: PartialResult?, columns: PartialResult?, adds: Bool) {
        guard let partial = rows.map({ PartialAttention($0) }) else { return }
        let keys = pair.keys.count
        if pair.isWhole, scores.modifiers.leavesScores, keys == pair.capacity, dropout == nil {
            scores.arithmetic.attend(
                scores.queries.pointer, tile: pair.columns, next: pair.next ?? pair.columns, keys: keys,
                scale: scores.scale, into: partial,
                scratch: scores.buffer.pointer)
            return
        }
        scores.forEachStrip(of: pair) { strip in
            scores.arithmetic.softmax(
                scores.buffer.pointer, stride: TileScores.stride, rows: strip.rows, keys: keys, bits: strip.bits,
                words: TileMask.wordsPerRow,
                scale: scores.scale, rowMax: partial.rowMax + strip.row, rowSum: partial.rowSum + strip.row)
            dropout?.apply(
                pair, rows: strip.row..<strip.row + strip.rows, keys: 0..<keys, scores.buffer.pointer,
                stride: TileScores.stride)
            weigh(strip, pair, keys: keys, into: partial)
        }
    }

    /// The weights of a strip times the values; what no row of it sees is skipped a chunk at a time.
    func weigh(_ strip: TileScores.Strip, _ pair: TilePair, keys: Int, into partial: PartialAttention) {
        let (layout, arithmetic) = (scores.layout, scores.arithmetic)
        let values = pair.columns + layout.keyFloats(capacity: pair.capacity)
        let panelStride = layout.valuePanelStride(capacity: pair.capacity)
        for column in stride(from: 0, to: layout.valueDimension, by: PackedTile.productColumns) {
            let width = layout.width(at: column, of: layout.valueDimension)
            let output = partial.output + strip.row * partial.outputStride + column
            let panels = values + column * layout.element.slots(pair.capacity)
            var accumulate = false
            func product(_ keys: Range<Int>, _ bits: UnsafePointer<UInt64>?) {
                arithmetic.product(
                    scores.buffer.pointer + layout.element.slots(keys.lowerBound), TileScores.stride, strip.rows,
                    panels + layout.element.slots(keys.lowerBound) * PackedTile.panelWidth, keys.count, panelStride,
                    width, output,
                    partial.outputStride,
                    accumulate: accumulate, bits: bits, words: TileMask.wordsPerRow)
                accumulate = true
            }
            // Chunks that every row sees are one product, whose sums stay in registers. A chunk is a word of the mask.
            var open = 0..<0
            for key in stride(from: 0, to: keys, by: 64) {
                let chunk = key..<min(key + 64, keys)
                let seen = strip.seen(chunk)
                if seen.any == 0 { continue }
                if seen.all.nonzeroBitCount == chunk.count {
                    if open.upperBound != key, !open.isEmpty { product(open, nil) }
                    open = open.upperBound == key && !open.isEmpty ? open.lowerBound..<chunk.upperBound : chunk
                } else {
                    if !open.isEmpty { product(open, nil) }
                    open = 0..<0
                    product(chunk, strip.bits.map { $0 + key / 64 })
                }
            }
            if !open.isEmpty { product(open, nil) }
            if !accumulate {
                for row in 0..<strip.rows { (output + row * partial.outputStride).update(repeating: 0, count: width) }
            }
        }
    }

    func finishRows(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        let whole = PartialAttention(whole)
        if let sink = scores.modifiers.sinks?[head] { whole.merge(sink: sink, scores.heads, kernels) }
        if let output = call.rowResults[0] {
            whole.normalize(
                columns: scores.heads.valueDimension, into: output, first: first, head: head,
                logSumExp: call.rowResults[1], kernels: kernels)
        }
        for (statistic, target) in [(whole.rowMax, call.rowResults[2]), (whole.rowSum, call.rowResults[3])] {
            guard let target else { continue }
            for row in 0..<whole.rows { target.row(first + row, head).pointee = statistic[row] }
        }
    }

    /// Zeros and −∞, or the sink alone.
    func finishUnseeing(rows: Range<Int>, head: Int, of call: TileCall) {
        let sink = scores.modifiers.sinks?[head]
        for row in rows {
            call.rowResults[0]?.row(row, head).update(repeating: 0, count: scores.heads.valueDimension)
            call.rowResults[1]?.row(row, head).pointee = sink ?? -.infinity
            call.rowResults[2]?.row(row, head).pointee = sink.map { Float(Double($0) * ANNULUS_STEPS) } ?? -.infinity
            call.rowResults[3]?.row(row, head).pointee = sink == nil ? 0 : 1
        }
    }
}
