// The strategies whose units run where their queries are: keys and values travel to them.

import Attention
import Tiles

extension Planner {
    /// `pass-kv`: a unit runs where its queries live, and a key tile travels from its owner along the ranks that need
    /// it, in ring order (Ring Attention, Liu and others 2023; zhuzilin's zigzag ring, with the folded layouts).
    ///
    /// Bytes: Σ over key tiles of bytes × (nodes other than the owner's with a rank that needs it), which is the least
    /// possible. Where no ranks share memory, each is a node. For column results, Σ over key tiles and ranks other than
    /// the owner with queries that see it of a result for each maximal subtree that these fill among all that see it.
    public static func passKeyValue(_ dependencies: TileDependencies) -> Planner {
        headExchangeRing(dependencies, .passKeyValue, degree: 1)
    }

    /// `head-exchange`: each rank takes some heads and gets the queries, keys and values of all ranks for them
    /// (DeepSpeed-Ulysses, Jacobs and others 2023). Heads need not divide evenly, and there may be more ranks than
    /// heads.
    ///
    /// Bytes: Σ over ranks r of the bytes, for the heads that r takes, of the rows that see a key, other than r's own,
    /// and the columns that are seen, other than those of r's node; and of one row result for each of these rows, and
    /// one column result for each key that is seen and not r's own, on its way back.
    public static func headExchange(_ dependencies: TileDependencies) -> Planner {
        headExchangeRing(dependencies, .headExchange, degree: dependencies.problem.rankCount)
    }

    /// `hybrid`: head exchange in groups of consecutive ranks, rings across the groups (USP, Fang and Zhao 2024).
    ///
    /// Bytes: those of `head-exchange`, summed over the groups, each with its own queries and keys; and Σ over key
    /// tiles of bytes × Σ over members of a group of the key/value heads that the member takes × (nodes of the ring of
    /// these members, other than that of the owner's group, with a group that needs it). For column results, Σ over key
    /// tiles and groups with queries that see it of a result for each maximal subtree that these fill, for the heads of
    /// all members but, in the owner's group, the owner.
    /// - Parameters:
    ///   - dependencies: the job, with who sees what and who has what in it.
    ///   - degree: the ranks of a group, a divisor of the rank count; 1 is `pass-kv`, all ranks `head-exchange`. Nil
    ///     takes `hybridDegree`.
    public static func hybrid(_ dependencies: TileDependencies, degree: Int? = nil) -> Planner {
        let degree = degree ?? dependencies.problem.hybridDegree
        precondition(dependencies.problem.rankCount % degree == 0, "groups are equally large")
        return headExchangeRing(dependencies, .hybrid, degree: degree)
    }

