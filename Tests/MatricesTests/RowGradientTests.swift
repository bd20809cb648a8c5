// The backward of row-wise functions against float64 and finite differences, the same bits from every set.

import CKernels
import Foundation
import Matrices
import Testing
import Tiles

/// An activation in float64, its slope by central differences, and the function under test.
private enum Slope: String, CaseIterable {
    case gelu, geluTanh, silu, relu, tanh

    func value(_ x: Double) -> Double {
        switch self {
        case .gelu: return x / 2 * erfc(-x / 2.0.squareRoot())
        case .geluTanh:
            return x / (1 + exp(-2 * (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        case .silu: return x / (1 + exp(-x))
        case .relu: return max(x, 0)
        case .tanh: return Foundation.tanh(x)
        }
    }

    /// By definition, in float64.
    func slope(_ x: Double) -> Double {
        switch self {
        case .gelu: return erfc(-x / 2.0.squareRoot()) / 2 + x * exp(-x * x / 2) / (2 * Double.pi).squareRoot()
        case .geluTanh:
            let c = 2 * (2 / Double.pi).squareRoot()
            let e = exp(-abs(c * (x + 0.044715 * x * x * x)))
            let sigma = (x > 0 ? 1 : e) / (1 + e)
            return sigma + x * e / ((1 + e) * (1 + e)) * c * (1 + 3 * 0.044715 * x * x)
        case .silu:
            let e = exp(-abs(x))
            return (x > 0 ? 1 : e) / (1 + e) + x * e / ((1 + e) * (1 + e))
        case .relu: return x > 0 ? 1 : 0
        case .tanh: return 1 / (cosh(x) * cosh(x))
        }
    }

    func run(_ set: KernelSet, rows: Int, columns: Int, _ x: [Float], _ dy: [Float], stride: Int) -> [Float] {
        let functions = set.gradientFunctions
        var dx = [Float](repeating: guardValue, count: x.count)
        let function =
            switch self {
            case .gelu: functions.gelu_gradient
            case .geluTanh: functions.gelu_tanh_gradient
            case .silu: functions.silu_gradient
            case .relu: functions.relu_gradient
            case .tanh: functions.tanh_gradient
            }
        function?(rows, columns, x, stride, dy, stride, &dx, stride)
        return dx
    }
}

struct RowGradientTests {
    @Test("slopes of float64 are those of finite differences", arguments: Slope.allCases)
    fileprivate func definitions(slope: Slope) {
        for place in -60...60 where place != 0 {
            let (x, h) = (Double(place) / 8, 1e-5)
            let difference = (slope.value(x + h) - slope.value(x - h)) / (2 * h)
            #expect(abs(difference - slope.slope(x)) < 1e-8, "\(slope) at \(x)")
        }
    }

    /// A slope is a sum of two terms of a few roundings each, at most 1 + |x|·φ; beyond a few units it is 0 or 1 to the
    /// last bit.
    @Test("slopes of activations, everywhere", arguments: Slope.allCases)
    fileprivate func slopes(slope: Slope) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        var x = random.floats(4000, -6...6) + random.floats(1000, -20...20) + random.floats(500, -0.8 ... -0.7)
        x += [0, -0.0, .infinity, -.infinity, 200, -200, 1e-30, -1e-30]
        let ones = [Float](repeating: 1, count: x.count)
        var first: [UInt32]?
        for set in kernelSets {
            let y = slope.run(set, rows: 1, columns: x.count, x, ones, stride: x.count)
            #expect(y.bitPatterns == first ?? y.bitPatterns, "\(set.name), seed \(random.seed)")
            first = first ?? y.bitPatterns
            for (place, value) in x.enumerated() {
                let exact =
                    value == .infinity
                    ? (slope == .tanh ? 0 : 1) : value == -.infinity ? 0 : slope.slope(Double(value))
                let bound = 4e-7 * max(abs(exact), min(1, exp(-abs(Double(value)) / 2)))
                let error = abs(Double(y[place]) - exact)
                if !(error <= bound + 1e-37) {
                    Issue.record("\(slope) at \(value): \(y[place]), exact \(exact), seed \(random.seed)")
                    break
                }
            }
            #expect(slope.run(set, rows: 1, columns: 1, [.nan], [1], stride: 1)[0].isNaN || slope == .relu)
        }
    }

    @Test("every column of every row, nothing beside them, and in place", arguments: [1, 15, 16, 17, 70])
    func places(columns: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let (rows, stride) = (3, columns + 5)
        let x = random.floats(rows * stride, -3...3), dy = random.floats(rows * stride)
        for slope in Slope.allCases {
            for set in kernelSets {
                let dx = slope.run(set, rows: rows, columns: columns, x, dy, stride: stride)
                for at in x.indices {
                    if at % stride >= columns {
                        #expect(dx[at] == guardValue)
                    } else {
                        let exact = Double(dy[at]) * slope.slope(Double(x[at]))
                        #expect(abs(Double(dx[at]) - exact) < 1e-6, "\(slope), \(set.name), seed \(random.seed)")
                    }
                }
            }
        }
        for set in kernelSets {
            var inPlace = dy
            inPlace.withUnsafeMutableBufferPointer { values in
                guard let d = values.baseAddress else { return }
                set.gradientFunctions.gelu_gradient(rows, columns, x, stride, d, stride, d, stride)
            }
            let apart = Slope.gelu.run(set, rows: rows, columns: columns, x, dy, stride: stride)
            for at in x.indices { #expect(inPlace[at] == (at % stride < columns ? apart[at] : dy[at])) }
        }
    }

    /// y_j = n_j·γ_j + β_j; L = Σ dy∘y. The exact gradient is that of float64, which finite differences confirm.
    @Test(
        "norms: gradients of x, gamma and beta", arguments: [1, 2, 31, 64, 384, 389], [false, true])
    func norms(columns: Int, isRootMeanSquare: Bool) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let (rows, stride, epsilon) = (5, columns + 3, Float(1e-3))
        let x = random.floats(rows * stride, -2...4), dy = random.floats(rows * stride)
        let gamma = random.floats(columns, 0.5...1.5)
        func statistics(_ t: [Double]) -> (mean: Double, scale: Double) {
            let mean = isRootMeanSquare ? 0 : t.reduce(0, +) / Double(columns)
            let variance = t.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(columns)
            return (mean, 1 / (variance + Double(epsilon)).squareRoot())
        }
        func loss(_ t: [Double], _ row: Int) -> Double {
            let (mean, scale) = statistics(t)
            return t.indices.reduce(0) {
                $0 + Double(dy[row * stride + $1]) * (t[$1] - mean) * scale * Double(gamma[$1])
            }
        }
        var first: [UInt32]?
        for set in kernelSets {
            for hasBeta in [true, false] {
                var dx = [Float](repeating: guardValue, count: x.count)
                let start = random.seed % 2 == 0 ? Float(0) : 0.25
                var gammaSums = [Float](repeating: start, count: columns), betaSums = gammaSums
                let functions = set.gradientFunctions
                let function = isRootMeanSquare ? functions.rms_norm_gradient : functions.layer_norm_gradient
                betaSums.withUnsafeMutableBufferPointer { beta in
                    function?(
                        rows, columns, x, stride, gamma, epsilon, dy, stride, &dx, stride, &gammaSums,
                        hasBeta ? beta.baseAddress : nil)
                }
                if !hasBeta {
                    #expect(betaSums.allSatisfy { $0 == start })
                } else {
                    let bits = (dx + gammaSums + betaSums).bitPatterns
                    #expect(bits == first ?? bits, "\(set.name), seed \(random.seed)")
                    first = first ?? bits
                }
                guard set == kernelSets[0], hasBeta else { continue }
                var (gammaExact, betaExact) = (
                    [Double](repeating: Double(start), count: columns),
                    [Double](repeating: Double(start), count: columns)
                )
                var gammaBound = [Double](repeating: 0, count: columns), betaSize = betaExact
                for row in 0..<rows {
                    let t = (0..<columns).map { Double(x[row * stride + $0]) }
                    let (mean, scale) = statistics(t)
                    let n = t.map { ($0 - mean) * scale }
                    let g = (0..<columns).map { Double(dy[row * stride + $0]) * Double(gamma[$0]) }
                    let meanG = isRootMeanSquare ? 0 : g.reduce(0, +) / Double(columns)
                    let meanProduct = zip(g, n).reduce(0) { $0 + $1.0 * $1.1 } / Double(columns)
                    // x − mean is off by the roundings of the mean, and the scale by half the variance's.
                    let largest = (t.map { abs($0) }.max() ?? 0) * MatricesTests.gamma(columns / 16 + 8) * 2
                    let relative = min(1, 2 * largest * scale) + MatricesTests.gamma(columns / 16 + 12)
                    let ofSums = MatricesTests.gamma(columns / 16 + 10)
                    let mass = g.reduce(0) { $0 + abs($1) } / Double(columns)
                    let size =
                        g.indices.reduce(0) { $0 + abs(g[$1]) * (abs(n[$1]) + largest * scale) } / Double(columns)
                    for j in 0..<columns {
                        let exact = scale * (g[j] - meanG - n[j] * meanProduct)
                        let offN = largest * scale + abs(n[j]) * relative
                        let product = abs(n[j]) * size
                        // Errors of n and of the sums; one n more for those that all share.
                        let ofScale = (relative + ofSums) * (abs(g[j]) + mass + product)
                        let ofN = offN * size + abs(n[j]) * (largest * scale + relative) * size * 2
                        let bound = scale * (ofScale + ofN)
                        let value = Double(dx[row * stride + j])
                        if !(abs(value - exact) <= bound) {
                            Issue.record("row \(row) column \(j): \(value), exact \(exact), seed \(random.seed)")
                        }
                        gammaExact[j] += Double(dy[row * stride + j]) * n[j]
                        betaExact[j] += Double(dy[row * stride + j])
                        let addend = abs(Double(dy[row * stride + j]))
                        gammaBound[j] += addend * (offN + abs(n[j]) * MatricesTests.gamma(rows + 2))
                        betaSize[j] += addend
                    }
                    for j in columns..<stride { #expect(dx[row * stride + j] == guardValue) }
                    let j = row * 7 % columns
                    var (up, down) = (t, t)
                    (up[j], down[j]) = (t[j] + 1e-6, t[j] - 1e-6)
                    let difference = (loss(up, row) - loss(down, row)) / 2e-6
                    let exact = scale * (g[j] - meanG - n[j] * meanProduct)
                    #expect(abs(difference - exact) <= 1e-6 * (abs(exact) + scale), "seed \(random.seed)")
                }
                for j in 0..<columns {
                    #expect(
                        abs(Double(gammaSums[j]) - gammaExact[j]) <= gammaBound[j] + MatricesTests.gamma(rows + 2),
                        "gamma \(j), seed \(random.seed)")
                    #expect(
                        abs(Double(betaSums[j]) - betaExact[j]) <= betaSize[j] * MatricesTests.gamma(rows + 1),
                        "beta \(j), seed \(random.seed)")
                }
            }
        }
    }

    @Test("rows add up one after the other", arguments: [1, 16, 37])
    func sums(columns: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let (rows, stride) = (7, columns + 2)
        let x = random.floats(rows * stride), start = random.floats(columns)
        var expected = start
        for row in 0..<rows { for j in 0..<columns { expected[j] += x[row * stride + j] } }
        for set in kernelSets {
            var sums = start
            set.gradientFunctions.add_rows(rows, columns, x, stride, &sums, 0)
            #expect(sums.bitPatterns == expected.bitPatterns, "\(set.name), seed \(random.seed)")
            var y = x
            set.gradientFunctions.add_rows(rows, columns, x, stride, &y, stride)
            for at in x.indices { #expect(y[at] == (at % stride < columns ? 2 * x[at] : x[at])) }
        }
    }

    @Test("dropout takes the channels that the counter names", arguments: [1, 2, 15, 16, 17, 67])
    func dropout(columns: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let draws = CountedDraws(seed: random.bits(), step: 4, site: .embeddings, layer: 1)
        let x = random.floats(columns + 3)
        for (document, row, probability) in [(0, 0, 0.1), (5, 700, 0.5), (1 << 33, 3, 0.9)] {
            let threshold = CountedDraws.threshold(probability)
            for set in kernelSets {
                var y = x
                set.gradientFunctions.drop_row(
                    columns, &y, draws.state(document: document, row: row), threshold, Float(1 / (1 - probability)))
                for at in x.indices {
                    let isDropped =
                        at < columns && draws.bits(document: document, row: row, channel: at) < threshold
                    let kept = at < columns ? x[at] * Float(1 / (1 - probability)) : x[at]
                    #expect(y[at] == (isDropped ? 0 : kept), "\(set.name), channel \(at), seed \(random.seed)")
                }
            }
        }
    }
}
