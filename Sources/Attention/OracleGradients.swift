// The gradients of attention by definition, in double precision, with the error that float32 arithmetic may add.

import CLibrary
import Matrices
import Tiles

extension Oracle {
    /// Gradients, and an upper bound of |float32 result − gradient|, element by element.
    public struct Gradient: Sendable {
        /// The gradients themselves.
        public var exact: [Double]
        /// What float32 results may be off by.
        public var bound: [Double]

        fileprivate init(count: Int) {
            exact = Array(repeating: 0, count: count)
            bound = exact
        }
    }

    /// The gradients of one query head. Those of keys and values are this head's part of the sum over the heads that share
    /// them.
    public struct Gradients: Sendable {
        /// queries × headDimension.
        public var queries: Gradient
        /// keys × headDimension.
        public var keys: Gradient
        /// keys × valueDimension.
        public var values: Gradient
        /// One a column of the head's relative biases; none without.
        public var relativeBias: Gradient
        /// That of the sink; none without.
        public var sink: Gradient
    }

    /// The gradients of Σ dO∘attend(q, k, v), whose arguments it shares; `outputGradients` is dO, shape.queries ×
    /// valueDimension.
    ///
    /// The bounds, u = 2⁻²⁴: a weight pᵢⱼ is off by δp as `receive` derives it, with four roundings more for the quotient, which
    /// goes into dO and D. dPᵢⱼ = Σ dOᵢᵥ·Vⱼᵥ is off by γ(dv + 4)·Σ|dO||V|, and by what rounded values add; Dᵢ = Σ dO∘O by
    /// Σ|dO|·(bound of O) and γ(dv + 4)·Σ|dO||O|; so gᵢⱼ = pᵢⱼ·(dPᵢⱼ − Dᵢ) by
    /// δp·(|dP − D| + δdP + δD) + p·(δdP + δD) + 3u·p·|dP − D|. A cap's slope 1 − (s/C)² is off by 2·(δs/C + 6u) + 4u. The sums
    /// of n terms over a tile and L levels of a tree add γ(n + L + 2) of the sum of their magnitudes, the scale one rounding more.
    /// Where weights are dropped, p goes into dV and dP into g times what they are multiplied by, each rounded once more.
    public static func differentiate(
        queries: [Float], keys: [Float], values: [Float], outputGradients: [Float],
        headDimension: Int, valueDimension: Int, shape: SequenceShape, mask: Mask, scale: Double,
        modifiers: ScoreModifiers = ScoreModifiers(), head: Int = 0, element: ElementKind = .float32,
        wire: ElementKind? = nil, dropout: WeightDropout? = nil, sequence: Int = 0
    ) -> Gradients {
        let definition = definition(
            queries, keys, headDimension, shape, mask, scale, modifiers, head, element, wire)
        let forward = attend(
            queries: queries, keys: keys, values: values, headDimension: headDimension,
            valueDimension: valueDimension,
            shape: shape, mask: mask, scale: scale, modifiers: modifiers, head: head, element: element,
            wire: wire, dropout: dropout, sequence: sequence)
        let valueErrors = roundingErrors(values, wire ?? element)
        let reach = modifiers.relativeBias?.reach ?? 0
        let (ofQueries, ofKeys, ofValues) = (
            GradientSums(count: queries.count), GradientSums(count: keys.count),
            GradientSums(count: values.count)
        )
        let ofBiases = GradientSums(count: modifiers.relativeBias == nil ? 0 : 2 * reach + 1)
        let ofSink = GradientSums(count: modifiers.sinks == nil ? 0 : 1)
        let overRows = gamma(Double(TileGrid.tileSize + levels(keys: shape.queries) + 2))
        let overKeys = gamma(Double(TileGrid.tileSize + levels(keys: shape.keys) + 2))
        let overValues = gamma(Double(valueDimension + 4))
        // A row of a tile adds to a bucket once for every 16 keys, each time a sum of 16.
        let overPairs = gamma(
            Double(
                TileGrid.tileSize * TileGrid.tileSize / 16 + 5 + levels(keys: shape.queries)
                    + levels(keys: shape.keys))
        )
        for row in 0..<shape.queries {
            let (visible, scores, scoreErrors) = definition.scores(row: row)
            let rowGradients = outputGradients[row * valueDimension..<(row + 1) * valueDimension].map(
                Double.init)
            var (dot, dotBound) = (0.0, 0.0)
            for (column, gradient) in rowGradients.enumerated() {
                let output = forward.output[row * valueDimension + column]
                let bound = forward.outputBound[row * valueDimension + column]
                dot += gradient * output
                dotBound += abs(gradient) * (bound + overValues * (abs(output) + bound))
            }
            if visible.isEmpty { continue }
            let statistics = definition.statistics(scores, scoreErrors)
            let query = queries[row * headDimension..<(row + 1) * headDimension].map(Double.init)
            for (j, key) in visible.enumerated() {
                let weight = exp(scores[j] - statistics.logSumExp)
                let exponent =
                    scoreErrors[j] + statistics.logSumExpBound + (2 * abs(scores[j] - statistics.top) + 12)
                    * unit
                let weightBound = weight * expm1(exponent) + 0x1p-125 / statistics.sum
                let kept = dropout.map { Double($0.factor(sequence: sequence, head: head, query: row, key: key)) } ?? 1
                let (keptWeight, rounding) = (kept * weight, dropout == nil ? 0 : unit)
                let keptWeightBound = kept * weightBound * (1 + rounding) + keptWeight * rounding
                var (product, productBound) = (0.0, 0.0)
                for column in 0..<valueDimension {
                    let (gradient, value) = (
                        rowGradients[column], Double(values[key * valueDimension + column])
                    )
                    let error = valueErrors[key * valueDimension + column]
                    product += gradient * value
                    productBound += abs(gradient) * (overValues * (abs(value) + error) + error)
                    let place = key * valueDimension + column
                    ofValues.add(keptWeight * gradient, bound: keptWeightBound * abs(gradient), at: place)
                }
                productBound = kept * productBound * (1 + rounding) + kept * abs(product) * rounding
                product *= kept
                let (difference, differenceBound) = (abs(product - dot), productBound + dotBound)
                var gradient = weight * (product - dot)
                var bound =
                    weightBound * (difference + differenceBound) + weight * differenceBound
                    + 3 * unit * weight * difference + 0x1p-149
                if modifiers.relativeBias != nil {
                    let distance = shape.position(ofKey: key) - shape.position(ofQuery: row)
                    let column = reach + min(max(distance, -reach), reach)
                    ofBiases.add(gradient, bound: bound, at: column)
                }
                if let cap = modifiers.softcap.map(Double.init) {
                    var score = 0.0
                    for i in 0..<headDimension {
                        score += query[i] * Double(keys[key * headDimension + i])
                    }
                    let part = tanh(score * scale / cap)
                    let (slope, slopeBound) = (
                        1 - part * part, 2 * (scoreErrors[j] / cap + 6 * unit) + 4 * unit
                    )
                    bound = bound * (slope + slopeBound) + abs(gradient) * slopeBound
                    gradient *= slope
                }
                let magnitude = abs(gradient)
                for i in 0..<headDimension {
                    let place = key * headDimension + i
                    let (k, error) = (Double(keys[place]), definition.keyErrors[place])
                    ofQueries.add(
                        gradient * k * scale,
                        bound: (bound * (abs(k) + error) + magnitude * error) * abs(scale),
                        at: row * headDimension + i)
                    ofKeys.add(
                        gradient * query[i] * scale, bound: bound * abs(query[i] * scale), at: place)
                }
            }
            if let sink = definition.sink {
                let share = exp(sink - statistics.logSumExp)
                let shareBound = share * expm1(statistics.logSumExpBound + (4 * abs(sink) + 12) * unit)
                ofSink.add(
                    -share * dot, bound: shareBound * (abs(dot) + dotBound) + share * dotBound, at: 0)
            }
        }
        return Gradients(
            queries: ofQueries.gradient(sums: overKeys), keys: ofKeys.gradient(sums: overRows),
            values: ofValues.gradient(sums: overRows), relativeBias: ofBiases.gradient(sums: overPairs),
            sink: ofSink.gradient(sums: overRows))
    }
}

