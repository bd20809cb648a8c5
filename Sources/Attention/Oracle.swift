// The float64 oracle: attention by its definition, with the error that float32 arithmetic may add.

import Matrices
import Tiles
#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

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

    /// softmax(modified(q·kᵀ·scale))·v over the visible keys.
    /// - Parameters:
    ///   - queries: shape.queries × headDimension; keys: shape.keys × headDimension; values: shape.keys × valueDimension.
    ///   - head: which entries of the modifiers' lists apply.
    ///   - wire: what keys and values are rounded to beforehand, if not to `element`.
    ///
    /// The bound follows the standard model of floating-point arithmetic (Higham, *Accuracy and
    /// Stability of Numerical Algorithms*, §3.1), with u = 2⁻²⁴:
    /// a score is off by at most δⱼ = γ(d + 3)·Σ|qᵢkᵢ|·scale (the scale in steps, the scaled query, d fused multiply-adds);
    /// its weight exp(sⱼ − m), reached through at most L merges, by the relative error
    /// ηⱼ = e^(δⱼ + δₘ + (L + 2)·u·(|sⱼ − m| + 1) + 4u·(L + 1)) − 1, the exponential being good to 2 ulp;
    /// sums of n terms add γ(n). In bfloat16 a score is further off by what the rounding of its q and k makes of it, with
    /// |q̂ − q| ≤ 2⁻⁸|q| + 2⁻¹²⁶ taken as it really is, and a term wⱼvⱼ by the factor 1 + 2⁻⁸ of the rounded weight and by
    /// |v̂ⱼ − vⱼ|. The quotient then differs by (Σ wⱼηⱼ|vⱼ| + |o|·Σ wⱼηⱼ) / (1 − Σ wⱼηⱼ).
    public static func attend(
        queries: [Float], keys: [Float], values: [Float],
        headDimension: Int, valueDimension: Int, shape: SequenceShape, mask: Mask, scale: Double,
        modifiers: ScoreModifiers = ScoreModifiers(), head: Int = 0, element: ElementKind = .float32, wire: ElementKind? = nil
    ) -> Result {
        let unit = 0x1p-24
        let weightUnit = element == .bfloat16 ? 0x1p-8 : 0
        let smallest = element == .bfloat16 ? 0x1p-126 : 0
        let queryErrors = roundingErrors(queries, element)
        let keyErrors = roundingErrors(keys, wire ?? element)
        let valueErrors = roundingErrors(values, wire ?? element)
        let merges = Double(levels(keys: shape.keys))
        var result = Result(
            output: Array(repeating: 0, count: shape.queries * valueDimension),
            logSumExp: Array(repeating: -.infinity, count: shape.queries),
            outputBound: Array(repeating: 0, count: shape.queries * valueDimension),
            logSumExpBound: Array(repeating: 0, count: shape.queries))
        func gamma(_ n: Double) -> Double { n * unit / (1 - n * unit) }
        let sink = modifiers.sinks.map { Double($0[head]) }
        for row in 0..<shape.queries {
            let visible = (0..<shape.keys).filter {
                mask.sees(row: row + shape.firstQuery, key: $0 + shape.firstKey, in: shape)
            }
            if visible.isEmpty {
                result.logSumExp[row] = sink ?? -.infinity
                // The sink rounds into steps, and out of them.
                result.logSumExpBound[row] = 3 * unit * abs(sink ?? 0)
                continue
            }
            var scores: [Double] = []
            var scoreErrors: [Double] = []
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
                let (modified, added) = modify(score * scale, distance: distance, modifiers, head: head)
                scores.append(modified)
                scoreErrors.append((gamma(Double(headDimension) + 3) * magnitude + rounding) * abs(scale) + added * unit)
            }
            let top = max(scores.max() ?? 0, sink ?? -.infinity)
            // The maximum that the float32 side picks may belong to another key, whose score is as close.
            let topError = scoreErrors.max() ?? 0
            var sum = 0.0
            var weightedError = 0.0
            var errors: [Double] = []
            for j in scores.indices {
                let weight = exp(scores[j] - top)
                let distance = abs(scores[j] - top) + 1 + topError
                let sums = gamma(Double(TileGrid.tileSize) + 2 * merges + 4)
                let exponent = scoreErrors[j] + topError + (merges + 3) * unit * distance + 4 * unit * (merges + 2) + sums
                errors.append(weight * expm1(exponent))
                sum += weight
                weightedError += errors[j]
            }
            if let sink {
                // A weight without a value, merged like any other part.
                let weight = exp(sink - top)
                sum += weight
                weightedError += weight * expm1(topError + 8 * unit * (abs(sink - top) + 1))
            }
            // No weight of a visible key is below 2⁻¹²⁵.
            let flushed = Double(visible.count) * 0x1p-125
            let eta = (weightedError + flushed) / sum
            result.logSumExp[row] = top + log(sum)
            result.logSumExpBound[row] = eta < 0.5
                ? -log1p(-eta) + topError + 4 * unit * (abs(top) + abs(log(sum)) + 1) : .infinity
            for column in 0..<valueDimension {
                var total = 0.0
                var error = 0.0
                for (j, key) in visible.enumerated() {
                    let value = Double(values[key * valueDimension + column])
                    total += exp(scores[j] - top) * value
                    let weight = exp(scores[j] - top)
                    let rounded = errors[j] + weightUnit * (weight + errors[j]) + 0x1p-125
                    error += rounded * abs(value) + (weight + rounded) * valueErrors[key * valueDimension + column] + 2 * smallest
                }
                let output = total / sum
                result.output[row * valueDimension + column] = output
                let relative = error / sum + abs(output) * (eta + 2 * unit)
                result.outputBound[row * valueDimension + column] = eta < 0.5 ? relative / (1 - eta) + 0x1p-126 : .infinity
            }
        }
        return result
    }

    /// How far, in units of the largest |v|, outputs may differ from exact ones for the rounding of keys and values to
    /// bfloat16 alone: e^2δ·(1 + u) − 1 with u = 2⁻⁸.
    ///
    /// A score qᵢ·kⱼ·scale changes by at most δ = u·|scale|·Σ|qᵢ||kⱼ| ≤ u·|scale|·‖q‖·‖k‖, cap and biases not enlarging it; its
    /// softmax weight pⱼ therefore lies within pⱼe^±2δ, and v̂ⱼ within vⱼ(1 ± u). So Σ|p̂ⱼv̂ⱼ − pⱼvⱼ| ≤ (e^2δ·(1 + u) − 1)·Σpⱼ|vⱼ|,
    /// and Σpⱼ|vⱼ| ≤ max|v|. Numbers below 2⁻¹²⁶ become zero, which adds as much.
    /// - Parameter scoreMagnitude: |scale|·‖q‖·‖k‖ at its largest.
    public static func bfloat16WireBound(scoreMagnitude: Double) -> Double {
        let unit = 0x1p-8
        return expm1(2 * unit * scoreMagnitude) * (1 + unit) + unit
    }

    /// A score after cap and biases, and what float32 adds to its error, in units of the roundoff: the cap's slope is at
    /// most 1 and its own error a few ulp; each addition rounds once.
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
    private static func roundingErrors(_ values: [Float], _ element: ElementKind) -> [Double] {
        values.map { element == .float32 ? 0 : abs(Double(roundedToBFloat16($0)) - Double($0)) }
    }

    /// The nearest bfloat16, ties to even; denormal numbers are zero, as the instructions have it.
    public static func roundedToBFloat16(_ x: Float) -> Float {
        if !x.isFinite || x.isZero { return x }
        if x.isSubnormal { return x * 0 }
        let below = Float(bitPattern: x.bitPattern & 0xffff_0000)
        let above = Float(bitPattern: below.bitPattern &+ 0x1_0000)
        // Past the largest finite number the neighbour is where the next one would be.
        let limit = above.isFinite ? Double(above) : 2 * Double(below) - Double(Float(bitPattern: below.bitPattern - 0x1_0000))
        let (down, up) = (abs(Double(x) - Double(below)), abs(limit - Double(x)))
        if down == up { return below.bitPattern & 0x1_0000 == 0 ? below : above }
        return down < up ? below : above
    }

    /// The height of the fixed tree over a number of keys.
    private static func levels(keys: Int) -> Int {
        var level = 0
        while 1 << level < TileGrid.count(length: keys) { level += 1 }
        return level
    }
}
