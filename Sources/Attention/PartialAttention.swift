// The attention of some queries to some keys, before normalisation.

import CKernels
import Matrices

/// The softmax statistics and the unnormalised output of the rows of one query tile and head over some
/// of the keys: per row the largest score m, the sum ℓ = Σ exp(s − m), and O = Σ exp(s − m)·v.
///
/// Two partials over different keys merge exactly (Milakov & Gimelshein 2018; Dao et al. 2022): with
/// m = max(m₁, m₂), ℓ = ℓ₁·e^(m₁−m) + ℓ₂·e^(m₂−m) and O likewise. A row that has seen no key has
/// m = −∞, ℓ = 0, O = 0 and leaves the other side's bits as they are. It is not an output: only
/// `normalize` makes one. m counts steps of ln2/32 (`annulus_kernels.h`).
public struct PartialAttention {
    /// The planes m, ℓ and O.
    public let result: PartialResult

    /// What a result of `pool(_:kernels:)` is.
    public init(_ result: PartialResult) { self.result = result }

    /// Memory for partials of these heads.
    public static func pool(_ heads: HeadShape, kernels: KernelSet) -> ResultPool {
        ResultPool(planes: planes(heads), merge: merge(heads, kernels))
    }

    /// Floats of a row in each plane.
    static func planes(_ heads: HeadShape) -> [Int] { [1, 1, heads.paddedValueDimension] }

    static func merge(_ heads: HeadShape, _ kernels: KernelSet) -> ResultPool.Merge {
        let width = heads.paddedValueDimension
        return { left, right in
            let (a, b) = (PartialAttention(left), PartialAttention(right))
            kernels.functions.merge_rows(
                left.rows, width, a.rowMax, a.rowSum, a.output, width, b.rowMax, b.rowSum, b.output, width)
        }
    }

    /// The query rows in use; at most a tile.
    public var rows: Int { result.rows }
    /// m, one a row, in steps.
    public var rowMax: UnsafeMutablePointer<Float> { result.plane(0) }
    /// ℓ, one a row.
    public var rowSum: UnsafeMutablePointer<Float> { result.plane(1) }
    /// O: rows × `outputStride`, the padding columns zero.
    public var output: UnsafeMutablePointer<Float> { result.plane(2) }
    /// The floats from one row of O to the next: ``HeadShape/paddedValueDimension``.
    public var outputStride: Int { result.pool.planes[2] }

    /// Writes O/ℓ (zeros for a row that saw no key) and, where asked for, the log-sum-exp m + ln ℓ (−∞ there).
    func normalize(columns: Int, into target: HeadRows, first: Int, head: Int, logSumExp: HeadRows?, kernels: KernelSet)
    {
        kernels.functions.normalize_rows(
            rows, columns, rowMax, rowSum, output, outputStride, target.row(first, head), target.tokenStride,
            logSumExp.map { $0.row(first, head) }, logSumExp?.tokenStride ?? 0)
    }

    /// Merges the sink of a head into the whole: a key without a value, whose weight is all it has. What is behind these
    /// planes stays as it is.
    func merge(sink: Float, _ heads: HeadShape, _ kernels: KernelSet) {
        let part = PartialAttention(PartialResult(rows: rows, from: result.pool))
        part.rowMax.update(repeating: Float(Double(sink) * ANNULUS_STEPS), count: rows)
        part.rowSum.update(repeating: 1, count: rows)
        part.output.update(repeating: 0, count: rows * outputStride)
        Self.merge(heads, kernels)(result, part.result)
    }
}
