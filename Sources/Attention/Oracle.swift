// The float64 oracle: attention by its definition, with the error that float32 arithmetic may add.

import CLibrary
import Matrices
import Tiles

/// Attention by definition in double precision: the reference for every test of the kernels, the
/// merge and the executor, and for `verify`.
public enum Oracle {
    /// One head's result and what a float32 computation of it may differ by.
    public struct Result: Sendable {
        /// queries × valueDimension.
        public var output: [Double]
        /// One a query; −∞ where no key is visible.
        public var logSumExp: [Double]
        /// An upper bound of |float32 result − output|, element by element.
        public var outputBound: [Double]
        /// An upper bound of |float32 result − logSumExp|, row by row.
        public var logSumExpBound: [Double]
    }

    /// One head of an attention by definition: what all results are made of.
    struct Definition {
        let queries: [Float]
        let keys: [Float]
        let headDimension: Int
        let shape: SequenceShape
        let mask: Mask
        let scale: Double
        let modifiers: ScoreModifiers
        let head: Int
        let queryErrors: [Double]
        let keyErrors: [Double]
        /// The smallest number that is not rounded to zero.
        let smallest: Double

        var sink: Double? { modifiers.sinks.map { Double($0[head]) } }
        var merges: Double { Double(Oracle.levels(keys: shape.keys)) }

        /// A row's visible keys, their scores, and what float32 adds to each.
        func scores(row: Int) -> (visible: [Int], scores: [Double], errors: [Double]) {
            let visible = (0..<shape.keys).filter {
                mask.sees(row: row + shape.firstQuery, key: $0 + shape.firstKey, in: shape)
            }
            var scores: [Double] = []
            var errors: [Double] = []
            for key in visible {
                var score = 0.0
                var magnitude = 0.0
                var rounding = 0.0
                for i in 0..<headDimension {
                    let q = Double(queries[row * headDimension + i])
                    let k = Double(keys[key * headDimension + i])
                    let qError = queryErrors[row * headDimension + i]
                    let kError = keyErrors[key * headDimension + i]
                    score += q * k
                    magnitude += (abs(q) + qError) * (abs(k) + kError)
                    rounding += abs(q) * kError + qError * abs(k) + qError * kError + 2 * smallest
                }
                let distance = shape.position(ofKey: key) - shape.position(ofQuery: row)
                let (modified, added) = Oracle.modify(score * scale, distance: distance, modifiers, head: head)
                scores.append(modified)
                errors.append(
                    (Oracle.gamma(Double(headDimension) + 3) * magnitude + rounding) * abs(scale) + added * Oracle.unit)
            }
            return (visible, scores, errors)
        }

        /// The softmax statistics of a row that sees something.
        func statistics(_ scores: [Double], _ scoreErrors: [Double]) -> Statistics {
            let top = max(scores.max() ?? 0, sink ?? -.infinity)
            // The maximum that the float32 side picks may belong to another key, whose score is as close.
            let topError = scoreErrors.max() ?? 0
            var sum = 0.0
            var weightedError = 0.0
            var errors: [Double] = []
            for j in scores.indices {
                let weight = exp(scores[j] - top)
                let distance = abs(scores[j] - top) + 1 + topError
                let sums = Oracle.gamma(Double(TileGrid.tileSize) + 2 * merges + 4)
                let exponent =
                    scoreErrors[j] + topError + (merges + 3) * Oracle.unit * distance + 4 * Oracle.unit * (merges + 2)
                    + sums
                errors.append(weight * expm1(exponent))
                sum += weight
                weightedError += errors[j]
            }
            if let sink {
                // A weight without a value, merged like any other part.
                let weight = exp(sink - top)
                sum += weight
                weightedError += weight * expm1(topError + 8 * Oracle.unit * (abs(sink - top) + 1))
            }
            // No weight of a visible key is below 2⁻¹²⁵.
            let flushed = Double(scores.count) * 0x1p-125
            return Statistics(
                top: top, topError: topError, sum: sum, eta: (weightedError + flushed) / sum, weightErrors: errors)
        }
    }

