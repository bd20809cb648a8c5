// Gradients of attention as a tile operation: rows bring Q, dO and what attention gave, columns K and V; rows get dQ, columns
// dK and dV.

import CKernels
import Matrices
import Tiles

extension OperationShape {
    /// The gradients of attention of these heads.
    ///
    /// Rows bring queries, the gradients of outputs, m, ℓ and D = Σ dO∘O; rows get dQ and keys dK and dV, summed over the query
    /// heads that share them. Results have whole vectors: rows of ``HeadShape/paddedHeadDimension`` and
    /// ``HeadShape/paddedValueDimension`` floats. Where scores have relative biases, query tiles get the gradients of these.
    public static func differentiate(_ heads: HeadShape, _ modifiers: ScoreModifiers = ScoreModifiers())
        -> OperationShape
    {
        OperationShape(
            "differentiate", rowOperands: [heads.headDimension, heads.valueDimension, 1, 1, 1],
            columns: .keysAndValues, rowResults: [heads.paddedHeadDimension],
            tileResults: modifiers.relativeBias.map { 2 * $0.reach + 1 } ?? 0,
            columnResults: [heads.paddedHeadDimension, heads.paddedValueDimension], columnResultHeads: .keyValue,
            // 2·d for a score, for dQ and for dK, 2·dv for dO·V and for dV.
            flopPerPair: 2 * (3 * heads.headDimension + 2 * heads.valueDimension))
    }
}

extension TileOperation {
    /// The gradients of softmax(QKᵀ·scale + bias)V with respect to Q, K and V, given that of its output.
    ///
    /// With P = exp(S − L), the weights of the forward pass to the bit, from its m and ℓ:
    /// dV = Pᵀ·dO, dS = P∘(dO·Vᵀ − D), dQ = scale·dS·K, dK = scale·dSᵀ·Q (Dao et al. 2022, algorithm 4); where scores are capped,
    /// dS is further multiplied by the cap's slope 1 − (s/C)². A unit recomputes S and makes five products. Rows and keys that
    /// meet nothing get zeros. A NaN reaches the rows and keys that meet it, and no others.
    ///
    /// Where weights were dropped, f being what they were multiplied by, dV = (f∘P)ᵀ·dO and dS = P∘(f∘(dO·Vᵀ) − D).
    ///
    /// In bfloat16 storage scores are those of the forward pass; K and V are widened for the other products, and P, dS and all
    /// sums are float32: nothing else rounds.
    ///
    /// A ``TileCall/differentiate(queries:scale:outputGradient:rowMax:rowSum:outputDots:queryGradient:keyGradient:valueGradient:biasGradients:dropout:)``
    /// says of what; mask and modifiers are those of the attention.
    /// - Precondition: the modifiers have no relative positions, whose gradients are not computed.
    public static func differentiate(
        heads: HeadShape, element: ElementKind = .float32, mask: Mask, modifiers: ScoreModifiers = ScoreModifiers(),
        kernels: KernelSet
    ) -> TileOperation {
        precondition(modifiers.relativePositions == nil, "attention to relative positions has no gradients")
        let add: ResultPool.Merge = { left, right in
            for (index, width) in left.pool.planes.enumerated() {
                let floats = left.rows * width
                kernels.functions.add_bias(1, floats, left.plane(index), floats, right.plane(index))
            }
            let floats = left.pool.tileFloats
            if floats > 0 { kernels.functions.add_bias(1, floats, left.ofTile, floats, right.ofTile) }
        }
        return TileOperation(.differentiate(heads, modifiers), mergeRows: add, mergeColumns: add) {
            DifferentiateWorker(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        }
    }
}

extension TileCall {
    /// - Parameters:
    ///   - queries: this rank's query rows, as they were attended.
    ///   - scale: the scale they were attended with.
    ///   - outputGradient: the gradient of attention's output, dO: a row a query and head.
    ///   - rowMax: the m that attention gave for them, a float a row and head.
    ///   - rowSum: the ℓ that attention gave for them, likewise.
    ///   - outputDots: D, likewise; ``HeadRows/dots(_:_:rows:heads:width:into:kernels:)`` makes it of dO and the output.
    ///   - queryGradient: where dQ goes.
    ///   - keyGradient: where dK of this rank's keys goes, a row a key and key/value head.
    ///   - valueGradient: where dV goes, likewise.
    ///   - biasGradients: where the gradients of relative biases go: for each of this rank's query tiles a row of the table's
    ///     columns, Σ over the tile's rows of P∘(dO·Vᵀ − D) at each distance.
    ///   - dropout: what was dropped of the weights.
    public static func differentiate(
        queries: HeadRows, scale: Float, outputGradient: HeadRows, rowMax: HeadRows, rowSum: HeadRows,
        outputDots: HeadRows, queryGradient: HeadRows, keyGradient: HeadRows, valueGradient: HeadRows,
        biasGradients: HeadRows? = nil, dropout: WeightDropout? = nil
    ) -> TileCall {
        TileCall(
            scale: scale, dropout: dropout, rowOperands: [queries, outputGradient, rowMax, rowSum, outputDots],
            rowResults: [queryGradient], tileResults: biasGradients, columnResults: [keyGradient, valueGradient])
    }
}

extension HeadRows {
    /// Writes Σ a∘b of each row and head: D, of the gradient of attention's output and the output.
    /// - Parameters:
    ///   - a: rows of `width` floats.
    ///   - b: as many rows.
    ///   - rows: how many tokens.
    ///   - heads: how many heads of each.
    ///   - width: the floats of a row that count.
    ///   - target: takes a float a row and head.
    ///   - kernels: those that sum.
    public static func dots(
        _ a: HeadRows, _ b: HeadRows, rows: Int, heads: Int, width: Int, into target: HeadRows, kernels: KernelSet
    ) {
        let functions = kernels.gradientFunctions
        for head in 0..<heads where rows > 0 {
            functions.dot_rows(
                rows, width, a.row(0, head), a.tokenStride, b.row(0, head), b.tokenStride, target.row(0, head),
                target.tokenStride)
        }
    }
}

/// One thread's gradients.
///
/// A unit goes over the keys of the tile in groups of 64. For each, scores and dO·Vᵀ become weights and dS where they are, two blocks
/// of (rows, 64) in the second-level cache; each of the five products takes all rows at once. The weights are not yet divided by
/// ℓ: dO and D are, when rows are loaded.
private final class DifferentiateWorker: TileWorker {
    /// Rows that see the same, so far as products are told: all of them everything, or each its own.
    private static let groupRows = 6

