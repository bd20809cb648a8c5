// Element-wise rows, layer norm and the packers.

import CKernels
import Foundation
import Matrices
import Testing

struct RowTests {
    @Test("bias and activations apply to every element of the row and to nothing else", arguments: [1, 15, 16, 17, 70])
    func activations(columns: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let rows = 3, stride = columns + 5
        let x = random.floats(rows * stride, -6...6), bias = random.floats(columns), gate = random.floats(rows * stride)
        var first: [[UInt32]]?
        for set in kernelSets {
            let functions = set.functions
            var added = x, gelu = x, tanhForm = x, gated = [Float](repeating: guardValue, count: x.count)
            var untouched = x
            functions.add_bias(rows, columns, &added, stride, bias)
            functions.add_bias(rows, columns, &untouched, stride, nil)
            functions.gelu_bias(rows, columns, &gelu, stride, bias)
            functions.gelu_tanh_bias(rows, columns, &tanhForm, stride, bias)
            functions.gate_rows(rows, columns, x, gate, stride, &gated, stride)
            #expect(untouched == x)
            var (silu, relu, tanhOf) = (x, x, x)
            functions.silu_bias(rows, columns, &silu, stride, bias)
            functions.relu_bias(rows, columns, &relu, stride, bias)
            functions.tanh_bias(rows, columns, &tanhOf, stride, bias)
            let bits = [added, gelu, tanhForm, gated, silu, relu, tanhOf].map(\.bitPatterns)
            #expect(bits == first ?? bits, "\(set.name), seed \(random.seed)")
            first = first ?? bits
            var shifted = x
            for at in x.indices where at % stride < columns { shifted[at] += bias[at % stride] }
            var once = shifted
            functions.gelu_bias(1, once.count, &once, once.count, nil)
            for at in x.indices {
                let context = "\(set.name), element \(at), seed \(random.seed)"
                if at % stride >= columns {
                    #expect(
                        [added, gelu, tanhForm, silu, relu, tanhOf].allSatisfy { $0[at] == x[at] }
                            && gated[at] == guardValue, "\(context)")
                    continue
                }
                #expect(added[at] == shifted[at], "\(context)")
                #expect(gelu[at] == once[at], "\(context)")
                #expect(gated[at] == x[at] * gate[at], "\(context)")
                #expect(relu[at] == max(shifted[at], 0), "\(context)")
                let v = Double(shifted[at]), u = (2 / Double.pi).squareRoot() * (v + 0.044715 * v * v * v)
                #expect(abs(Double(tanhForm[at]) - 0.5 * v * (1 + tanh(u))) < 1e-5, "\(context)")
                #expect(ulps(silu[at], v / (1 + exp(-v))) <= 3.5 && ulps(tanhOf[at], tanh(v)) <= 1.5, "\(context)")
            }
        }
    }

    @Test(
        "norms within their bound of float64, with and without each part", arguments: [1, 2, 31, 64, 384, 389],
        [false, true])
    func norms(columns: Int, isRootMeanSquare: Bool) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let rows = 4, stride = columns + 3, epsilon: Float = 1e-5
        let x = random.floats(rows * stride, -2...4), residual = random.floats(rows * stride)
        let bias = random.floats(columns), gamma = random.floats(columns), beta = random.floats(columns)
        for parts in 0..<8 {
            var first: [UInt32]?
            for set in kernelSets {
                for inPlace in [false, true] {
                    var y = inPlace ? x : [Float](repeating: guardValue, count: x.count)
                    x.withUnsafeBufferPointer { source in
                        y.withUnsafeMutableBufferPointer { y in
                            guard let source = source.baseAddress, let y = y.baseAddress else { return }
                            bias.withUnsafeBufferPointer { bias in
                                residual.withUnsafeBufferPointer { residual in
                                    beta.withUnsafeBufferPointer { beta in
                                        let norm = isRootMeanSquare ? set.functions.rms_norm : set.functions.layer_norm
                                        norm?(
                                            rows, columns, inPlace ? UnsafePointer(y) : source, stride,
                                            parts & 1 != 0 ? bias.baseAddress : nil,
                                            parts & 2 != 0 ? residual.baseAddress : nil, stride,
                                            gamma, parts & 4 != 0 ? beta.baseAddress : nil, epsilon, y, stride)
                                    }
                                }
                            }
                        }
                    }
                    let results = (0..<rows).flatMap { y[$0 * stride..<$0 * stride + columns].map(\.bitPattern) }
                    #expect(results == first ?? results, "\(set.name), in place \(inPlace), seed \(random.seed)")
                    first = first ?? results
                    if set == kernelSets[0] {
                        check(y, parts, inPlace)
                    }
                }
            }
        }
        func check(_ y: [Float], _ parts: Int, _ inPlace: Bool) {
            for row in 0..<rows {
                let t = (0..<columns).map { j in
                    Double(x[row * stride + j]) + (parts & 1 != 0 ? Double(bias[j]) : 0)
                        + (parts & 2 != 0 ? Double(residual[row * stride + j]) : 0)
                }
                let mean = isRootMeanSquare ? 0 : t.reduce(0, +) / Double(columns)
                let variance = t.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(columns)
                let scale = 1 / (variance + Double(epsilon)).squareRoot()
                // Each t carries two roundings, the mean n/16 + 5 more, relative to the largest magnitude; a
                // deviation's error is then 2·δ. The variance's relative error halves in the root.
                let largest = t.map { abs($0) }.max() ?? 0
                let delta = largest * MatricesTests.gamma(columns / 16 + 8) * 2
                for j in 0..<columns {
                    let deviation = (t[j] - mean) * scale
                    let exact = deviation * Double(gamma[j]) + (parts & 4 != 0 ? Double(beta[j]) : 0)
                    let relative = min(1, 2 * delta * scale) + MatricesTests.gamma(columns / 16 + 12)
                    let bound =
                        (delta * scale + abs(deviation) * relative) * abs(Double(gamma[j])) + MatricesTests.gamma(3)
                        * (abs(exact) + 1)
                    let value = Double(y[row * stride + j])
                    if !(abs(value - exact) <= bound) {
                        Issue.record(
                            "row \(row) column \(j): \(value), exact \(exact), parts \(parts), seed \(random.seed)")
                    }
                }
                for j in columns..<stride {
                    #expect(y[row * stride + j] == (inPlace ? x[row * stride + j] : guardValue), "beside row \(row)")
                }
            }
        }
    }

    @Test(
        "packed panels hold every element where the header says, zeros in the padding",
        arguments: [1, 15, 16, 63, 64, 65, 130, 200])
    func packing(columns: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for depth in [1, 7, 16, 40] {
            let panelStride = 16 * (depth + random.below(2)), size = padded(columns) / 16 * panelStride
            let stride = max(columns, depth) + 2
            let rowsOfColumns = random.floats(columns * stride), rowsOfTerms = random.floats(depth * stride)
            for set in kernelSets {
                var transposed = [Float](repeating: guardValue, count: size + 8), straight = transposed
                set.functions.pack_transposed(rowsOfColumns, stride, columns, depth, &transposed, panelStride)
                set.functions.pack_columns(rowsOfTerms, stride, depth, columns, &straight, panelStride)
                for column in 0..<padded(columns) {
                    for k in 0..<panelStride / 16 {
                        let at = panelPlace(k, column, stride: panelStride)
                        let context = "\(set.name), term \(k), column \(column), seed \(random.seed)"
                        guard k < depth else {
                            #expect(transposed[at] == guardValue && straight[at] == guardValue, "\(context)")
                            continue
                        }
                        let inside = column < columns
                        #expect(transposed[at] == (inside ? rowsOfColumns[column * stride + k] : 0), "\(context)")
                        #expect(straight[at] == (inside ? rowsOfTerms[k * stride + column] : 0), "\(context)")
                    }
                }
                #expect(
                    transposed[size...].allSatisfy { $0 == guardValue }
                        && straight[size...].allSatisfy { $0 == guardValue })
            }
        }
    }
}
