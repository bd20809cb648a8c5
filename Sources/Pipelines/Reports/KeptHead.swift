// What a report keeps of one head.

/// A head's statistics, cut down to what the page has room for.
struct KeptHead: Sendable {
    /// Means over all queries that have a value; NaN where none has.
    let entropy, meanDistance, maxLogit: Float
    /// The shares of all mass that the first token and all special tokens receive; NaN where that was not asked for.
    let firstShare, specialShare: Float
    /// The share of the head's sink; NaN: it has none.
    let sinkShare: Float

    /// Received mass, [tokens]; empty where the mean of a layer's heads is kept instead.
    let receivedMass: [Float]
    /// Of the queries that are kept, [queries].
    let queryEntropy, queryDistance, queryLogit: [Float]
    /// Of the queries that are kept, [queries, keys].
    let topKeys: [Int32]
    let topWeights: [Float]
    /// Means by block, [blocks]; empty where every token is kept.
    let massProfile, entropyProfile, distanceProfile: [Float]
    let map: BlockMap?

    init(_ statistics: HeadStatistics, tokens: [ReportToken], detail: ReportDetail) {
        entropy = mean(statistics.entropy[...])
        meanDistance = mean(statistics.meanDistance[...])
        maxLogit = mean(statistics.maxLogit[...])
        sinkShare = statistics.sinkShare ?? .nan
        let mass = statistics.receivedMass
        if mass.isEmpty {
            (firstShare, specialShare) = (.nan, .nan)
        } else {
            let all = mass.reduce(0.0) { $0 + Double($1) }
            let special = mass.indices.reduce(0.0) { $0 + (tokens[$1].isSpecial ? Double(mass[$1]) : 0) }
            (firstShare, specialShare) = (Float(Double(mass[0]) / all), Float(special / all))
        }
        receivedMass = detail.isComplete ? mass : []

        func kept(_ values: [Float]) -> [Float] { values.isEmpty ? [] : detail.queries.map { values[$0] } }
        queryEntropy = kept(statistics.entropy)
        queryDistance = kept(statistics.meanDistance)
        queryLogit = kept(statistics.maxLogit)
        let places =
            statistics.topKeys.isEmpty
            ? [] : detail.queries.flatMap { $0 * detail.keysPerQuery..<$0 * detail.keysPerQuery + detail.keysKept }
        topKeys = places.map { statistics.topKeys[$0] }
        topWeights = places.map { statistics.topWeights[$0] }

        func profile(_ values: [Float]) -> [Float] {
            if detail.isComplete || values.isEmpty { return [] }
            return stride(from: 0, to: values.count, by: detail.profileSize).map {
                mean(values[$0..<min($0 + detail.profileSize, values.count)])
            }
        }
        massProfile = profile(mass)
        entropyProfile = profile(statistics.entropy)
        distanceProfile = profile(statistics.meanDistance)
        map = statistics.blockMap?.reduced(by: detail.mapReduction)
    }
}

/// The mean of those that are finite; NaN where none is.
private func mean(_ values: ArraySlice<Float>) -> Float {
    var (sum, count) = (0.0, 0)
    for value in values where value.isFinite {
        sum += Double(value)
        count += 1
    }
    return count == 0 ? .nan : Float(sum / Double(count))
}

extension BlockMap {
    /// The map in blocks of `factor` by `factor` of its own; means are weighted by the pairs that they stand for.
    package func reduced(by factor: Int) -> BlockMap {
        if factor == 1 { return self }
        let coarse = (side + factor - 1) / factor
        var reduced = [Float](repeating: 0, count: coarse * coarse)
        for row in 0..<coarse {
            let rows = row * factor..<min((row + 1) * factor, side)
            for column in 0..<coarse {
                let columns = column * factor..<min((column + 1) * factor, side)
                var (sum, pairs) = (0.0, 0)
                for fineRow in rows {
                    for fineColumn in columns {
                        let weight = length(fineRow) * length(fineColumn)
                        sum += Double(means[fineRow * side + fineColumn]) * Double(weight)
                        pairs += weight
                    }
                }
                reduced[row * coarse + column] = Float(sum / Double(pairs))
            }
        }
        return BlockMap(tokens: tokens, size: size * factor, means: reduced)
    }

    /// Tokens of a block.
    private func length(_ block: Int) -> Int { min(size, tokens - block * size) }
}
