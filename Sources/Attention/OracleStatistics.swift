// The statistics of rows by definition, in double precision, with the error that float32 arithmetic may add.

import CLibrary
import Matrices
import Tiles

extension Oracle {
    /// What the rows of one head look at, each statistic with what a float32 computation of it may differ by.
    public struct Observed: Sendable {
        /// A number, and an upper bound of |float32 result − number|.
        public struct Value: Sendable {
            /// The number itself.
            public var exact: Double
            /// What a float32 result may be off by.
            public var bound: Double

            /// Whether a computed value lies within the bound.
            public func holds(_ value: Float) -> Bool {
                Double(value) == exact || abs(Double(value) - exact) <= bound
            }
        }

        /// What a row sees, by ascending key.
        public struct Row: Sendable {
            /// The keys that it sees, counted in the whole sequence.
            public var keys: [Int] = []
            /// Their scores, after modifiers.
            public var scores: [Value] = []
            /// Their softmax weights.
            public var weights: [Value] = []
            /// −Σ p·ln p over keys.
            public var entropy = Value(exact: 0, bound: 0)
            /// Σ p·|i − j| / Σ p over keys.
            public var meanDistance = Value(exact: 0, bound: 0)
            /// The weight of the sink.
            public var sinkShare = Value(exact: 0, bound: 0)
        }

        /// One a query.
        public var rows: [Row]
    }

    /// What each row of softmax(modified(q·kᵀ·scale)) looks at.
    ///
    /// The bounds, with aⱼ the relative error of a weight before it is divided by ℓ, η that of ℓ, and ρⱼ = (1 + aⱼ)/(1 − η) − 1
    /// that of pⱼ, as `attend` derives them: with hⱼ = m − sⱼ ≥ 0 an entropy is ln ℓ·Σ pⱼ + Σ pⱼ·hⱼ, of which each hⱼ is off by
    /// what scores and the maximum are off by, ln ℓ by −ln(1 − η) and 2 ulp, and no term is subtracted from another: shifts at
    /// merges add to Σ w·(s − m) what has its sign. A mean distance is a quotient of two sums of weights that are off by ρ.
    public static func observe(
        queries: [Float], keys: [Float], headDimension: Int, shape: SequenceShape, mask: Mask, scale: Double,
        modifiers: ScoreModifiers = ScoreModifiers(), head: Int = 0, element: ElementKind = .float32,
        wire: ElementKind? = nil
    ) -> Observed {
        let definition = definition(queries, keys, headDimension, shape, mask, scale, modifiers, head, element, wire)
        let sums = gamma(Double(TileGrid.tileSize) + 3 * definition.merges + 8)
        return Observed(
            rows: (0..<shape.queries).map { row in
                var result = Observed.Row()
                let (visible, scores, errors) = definition.scores(row: row)
                if visible.isEmpty {
                    result.sinkShare.exact = definition.sink == nil ? 0 : 1
                    return result
                }
                let statistics = definition.statistics(scores, errors)
                let (top, topError, sum, eta) = (
                    statistics.top, statistics.topError, statistics.sum, statistics.eta
                )
                result.keys = visible.map { shape.position(ofKey: $0) }
                var (entropy, entropyError, share, far, farError, relative) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
                for (j, key) in visible.enumerated() {
                    let weight = exp(scores[j] - top) / sum
                    // No weight is below 2⁻¹²⁵.
                    let error =
                        eta < 0.5
                        ? (statistics.weightErrors[j] / sum + 0x1p-125 / sum + weight * (eta + 3 * unit)) / (1 - eta)
                        : .infinity
                    let below = top - scores[j]
                    let distance = Double(abs(shape.position(ofKey: key) - shape.position(ofQuery: row)))
                    result.scores.append(.init(exact: scores[j], bound: errors[j] + 4 * unit * abs(scores[j])))
                    result.weights.append(
                        .init(
                            exact: weight,
                            bound: weight
                                * expm1(
                                    errors[j] + statistics.logSumExpBound + (2 * below + 8) * unit) + 0x1p-125 / sum))
                    entropy += weight * below
                    entropyError += error * below + (weight + error) * (errors[j] + topError + 3 * unit * (below + 1))
                    share += weight
                    far += weight * distance
                    farError += error * distance
                    relative += error
                }
                let logarithm = log(sum)
                result.entropy.exact = entropy + share * logarithm
                let logarithmError = eta < 0.5 ? -log1p(-eta) + 4 * unit * abs(logarithm) : .infinity
                result.entropy.bound =
                    entropyError + sums * (entropy + entropyError) + relative * abs(logarithm) + share * logarithmError
                    + 4 * unit * (abs(share * logarithm) + entropy) + 0x1p-126
                result.meanDistance.exact = far / share
                let least = share - relative
                result.meanDistance.bound =
                    least > share / 2
                    ? (farError + far / share * relative) / least * (1 + sums) + 2 * sums * far / share + 0x1p-126
                    : .infinity
                if let sink = definition.sink {
                    let exact = exp(sink - statistics.logSumExp)
                    result.sinkShare = .init(
                        exact: exact,
                        bound: exact * expm1(statistics.logSumExpBound + (3 * abs(sink - top) + 12) * unit) + 0x1p-125)
                }
                return result
            })
    }
}

extension Oracle.Observed.Row {
    /// Where a row's keys of largest scores are none that rounding could have chosen: a description, or nil.
    /// - Parameters:
    ///   - found: the keys, best first; −1 where there are no more.
    ///   - given: their weights.
    public func disagreement(keys found: [Int32], weights given: [Float]) -> String? {
        let places = Dictionary(uniqueKeysWithValues: keys.enumerated().map { ($1, $0) })
        let count = found.prefix { $0 >= 0 }.count
        if found.dropFirst(count).contains(where: { $0 != -1 }) || given.dropFirst(count).contains(where: { $0 != 0 }) {
            return "keys \(found) of weights \(given)"
        }
        if count != Swift.min(found.count, keys.count) { return "\(count) keys of \(keys.count)" }
        var chosen: [Int] = []
        for key in found.prefix(count) {
            guard let place = places[Int(key)], !chosen.contains(place) else { return "key \(key) of \(found)" }
            chosen.append(place)
        }
        for (rank, place) in chosen.enumerated() where !weights[place].holds(given[rank]) {
            return "key \(found[rank]) weighs \(given[rank]), oracle \(weights[place])"
        }
        func isAbove(_ one: Int, _ other: Int) -> Bool {
            scores[one].exact - scores[one].bound > scores[other].exact + scores[other].bound
        }
        for (one, other) in zip(chosen, chosen.dropFirst()) where isAbove(other, one) {
            return "keys \(keys[one]) before \(keys[other])"
        }
        guard let last = chosen.last, count == found.count else { return nil }
        return scores.indices.first { !chosen.contains($0) && isAbove($0, last) }.map {
            "no key \(keys[$0]) among \(found)"
        }
    }
}
