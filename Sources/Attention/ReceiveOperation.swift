// What keys receive, as a tile operation: rows bring queries, m, ℓ and a weight, columns keys, and keys get Σ p.

import Matrices
import Tiles

extension OperationShape {
    /// The mass that the keys of these heads receive.
    public static func receive(_ heads: HeadShape) -> OperationShape {
        OperationShape(
            "receive", rowOperands: [heads.headDimension, 1, 1, 1], columns: .keys, columnResults: [1],
            // 2·d for a score and 2 for its weight.
            flopPerPair: 2 * heads.headDimension + 2)
    }
}

extension TileOperation {
    /// For each key j and query head, Σ over rows i of wᵢ·pᵢⱼ: the softmax weights that the key receives, pᵢⱼ = exp(sᵢⱼ
    /// − mᵢ)/ℓᵢ with the m and ℓ of the whole row. With every wᵢ = 1 the keys of a row without a sink get 1 together.
    ///
    /// A second pass over the keys: attention first gives m and ℓ. A
    /// ``TileCall/receive(queries:scale:rowMax:rowSum:rowWeights:mass:contents:)`` says of what; mask and modifiers are
    /// those of the attention.
    public static func receive(
        heads: HeadShape, element: ElementKind = .float32, mask: Mask, modifiers: ScoreModifiers = ScoreModifiers(),
        kernels: KernelSet
    ) -> TileOperation {
        TileOperation(
            .receive(heads),
            mergeColumns: { left, right in
                let (mass, more) = (left.plane(0), right.plane(0))
                for key in 0..<left.rows { mass[key] += more[key] }
            }
        ) {
            ReceiveWorker(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        }
    }
}

extension TileCall {
    /// - Parameters:
    ///   - queries: this rank's query rows, as they were attended.
    ///   - scale: the scale they were attended with.
    ///   - rowMax: the m that attention gave for them, a float a row and head.
    ///   - rowSum: the ℓ that attention gave for them, a float a row and head.
    ///   - rowWeights: what each row counts, a float a row and head.
    ///   - mass: where the mass of this rank's keys goes, a float a key and query head.
    ///   - contents: the relative positions that they were attended with, where there are any.
    public static func receive(
        queries: HeadRows, scale: Float, rowMax: HeadRows, rowSum: HeadRows, rowWeights: HeadRows, mass: HeadRows,
        contents: PositionContents? = nil
    ) -> TileCall {
        TileCall(
            scale: scale, contents: contents, rowOperands: [queries, rowMax, rowSum, rowWeights], columnResults: [mass])
    }
}

/// One thread's received mass.
private final class ReceiveWorker: TileWorker {
    private let scores: TileScores
    /// Of the loaded rows: m, and w/ℓ.
    private let rowMax = AlignedBuffer(count: TileGrid.tileSize)
    private let factors = AlignedBuffer(count: TileGrid.tileSize)

    init(heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, kernels: KernelSet) {
        scores = TileScores(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
    }

    func load(_ rows: TileRows, of call: TileCall) {
        scores.load(rows.planes[0], rows: rows.count, head: rows.head, of: call)
        let (maxima, sums, weights) = (rows.planes[1], rows.planes[2], rows.planes[3])
        for row in 0..<rows.count {
            let sum = sums.rows[row * sums.stride]
            rowMax[row] = maxima.rows[row * maxima.stride]
            // A row that sees nothing gives nothing.
            factors[row] = sum == 0 ? 0 : weights.rows[row * weights.stride] / sum
        }
    }

    func run(_ pair: TilePair, rows: PartialResult?, columns: PartialResult?, adds: Bool) {
        guard let columns else { return }
        let mass = columns.plane(0)
        if !adds { mass.update(repeating: 0, count: columns.rows) }
        scores.forEachStrip(of: pair) { strip in
            scores.arithmetic.receive(
                scores.buffer.pointer, stride: TileScores.stride, rows: strip.rows, keys: columns.rows,
                bits: strip.bits, words: TileMask.wordsPerRow,
                scale: scores.scale, rowMax: rowMax.pointer + strip.row, factors: factors.pointer + strip.row,
                mass: mass)
        }
    }

    func finishColumns(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        guard let target = call.columnResults[0] else { return }
        for key in 0..<whole.rows { target.row(first + key, head).pointee = whole.plane(0)[key] }
    }

    func finishUnseen(keys: Range<Int>, head: Int, of call: TileCall) {
        for key in keys { call.columnResults[0]?.row(key, head).pointee = 0 }
    }
}
