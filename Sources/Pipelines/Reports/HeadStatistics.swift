// What a report is told about one head.

/// The statistics of one head over a whole document.
///
/// Each list is [tokens] where it was asked for, else empty. A NaN or an infinite value stands for a row that has none,
/// and is shown so.
public struct HeadStatistics: Sendable {
    /// The mass that each token receives as a key: Σp over all queries. Their mean over the tokens is 1 without sinks.
    public var receivedMass: [Float]
    /// The entropy of each query's weights, in nats.
    public var entropy: [Float]
    /// How far each query looks on average, Σp·|query − key|, in tokens.
    public var meanDistance: [Float]
    /// The largest score of each query, after scale, softcap, bias and mask.
    public var maxLogit: [Float]
    /// The keys with most weight of each query, [tokens, k], most first; −1 where it has fewer. The first is that of the
    /// largest score.
    public var topKeys: [Int32]
    /// Their weights, [tokens, k]; 0 where the key is −1.
    public var topWeights: [Float]
    /// The weights, block by block; nil where they were not asked for.
    public var blockMap: BlockMap?
    /// The share of a query's mass that goes to the head's sink, in the mean over queries; nil: it has none.
    public var sinkShare: Float?

    /// - Parameters:
    ///   - receivedMass: Σp over all queries, [tokens].
    ///   - entropy: in nats, [tokens].
    ///   - meanDistance: in tokens, [tokens].
    ///   - maxLogit: the largest score of each query, [tokens].
    ///   - topKeys: the keys with most weight, [tokens, k], −1 where there are fewer.
    ///   - topWeights: their weights, [tokens, k].
    ///   - blockMap: the weights, block by block.
    ///   - sinkShare: the share of mass that goes to the head's sink, in the mean over queries.
    public init(
        receivedMass: [Float] = [], entropy: [Float] = [], meanDistance: [Float] = [], maxLogit: [Float] = [],
        topKeys: [Int32] = [], topWeights: [Float] = [], blockMap: BlockMap? = nil, sinkShare: Float? = nil
    ) {
        (self.receivedMass, self.entropy, self.meanDistance) = (receivedMass, entropy, meanDistance)
        (self.maxLogit, self.topKeys, self.topWeights) = (maxLogit, topKeys, topWeights)
        (self.blockMap, self.sinkShare) = (blockMap, sinkShare)
    }

    /// Stops the program where a list has another length than it must: that is the caller's mistake, not a file's.
    func check(tokens: Int, keysPerQuery: Int) {
        for list in [receivedMass, entropy, meanDistance, maxLogit] {
            precondition(list.isEmpty || list.count == tokens, "a statistic of \(list.count) values, \(tokens) tokens")
        }
        precondition(topKeys.count == topWeights.count)
        precondition(topKeys.isEmpty || topKeys.count == tokens * keysPerQuery)
        precondition(topKeys.allSatisfy { $0 >= -1 && $0 < tokens })
        precondition(blockMap.map { $0.tokens == tokens } ?? true)
    }
}

/// The weights of one head, the mean of each block of queries and keys.
///
/// Block b holds the tokens b·size ..< min((b + 1)·size, tokens), of queries and of keys alike. It is for pictures.
public struct BlockMap: Sendable {
    /// The most blocks that a side has.
    public static let largestSide = 256

    /// The document's length.
    public let tokens: Int
    /// Tokens of a block; the last may have fewer.
    public let size: Int
    /// Σp over a block divided by its pairs, masked ones included, [query blocks, key blocks].
    public let means: [Float]

    /// Blocks of a side.
    public var side: Int { (tokens + size - 1) / size }

    /// The block size for that many tokens: the smallest with which a side has at most ``largestSide`` blocks.
    public static func size(tokens: Int) -> Int { max(1, (tokens + largestSide - 1) / largestSide) }

    /// - Parameters:
    ///   - tokens: the document's length, at least 1.
    ///   - size: tokens of a block, at least 1.
    ///   - means: Σp over a block divided by its pairs, masked ones included, [query blocks, key blocks].
    public init(tokens: Int, size: Int, means: [Float]) {
        precondition(tokens > 0 && size > 0)
        (self.tokens, self.size, self.means) = (tokens, size, means)
        precondition(means.count == side * side, "\(means.count) means of a map of \(side)² blocks")
    }
}