/// Gradients under way: sums of terms, of what each is off by, and of their magnitudes.
private final class GradientSums {
    private let count: Int
    private let exact: UnsafeMutablePointer<Double>
    private let bound: UnsafeMutablePointer<Double>
    private let magnitude: UnsafeMutablePointer<Double>

    init(count: Int) {
        func zeros() -> UnsafeMutablePointer<Double> {
            let memory = UnsafeMutablePointer<Double>.allocate(capacity: max(1, count))
            memory.initialize(repeating: 0, count: max(1, count))
            return memory
        }
        self.count = count
        (exact, bound, magnitude) = (zeros(), zeros(), zeros())
    }

    deinit {
        exact.deallocate()
        bound.deallocate()
        magnitude.deallocate()
    }

    func add(_ term: Double, bound off: Double, at place: Int) {
        exact[place] += term
        bound[place] += off
        magnitude[place] += abs(term)
    }

    /// The sums, their bounds widened by what float32 sums of such terms add.
    func gradient(sums: Double) -> Oracle.Gradient {
        var result = Oracle.Gradient(count: count)
        for place in 0..<count {
            result.exact[place] = exact[place]
            result.bound[place] = bound[place] * (1 + sums) + magnitude[place] * sums + 0x1p-140
        }
        return result
    }
}

extension Oracle.Gradient {
    /// The sum of gradients of heads that share keys: `heads` of them, added one after another.
    public static func sum(_ parts: [Self]) -> Self {
        var sum = Self(count: parts.first?.exact.count ?? 0)
        let sums = Oracle.gamma(Double(parts.count))
        for place in sum.exact.indices {
            var magnitude = 0.0
            for part in parts {
                sum.exact[place] += part.exact[place]
                sum.bound[place] += part.bound[place]
                magnitude += abs(part.exact[place]) + part.bound[place]
            }
            sum.bound[place] += magnitude * sums
        }
        return sum
    }
}