    private let heads: HeadShape
    private let kernelSet: KernelSet
    private let kernels: annulus_kernels
    private let gradientKernels: annulus_gradient_kernels
    private let scores: TileScores
    private let layout: PackedTile

    // Of the loaded rows: m; D/ℓ; dO/ℓ; panels of Q, and of dO/ℓ.
    private let rowMax = AlignedBuffer(count: TileGrid.tileSize)
    private let dots = AlignedBuffer(count: TileGrid.tileSize)
    private let factors = AlignedBuffer(count: TileGrid.tileSize)
    private let gradientRows: AlignedBuffer
    private let queryPanels: AlignedBuffer
    private let gradientPanels: AlignedBuffer
    /// Rows above which nothing stands, whatever they see: all their scores are −∞.
    private var blindRows: [Int] = []
    /// What was dropped of their weights.
    private var dropout: TileDropout?

    // Of the loaded columns: K and V widened, where they are not float32; for each group of keys, V transposed and rows of K.
    private let widened: AlignedBuffer
    private let valueColumns: AlignedBuffer
    private let keyRows: AlignedBuffer

    // Of the rows and a group of keys: scores, then weights; dO·Vᵀ, then dS; scores as a softcap leaves them.
    private let weights = AlignedBuffer(count: TileGrid.tileSize * PackedTile.productColumns)
    private let gradients = AlignedBuffer(count: TileGrid.tileSize * PackedTile.productColumns)
    private let capped: AlignedBuffer?
    /// What each row sees of a group.
    private let words = UnsafeMutablePointer<UInt64>.allocate(capacity: TileGrid.tileSize)
    /// What a query head adds to the gradients of a group of keys, where others share them.
    private let share: AlignedBuffer
    private var runs: [RowRun] = []

    /// Some rows that see something of a group of keys.
    private struct RowRun {
        var rows: Range<Int>
        /// Whether all of them see all of it.
        let isWhole: Bool
    }

