// Who sees what and who has what in a job, and which heads a rank takes when: what the plans of all ranks share.

import Attention
import Tiles

/// What follows from a job alone, found once for the plans of all its ranks.
public struct TileDependencies: Sendable {
    /// The job, the same on all its ranks.
    public let problem: AttentionProblem
    /// The key tiles that each query tile sees.
    let seen: [Runs]
    /// The key tiles of each rank.
    let keys: [Runs]
    /// The query tiles of each rank.
    let queries: [Runs]
    /// The query tiles of each rank that see any key; those that see none stay where they are.
    let asking: [Runs]
    /// The key tiles that the queries of each rank see.
    let needed: [Runs]
    /// The query tiles that see each key tile; empty where the operation gives keys nothing.
    let readersOfTiles: [Runs]

    /// Finds who sees what and who has what, for all ranks at once.
    public init(_ problem: AttentionProblem) {
        self.problem = problem
        let ranks = (0..<problem.rankCount).map { Rank($0) }
        let seen = (0..<problem.queries.numbering.tileCount).map { problem.visibleTiles(queryTile: $0).any }
        self.seen = seen
        keys = ranks.map { problem.keys.tiles(of: $0) }
        queries = ranks.map { problem.queries.tiles(of: $0) }
        asking = queries.map { tiles in
            var asking = Runs()
            for tile in tiles where !seen[tile].isEmpty { asking.append(tile..<tile + 1) }
            return asking
        }
        needed = queries.map { tiles in Runs(tiles.flatMap { seen[$0].ranges }) }
        guard !problem.operation.columnResults.isEmpty else {
            readersOfTiles = []
            return
        }
        var readers: [[Range<Int>]] = Array(repeating: [], count: problem.keys.numbering.tileCount)
        Self.forEachReading(seen, keyTiles: readers.count) { readers[$0].append($1) }
        readersOfTiles = readers.map { Runs($0) }
    }

    var ranks: [Rank] { (0..<problem.rankCount).map { Rank($0) } }

    /// Those of some query tiles that see any of some key tiles.
    func readers(of keyTiles: Runs, among queryTiles: Runs) -> Runs {
        var readers = Runs()
        for tile in queryTiles where seen[tile].intersects(keyTiles) { readers.append(tile..<tile + 1) }
        return readers
    }

    /// The query tiles that see any key tile of each rank.
    func readers() -> [Runs] {
        var readers: [[Range<Int>]] = Array(repeating: [], count: problem.rankCount)
        Self.forEachReading(seen, keyTiles: problem.keys.numbering.tileCount) {
            readers[problem.keys.owner(of: $0).index].append($1)
        }
        return readers.map { Runs($0) }
    }

    /// Calls `body` with every key tile and each run of query tiles that see it.
    ///
    /// The mask gives runs of key tiles for a query tile; going through the query tiles, a key tile is noted where it
    /// comes into sight and where it goes out of it, so what stays in sight costs nothing.
    private static func forEachReading(
        _ seen: [Runs], keyTiles: Int, _ body: (_ keyTile: Int, _ queryTiles: Range<Int>) -> Void
    ) {
        var since = Array(repeating: 0, count: keyTiles)
        var visible = Runs()
        for queryTile in 0...seen.count {
            let next = queryTile < seen.count ? seen[queryTile] : Runs()
            if next == visible { continue }
            for keyTile in visible.subtracting(next) { body(keyTile, since[keyTile]..<queryTile) }
            for keyTile in next.subtracting(visible) { since[keyTile] = queryTile }
            visible = next
        }
    }

    /// The query heads that each of `ranks` ranks takes in each round: `[round][rank]`, all heads once. A rank takes
    /// whole groups of heads that share keys, unless there are fewer than ranks and keys get nothing that the heads of
    /// a group sum up to; where heads are fewer still, some take none.
    ///
    /// A round has as many heads as fit while what is in flight stays below a tenth of a rank's own keys and values, or
    /// below 4 MiB, whichever is more. Rounds also bound what waits for its siblings; heads are independent, so rounds
    /// do not change a bit.
    /// - Parameters:
    ///   - ranks: how many ranks share the heads.
    ///   - tokens: the most tokens of a head that arrive at a rank at a time.
    ///   - rounds: at least so many, where there are heads for them.
    func headShares(ranks: Int, tokensArriving tokens: Int, rounds leastRounds: Int = 1) -> [[Range<Int>]] {
        let heads = problem.heads
        let (keyHeads, size) = (heads.keyValueHeads, heads.groupSize)
        let keepsGroups =
            keyHeads >= ranks
            || !problem.operation.columnResults.isEmpty && problem.operation.columnResultHeads == .keyValue
        let shares = (0..<ranks).map { rank in
            keepsGroups
                ? keyHeads * rank / ranks * size..<keyHeads * (rank + 1) / ranks * size
                : heads.queryHeads * rank / ranks..<heads.queryHeads * (rank + 1) / ranks
        }
        let most = shares.map { heads.keyValueHeads(of: $0).count }.max() ?? 1
        let atATime = headsAtATime(tokensArriving: tokens)
        let rounds = max((most + atATime - 1) / atATime, min(leastRounds, most))
        return (0..<rounds).map { round in
            shares.map { share in
                let all = heads.keyValueHeads(of: share)
                let low = all.lowerBound + all.count * round / rounds
                let high = all.lowerBound + all.count * (round + 1) / rounds
                return (low * size..<high * size).clamped(to: share)
            }
        }
    }

    private func headsAtATime(tokensArriving tokens: Int) -> Int {
        if problem.rankCount == 1 { return problem.heads.keyValueHeads }
        let mostOwn = ranks.map { problem.keys.tokenCount(of: $0) }.max() ?? 0
        let bytesPerToken =
            problem.element.bytes
            * (problem.heads.headDimension
                + (problem.operation.columns == .keysAndValues ? problem.heads.valueDimension : 0))
        let budget = max(4 << 20, mostOwn * bytesPerToken * problem.heads.keyValueHeads / 10)
        // Two stages are in flight: the one attended and the one arriving.
        return max(1, budget / (2 * max(1, tokens * bytesPerToken)))
    }
}
