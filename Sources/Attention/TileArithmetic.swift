// The microkernels of a tile for either kind of element, under one set of signatures.

import CKernels
import Matrices

/// The steps of a tile's attention. Queries, weights and panels are of the element's kind, their pointers and strides
/// counted in slots of four bytes (`ElementKind.slots`); scores, statistics and outputs are float32.
///
/// The softmax takes scores in steps (`annulus_kernels.h`). In float32 the score scale and the steps go into the
/// queries. In bfloat16 rounding them after such a product would cost accuracy, so only the scale's sign and power of
/// two do, which is exact, and the rest goes into the softmax. Where modifiers need scores in natural units, they make
/// the steps.
struct TileArithmetic {
    private let layout: PackedTile
    private let float32: annulus_kernels
    private let bfloat16: annulus_bfloat16_kernels
    /// Whether scores are modified, in natural units, between their product and the softmax.
    private let modified: Bool

    init(layout: PackedTile, modified: Bool, kernels: KernelSet) {
        self.layout = layout
        self.modified = modified
        float32 = kernels.functions
        bfloat16 = kernels.bfloat16Functions
    }

    private var element: ElementKind { layout.element }

    /// Converts queries to operands, `layout.queryStride` slots a row.
    /// - Returns: what the scores of these operands have still to be multiplied by, to be in natural units where they
    ///   are modified and in steps where not.
    func load(
        queries source: UnsafePointer<Float>, stride: Int, rows: Int, scale: Float,
        into operands: UnsafeMutablePointer<Float>
    ) -> Float {
        let width = layout.headDimension
        switch element {
        case .float32:
            let factor = modified ? scale : Float(Double(scale) * ANNULUS_STEPS)
            float32.scale_rows(source, stride, rows, width, factor, operands, width)
            return 1
        case .bfloat16:
            let rest = scale.isNormal ? scale.significand : 1
            bfloat16.round_rows(source, stride, rows, width, scale / rest, operands, layout.queryStride)
            return modified ? rest : Float(Double(rest) * ANNULUS_STEPS)
        }
    }

    /// What scores have still to be multiplied by, to be in steps, when `scale` is what `load` gave and modifiers, where
    /// there are any, have been at them.
    func steps(scale: Float) -> Float { modified ? 1 : scale }

    /// The unscaled scores of some rows against so many keys, from the start of a panel on.
    func scores(
        _ queries: UnsafePointer<Float>, rows: Int, panels: UnsafePointer<Float>, columns: Int,
        into scores: UnsafeMutablePointer<Float>, stride: Int
    ) {
        switch element {
        case .float32:
            float32.panel_product(
                queries, layout.queryStride, rows, panels, layout.headDimension, layout.keyPanelStride, columns, scores,
                stride, 0)
        case .bfloat16:
            bfloat16.panel_product(
                queries, layout.queryStride, rows, panels, layout.headDimension, layout.keyPanelStride, columns, scores,
                stride, 0)
        }
    }

    /// Scales, caps and biases scores in place and multiplies them by `steps`, ANNULUS_STEPS for a softmax; `distance` is
    /// that of the first key from the first row.
    func modify(
        _ scores: UnsafeMutablePointer<Float>, stride: Int, rows: Int, keys: Int, scale: Float, cap: Float,
        bias: UnsafePointer<Float>?, reach: Int, slope: Float, distance: Int, steps: Float
    ) {
        float32.modify_scores(scores, stride, rows, keys, scale, cap, bias, reach, slope, distance, steps)
    }

    /// Makes rows of scores into rows of weights, in place; scores that were modified are in steps already.
    func softmax(
        _ scores: UnsafeMutablePointer<Float>, stride: Int, rows: Int, keys: Int, bits: UnsafePointer<UInt64>?,
        words: Int,
        scale: Float, rowMax: UnsafeMutablePointer<Float>, rowSum: UnsafeMutablePointer<Float>
    ) {
        switch element {
        case .float32: float32.softmax_rows(scores, stride, rows, keys, bits, words, rowMax, rowSum)
        case .bfloat16:
            bfloat16.softmax_rows(scores, stride, rows, keys, bits, words, modified ? 1 : scale, rowMax, rowSum)
        }
    }