    /// `all-gather`: a unit runs where its queries live, and each key tile goes from its owner straight to every rank
    /// that needs it, all at once; the heads of the next round arrive while those of the last are attended. There are
    /// four rounds at least, so that over a slow link little is left to attend when the last has arrived.
    ///
    /// Bytes: those of `pass-kv`. Messages: one a round for each pair of ranks of which one needs what the other has,
    /// and one where column results return.
    public static func allGather(_ dependencies: TileDependencies) -> Planner {
        let problem = dependencies.problem
        let shares = dependencies.headShares(
            ranks: 1, tokensArriving: problem.keys.numbering.lengths.reduce(0, +),
            rounds: problem.rankCount > 1 ? 4 : 1
        ).map { $0[0] }
        let entering = problem.topology.entering(owned: dependencies.keys, needed: dependencies.needed)
        let returnsColumns = !problem.operation.columnResults.isEmpty
        let drain = returnsColumns ? 2 : 1
        return Planner(dependencies, .allGather, rounds: .init(heads: shares.map { $0.count }, period: 1, drain: drain))
        {
            rank, rounds in
            let (own, needed) = (dependencies.keys[rank.index], dependencies.needed[rank.index])
            let mates = problem.topology.mates(of: rank)
            // What is here when a round starts: what this rank or a mate has.
            let here = mates.count > 1 ? Runs(mates.flatMap { dependencies.keys[$0].ranges }) : own
            var schedule = Schedule(problem, rank: rank, stepCount: rounds + drain)
            // Each rank begins with its neighbour, so that not all send to one.
            for offset in 1..<max(1, problem.rankCount) {
                let peer = rank.advanced(by: offset, count: problem.rankCount)
                let sent = entering[peer.index].intersection(own)
                let received = entering[rank.index].intersection(dependencies.keys[peer.index])
                for (round, heads) in shares.prefix(rounds).enumerated() {
                    let keyHeads = problem.heads.keyValueHeads(of: heads)
                    schedule.send(.columns(sent, heads: keyHeads), to: peer, at: round)
                    schedule.receive(.columns(received, heads: keyHeads), from: peer, at: round)
                    guard returnsColumns else { continue }
                    let mine = Units(
                        queries: dependencies.asking[rank.index], heads: heads,
                        keys: needed.intersection(dependencies.keys[peer.index]))
                    let its = Units(
                        queries: dependencies.asking[peer.index], heads: heads,
                        keys: dependencies.needed[peer.index].intersection(own))
                    schedule.send(.columnResults(mine), to: peer, at: round + 2)
                    schedule.receive(.columnResults(its), from: peer, at: round + 2)
                }
            }
            for (round, heads) in shares.prefix(rounds).enumerated() {
                let queries = dependencies.asking[rank.index]
                schedule.attend(Units(queries: queries, heads: heads, keys: needed.intersection(here)), at: round)
                schedule.attend(Units(queries: queries, heads: heads, keys: needed.subtracting(here)), at: round + 1)
                // What entered here for the whole node is in the last of these: this rank is the first that needs it.
            }
            return schedule
        }
    }
}

extension AttentionProblem {
    /// The ranks of a group in `hybrid`, where nothing else is asked for: the largest divisor of the rank count that is
    /// smaller than it and leaves every member a head; 1, which is `pass-kv`, where there is none.
    public var hybridDegree: Int {
        var degree = max(1, min(rankCount - 1, heads.queryHeads))
        while !rankCount.isMultiple(of: degree) { degree -= 1 }
        return degree
    }
}

