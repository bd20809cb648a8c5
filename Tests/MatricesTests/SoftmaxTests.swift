// Softmax weights, their merging and their normalisation, against float64. Scores and maxima count steps of ln2/32.

import CKernels
import Foundation
import Matrices
import Testing

struct SoftmaxTests {
    struct Outcome {
        var weights: [Float]
        var rowMax: [Float]
        var rowSum: [Float]
        var bits: [[UInt32]] { [weights.bitPatterns, rowMax.bitPatterns, rowSum.bitPatterns] }
    }

    static func softmax(
        _ functions: annulus_kernels, _ scores: [Float], rows: Int, keys: Int, stride: Int,
        mask: (words: [UInt64], stride: Int)? = nil
    ) -> Outcome {
        var result = Outcome(
            weights: scores, rowMax: [Float](repeating: guardValue, count: rows),
            rowSum: [Float](repeating: guardValue, count: rows))
        functions.softmax_rows(
            &result.weights, stride, rows, keys, mask?.words, mask?.stride ?? 0, &result.rowMax, &result.rowSum)
        return result
    }

    @Test("weights, maxima and sums within their bounds; masked keys and padding weigh nothing")
    func accuracy() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for keys in [1, 5, 15, 16, 17, 31, 48, 63, 64, 65, 100, 128, 200, 256, 300] {
            for (masked, spread) in [(false, Float(40)), (true, 40), (false, 3_000), (true, 400_000)] {
                let rows = 1 + random.below(isDebug ? 3 : 9), stride = padded(keys) + 16 * random.below(2)
                var scores = random.floats(rows * stride, -spread...spread)
                let pattern = (0..<rows * keys).map { _ in !masked || random.below(4) > 0 }
                let visible: (Int, Int) -> Bool = { pattern[$0 * keys + $1] }
                for row in 0..<rows {
                    for key in 0..<padded(keys) where key >= keys || !visible(row, key) {
                        scores[row * stride + key] = .nan
                    }
                }
                let mask = masked ? maskWords(rows: rows, columns: keys, visible) : nil
                let results = softmaxSets.map {
                    Self.softmax($0.functions, scores, rows: rows, keys: keys, stride: stride, mask: mask)
                }
                let context = "\(rows) rows, \(keys) keys, spread \(spread), masked \(masked), seed \(random.seed)"
                var firsts: [String: Outcome] = [:]
                for (set, result) in zip(softmaxSets, results) {
                    #expect(result.bits == firsts[set.kind, default: result].bits, "\(set.name): \(context)")
                    firsts[set.kind] = firsts[set.kind] ?? result
                }
                for (kind, result) in firsts {
                    let tabled = softmaxSets.contains { $0.kind == kind && $0.functions.tabled_weights != 0 }
                    for row in 0..<rows {
                        let keysSeen = (0..<keys).filter { visible(row, $0) }
                        let highest = keysSeen.map { scores[row * stride + $0] }.max() ?? -.infinity
                        #expect(result.rowMax[row] == highest, "\(kind): \(context)")
                        var sum = 0.0, bound = 0.0
                        for key in 0..<padded(keys) {
                            let weight = result.weights[row * stride + key]
                            guard key < keys, visible(row, key) else {
                                #expect(weight.bitPattern == 0, "key \(key): \(kind): \(context)")
                                continue
                            }
                            let x = (Double(scores[row * stride + key]) - Double(highest)) / ANNULUS_STEPS
                            // The difference rounds once, the function errs as vectors.h says, and it is never below 2⁻¹²⁵.
                            let error = exp(x) * (abs(x) * 0x1p-24 + (tabled ? 1.9e-7 : 1.6e-7)) + 0x1.01p-125
                            if !(abs(Double(weight) - exp(x)) <= error) {
                                Issue.record("key \(key): weight \(weight) of e^\(x): \(kind): \(context)")
                            }
                            sum += exp(x)
                            bound += error
                        }
                        let chain = (padded(keys) / 16 + 4)
                        #expect(
                            abs(Double(result.rowSum[row]) - sum) <= bound + gamma(chain) * (sum + bound),
                            "\(kind): \(context)")
                    }
                    for at in scores.indices where at % stride >= padded(keys) {
                        #expect(
                            result.weights[at].bitPattern == scores[at].bitPattern,
                            "beside the row: \(kind): \(context)")
                    }
                }
            }
        }
    }

    @Test("the largest score weighs exactly one, and equal scores weigh the same")
    func exactAtZero() {
        for set in softmaxSets {
            let result = Self.softmax(set.functions, [Float](repeating: 7.25, count: 48), rows: 1, keys: 48, stride: 48)
            #expect(result.weights == [Float](repeating: 1, count: 48), "\(set.name)")
            #expect(result.rowSum == [48] && result.rowMax == [7.25], "\(set.name)")
        }
    }

    @Test("NaN, infinite and empty rows follow the header's rules")
    func specialRows() {
        let keys = 20, stride = 32
        for set in softmaxSets {
            for masked in [false, true] {
                var scores = [Float](repeating: 0.5, count: 5 * stride)
                for key in 0..<keys { scores[1 * stride + key] = -.infinity }
                scores[2 * stride + 18] = .nan
                for key in 0..<keys { scores[3 * stride + key] = key == 3 ? .nan : -.infinity }
                scores[4 * stride + 7] = -.infinity
                let mask = masked ? maskWords(rows: 5, columns: keys) { row, key in row != 0 } : nil
                let result = Self.softmax(set.functions, scores, rows: 5, keys: keys, stride: stride, mask: mask)
                let context = "\(set.name), masked \(masked)"
                if masked {
                    #expect(result.rowMax[0] == -.infinity && result.rowSum[0].bitPattern == 0, "\(context)")
                    #expect(result.weights[0..<stride].allSatisfy { $0.bitPattern == 0 }, "\(context)")
                } else {
                    #expect(result.rowMax[0] == 0.5 && result.rowSum[0] == 20, "\(context)")
                }
                // Scores of −∞ are keys that weigh nothing.
                #expect(result.rowMax[1] == -.infinity && result.rowSum[1] == 0, "\(context)")
                #expect(result.rowMax[2].isNaN && result.rowSum[2].isNaN, "\(context)")
                #expect(result.rowMax[3].isNaN && result.rowSum[3].isNaN, "\(context)")
                #expect(result.rowMax[4] == 0.5 && result.rowSum[4] == 19, "\(context)")
            }
        }
    }

    @Test("a NaN with any payload makes its weight and its row NaN, whichever bits would reach an exponent")
    func payloads() {
        for set in softmaxSets {
            for low in [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x181, 0x1ff, 0x1c0000, 0x3f_ffff] as [UInt32] {
                for kind in [0x7fc0_0000, 0xffc0_0000, 0x7f80_0000, 0xff80_0000] as [UInt32] where kind | low != kind {
                    var scores = [Float](repeating: 0.5, count: 64)
                    scores[37] = Float(bitPattern: kind | low)
                    let result = Self.softmax(set.functions, scores, rows: 1, keys: 64, stride: 64)
                    let context = "\(set.name), \(String(kind | low, radix: 16))"
                    #expect(result.weights[37].isNaN && result.rowMax[0].isNaN && result.rowSum[0].isNaN, "\(context)")
                    #expect(result.weights.enumerated().allSatisfy { $0 == 37 || $1 == 1 }, "\(context)")
                }
            }
        }
    }

    @Test("merging statistics: exact weights, identity on either side, NaN kept")
    func merging() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let rows = 40, width = 48, stride = 50
        var leftMax = random.floats(rows, -200...200), rightMax = random.floats(rows, -200...200)
        let leftSum = random.floats(rows, 1...9), rightSum = random.floats(rows, 1...9)
        let left = random.floats(rows * stride), right = random.floats(rows * stride)
        leftMax[3] = -.infinity
        rightMax[4] = -.infinity
        leftMax[5] = -.infinity
        rightMax[5] = -.infinity
        leftMax[6] = .nan
        rightMax[7] = .nan
        leftMax[8] = 1e5
        rightMax[9] = 1e5
        rightMax[10] = leftMax[10]
        var first: [[UInt32]]?
        for set in kernelSets {
            var m = leftMax, l = leftSum, o = left
            set.functions.merge_rows(rows, width, &m, &l, &o, stride, rightMax, rightSum, right, stride)
            let bits = [m.bitPatterns, l.bitPatterns, o.bitPatterns]
            #expect(bits == first ?? bits, "\(set.name), seed \(random.seed)")
            first = first ?? bits
            for row in 0..<rows {
                let context = "\(set.name), row \(row), seed \(random.seed)"
                let columns = row * stride..<row * stride + width
                #expect(
                    o[row * stride + width..<(row + 1) * stride].map(\.bitPattern)
                        == left[row * stride + width..<(row + 1) * stride].map(\.bitPattern), "\(context)")
                if rightMax[row] == -.infinity {
                    #expect(
                        m[row].bitPattern == leftMax[row].bitPattern && l[row].bitPattern == leftSum[row].bitPattern
                            && o[columns].map(\.bitPattern) == left[columns].map(\.bitPattern), "\(context)")
                } else if leftMax[row] == -.infinity {
                    #expect(
                        m[row].bitPattern == rightMax[row].bitPattern && l[row].bitPattern == rightSum[row].bitPattern
                            && o[columns].map(\.bitPattern) == right[columns].map(\.bitPattern), "\(context)")
                } else if leftMax[row].isNaN || rightMax[row].isNaN {
                    #expect(m[row].isNaN && l[row].isNaN && o[columns].allSatisfy(\.isNaN), "\(context)")
                } else {
                    let highest = max(leftMax[row], rightMax[row])
                    #expect(m[row] == highest, "\(context)")
                    let x = Double(leftMax[row] - highest) / ANNULUS_STEPS,
                        y = Double(rightMax[row] - highest) / ANNULUS_STEPS
                    // The power errs by an ulp (2⁻²³), each product and the sum round once.
                    let relative = 0x1p-23 + gamma(3)
                    let sum = (Double(leftSum[row]) * exp(x), Double(rightSum[row]) * exp(y))
                    #expect(abs(Double(l[row]) - sum.0 - sum.1) <= relative * (sum.0 + sum.1), "\(context)")
                    for at in columns {
                        let terms = (Double(left[at]) * exp(x), Double(right[at]) * exp(y))
                        if !(abs(Double(o[at]) - terms.0 - terms.1) <= relative * (abs(terms.0) + abs(terms.1)) + 1e-44)
                        {
                            Issue.record("column \(at - row * stride): \(o[at]): \(context)")
                        }
                    }
                }
            }
        }
    }

    @Test("normalising divides by the sum; a row without keys gives zeros and −∞", arguments: [1, 16, 33, 80])
    func normalizing(columns: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let rows = 37, stride = padded(columns) + 16, outputStride = columns + 3
        var rowMax = random.floats(rows, -2_000...2_000), rowSum = random.floats(rows, 1...300)
        let o = random.floats(rows * stride)
        rowMax[2] = -.infinity
        rowSum[2] = 0
        rowMax[20] = .nan
        rowSum[20] = .nan
        for set in kernelSets {
            for withLogSumExp in [true, false] {
                var output = [Float](repeating: guardValue, count: rows * outputStride)
                var logSumExp = [Float](repeating: guardValue, count: rows * 2)
                logSumExp.withUnsafeMutableBufferPointer {
                    set.functions.normalize_rows(
                        rows, columns, rowMax, rowSum, o, stride, &output, outputStride,
                        withLogSumExp ? $0.baseAddress : nil, 2)
                }
                for row in 0..<rows {
                    let context = "\(set.name), row \(row), seed \(random.seed)"
                    for column in 0..<outputStride {
                        let value = output[row * outputStride + column]
                        let expected =
                            column >= columns ? guardValue : row == 2 ? 0 : o[row * stride + column] / rowSum[row]
                        #expect(value == expected || (row == 20 && value.isNaN), "column \(column): \(context)")
                    }
                    #expect(logSumExp[2 * row + 1] == guardValue, "\(context)")
                    let value = logSumExp[2 * row]
                    if !withLogSumExp {
                        #expect(value == guardValue, "\(context)")
                    } else if row == 2 {
                        #expect(value == -.infinity, "\(context)")
                    } else if row == 20 {
                        #expect(value.isNaN, "\(context)")
                    } else {
                        let logarithm = log(Double(rowSum[row])),
                            exact = Double(rowMax[row]) / ANNULUS_STEPS + logarithm
                        #expect(abs(Double(value) - exact) <= 0x1p-23 * logarithm + 0x1p-24 * abs(exact), "\(context)")
                    }
                }
            }
        }
    }
}
