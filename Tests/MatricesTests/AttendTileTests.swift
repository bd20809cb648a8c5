// The fused tile kernel gives the bits of the three steps it fuses.

import CKernels
import Matrices
import Testing

struct AttendTileTests {
    @Test(
        "the bits of scores, softmax and values one after the other, in every set",
        arguments: [1, 8, 20, 32, 64, 100], [1, 16, 40, 64, 128, 130, 192, 256, 321])
    func sameBits(depth: Int, keys: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let columns = depth == 64 ? 80 : depth, width = padded(columns), stride = padded(keys)
        let k = random.floats(keys * depth), v = random.floats(keys * columns)
        for rows in isDebug ? [1, 6, 13, 18] : [0, 1, 5, 6, 7, 11, 12, 13, 17, 18, 23, 24, 25, 28, 46, 48, 53] {
            let q = random.floats(rows * depth + 1, -3...3)
            var firsts: [String: [[UInt32]]] = [:]
            for set in softmaxSets {
                let functions = set.functions
                var kPanels = [Float](repeating: 0, count: padded(keys) * depth),
                    vPanels = [Float](repeating: 0, count: width * keys)
                functions.pack_transposed(k, depth, keys, depth, &kPanels, 16 * depth)
                functions.pack_columns(v, columns, keys, columns, &vPanels, 16 * keys)

                var scores = [Float](repeating: 0, count: rows * stride + 1)
                var rowMax = [Float](repeating: guardValue, count: rows + 1), rowSum = rowMax
                var output = [Float](repeating: guardValue, count: rows * width + 16)
                kPanels.withUnsafeBufferPointer { panels in
                    scores.withUnsafeMutableBufferPointer { scores in
                        guard let panels = panels.baseAddress, let scores = scores.baseAddress else { return }
                        for key in Swift.stride(from: 0, to: keys, by: 64) {
                            functions.panel_product(
                                q, depth, rows, panels + key * depth, depth, 16 * depth, min(64, stride - key),
                                scores + key, stride, 0)
                        }
                    }
                }
                functions.softmax_rows(&scores, stride, rows, keys, nil, 0, &rowMax, &rowSum)
                vPanels.withUnsafeBufferPointer { panels in
                    output.withUnsafeMutableBufferPointer { output in
                        guard let panels = panels.baseAddress, let output = output.baseAddress else { return }
                        for column in Swift.stride(from: 0, to: width, by: 64) {
                            functions.panel_product(
                                scores, stride, rows, panels + column * keys, keys, 16 * keys, min(64, width - column),
                                output + column, width, 0)
                        }
                    }
                }

                let scratch = AlignedBuffer(count: scratchRows * stride + 16)
                for index in scratchRows * stride..<scratch.count { scratch[index] = guardValue }
                var fusedMax = [Float](repeating: guardValue, count: rows + 1), fusedSum = fusedMax
                var fused = [Float](repeating: guardValue, count: rows * width + 16)
                functions.attend_tile(
                    q, depth, rows, kPanels, depth, vPanels, columns, keys, &fusedMax, &fusedSum, &fused, width,
                    scratch.pointer, kPanels)
                let context = "\(set.name), \(rows) rows, seed \(random.seed)"
                #expect(fusedMax.bitPatterns == rowMax.bitPatterns, "\(context)")
                #expect(fusedSum.bitPatterns == rowSum.bitPatterns, "\(context)")
                #expect(fused.bitPatterns == output.bitPatterns, "\(context)")
                #expect((scratchRows * stride..<scratch.count).allSatisfy { scratch[$0] == guardValue }, "\(context)")
                let bits = [fusedMax, fusedSum, fused].map(\.bitPatterns)
                #expect(bits == firsts[set.kind, default: bits], "\(context)")
                firsts[set.kind] = firsts[set.kind] ?? bits
            }
        }
    }

    @Test("a NaN in one query makes that row NaN and no other; a tile of −∞ scores weighs nothing")
    func specialRows() {
        let keys = 64, depth = 16, rows = 24
        for set in softmaxSets {
            let functions = set.functions
            var q = [Float](repeating: 0.25, count: rows * depth)
            q[7 * depth + 3] = .nan
            for term in 0..<depth { q[9 * depth + term] = -.infinity }
            let ones = [Float](repeating: 1, count: keys * depth)
            var kPanels = [Float](repeating: 0, count: keys * depth), vPanels = kPanels
            functions.pack_transposed(ones, depth, keys, depth, &kPanels, 16 * depth)
            functions.pack_columns(ones, depth, keys, depth, &vPanels, 16 * keys)
            var rowMax = [Float](repeating: 0, count: rows), rowSum = rowMax
            var output = [Float](repeating: 0, count: rows * depth)
            let scratch = AlignedBuffer(count: scratchRows * keys)
            functions.attend_tile(
                q, depth, rows, kPanels, depth, vPanels, depth, keys, &rowMax, &rowSum, &output, depth, scratch.pointer,
                kPanels)
            for row in 0..<rows {
                let values = output[row * depth..<(row + 1) * depth]
                switch row {
                case 7: #expect(rowMax[row].isNaN && rowSum[row].isNaN && values.allSatisfy(\.isNaN), "\(set.name)")
                case 9: #expect(rowMax[row] == -.infinity && rowSum[row] == 0, "\(set.name)")
                default:
                    #expect(
                        rowMax[row] == 4 && rowSum[row] == 64 && values.allSatisfy { $0 == 64 },
                        "\(set.name), row \(row)")
                }
            }
        }
    }
}