extension Planner {
    /// Head exchange in groups of `degree` consecutive ranks, a ring across the groups: in a group each rank takes some
    /// heads and gets the group's queries, keys and values of them; keys and values then go round the ring of the ranks
    /// that take these heads in their groups; the whole of each query tile returns to its owner.
    ///
    /// Heads go in rounds (`headShares`). A round's exchange leaves while the last stage of the round before is
    /// attended, and its return while the first stage of the next one is.
    private static func headExchangeRing(_ dependencies: TileDependencies, _ strategy: Strategy, degree: Int) -> Planner
    {
        let problem = dependencies.problem
        let ranks = dependencies.ranks
        let groups = stride(from: 0, to: ranks.count, by: degree).map { Array(ranks[$0..<$0 + degree]) }
        let asking = groups.map { Runs($0.flatMap { dependencies.asking[$0.index].ranges }) }
        // The ring of each member of a group: its own ranks, and the same tiles.
        let (owned, needed) = (
            groups.map { Runs($0.flatMap { dependencies.keys[$0.index].ranges }) },
            groups.map { Runs($0.flatMap { dependencies.needed[$0.index].ranges }) }
        )
        let routes = (0..<degree).map { member in
            RingRoute(owned: owned, needed: needed, topology: problem.topology.ring(of: groups.map { $0[member] }))
        }
        let shares = dependencies.headShares(
            ranks: degree,
            tokensArriving: groups.map { $0.reduce(0) { $0 + problem.keys.tokenCount(of: $1) } }.max() ?? 0)
        let exchanges = degree > 1 ? 1 : 0
        let (returnsRows, returnsColumns) = (
            !problem.operation.rowResults.isEmpty, !problem.operation.columnResults.isEmpty
        )
        let drain = max(2 * exchanges, returnsColumns ? 1 : 0)
        let rounds = Planner.Rounds(
            heads: shares.map { $0.reduce(0) { $0 + $1.count } }, period: groups.count, drain: drain)
        let members = shares.first?.map { !$0.isEmpty } ?? []
        return Planner(dependencies, strategy, rounds: rounds, takesHeads: { members[$0.index % degree] }) {
            rank, rounds in
            let (group, member) = (rank.index / degree, rank.index % degree)
            let route = routes[member]
            let (arrivals, departures) = (route.arrivals(at: group), route.departures(from: group))
            let used = groups.indices.map { route.used(at: group, stage: $0) }
            let keys = route.needed[group]
            var schedule = Schedule(problem, rank: rank, stepCount: rounds * groups.count + drain)
            for (round, shares) in shares.prefix(rounds).enumerated() {
                let start = round * groups.count
                let first = start + exchanges
                let last = first + groups.count
                let heads = shares[member]
                let keyHeads = problem.heads.keyValueHeads(of: heads)
                for offset in 1..<degree {
                    let other = (member + offset) % degree
                    let (peer, theirs) = (groups[group][other], shares[other])
                    // What anyone in any group sees.
                    func wanted(_ rank: Rank) -> Runs { dependencies.keys[rank.index].intersection(route.needed.whole) }
                    if !problem.topology.areMates(rank, peer) {
                        schedule.send(
                            .columns(wanted(rank), heads: problem.heads.keyValueHeads(of: theirs)), to: peer, at: start)
                        schedule.receive(.columns(wanted(peer), heads: keyHeads), from: peer, at: start)
                        for reading in route.readings(at: group, of: dependencies.keys[peer.index], stage: 0) {
                            schedule.lend(.columns(reading.tiles, heads: keyHeads), at: first + reading.stage)
                        }
                    }
                    let (mine, its) = (dependencies.asking[rank.index], dependencies.asking[peer.index])
                    schedule.send(.rows(mine, heads: theirs), to: peer, at: start)
                    schedule.receive(.rows(its, heads: heads), from: peer, at: start)
                    guard returnsRows else { continue }
                    schedule.send(.rowResults(Units(queries: its, heads: heads, keys: keys)), to: peer, at: last)
                    schedule.receive(.rowResults(Units(queries: mine, heads: theirs, keys: keys)), from: peer, at: last)
                }
                for hop in departures {
                    schedule.send(
                        .columns(hop.tiles, heads: keyHeads), to: groups[hop.peer][member], at: first + hop.stage)
                }
                for hop in arrivals {
                    schedule.receive(
                        .columns(hop.tiles, heads: keyHeads), from: groups[hop.peer][member], at: first + hop.stage)
                    for reading in route.readings(at: group, of: hop.tiles, stage: hop.stage + 1) {
                        schedule.lend(.columns(reading.tiles, heads: keyHeads), at: first + reading.stage)
                    }
                }
                for (stage, keys) in used.enumerated() {
                    schedule.attend(Units(queries: asking[group], heads: heads, keys: keys), at: first + stage)
                }
                guard returnsColumns else { continue }
                // What is computed in a stage goes home to the ranks of the group whose keys were used in it.
                for stage in groups.indices {
                    let (home, away) = ((group - stage + groups.count) % groups.count, (group + stage) % groups.count)
                    for other in 0..<degree {
                        let (owner, worker) = (groups[home][other], groups[away][other])
                        let sent = Units(
                            queries: asking[group], heads: heads,
                            keys: used[stage].intersection(dependencies.keys[owner.index]))
                        let received = Units(
                            queries: asking[away], heads: shares[other],
                            keys: routes[other].used(at: away, stage: stage).intersection(dependencies.keys[rank.index])
                        )
                        if owner != rank { schedule.send(.columnResults(sent), to: owner, at: first + stage + 1) }
                        if worker != rank {
                            schedule.receive(.columnResults(received), from: worker, at: first + stage + 1)
                        }
                    }
                }
            }
            return schedule
        }
    }
}
