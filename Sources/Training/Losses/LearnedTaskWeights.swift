// Weights of tasks that are learned with the model: what each task's noise makes of its loss.

import Matrices

/// The weights of several tasks as their homoscedastic uncertainties give them (Kendall, Gal & Cipolla 2018,
/// "Multi-Task Learning Using Uncertainty to Weigh Losses", equations 5 to 10).
///
/// Each task has one trained number sᵢ = ln σᵢ², the logarithm of the variance of its noise. The loss of a step is
/// Σ cᵢ·e^(−sᵢ)·Lᵢ + sᵢ/2 over the tasks that the step has examples of, where cᵢ is ½ for a squared error, the negative
/// logarithm of a normal distribution of that variance, and 1 for a cross entropy, of logits that are divided by it.
/// So the weight of a task's loss is wᵢ = cᵢ·e^(−sᵢ), the gradient of sᵢ is ½ − wᵢ·Lᵢ, and a loss that stays as it is has
/// wᵢ·Lᵢ = ½ in the end. The loss may become negative.
public struct LearnedTaskWeights: Sendable, Equatable {
    /// What the numbers are called among the trained parameters; they are one parameter, of a number for each task.
    public static let parameterName = "task_log_variances"
    /// cᵢ of each task.
    public let factors: [Float]

    /// - Parameter losses: the kind of each task's loss.
    public init(_ losses: [RowLoss]) { factors = losses.map { $0 == .squaredError ? 0.5 : 1 } }

    /// wᵢ of each task, by the kernels' own exponential: the same bits in every kernel set.
    /// - Parameters:
    ///   - logVariances: sᵢ of each task.
    ///   - kernels: those that make the exponentials.
    public func weights(logVariances: [Float], kernels: KernelSet) -> [Double] {
        precondition(logVariances.count == factors.count, "a number for every task")
        var weights = logVariances.map { -$0 }
        weights.withUnsafeMutableBufferPointer { values in
            guard let start = values.baseAddress else { return }
            kernels.functions.exp(start, start, values.count)
        }
        return zip(factors, weights).map { Double($0 * $1) }
    }

    /// The loss of a step.
    /// - Parameters:
    ///   - losses: Lᵢ of each task; nil where the step has no example of it.
    ///   - logVariances: sᵢ of each task.
    ///   - weights: wᵢ of each task, as ``weights(logVariances:kernels:)`` gives them.
    public func loss(_ losses: [Double?], logVariances: [Float], weights: [Double]) -> Double {
        var sum = 0.0
        for (task, loss) in losses.enumerated() {
            if let loss { sum += weights[task] * loss + Double(logVariances[task]) / 2 }
        }
        return sum
    }

    /// The gradients of sᵢ: ½ − wᵢ·Lᵢ, in double precision and rounded once; 0 where the step has no example of a task.
    /// - Parameters:
    ///   - losses: Lᵢ of each task; nil where the step has no example of it.
    ///   - weights: wᵢ of each task.
    public func gradients(_ losses: [Double?], weights: [Double]) -> [Float] {
        zip(losses, weights).map { loss, weight in loss.map { Float(0.5 - weight * $0) } ?? 0 }
    }
}
