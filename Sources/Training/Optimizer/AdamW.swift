// Adam with decoupled weight decay, over the blocks that a rank owns.

import Matrices
import Tiles

/// What AdamW (Loshchilov & Hutter 2019) is told, as `torch.optim.AdamW` calls it.
public struct AdamW: Sendable, Equatable {
    /// The decay of the mean of gradients.
    public var beta1: Double
    /// The decay of the mean of their squares.
    public var beta2: Double
    /// What is added to the root of the mean square.
    public var epsilon: Double
    /// What part of a weight, times the rate, a step takes off it.
    public var weightDecay: Double

    /// Where nothing is given, torch's own values, without decay.
    public init(beta1: Double = 0.9, beta2: Double = 0.999, epsilon: Double = 1e-8, weightDecay: Double = 0) {
        (self.beta1, self.beta2, self.epsilon, self.weightDecay) = (beta1, beta2, epsilon, weightDecay)
    }

    /// The step's numbers: constants in double precision, rounded once, as torch has them.
    struct Step {
        let beta1Complement: Float
        let beta2: Float
        let beta2Complement: Float
        let epsilon: Float
        let rootOfCorrection: Float
        let decay: Float
        let negativeSize: Float

        /// - Parameters:
        ///   - number: of the step, from 1.
        ///   - rate: the learning rate.
        ///   - decays: whether weights decay.
        init(_ adam: AdamW, number: Int, rate: Double, decays: Bool) {
            beta1Complement = Float(1 - adam.beta1)
            beta2 = Float(adam.beta2)
            beta2Complement = Float(1 - adam.beta2)
            epsilon = Float(adam.epsilon)
            rootOfCorrection = Float((1 - power(adam.beta2, number)).squareRoot())
            decay = Float(decays ? 1 - rate * adam.weightDecay : 1)
            negativeSize = Float(-rate / (1 - power(adam.beta1, number)))
        }

        /// θ ← θ·(1 − η·λ); m ← m + (1 − β₁)(g − m); v ← β₂·v + (1 − β₂)·g²;
        /// θ ← θ − η/(1 − β₁ᵗ) · m/(√v/√(1 − β₂ᵗ) + ε).
        /// - Parameters:
        ///   - weights, gradient, mean, square: (count), of the same parameters.
        ///   - factor: what clipping multiplies the gradient by.
        func apply(
            count: Int, _ weights: UnsafeMutablePointer<Float>, _ gradient: UnsafePointer<Float>, factor: Float,
            mean: UnsafeMutablePointer<Float>, square: UnsafeMutablePointer<Float>
        ) {
            for index in 0..<count {
                let g = gradient[index] * factor
                let m = mean[index] + beta1Complement * (g - mean[index])
                let v = beta2 * square[index] + beta2Complement * (g * g)
                mean[index] = m
                square[index] = v
                let denominator = v.squareRoot() / rootOfCorrection + epsilon
                weights[index] = decay * weights[index] + negativeSize * (m / denominator)
            }
        }
    }
}

/// xⁿ by repeated squaring: the same on every system.
func power(_ x: Double, _ n: Int) -> Double {
    var (result, factor, left) = (1.0, x, n)
    while left > 0 {
        if left & 1 == 1 { result *= factor }
        factor *= factor
        left >>= 1
    }
    return result
}

/// The optimizer's state of the blocks that a rank owns: twelve bytes a weight with the gradient, spread over the ranks.
public final class OptimizerShard {
    /// The parameters.
    public let blocks: ParameterBlocks
    /// The blocks that are this rank's.
    public let mine: Range<Int>
    /// Their floats in the vector of parameters.
    public var floats: Range<Int> { blocks.floats(of: mine) }
    /// The mean of gradients, of ``floats``.
    public let mean: AlignedBuffer
    /// The mean of their squares.
    public let square: AlignedBuffer
    /// Steps that are done.
    public var steps = 0
    private let adam: AdamW

    /// Begins with nothing: means of zero.
    /// - Parameters:
    ///   - adam: what the optimizer is told.
    ///   - blocks: the parameters.
    ///   - rank: the rank whose blocks they are.
    ///   - ranks: how many ranks there are.
    public init(_ adam: AdamW, _ blocks: ParameterBlocks, rank: Rank, of ranks: Int) {
        self.adam = adam
        self.blocks = blocks
        mine = blocks.blocks(of: rank, of: ranks)
        mean = AlignedBuffer(count: blocks.floats(of: mine).count)
        square = AlignedBuffer(count: blocks.floats(of: mine).count)
    }

    /// One step over this rank's blocks.
    /// - Parameters:
    ///   - weights: the masters, of which this rank's blocks change.
    ///   - gradient: of ``floats``.
    ///   - factor: what clipping multiplies the gradient by.
    ///   - rate: the learning rate.
    ///   - headRate: that of the heads of tasks.
    public func update(
        _ weights: MasterWeights, gradient: AlignedBuffer, factor: Float, rate: Double, headRate: Double,
        threads: ThreadPool
    ) {
        steps += 1
        let number = steps
        // One for every kind of parameter: whether it decays, and whether it is of a head.
        let kinds = [false, true].flatMap { decays in
            [rate, headRate].map { AdamW.Step(adam, number: number, rate: $0, decays: decays) }
        }
        let start = floats.lowerBound
        threads.forEach(mine.count) { index, _ in
            let block = blocks.floats(of: mine.lowerBound + index..<mine.lowerBound + index + 1)
            for place in blocks.entries(in: block) {
                let entry = blocks.entries[place]
                let part = entry.range.clamped(to: block)
                // Disjoint: each index has its own block of everything.
                kinds[(entry.decays ? 2 : 0) + (entry.isOfHead ? 1 : 0)].apply(
                    count: part.count, weights.floats + part.lowerBound,
                    gradient.pointer + (part.lowerBound - start), factor: factor,
                    mean: mean.pointer + (part.lowerBound - start), square: square.pointer + (part.lowerBound - start))
            }
        }
    }
}