    init(heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, kernels: KernelSet) {
        self.heads = heads
        kernelSet = kernels
        self.kernels = kernels.functions
        gradientKernels = kernels.gradientFunctions
        scores = TileScores(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        layout = scores.layout
        capped = modifiers.softcap.map { _ in AlignedBuffer(count: TileGrid.tileSize * PackedTile.productColumns) }
        let (keyWidth, valueWidth) = (heads.paddedHeadDimension, heads.paddedValueDimension)
        gradientRows = AlignedBuffer(count: TileGrid.tileSize * valueWidth)
        queryPanels = AlignedBuffer(count: TileGrid.tileSize * keyWidth)
        gradientPanels = AlignedBuffer(count: TileGrid.tileSize * valueWidth)
        widened = AlignedBuffer(count: element == .float32 ? 0 : TileGrid.tileSize * (keyWidth + valueWidth))
        valueColumns = AlignedBuffer(count: TileGrid.tileSize * valueWidth)
        keyRows = AlignedBuffer(count: TileGrid.tileSize * keyWidth)
        share = AlignedBuffer(count: PackedTile.productColumns * max(keyWidth, valueWidth))
    }

    deinit { words.deallocate() }

    func load(_ rows: TileRows, of call: TileCall) {
        scores.load(rows.planes[0], rows: rows.count, head: rows.head, of: call)
        dropout = call.dropout.map { TileDropout($0, head: rows.head, kernels: kernelSet) }
        precondition(dropout == nil || layout.element == .float32, "weights that are dropped are float32")
        let (queries, gradients) = (rows.planes[0], rows.planes[1])
        let (maxima, sums, products) = (rows.planes[2], rows.planes[3], rows.planes[4])
        blindRows.removeAll(keepingCapacity: true)
        for row in 0..<rows.count {
            let maximum = maxima.rows[row * maxima.stride]
            if maximum == -.infinity { blindRows.append(row) }
            let factor = maximum == -.infinity ? 0 : 1 / sums.rows[row * sums.stride]
            rowMax[row] = maximum
            factors[row] = factor
            dots[row] = products.rows[row * products.stride] * factor
        }
        kernels.pack_columns(
            queries.rows, queries.stride, rows.count, heads.headDimension, queryPanels.pointer,
            PackedTile.panelWidth * rows.count)
        gradientKernels.scale_and_pack(
            gradients.rows, gradients.stride, rows.count, heads.valueDimension, factors.pointer, gradientRows.pointer,
            gradientPanels.pointer)
    }

    func load(columns: UnsafePointer<Float>, keys: Int, capacity: Int) {
        let panel = PackedTile.panelWidth
        var (keyPanels, valuePanels) = (columns, columns + layout.keyFloats(capacity: capacity))
        /// From a panel of values to the next, in keys.
        var valueDepth = capacity
        if layout.element == .bfloat16 {
            let values = widened.pointer + TileGrid.tileSize * heads.paddedHeadDimension
            gradientKernels.widen_panels(keyPanels, heads.headDimension, layout.padded(keys), widened.pointer)
            for channel in stride(from: 0, to: heads.valueDimension, by: panel) {
                gradientKernels.widen_panels(
                    valuePanels + channel * layout.element.slots(capacity), keys, panel, values + channel * keys)
            }
            (keyPanels, valuePanels, valueDepth) = (UnsafePointer(widened.pointer), UnsafePointer(values), keys)
        }
        for first in stride(from: 0, to: keys, by: PackedTile.productColumns) {
            let count = min(PackedTile.productColumns, keys - first)
            for key in stride(from: first, to: first + count, by: panel) {
                kernels.pack_transposed(
                    keyPanels + key * heads.headDimension, panel, heads.headDimension, min(panel, first + count - key),
                    keyRows.pointer + first * heads.paddedHeadDimension + (key - first) * panel, panel * count)
            }
            for channel in stride(from: 0, to: heads.valueDimension, by: panel) {
                kernels.pack_transposed(
                    valuePanels + channel * valueDepth + first * panel, panel, count,
                    min(panel, heads.valueDimension - channel),
                    valueColumns.pointer + first * heads.valueDimension + channel * panel, panel * heads.valueDimension)
            }
        }
    }

    /// Calls `body` with the first column of each panel, its columns, and its width.
    private func forEachProduct(_ columns: Int, _ body: (_ column: Int, _ count: Int, _ width: Int) -> Void) {
        for column in stride(from: 0, to: columns, by: PackedTile.productColumns) {
            body(column, min(PackedTile.productColumns, columns - column), layout.width(at: column, of: columns))
        }
    }

    func run(_ pair: TilePair, rows: PartialResult?, columns: PartialResult?, adds: Bool) {
        guard let rows, let columns else { return }
        let visible = scores.visible(of: pair)
        rows.ofTile.update(repeating: 0, count: rows.pool.tileFloats)
        withExtendedLifetime(visible) {
            for key in stride(from: 0, to: columns.rows, by: PackedTile.productColumns) {
                let keys = min(PackedTile.productColumns, columns.rows - key)
                let bits = see(visible, rows: rows.rows, key: key, keys: keys)
                for run in runs {
                    differentiate(run, pair, key: key, keys: keys, bits: run.isWhole ? nil : bits, biases: rows.ofTile)
                }
                sum(
                    weights, gradientPanels, rows: rows.rows, heads.valueDimension, bits: bits,
                    into: columns.plane(1) + key * heads.paddedValueDimension, keys: keys, adds: adds)
                sum(
                    gradients, queryPanels, rows: rows.rows, heads.headDimension, bits: bits,
                    into: columns.plane(0) + key * heads.paddedHeadDimension, keys: keys, adds: adds)
                addQueries(key: key, keys: keys, bits: bits, into: rows)
            }
        }
    }

    /// Sorts rows by what they see of a group of keys, into `runs`.
    /// - Returns: a word for each row where some do not see all.
    private func see(_ visible: TileMask?, rows: Int, key: Int, keys: Int) -> UnsafePointer<UInt64>? {
        runs.removeAll(keepingCapacity: true)
        if visible == nil, blindRows.isEmpty {
            runs.append(RowRun(rows: 0..<rows, isWhole: true))
            return nil
        }
        let inside = UInt64.max >> UInt64(64 - keys)
        for row in 0..<rows {
            words[row] = visible.map { $0.words[row * TileMask.wordsPerRow + key / 64] & inside } ?? inside
        }
        for row in blindRows { words[row] = 0 }
        for first in stride(from: 0, to: rows, by: Self.groupRows) {
            let group = first..<min(first + Self.groupRows, rows)
            var (any, all): (UInt64, UInt64) = (0, inside)
            for row in group {
                any |= words[row]
                all &= words[row]
            }
            if any == 0 { continue }
            let isWhole = all == inside
            if let last = runs.last, last.rows.upperBound == first, last.isWhole == isWhole {
                runs[runs.count - 1].rows = last.rows.lowerBound..<group.upperBound
            } else {
                runs.append(RowRun(rows: group, isWhole: isWhole))
            }
        }
        return UnsafePointer(words)
    }

    /// Makes weights and dS of some rows and a group of keys, and adds the latter to the gradients of biases.
    private func differentiate(
        _ run: RowRun, _ pair: TilePair, key: Int, keys: Int, bits: UnsafePointer<UInt64>?,
        biases: UnsafeMutablePointer<Float>
    ) {
        let (width, first, rows) = (PackedTile.productColumns, run.rows.lowerBound, run.rows.count)
        let (scored, products) = (weights.pointer + first * width, gradients.pointer + first * width)
        let cappedRows = capped.map { $0.pointer + first * width }
        let rowBits = bits.map { $0 + first }
        scores.score(run.rows, from: key, of: pair, into: scored, capped: cappedRows)
        kernels.panel_product(
            gradientRows.pointer + first * heads.valueDimension, heads.valueDimension, rows,
            valueColumns.pointer + key * heads.valueDimension, heads.valueDimension,
            PackedTile.panelWidth * heads.valueDimension, layout.padded(keys), products, width, Int32(ANNULUS_START))
        dropout?.apply(pair, rows: run.rows, keys: key..<key + keys, products, stride: width)
        gradientKernels.differentiate_rows(
            scored, width, products, width, rows, keys, rowBits, 1, scores.arithmetic.steps(scale: scores.scale),
            rowMax.pointer + first, dots.pointer + first, scored, width, products, width)
        // What V meets; dS is of all weights.
        dropout?.apply(pair, rows: run.rows, keys: key..<key + keys, scored, stride: width)
        if let reach = scores.modifiers.relativeBias?.reach {
            gradientKernels.add_diagonals(
                products, width, rows, keys, pair.distance + key - first, reach, biases)
        }
        if let cappedRows, let cap = scores.modifiers.softcap {
            gradientKernels.uncap_rows(products, width, rows, keys, rowBits, 1, cappedRows, width, cap)
        }
    }

    /// Sums rows, each times what a group of keys has of it: dV of weights and dO, or dK of dS and Q.
    /// - Parameters:
    ///   - factors: weights or dS, (rows, 64).
    ///   - panels: what is summed, in panels of all rows.
    ///   - target: where the keys' sums go; they are in whole vectors.
    ///   - adds: whether to those that are there.
    private func sum(
        _ factors: AlignedBuffer, _ panels: AlignedBuffer, rows: Int, _ dimension: Int, bits: UnsafePointer<UInt64>?,
        into target: UnsafeMutablePointer<Float>, keys: Int, adds: Bool
    ) {
        let stride = layout.padded(dimension)
        if runs.isEmpty {
            if !adds { target.update(repeating: 0, count: keys * stride) }
            return
        }
        // One product adds its own chains; several, of which each goes on with those of the one before, are added when all are done.
        let isOneProduct = runs.count == 1 && runs[0].isWhole
        let sums = adds && !isOneProduct ? share.pointer : target
        let panelStride = PackedTile.panelWidth * rows
        forEachProduct(dimension) { channel, _, width in
            var more = Int32(adds && isOneProduct ? ANNULUS_ADD : ANNULUS_START)
            for run in runs {
                let first = run.rows.lowerBound
                let (a, panel) = (
                    factors.pointer + first * PackedTile.productColumns,
                    panels.pointer + channel * rows + first * PackedTile.panelWidth
                )
                if let bits, !run.isWhole {
                    gradientKernels.masked_transposed_panel_product(
                        a, PackedTile.productColumns, keys, panel, run.rows.count, panelStride, width, sums + channel,
                        stride, more, bits + first, 1)
                } else {
                    gradientKernels.transposed_panel_product(
                        a, PackedTile.productColumns, keys, panel, run.rows.count, panelStride, width, sums + channel,
                        stride, more)
                }
                more = Int32(ANNULUS_CONTINUE)
            }
        }
        if sums != target { kernels.add_bias(1, keys * stride, target, keys * stride, sums) }
    }

    /// Adds to each row's dQ what some keys have for it; the first ones begin it.
    private func addQueries(key: Int, keys: Int, bits: UnsafePointer<UInt64>?, into rows: PartialResult) {
        let stride = heads.paddedHeadDimension
        let panelStride = PackedTile.panelWidth * keys
        let begins = key == 0 && runs.count == 1 && runs[0].isWhole && runs[0].rows == 0..<rows.rows
        if key == 0, !begins { rows.plane(0).update(repeating: 0, count: rows.rows * stride) }
        forEachProduct(heads.headDimension) { channel, _, width in
            let panel = keyRows.pointer + key * stride + channel * keys
            for run in runs {
                let first = run.rows.lowerBound
                let (a, target) = (
                    gradients.pointer + first * PackedTile.productColumns, rows.plane(0) + first * stride + channel
                )
                if let bits, !run.isWhole {
                    kernels.masked_panel_product(
                        a, PackedTile.productColumns, run.rows.count, panel, keys, panelStride, width, target, stride,
                        Int32(ANNULUS_CONTINUE), bits + first, 1)
                } else {
                    kernels.panel_product(
                        a, PackedTile.productColumns, run.rows.count, panel, keys, panelStride, width, target, stride,
                        Int32(begins ? ANNULUS_START : ANNULUS_CONTINUE))
                }
            }
        }
    }

    func finishRows(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        write(whole, plane: 0, heads.headDimension, times: call.scale, to: call.rowResults[0], first: first, head: head)
    }

    func finishUnseeing(rows: Range<Int>, head: Int, of call: TileCall) {
        for row in rows { call.rowResults[0]?.row(row, head).update(repeating: 0, count: heads.headDimension) }
    }

    func finishColumns(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        write(
            whole, plane: 0, heads.headDimension, times: call.scale, to: call.columnResults[0], first: first,
            head: head)
        write(whole, plane: 1, heads.valueDimension, times: 1, to: call.columnResults[1], first: first, head: head)
    }

    func finishUnseen(keys: Range<Int>, head: Int, of call: TileCall) {
        for key in keys {
            call.columnResults[0]?.row(key, head).update(repeating: 0, count: heads.headDimension)
            call.columnResults[1]?.row(key, head).update(repeating: 0, count: heads.valueDimension)
        }
    }

    private func write(
        _ whole: PartialResult, plane: Int, _ dimension: Int, times factor: Float, to target: HeadRows?, first: Int,
        head: Int
    ) {
        guard let target else { return }
        kernels.scale_rows(
            whole.plane(plane), whole.pool.planes[plane], whole.rows, dimension, factor, target.row(first, head),
            target.tokenStride)
    }
}
