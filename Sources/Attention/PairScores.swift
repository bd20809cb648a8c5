// The scores and weights of a query tile against a key tile, written out: for rectangles of the matrix that somebody
// wants to see.

import CKernels
import Matrices
import Tiles

/// One thread's scores and weights of pairs.
package final class PairScores {
    private let scores: TileScores
    private let factor = AlignedBuffer(count: 1)

    /// - Parameters: as `TileOperation.attend`.
    package init(
        heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, kernels: KernelSet
    ) {
        scores = TileScores(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
    }

    /// Takes the queries of one tile and head.
    package func load(_ rows: TileRows, of call: TileCall) {
        scores.load(rows.planes[0], rows: rows.count, head: rows.head, of: call)
    }

    /// A part of the matrix in memory: the first row and key that are wanted are at `base`.
    package struct Target {
        let base: UnsafeMutablePointer<Float>
        let stride: Int

        package init(_ base: UnsafeMutablePointer<Float>, stride: Int) {
            self.base = base
            self.stride = stride
        }
    }

    /// Writes the scores of some pairs, in natural units and −∞ where a row does not see a key, and their weights
    /// exp(s − m)/ℓ, 0 there.
    /// - Parameters:
    ///   - rows: the wanted rows of the tile.
    ///   - keys: the wanted keys of the tile.
    ///   - rowMax: m of the first wanted row, and of those after it.
    ///   - rowSum: ℓ likewise.
    package func write(
        _ pair: TilePair, rows: Range<Int>, keys: Range<Int>, rowMax: UnsafePointer<Float>,
        rowSum: UnsafePointer<Float>, scores target: Target, weights: Target
    ) {
        let steps: Float = scores.modifiers.leavesScores ? scores.scale : 1
        var tile = [Float](repeating: 0, count: TileGrid.tileSize)
        scores.forEachStrip(of: pair) { strip in
            for row in rows.clamped(to: strip.row..<strip.row + strip.rows) {
                let (source, place) = (
                    scores.buffer.pointer + (row - strip.row) * TileScores.stride, row - rows.lowerBound
                )
                let bits = strip.bits.map { $0 + (row - strip.row) * TileMask.wordsPerRow }
                let line = target.base + place * target.stride
                for key in keys {
                    let isSeen = bits.map { $0[key / 64] >> UInt64(key % 64) & 1 == 1 } ?? true
                    line[key - keys.lowerBound] =
                        isSeen ? Float(Double(source[key] * steps) / ANNULUS_STEPS) : -.infinity
                }
                for key in 0..<pair.keys.count { tile[key] = 0 }
                if rowSum[place] != 0 {
                    factor[0] = 1 / rowSum[place]
                    tile.withUnsafeMutableBufferPointer {
                        guard let base = $0.baseAddress else { return }
                        scores.arithmetic.receive(
                            source, stride: TileScores.stride, rows: 1, keys: pair.keys.count, bits: bits,
                            words: TileMask.wordsPerRow, scale: scores.scale, rowMax: rowMax + place,
                            factors: factor.pointer, mass: base)
                    }
                }
                let shares = weights.base + place * weights.stride
                for key in keys { shares[key - keys.lowerBound] = tile[key] }
            }
        }
    }
}