    /// The same, with the statistics of rows.
    func observe(
        _ scores: UnsafeMutablePointer<Float>, stride: Int, rows: Int, keys: Int, bits: UnsafePointer<UInt64>?,
        words: Int, scale: Float, rowMax: UnsafeMutablePointer<Float>, rowSum: UnsafeMutablePointer<Float>,
        statistics: annulus_statistics
    ) {
        withUnsafePointer(to: statistics) { statistics in
            switch element {
            case .float32:
                float32.observe_rows(scores, stride, rows, keys, bits, words, rowMax, rowSum, statistics)
            case .bfloat16:
                bfloat16.observe_rows(
                    scores, stride, rows, keys, bits, words, modified ? 1 : scale, rowMax, rowSum, statistics)
            }
        }
    }

    /// Adds to `mass` what some keys receive of rows of scores, whose m and weight over ℓ are given.
    func receive(
        _ scores: UnsafePointer<Float>, stride: Int, rows: Int, keys: Int, bits: UnsafePointer<UInt64>?, words: Int,
        scale: Float, rowMax: UnsafePointer<Float>, factors: UnsafePointer<Float>, mass: UnsafeMutablePointer<Float>
    ) {
        float32.receive_rows(scores, stride, rows, keys, bits, words, modified ? 1 : scale, rowMax, factors, mass)
    }

    /// C = (accumulate ? C : 0) + A · panels, of the terms that `bits` leaves visible, if there are any bits.
    func product(
        _ a: UnsafePointer<Float>, _ aStride: Int, _ rows: Int, _ panels: UnsafePointer<Float>, _ terms: Int,
        _ panelStride: Int, _ columns: Int, _ c: UnsafeMutablePointer<Float>, _ cStride: Int, accumulate: Bool,
        bits: UnsafePointer<UInt64>?, words: Int
    ) {
        let more = Int32(accumulate ? ANNULUS_CONTINUE : ANNULUS_START)
        switch (element, bits) {
        case (.float32, nil):
            float32.panel_product(a, aStride, rows, panels, terms, panelStride, columns, c, cStride, more)
        case (.bfloat16, nil):
            bfloat16.panel_product(a, aStride, rows, panels, terms, panelStride, columns, c, cStride, more)
        case (.float32, let bits?):
            float32.masked_panel_product(
                a, aStride, rows, panels, terms, panelStride, columns, c, cStride, more, bits, words)
        case (.bfloat16, let bits?):
            bfloat16.masked_panel_product(
                a, aStride, rows, panels, terms, panelStride, columns, c, cStride, more, bits, words)
        }
    }

    /// `attend` with the statistics of rows.
    func observe(
        _ queries: UnsafePointer<Float>, tile: UnsafePointer<Float>, next: UnsafePointer<Float>, keys: Int,
        scale: Float,
        into partial: PartialAttention, scratch: UnsafeMutablePointer<Float>, statistics: annulus_statistics
    ) {
        let values = tile + layout.keyFloats(capacity: keys)
        withUnsafePointer(to: statistics) { statistics in
            switch element {
            case .float32:
                float32.observe_tile(
                    queries, layout.queryStride, partial.rows, tile, layout.headDimension, values,
                    layout.valueDimension, keys, partial.rowMax, partial.rowSum, partial.output, partial.outputStride,
                    scratch, next, statistics)
            case .bfloat16:
                bfloat16.observe_tile(
                    queries, layout.queryStride, partial.rows, tile, layout.headDimension, values,
                    layout.valueDimension, keys, scale, partial.rowMax, partial.rowSum, partial.output,
                    partial.outputStride, scratch, statistics)
            }
        }
    }

    /// All steps at once, for a tile that all rows see entirely. `next` is the tile that comes after it.
    func attend(
        _ queries: UnsafePointer<Float>, tile: UnsafePointer<Float>, next: UnsafePointer<Float>, keys: Int,
        scale: Float,
        into partial: PartialAttention, scratch: UnsafeMutablePointer<Float>
    ) {
        let values = tile + layout.keyFloats(capacity: keys)
        switch element {
        case .float32:
            float32.attend_tile(
                queries, layout.queryStride, partial.rows, tile, layout.headDimension, values, layout.valueDimension,
                keys,
                partial.rowMax, partial.rowSum, partial.output, partial.outputStride, scratch, next)
        case .bfloat16:
            bfloat16.attend_tile(
                queries, layout.queryStride, partial.rows, tile, layout.headDimension, values, layout.valueDimension,
                keys, scale,
                partial.rowMax, partial.rowSum, partial.output, partial.outputStride, scratch)
        }
    }
}
