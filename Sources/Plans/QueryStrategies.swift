// The strategies whose units run where their keys are: rows travel to them, and their results return.

import Attention
import Tiles

extension Planner {
    /// `pass-q`: a unit runs where its keys live. A query tile travels from its owner along the ranks whose keys it
    /// sees, in ring order, and each returns one partial for each maximal subtree of the fixed tree that its keys fill.
    ///
    /// Bytes: Σ over query tiles and ranks other than the owner that hold keys they see of the bytes of the rows, and
    /// of a row result for each such subtree: few where a rank's keys are one run, at most about 2·log₂ of the tiles.
    /// Column results stay where they are.
    public static func passQueries(_ dependencies: TileDependencies) -> Planner {
        let problem = dependencies.problem
        let route = RingRoute(
            owned: dependencies.queries, needed: dependencies.readers(), topology: Topology(separate: problem.rankCount)
        )
        let mostRows = dependencies.ranks.map { problem.queries.tokenCount(of: $0) }.max() ?? 0
        let shares = dependencies.headShares(ranks: 1, tokensArriving: mostRows).map { $0[0] }
        let count = problem.rankCount
        let returnsRows = !problem.operation.rowResults.isEmpty
        return Planner(
            dependencies, .passQueries, rounds: .init(heads: shares.map { $0.count }, period: count, drain: 1)
        ) {
            rank, rounds in
            let (arrivals, departures) = (route.arrivals(at: rank.index), route.departures(from: rank.index))
            let used = (0..<count).map { route.used(at: rank.index, stage: $0) }
            // Of this rank's queries, what the rank `stage` places downstream attends.
            let attended = (0..<count).map { route.used(at: rank.advanced(by: $0, count: count).index, stage: $0) }
            // The last results of a round return while the first stage of the next is attended.
            var schedule = Schedule(problem, rank: rank, stepCount: rounds * count + 1)
            for (round, heads) in shares.prefix(rounds).enumerated() {
                let first = round * count
                for hop in departures {
                    schedule.send(.rows(hop.tiles, heads: heads), to: Rank(hop.peer), at: first + hop.stage)
                }
                for hop in arrivals {
                    schedule.receive(.rows(hop.tiles, heads: heads), from: Rank(hop.peer), at: first + hop.stage)
                }
                for stage in 0..<count {
                    let units = Units(queries: used[stage], heads: heads, keys: dependencies.keys[rank.index])
                    schedule.attend(units, at: first + stage)
                    guard stage > 0, returnsRows else { continue }
                    schedule.send(
                        .rowResults(units), to: rank.advanced(by: -stage, count: count), at: first + stage + 1)
                    let worker = rank.advanced(by: stage, count: count)
                    let returned = Units(queries: attended[stage], heads: heads, keys: dependencies.keys[worker.index])
                    schedule.receive(.rowResults(returned), from: worker, at: first + stage + 1)
                }
            }
            return schedule
        }
    }

    /// `tree`: a unit runs where its keys live. The queries of a rank go down a binomial tree of all ranks that has
    /// that rank at its root, and partials merge on the way up, in about 2·log₂(ranks) steps whatever the length (Tree
    /// Attention, Shyam and others 2024). For few queries: all of them are on their way at once.
    ///
    /// Bytes: Σ over query tiles and edges of their owner's tree below which there are keys they see of the bytes of
    /// the rows, going down, and of a row result for each maximal subtree that the keys below the edge fill, going up.
    /// Column results stay where they are.
    public static func tree(_ dependencies: TileDependencies) -> Planner {
        let problem = dependencies.problem
        let count = problem.rankCount
        let levels = Int.bitWidth - (count - 1).leadingZeroBitCount
        let shares = dependencies.headShares(ranks: 1, tokensArriving: problem.queries.numbering.lengths.reduce(0, +))
            .map {
                $0[0]
            }
        let period = 2 * levels + 1
        let returnsRows = !problem.operation.rowResults.isEmpty
        let keys = UnionTree(dependencies.keys)
        /// The keys of some consecutive ranks of the ring.
        @Sendable func keysOf(_ ranks: Int, from first: Rank) -> Runs {
            let end = first.index + ranks
            return keys.union(first.index..<min(end, count)).union(keys.union(0..<max(0, end - count)))
        }
        return Planner(dependencies, .tree, rounds: .init(heads: shares.map { $0.count }, period: period, drain: 0)) {
            rank, rounds in
            var schedule = Schedule(problem, rank: rank, stepCount: rounds * period)
            for owner in dependencies.ranks where !dependencies.asking[owner.index].isEmpty {
                let queries = dependencies.asking[owner.index]
                // A rank's place is its distance from the root. Below place v lie v..<v + 2^k, where 2^k is its lowest
                // bit.
                let place = rank.distance(from: owner, count: count)
                /// What crosses the edge between a place and the one above it.
                func crossing(_ place: Int, level: Int) -> Units {
                    let keys = keysOf(min(1 << level, count - place), from: owner.advanced(by: place, count: count))
                    return Units(queries: dependencies.readers(of: keys, among: queries), heads: 0..<0, keys: keys)
                }
                let level = place == 0 ? levels : place.trailingZeroBitCount
                var edges: [(units: Units, level: Int, peer: Rank, isUp: Bool)] = []
                if place > 0 {
                    edges.append(
                        (crossing(place, level: level), level, rank.advanced(by: -(1 << level), count: count), true))
                }
                for below in 0..<level where place + 1 << below < count {
                    edges.append(
                        (
                            crossing(place + 1 << below, level: below), below,
                            rank.advanced(by: 1 << below, count: count), false
                        ))
                }
                let mine = dependencies.keys[rank.index]
                let readers = dependencies.readers(of: mine, among: queries)
                for (round, heads) in shares.prefix(rounds).enumerated() {
                    let first = round * period
                    // Down the edges of level k in step `levels − 1 − k`, up in `levels + 1 + k`.
                    schedule.attend(Units(queries: readers, heads: heads, keys: mine), at: first + levels - level)
                    for edge in edges {
                        let (down, up) = (first + levels - 1 - edge.level, first + levels + 1 + edge.level)
                        let (rows, results) = (
                            Payload.rows(edge.units.queries, heads: heads), Payload.rowResults(edge.units.of(heads))
                        )
                        if edge.isUp {
                            schedule.receive(rows, from: edge.peer, at: down)
                            if returnsRows { schedule.send(results, to: edge.peer, at: up) }
                        } else {
                            schedule.send(rows, to: edge.peer, at: down)
                            if returnsRows { schedule.receive(results, from: edge.peer, at: up) }
                        }
                    }
                }
            }
            return schedule
        }
    }
}

extension Units {
    /// The same query and key tiles, for some heads.
    fileprivate func of(_ heads: Range<Int>) -> Units { Units(queries: queries, heads: heads, keys: keys) }
}