    struct Statistics {
        let top: Double
        let topError: Double
        let sum: Double
        /// The relative error of the sum.
        let eta: Double
        /// The error of each weight.
        let weightErrors: [Double]

        var logSumExp: Double { top + log(sum) }
        var logSumExpBound: Double {
            eta < 0.5 ? -log1p(-eta) + topError + 4 * Oracle.unit * (abs(top) + abs(log(sum)) + 1) : .infinity
        }
    }

    static let unit = 0x1p-24
    static func gamma(_ n: Double) -> Double { n * unit / (1 - n * unit) }

    /// softmax(modified(q·kᵀ·scale))·v over the visible keys.
    /// - Parameters:
    ///   - queries: shape.queries × headDimension, row-major.
    ///   - keys: shape.keys × headDimension, row-major.
    ///   - values: shape.keys × valueDimension, row-major.
    ///   - headDimension: the width of a query and of a key.
    ///   - valueDimension: the width of a value and of an output.
    ///   - shape: how many queries and keys there are, and where they stand in the whole sequence.
    ///   - mask: which keys each query sees.
    ///   - scale: what scores are multiplied by, 1/√d as a rule.
    ///   - modifiers: what is done to the scores; relative positions are not looked at.
    ///   - head: which entries of the modifiers' lists apply.
    ///   - element: what the computation that is bounded stores its operands in; the definition rounds none.
    ///   - wire: what that computation rounds keys and values to beforehand, if not to `element`.
    ///   - dropout: what is dropped of the weights, if anything.
    ///   - sequence: the place of queries and keys in the batch, by which weights are dropped.
    ///
    /// The bound follows the standard model of floating-point arithmetic (Higham, *Accuracy and
    /// Stability of Numerical Algorithms*, §3.1), with u = 2⁻²⁴:
    /// a score is off by at most δⱼ = γ(d + 3)·Σ|qᵢkᵢ|·scale (the scale in steps, the scaled query, d fused
    /// multiply-adds); its weight exp(sⱼ − m), reached through at most L merges, by the relative error
    /// ηⱼ = e^(δⱼ + δₘ + (L + 2)·u·(|sⱼ − m| + 1) + 4u·(L + 1)) − 1, the exponential being good to 2 ulp;
    /// sums of n terms add γ(n). In bfloat16 a score is further off by what the rounding of its q and k makes of it,
    /// with
    /// |q̂ − q| ≤ 2⁻⁸|q| + 2⁻¹²⁶ taken as it really is, and a term wⱼvⱼ by the factor 1 + 2⁻⁸ of the rounded weight and by
    /// |v̂ⱼ − vⱼ|. The quotient then differs by (Σ wⱼηⱼ|vⱼ| + |o|·Σ wⱼηⱼ) / (1 − Σ wⱼηⱼ). What dropout leaves of a weight
    /// is rounded once more.
    public static func attend(
        queries: [Float], keys: [Float], values: [Float],
        headDimension: Int, valueDimension: Int, shape: SequenceShape, mask: Mask, scale: Double,
        modifiers: ScoreModifiers = ScoreModifiers(), head: Int = 0, element: ElementKind = .float32,
        wire: ElementKind? = nil, dropout: WeightDropout? = nil, sequence: Int = 0
    ) -> Result {
        let weightUnit = element == .bfloat16 ? 0x1p-8 : dropout == nil ? 0 : unit
        let valueErrors = roundingErrors(values, wire ?? element)
        let definition = definition(queries, keys, headDimension, shape, mask, scale, modifiers, head, element, wire)
        let smallest = definition.smallest
        var result = Result(
            output: Array(repeating: 0, count: shape.queries * valueDimension),
            logSumExp: Array(repeating: -.infinity, count: shape.queries),
            outputBound: Array(repeating: 0, count: shape.queries * valueDimension),
            logSumExpBound: Array(repeating: 0, count: shape.queries))
        for row in 0..<shape.queries {
            let (visible, scores, scoreErrors) = definition.scores(row: row)
            if visible.isEmpty {
                result.logSumExp[row] = definition.sink ?? -.infinity
                // The sink rounds into steps, and out of them.
                result.logSumExpBound[row] = 3 * unit * abs(definition.sink ?? 0)
                continue
            }
            let statistics = definition.statistics(scores, scoreErrors)
            let (top, sum, eta) = (statistics.top, statistics.sum, statistics.eta)
            result.logSumExp[row] = statistics.logSumExp
            result.logSumExpBound[row] = statistics.logSumExpBound
            let kept = visible.map { key in
                dropout.map { Double($0.factor(sequence: sequence, head: head, query: row, key: key)) } ?? 1
            }
            for column in 0..<valueDimension {
                var total = 0.0
                var error = 0.0
                for (j, key) in visible.enumerated() {
                    let value = Double(values[key * valueDimension + column])
                    let weight = kept[j] * exp(scores[j] - top)
                    total += weight * value
                    let weightError = kept[j] * statistics.weightErrors[j]
                    let rounded = weightError + weightUnit * (weight + weightError) + (1 + kept[j]) * 0x1p-125
                    error +=
                        rounded * abs(value) + (weight + rounded) * valueErrors[key * valueDimension + column] + 2
                        * smallest
                }
                let output = total / sum
                result.output[row * valueDimension + column] = output
                let relative = error / sum + abs(output) * (eta + 2 * unit)
                result.outputBound[row * valueDimension + column] =
                    eta < 0.5 ? relative / (1 - eta) + 0x1p-126 : .infinity
            }
        }
        return result
    }

