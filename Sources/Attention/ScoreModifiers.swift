// What is done to scores between the product and the softmax: cap, biases, sinks.

/// Changes to the scores, applied in this order: relative positions, scale, softcap, bias, mask, sink.
public struct ScoreModifiers: Sendable, Hashable {
    /// Scores become `cap·tanh(score / cap)` (Gemma Team 2024).
    public var softcap: Float?
    /// For each query head, the slope of ALiBi: `slope·|i − j|` is subtracted (Press et al. 2022).
    public var alibiSlopes: [Float]?
    /// For each query head, what is added by the distance `j − i`.
    public var relativeBias: RelativeBias?
    /// For each query head, the logit of a sink: a key without a value that takes its share of every softmax, merged
    /// once, at the root (Xiao et al. 2024).
    public var sinks: [Float]?
    /// The relative positions whose keys queries meet, and whose queries keys meet; what those are comes with each
    /// attention.
    public var relativePositions: RelativePositions?

    /// A table over distances, clamped at both ends.
    public struct RelativeBias: Sendable, Hashable {
        /// (heads, 2·reach + 1); column `reach + d` is for distance d.
        public let table: [Float]
        /// The largest distance of its own; larger ones take its bias.
        public let reach: Int

        /// - Precondition: the table has whole rows of 2·reach + 1.
        public init(table: [Float], reach: Int) {
            precondition(reach >= 0 && table.count % (2 * reach + 1) == 0)
            self.table = table
            self.reach = reach
        }
    }

    /// Changes to the scores; none where nothing is given. Lists have an entry for each query head.
    public init(
        softcap: Float? = nil, alibiSlopes: [Float]? = nil, relativeBias: RelativeBias? = nil, sinks: [Float]? = nil,
        relativePositions: RelativePositions? = nil
    ) {
        self.softcap = softcap
        self.alibiSlopes = alibiSlopes
        self.relativeBias = relativeBias
        self.sinks = sinks
        self.relativePositions = relativePositions
    }

    /// Whether scores are used as they come from the product.
    var leavesScores: Bool { softcap == nil && alibiSlopes == nil && relativeBias == nil && relativePositions == nil }
}
