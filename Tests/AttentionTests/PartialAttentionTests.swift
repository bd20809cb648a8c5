// Partials are what they say, whatever was in their memory before.

import Attention
import Matrices
import TestSupport
import Testing
import Tiles

@Suite struct PartialAttentionTests {
    /// Rows that see no key of a tile: m = −∞, ℓ = 0, O = 0, in memory that held NaN.
    @Test(arguments: [ElementKind.float32, .bfloat16]) func rowsThatSeeNothingAreTheIdentity(element: ElementKind) {
        let heads = HeadShape(heads: 1, headDimension: 20)
        let kernels = KernelSet.best
        // Twenty queries, the last of which stands at the last of eleven keys: the first nine rows see none.
        let shape = SequenceShape(queries: 20, keys: 11)
        var generator = SplitMix(seed: 3)
        func random(_ count: Int) -> AlignedBuffer {
            let buffer = AlignedBuffer(count: count)
            for index in 0..<count { buffer[index] = generator.unit() }
            return buffer
        }
        let (queries, keys, values) = (random(20 * 20), random(11 * 20), random(11 * 20))
        let packed = PackedTile(heads, element)
        let tile = AlignedBuffer(count: packed.floats(capacity: 11))
        let pool = PartialAttention.pool(heads, kernels: kernels)
        withExtendedLifetime((queries, keys, values, tile)) {
            packed.pack(
                rows: 0..<11, capacity: 11, keys: keys.pointer, keyStride: 20, values: values.pointer, valueStride: 20,
                into: tile.pointer, kernels: kernels)
            let worker = TileOperation.attend(heads: heads, element: element, mask: .causal, kernels: kernels)
                .makeWorker()
            worker.load(
                TileRows(count: 20, head: 0, planes: [(UnsafePointer(queries.pointer), 20)]),
                of: TileCall(scale: 1, rowOperands: []))
            let partial = PartialAttention(PartialResult(rows: 20, from: pool))
            partial.rowMax.update(repeating: .nan, count: 20)
            partial.rowSum.update(repeating: .nan, count: 20)
            partial.output.update(repeating: .nan, count: 20 * partial.outputStride)
            let pair = TilePair(
                queryTile: 0, keyTile: 0, in: shape, isWhole: false, columns: tile.pointer, capacity: 11)
            worker.run(pair, rows: partial.result, columns: nil, adds: false)
            for row in 0..<20 {
                let output = (0..<partial.outputStride).map { partial.output[row * partial.outputStride + $0] }
                if row < 9 {
                    #expect(
                        partial.rowMax[row] == -.infinity && partial.rowSum[row] == 0 && output.allSatisfy { $0 == 0 },
                        "row \(row)")
                } else {
                    #expect(
                        partial.rowMax[row].isFinite && partial.rowSum[row] >= 1 && output.allSatisfy(\.isFinite),
                        "row \(row)")
                }
            }
        }
    }
}