    /// What the keys of one head receive, and what a float32 computation of it may differ by.
    public struct Received: Sendable {
        /// One a key: Σ over rows of weight · pᵢⱼ.
        public var mass: [Double]
        /// An upper bound of |float32 result − mass|, key by key.
        public var bound: [Double]
        /// For each row the sink's share of its softmax; 1 for a row that sees nothing.
        public var sinkShares: [Double]
    }

    /// Σ over rows of `rowWeights` times the softmax weights that a key has in them.
    ///
    /// The bound: ln pᵢⱼ = sᵢⱼ − Lᵢ is off by what the score and the log-sum-exp are off by (`attend`), and by the
    /// rounding of sᵢⱼ − mᵢ, of the exponential, of w/ℓ and of their product, together at most (2·|sᵢⱼ − mᵢ| + 8)·u; no
    /// weight is below 2⁻¹²⁵; a sum of n rows adds γ(n).
    public static func receive(
        queries: [Float], keys: [Float], rowWeights: [Float], headDimension: Int, shape: SequenceShape, mask: Mask,
        scale: Double,
        modifiers: ScoreModifiers = ScoreModifiers(), head: Int = 0, element: ElementKind = .float32,
        wire: ElementKind? = nil
    ) -> Received {
        let definition = definition(queries, keys, headDimension, shape, mask, scale, modifiers, head, element, wire)
        var result = Received(
            mass: Array(repeating: 0, count: shape.keys), bound: Array(repeating: 0, count: shape.keys),
            sinkShares: Array(repeating: 1, count: shape.queries))
        var magnitudes = result.mass
        for row in 0..<shape.queries {
            let (visible, scores, scoreErrors) = definition.scores(row: row)
            if visible.isEmpty { continue }
            let statistics = definition.statistics(scores, scoreErrors)
            let weight = Double(rowWeights[row])
            result.sinkShares[row] = definition.sink.map { exp($0 - statistics.logSumExp) } ?? 0
            for (j, key) in visible.enumerated() {
                let share = exp(scores[j] - statistics.logSumExp)
                let exponent =
                    scoreErrors[j] + statistics.logSumExpBound + (2 * abs(scores[j] - statistics.top) + 8) * unit
                result.mass[key] += weight * share
                result.bound[key] += abs(weight) * (share * expm1(exponent) + 0x1p-125 / statistics.sum)
                magnitudes[key] += abs(weight) * share
            }
        }
        let sums = gamma(Double(TileGrid.tileSize + levels(keys: shape.queries) + 2))
        for key in 0..<shape.keys {
            result.bound[key] = result.bound[key] * (1 + sums) + magnitudes[key] * sums + 0x1p-149
        }
        return result
    }

