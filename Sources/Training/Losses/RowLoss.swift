// The loss of a row of logits and its gradient, which need that row alone.

import Matrices

/// What a row of logits should have been.
public enum RowTarget: Sendable, Equatable {
    /// The class, by its number.
    case index(Int)
    /// A number for each output: 0 or 1 for labels of which several may hold, any for a regression.
    case values([Float])
    /// The row takes no part: it has no loss, its gradient is zero, and it does not count.
    case ignored
}

/// A loss whose value for a row of logits needs that row alone.
///
/// A step's loss is the sum over rows divided by a count, a whole number that is known before the step begins: of rows
/// for a cross entropy, of numbers (rows × outputs) for the others, as torch's `mean` reductions have it. The sum goes
/// up the fixed tree of the step's tiles (``StepSums``), in double precision.
public enum RowLoss: Sendable, Equatable {
    /// ln Σⱼ e^(xⱼ) − x_y, as `torch.nn.CrossEntropyLoss`.
    case crossEntropy
    /// Σⱼ max(xⱼ, 0) − xⱼ·yⱼ + ln(1 + e^(−|xⱼ|)), as `torch.nn.BCEWithLogitsLoss`.
    case binary
    /// Σⱼ (xⱼ − yⱼ)², as `torch.nn.MSELoss`.
    case squaredError

    /// What a row adds to the count by which the sum is divided.
    public func count(_ target: RowTarget, outputs: Int) -> Int {
        switch target {
        case .ignored: 0
        case .index: 1
        case .values: self == .crossEntropy ? 1 : outputs
        }
    }

    /// The loss of a row; the row becomes factor × its gradient.
    ///
    /// Exponentials and logarithms are the kernels' own, and sums run in double precision in lanes of a fixed number, so
    /// that the bits are the same in every kernel set.
    /// - Parameters:
    ///   - row: (outputs), logits; overwritten.
    ///   - target: of the loss's kind: an index below `outputs` for a cross entropy, `outputs` numbers for the others.
    ///   - factor: what the gradient is multiplied by: the task's weight over the count.
    /// - Returns: the row's loss, not multiplied.
    public func differentiate(
        _ row: UnsafeMutablePointer<Float>, outputs: Int, _ target: RowTarget, factor: Float, kernels: KernelSet
    ) -> Double {
        switch (self, target) {
        case (_, .ignored):
            row.update(repeating: 0, count: outputs)
            return 0
        case (.crossEntropy, .index(let label)):
            precondition((0..<outputs).contains(label), "a label that the head does not have")
            return Self.crossEntropy(row, outputs, label, factor, kernels)
        case (.binary, .values(let values)):
            precondition(values.count == outputs, "a number for every output")
            return Self.binary(row, values, factor, kernels)
        case (.squaredError, .values(let values)):
            precondition(values.count == outputs, "a number for every output")
            var sum = 0.0
            for column in 0..<outputs {
                let difference = row[column] - values[column]
                sum += Double(difference) * Double(difference)
                row[column] = 2 * factor * difference
            }
            return sum
        case (.crossEntropy, .values), (.binary, .index), (.squaredError, .index):
            preconditionFailure("a target of another kind of loss")
        }
    }

    /// The greatest logit is taken off first, so that no exponential overflows; gradient: factor·(softmax − one at y).
    private static func crossEntropy(
        _ row: UnsafeMutablePointer<Float>, _ outputs: Int, _ label: Int, _ factor: Float, _ kernels: KernelSet
    ) -> Double {
        var most = row[0]
        for column in 1..<max(1, outputs) { most = row[column] > most ? row[column] : most }
        for column in 0..<outputs { row[column] -= most }
        let own = Double(row[label])
        kernels.functions.exp(row, row, outputs)
        let sum = lanedSum(row, outputs)
        let divisor = Float(sum)
        let quotient = row[label] / divisor
        for column in 0..<outputs { row[column] = factor * (row[column] / divisor) }
        // Not the product less the factor: near one, the difference of the quotient and one is exact.
        row[label] = factor * (quotient - 1)
        return logarithm(sum, kernels) - own
    }

    /// Gradient: factor·(σ(x) − y).
    private static func binary(
        _ row: UnsafeMutablePointer<Float>, _ values: [Float], _ factor: Float, _ kernels: KernelSet
    ) -> Double {
        let outputs = values.count
        var small = (0..<outputs).map { -abs(row[$0]) }
        kernels.functions.exp(small, &small, outputs)
        var sums = small.map { 1 + $0 }
        var logarithms = [Float](repeating: 0, count: outputs)
        kernels.functions.log(sums, &logarithms, outputs)
        var sum = 0.0
        for column in 0..<outputs {
            let x = row[column]
            // ln(1 + e) through the rounded 1 + e (Goldberg 1991, theorem 4).
            let rounded = Double(sums[column]) - 1
            let logarithm =
                rounded == 0 ? Double(small[column]) : Double(logarithms[column]) * (Double(small[column]) / rounded)
            sum += Double(max(x, 0)) - Double(x) * Double(values[column]) + logarithm
            sums[column] = (x >= 0 ? 1 : small[column]) / sums[column]
            row[column] = factor * (sums[column] - values[column])
        }
        return sum
    }

    /// ln of a positive number: of its nearest float by the kernels, and what that leaves out.
    private static func logarithm(_ value: Double, _ kernels: KernelSet) -> Double {
        let near = Float(value)
        var logarithm: Float = 0
        kernels.functions.log([near], &logarithm, 1)
        return Double(logarithm) + (value - Double(near)) / Double(near)
    }
}

/// The sum of some floats in double precision: eight lanes, each ascending, the lanes then added pairwise.
func lanedSum(_ values: UnsafePointer<Float>, _ count: Int) -> Double {
    var lanes = SIMD8<Double>(repeating: 0)
    let whole = count & ~7
    for first in stride(from: 0, to: whole, by: 8) {
        lanes += SIMD8<Double>(UnsafeRawPointer(values + first).loadUnaligned(as: SIMD8<Float>.self))
    }
    for index in whole..<count { lanes[index - whole] += Double(values[index]) }
    let halves = lanes.lowHalf + lanes.highHalf
    return (halves[0] + halves[2]) + (halves[1] + halves[3])
}

/// The sum of the squares of some floats, in the same way.
func lanedSumOfSquares(_ values: UnsafePointer<Float>, _ count: Int) -> Double {
    var lanes = SIMD8<Double>(repeating: 0)
    let whole = count & ~7
    for first in stride(from: 0, to: whole, by: 8) {
        let wide = SIMD8<Double>(UnsafeRawPointer(values + first).loadUnaligned(as: SIMD8<Float>.self))
        lanes += wide * wide
    }
    for index in whole..<count { lanes[index - whole] += Double(values[index]) * Double(values[index]) }
    let halves = lanes.lowHalf + lanes.highHalf
    return (halves[0] + halves[2]) + (halves[1] + halves[3])
}
