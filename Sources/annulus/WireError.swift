// What sending keys and values in bfloat16 may do to the outputs of an attention, from the sizes of its inputs.

import Attention
import Pipelines
import RingAttention

/// The sizes that bound the error of a wire of bfloat16: of each head the longest query and key, and the largest value.
///
/// Rows that are not finite are left out, and the outputs of those that see them are not bounded.
struct WireError {
    private let heads: HeadShape
    private var queryNorms: [Double]
    private var keyNorms: [Double]
    private var values: [Double]

    init(_ heads: HeadShape) {
        self.heads = heads
        queryNorms = Array(repeating: 0, count: heads.queryHeads)
        keyNorms = Array(repeating: 0, count: heads.keyValueHeads)
        values = keyNorms
    }

    mutating func add(queries: HeadRows, rows: Int) {
        Self.raise(&queryNorms, queries, rows: rows, width: heads.headDimension, size: Self.norm)
    }

    mutating func add(keys: HeadRows, values rowsOfValues: HeadRows, rows: Int) {
        Self.raise(&keyNorms, keys, rows: rows, width: heads.headDimension, size: Self.norm)
        Self.raise(&values, rowsOfValues, rows: rows, width: heads.valueDimension) {
            $0.reduce(0) { Double.maximum($0, Double($1).magnitude) }
        }
    }

    private static func norm(_ row: UnsafeBufferPointer<Float>) -> Double {
        row.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    }

    /// Raises each head's largest size to that of its rows.
    private static func raise(
        _ largest: inout [Double], _ source: HeadRows, rows: Int, width: Int,
        size: (UnsafeBufferPointer<Float>) -> Double
    ) {
        for head in largest.indices {
            for row in 0..<rows {
                let start = source.base + head * source.headStride + row * source.tokenStride
                let here = size(UnsafeBufferPointer(start: start, count: width))
                if here.isFinite { largest[head] = max(largest[head], here) }
            }
        }
        withExtendedLifetime(source) {}
    }

    /// No output differs by more than this from that of a wire of float32, but for what float32 itself rounds: the
    /// largest of `Oracle.bfloat16WireBound` times the largest value, head by head. Collective: the inputs are those of
    /// all ranks.
    func bound(scale: Float, _ session: Session) throws -> Double {
        let everyone = try session.transport.allGather((queryNorms + keyNorms + values).withUnsafeBytes { Array($0) })
        let count = queryNorms.count + keyNorms.count + values.count
        let largest = (0..<count).map { place in
            everyone.map { $0.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8 * place, as: Double.self) } }.max()
                ?? 0
        }
        return (0..<heads.queryHeads).map { head in
            let keyHead = heads.queryHeads + head / heads.groupSize
            let magnitude = Double(scale.magnitude) * largest[head] * largest[keyHead]
            return Oracle.bfloat16WireBound(scoreMagnitude: magnitude) * largest[keyHead + heads.keyValueHeads]
        }.max() ?? 0
    }
}
