// Learned weights of tasks against their definition in double precision.

import Foundation
import Matrices
import Testing
import Training

@Suite struct LearnedTaskWeightsTests {
    private static let kinds: [RowLoss] = [.crossEntropy, .squaredError, .binary]
    private static let losses: [Double?] = [0.7, 0.031, 2.5]
    private static let logVariances: [Float] = [0.25, -3.5, 1.125]

    /// Σ c·e^(−s)·L + s/2.
    private static func loss(_ logVariances: [Double], _ losses: [Double?]) -> Double {
        var sum = 0.0
        for (task, loss) in losses.enumerated() {
            guard let loss else { continue }
            let factor = kinds[task] == .squaredError ? 0.5 : 1
            sum += factor * exp(-logVariances[task]) * loss + logVariances[task] / 2
        }
        return sum
    }

    @Test func lossAndGradientsAreTheDefinitions() throws {
        let learned = LearnedTaskWeights(Self.kinds)
        for missing in -1..<3 {
            var losses = Self.losses
            if missing >= 0 { losses[missing] = nil }
            let weights = learned.weights(logVariances: Self.logVariances, kernels: .best)
            let exact = Self.logVariances.map(Double.init)
            // An exponential is off by two roundings at most, and the loss by as much of its parts.
            let bound = 4 * unit * 5.0
            let found = learned.loss(losses, logVariances: Self.logVariances, weights: weights)
            #expect(abs(found - Self.loss(exact, losses)) <= bound, "without \(missing)")
            let gradients = learned.gradients(losses, weights: weights)
            for task in 0..<3 {
                // Central differences: the third derivative, below 3, times h²/6, and roundings of the loss over h.
                let h = 1e-4
                func moved(_ by: Double) -> Double {
                    var values = exact
                    values[task] += by
                    return Self.loss(values, losses)
                }
                let difference = (moved(h) - moved(-h)) / (2 * h)
                #expect(
                    abs(Double(gradients[task]) - difference) <= 3 * h * h + 1e-11 + bound,
                    "task \(task) without \(missing): \(gradients[task]), not \(difference)")
                if task == missing { #expect(gradients[task] == 0) }
            }
        }
    }

    /// Where a task's weight times its loss is a half, its number rests: at ln 2L, or ln L of a squared error.
    @Test func restsWhereTheLossIsLeast() {
        let learned = LearnedTaskWeights(Self.kinds)
        let rest = Self.losses.enumerated().map { task, loss in
            Float(log((Self.kinds[task] == .squaredError ? 1 : 2) * (loss ?? 0)))
        }
        let weights = learned.weights(logVariances: rest, kernels: .best)
        for gradient in learned.gradients(Self.losses, weights: weights) { #expect(abs(gradient) <= 8 * Float(unit)) }
    }

    @Test func everyKernelSetGivesTheSameBits() {
        let learned = LearnedTaskWeights(Self.kinds)
        let best = learned.weights(logVariances: Self.logVariances, kernels: .best)
        for kernels in KernelSet.available {
            #expect(learned.weights(logVariances: Self.logVariances, kernels: kernels) == best, "\(kernels.name)")
        }
    }
}
