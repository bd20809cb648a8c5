// Products with a transpose against those of the transposed operand.

import CKernels
import Matrices
import Testing

struct TransposedProductTests {
    @Test("the bits of the product of the transpose, nothing written beside it", arguments: [16, 32, 48, 64])
    func bits(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for rows in [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 14, 29, 64] {
            for depth in [0, 1, 2, 3, 8, 17, 64, 65] {
                let aStride = rows + random.below(5), cStride = width + random.below(9)
                let panelStride = 16 * (depth + random.below(3))
                let a = random.floats(depth * aStride + 1), panel = random.floats(width / 16 * panelStride + 1)
                let c = random.floats(rows * cStride + 16)
                var transpose = [Float](repeating: 0, count: rows * depth + 1)
                for row in 0..<rows {
                    for term in 0..<depth { transpose[row * depth + term] = a[term * aStride + row] }
                }
                for columns in stride(from: 16, through: width, by: 16) {
                    for accumulate in [ANNULUS_START, ANNULUS_CONTINUE, ANNULUS_ADD].map({ Int32($0) }) {
                        var expected = c
                        kernelSets[0].functions.panel_product(
                            transpose, depth, rows, panel, depth, panelStride, columns, &expected, cStride, accumulate)
                        for set in kernelSets {
                            var result = c
                            set.gradientFunctions.transposed_panel_product(
                                a, aStride, rows, panel, depth, panelStride, columns, &result, cStride, accumulate)
                            #expect(
                                result.bitPatterns == expected.bitPatterns,
                                "\(set.name), \(rows) × \(depth) × \(columns) of \(width), \(accumulate), seed \(random.seed)"
                            )
                        }
                    }
                }
            }
        }
    }
}