    static func definition(
        _ queries: [Float], _ keys: [Float], _ headDimension: Int, _ shape: SequenceShape, _ mask: Mask,
        _ scale: Double, _ modifiers: ScoreModifiers,
        _ head: Int, _ element: ElementKind, _ wire: ElementKind?
    ) -> Definition {
        Definition(
            queries: queries, keys: keys, headDimension: headDimension, shape: shape, mask: mask, scale: scale,
            modifiers: modifiers, head: head,
            queryErrors: roundingErrors(queries, element), keyErrors: roundingErrors(keys, wire ?? element),
            smallest: element == .bfloat16 ? 0x1p-126 : 0)
    }

    /// How far, in units of the largest |v|, outputs may differ from exact ones for the rounding of keys and values to
    /// bfloat16 alone: e^2δ·(1 + u) − 1 with u = 2⁻⁸.
    ///
    /// A score qᵢ·kⱼ·scale changes by at most δ = u·|scale|·Σ|qᵢ||kⱼ| ≤ u·|scale|·‖q‖·‖k‖, cap and biases not enlarging
    /// it; its softmax weight pⱼ therefore lies within pⱼe^±2δ, and v̂ⱼ within vⱼ(1 ± u). So Σ|p̂ⱼv̂ⱼ − pⱼvⱼ| ≤
    /// (e^2δ·(1 + u) − 1)·Σpⱼ|vⱼ|, and Σpⱼ|vⱼ| ≤ max|v|. Numbers below 2⁻¹²⁶ become zero, which adds as much.
    /// - Parameter scoreMagnitude: |scale|·‖q‖·‖k‖ at its largest.
    public static func bfloat16WireBound(scoreMagnitude: Double) -> Double {
        let unit = 0x1p-8
        return expm1(2 * unit * scoreMagnitude) * (1 + unit) + unit
    }

    /// A score after cap and biases, and what float32 adds to its error, in units of the roundoff: the cap's slope is
    /// at most 1 and its own error a few ulp; each addition rounds once.
    private static func modify(
        _ scaled: Double, distance: Int, _ modifiers: ScoreModifiers, head: Int
    ) -> (score: Double, error: Double) {
        var score = scaled
        // In bfloat16 the scale is applied to the score, which rounds once more.
        var error = 2 * abs(score)
        if let cap = modifiers.softcap.map(Double.init) {
            score = cap * tanh(score / cap)
            error += 8 * abs(score)
        }
        if let relative = modifiers.relativeBias {
            let column = relative.reach + min(max(distance, -relative.reach), relative.reach)
            score += Double(relative.table[head * (2 * relative.reach + 1) + column])
            error += 2 * abs(score)
        }
        if let slope = modifiers.alibiSlopes.map({ Double($0[head]) }) {
            let penalty = slope * Double(abs(distance))
            score -= penalty
            error += 2 * abs(penalty) + 2 * abs(score)
        }
        return (score, error)
    }

    /// |x̂ − x| for the stored form of each number.
    static func roundingErrors(_ values: [Float], _ element: ElementKind) -> [Double] {
        values.map { element == .float32 ? 0 : abs(Double(roundedToBFloat16($0)) - Double($0)) }
    }

    /// The nearest bfloat16, ties to even; denormal numbers are zero, as the instructions have it.
    public static func roundedToBFloat16(_ x: Float) -> Float {
        if !x.isFinite || x.isZero { return x }
        if x.isSubnormal { return x * 0 }
        let below = Float(bitPattern: x.bitPattern & 0xffff_0000)
        let above = Float(bitPattern: below.bitPattern &+ 0x1_0000)
        // Past the largest finite number the neighbour is where the next one would be.
        let limit =
            above.isFinite ? Double(above) : 2 * Double(below) - Double(Float(bitPattern: below.bitPattern - 0x1_0000))
        let (down, up) = (abs(Double(x) - Double(below)), abs(limit - Double(x)))
        if down == up { return below.bitPattern & 0x1_0000 == 0 ? below : above }
        return down < up ? below : above
    }

    /// The height of the fixed tree over a number of keys.
    static func levels(keys: Int) -> Int {
        var level = 0
        while 1 << level < TileGrid.count(length: keys) { level += 1 }
        return level
    }
}
