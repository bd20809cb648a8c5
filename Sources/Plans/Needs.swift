// Who needs what, and which heads a rank takes when: what the strategies have in common.

import Attention
import Tiles

/// The key tiles that each query tile sees, by their numbers in the batch.
typealias SeenTiles = [Runs]

extension AttentionJob {
    func seenTiles() -> SeenTiles { (0..<queries.numbering.tileCount).map { visibleTiles(queryTile: $0).any } }

    /// Those of some query tiles that see any key.
    func asking(among queryTiles: Runs, seen: SeenTiles) -> Runs {
        Runs(queryTiles.ranges.joined().lazy.filter { !seen[$0].isEmpty }.map { $0..<$0 + 1 })
    }

    /// Those of some query tiles that see any of some key tiles.
    func readers(of keyTiles: Runs, among queryTiles: Runs, seen: SeenTiles) -> Runs {
        Runs(queryTiles.ranges.joined().lazy.filter { seen[$0].intersects(keyTiles) }.map { $0..<$0 + 1 })
    }

    /// The key tiles that some query tiles see.
    func needs(of queryTiles: Runs, seen: SeenTiles) -> Runs {
        Runs(queryTiles.ranges.joined().flatMap { seen[$0].ranges })
    }

    /// The query heads that each of `ranks` ranks takes in each round: `[round][rank]`, all heads once. A rank takes whole
    /// groups of heads that share keys, unless there are fewer than ranks; where heads are fewer still, some take none.
    ///
    /// A round has as many heads as fit while what is in flight stays below a tenth of a rank's own keys and values, or
    /// below 4 MiB, whichever is more. Rounds also bound what waits for its siblings; heads are independent, so rounds
    /// do not change a bit.
    /// - Parameter tokens: the most tokens of a head that arrive at a rank at a time.
    func headShares(ranks: Int, tokensArriving tokens: Int) -> [[Range<Int>]] {
        let (keyHeads, size) = (heads.keyValueHeads, heads.groupSize)
        let shares = (0..<ranks).map { rank in
            keyHeads >= ranks ? keyHeads * rank / ranks * size..<keyHeads * (rank + 1) / ranks * size
                : heads.queryHeads * rank / ranks..<heads.queryHeads * (rank + 1) / ranks
        }
        let most = shares.map { heads.keyValueHeads(of: $0).count }.max() ?? 1
        let rounds = (most + headsAtATime(tokensArriving: tokens) - 1) / headsAtATime(tokensArriving: tokens)
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
        if rankCount == 1 { return heads.keyValueHeads }
        let mostOwn = (0..<rankCount).map { keys.tokenCount(of: Rank($0)) }.max() ?? 0
        let bytesPerToken = (heads.headDimension + heads.valueDimension) * element.bytes
        let budget = max(4 << 20, max(1, mostOwn * bytesPerToken) * heads.keyValueHeads / 10)
        // Two stages are in flight: the one attended and the one arriving.
        return max(1, budget / (2 * max(1, tokens * bytesPerToken)))
    }
}
