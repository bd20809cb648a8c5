// The learning rate of every step.

/// How the learning rate goes, as the schedules of the transformers trainer of these names: a factor of the rate that
/// was asked for, by the number of steps that are done.
public struct Schedule: Sendable, Equatable {
    /// What happens behind the warm-up.
    public enum Kind: String, CaseIterable, Sendable {
        /// Falls to zero at the last step, on a line.
        case linear
        /// Falls to zero at the last step, on half a cosine.
        case cosine
        /// Stays.
        case constant
        /// Stays, then falls to zero on half a cosine over the last steps.
        case warmupStableDecay = "warmup-stable-decay"
    }

    /// What happens behind the warm-up.
    public var kind: Kind
    /// Steps in which the rate rises from zero, on a line.
    public var warmupSteps: Int
    /// All steps of the training.
    public var steps: Int
    /// For `warmupStableDecay`, the last steps.
    public var decaySteps: Int

    /// - Parameters:
    ///   - kind: what happens behind the warm-up.
    ///   - warmupSteps: steps in which the rate rises from zero.
    ///   - steps: all steps of the training.
    ///   - decaySteps: for `warmupStableDecay`, the last steps; a tenth of all where nil.
    public init(kind: Kind, warmupSteps: Int, steps: Int, decaySteps: Int? = nil) {
        self.kind = kind
        self.warmupSteps = warmupSteps
        self.steps = steps
        self.decaySteps = decaySteps ?? max(1, steps / 10)
    }

    /// The factor of the step behind `done` others. The first step of a warm-up has the factor zero, as there.
    public func factor(_ done: Int) -> Double {
        if done < warmupSteps { return Double(done) / Double(max(1, warmupSteps)) }
        switch kind {
        case .constant: return 1
        case .linear: return max(0, Double(steps - done) / Double(max(1, steps - warmupSteps)))
        case .cosine:
            let progress = Double(done - warmupSteps) / Double(max(1, steps - warmupSteps))
            return halfCosine(progress)
        case .warmupStableDecay:
            let stable = max(0, steps - warmupSteps - decaySteps)
            if done < warmupSteps + stable { return 1 }
            if done >= warmupSteps + stable + decaySteps { return 0 }
            return halfCosine(Double(done - warmupSteps - stable) / Double(max(1, decaySteps)))
        }
    }
}

/// (1 + cos πx)/2 for x in 0...1, off by less than 1e-15: our own, for a step's bits must not depend on the system's
/// library.
func halfCosine(_ x: Double) -> Double {
    // cos πx = ±cos πy with y in 0...1/2, and that is 1 − 2·sin²(πy/2).
    let folds = x > 0.5
    let y = folds ? 1 - x : x
    let angle = y * Double.pi / 2
    let square = angle * angle
    // The series of the sine up to the 17th power: the next term is below 1e-19 at π/4.
    var sum = 0.0
    for divisor in stride(from: 16.0, through: 2, by: -2) {
        sum = (1 - sum) * square / (divisor * (divisor + 1))
    }
    let sine = angle * (1 - sum)
    return folds ? sine * sine : 1 - sine * sine
}
