// The strategies whose units run where their queries are: keys and values travel to them.

import Attention
import Tiles

extension Planner {
    /// `pass-kv`: a unit runs where its queries live, and a key tile travels from its owner along the ranks that need it,
    /// in ring order (Ring Attention, Liu and others 2023; zhuzilin's zigzag ring, with the folded layouts).
    ///
    /// Bytes: Σ over key tiles of bytes × (nodes other than the owner's with a rank that needs it), which is the least
    /// possible. Where no ranks share memory, each is a node.
    public static func passKeyValue(_ needs: Needs) -> Planner { headExchangeRing(needs, .passKeyValue, degree: 1) }

    /// `head-exchange`: each rank takes some heads and gets the queries, keys and values of all ranks for them
    /// (DeepSpeed-Ulysses, Jacobs and others 2023). Heads need not divide evenly, and there may be more ranks than heads.
    ///
    /// Bytes: Σ over ranks r of the bytes, for the heads that r takes, of the queries that see a key, other than r's own,
    /// and the keys and values that are seen, other than those of r's node; and of one partial for each of these queries on
    /// its way back.
    public static func headExchange(_ needs: Needs) -> Planner { headExchangeRing(needs, .headExchange, degree: needs.job.rankCount) }

    /// `hybrid`: head exchange in groups of consecutive ranks, rings across the groups (USP, Fang and Zhao 2024).
    ///
    /// Bytes: those of `head-exchange`, summed over the groups, each with its own queries and keys; and Σ over key tiles
    /// of bytes × Σ over members of a group of the key/value heads that the member takes × (nodes of the ring of these
    /// members, other than that of the owner's group, with a group that needs it).
    /// - Parameter degree: the ranks of a group, a divisor of the rank count; 1 is `pass-kv`, all ranks `head-exchange`.
    ///   Nil takes `hybridDegree`.
    public static func hybrid(_ needs: Needs, degree: Int? = nil) -> Planner {
        let degree = degree ?? needs.job.hybridDegree
        precondition(needs.job.rankCount % degree == 0, "groups are equally large")
        return headExchangeRing(needs, .hybrid, degree: degree)
    }

    /// `all-gather`: a unit runs where its queries live, and each key tile goes from its owner straight to every rank that
    /// needs it, all at once; the heads of the next round arrive while those of the last are attended.
    ///
    /// Bytes: those of `pass-kv`. Messages: one a round for each pair of ranks of which one needs what the other has.
    public static func allGather(_ needs: Needs) -> Planner {
        let job = needs.job
        let shares = needs.headShares(ranks: 1, tokensArriving: job.keys.numbering.lengths.reduce(0, +)).map { $0[0] }
        let entering = job.topology.entering(owned: needs.keys, needed: needs.needed)
        return Planner(needs, .allGather, rounds: .init(heads: shares.map { $0.count }, period: 1, drain: 1)) { rank, rounds in
            let (own, needed) = (needs.keys[rank.index], needs.needed[rank.index])
            let mates = job.topology.mates(of: rank)
            // What is here when a round starts: what this rank or a mate has.
            let here = mates.count > 1 ? Runs(mates.flatMap { needs.keys[$0].ranges }) : own
            var schedule = Schedule(job, rank: rank, stepCount: rounds + 1)
            // Each rank begins with its neighbour, so that not all send to one.
            for offset in 1..<max(1, job.rankCount) {
                let peer = rank.advanced(by: offset, count: job.rankCount)
                let sent = entering[peer.index].intersection(own)
                let received = entering[rank.index].intersection(needs.keys[peer.index])
                for (round, heads) in shares.prefix(rounds).enumerated() {
                    let keyHeads = job.heads.keyValueHeads(of: heads)
                    schedule.send(.keyValues(sent, heads: keyHeads), to: peer, at: round)
                    schedule.receive(.keyValues(received, heads: keyHeads), from: peer, at: round)
                }
            }
            for (round, heads) in shares.prefix(rounds).enumerated() {
                let queries = needs.asking[rank.index]
                schedule.attend(Units(queries: queries, heads: heads, keys: needed.intersection(here)), at: round)
                schedule.attend(Units(queries: queries, heads: heads, keys: needed.subtracting(here)), at: round + 1)
                // What entered here for the whole node is in the last of these: this rank is the first that needs it.
            }
            return schedule
        }
    }
}

extension AttentionJob {
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
    /// Heads go in rounds (`headShares`). A round's exchange leaves while the last stage of the round before is attended,
    /// and its return while the first stage of the next one is.
    private static func headExchangeRing(_ needs: Needs, _ strategy: Strategy, degree: Int) -> Planner {
        let job = needs.job
        let ranks = needs.ranks
        let groups = stride(from: 0, to: ranks.count, by: degree).map { Array(ranks[$0..<$0 + degree]) }
        let asking = groups.map { Runs($0.flatMap { needs.asking[$0.index].ranges }) }
        // The ring of each member of a group: its own ranks, and the same tiles.
        let (owned, needed) = (
            groups.map { Runs($0.flatMap { needs.keys[$0.index].ranges }) },
            groups.map { Runs($0.flatMap { needs.needed[$0.index].ranges }) })
        let routes = (0..<degree).map { member in
            RingRoute(owned: owned, needed: needed, topology: job.topology.ring(of: groups.map { $0[member] }))
        }
        let shares = needs.headShares(
            ranks: degree, tokensArriving: groups.map { $0.reduce(0) { $0 + job.keys.tokenCount(of: $1) } }.max() ?? 0)
        let exchanges = degree > 1 ? 1 : 0
        let rounds = Planner.Rounds(
            heads: shares.map { $0.reduce(0) { $0 + $1.count } }, period: groups.count, drain: 2 * exchanges)
        let members = shares.first?.map { !$0.isEmpty } ?? []
        return Planner(needs, strategy, rounds: rounds, takesHeads: { members[$0.index % degree] }) { rank, rounds in
            let (group, member) = (rank.index / degree, rank.index % degree)
            let route = routes[member]
            let (arrivals, departures) = (route.arrivals(at: group), route.departures(from: group))
            let used = groups.indices.map { route.used(at: group, stage: $0) }
            let keys = route.needed[group]
            var schedule = Schedule(job, rank: rank, stepCount: rounds * groups.count + 2 * exchanges)
            for (round, shares) in shares.prefix(rounds).enumerated() {
                let start = round * groups.count
                let first = start + exchanges
                let last = first + groups.count
                let heads = shares[member]
                let keyHeads = job.heads.keyValueHeads(of: heads)
                for offset in 1..<degree {
                    let other = (member + offset) % degree
                    let (peer, theirs) = (groups[group][other], shares[other])
                    // What anyone in any group sees.
                    func wanted(_ rank: Rank) -> Runs { needs.keys[rank.index].intersection(route.needed.whole) }
                    if !job.topology.areMates(rank, peer) {
                        schedule.send(.keyValues(wanted(rank), heads: job.heads.keyValueHeads(of: theirs)), to: peer, at: start)
                        schedule.receive(.keyValues(wanted(peer), heads: keyHeads), from: peer, at: start)
                        for reading in route.readings(at: group, of: needs.keys[peer.index], stage: 0) {
                            schedule.lend(.keyValues(reading.tiles, heads: keyHeads), at: first + reading.stage)
                        }
                    }
                    let (mine, its) = (needs.asking[rank.index], needs.asking[peer.index])
                    schedule.send(.queries(mine, heads: theirs), to: peer, at: start)
                    schedule.receive(.queries(its, heads: heads), from: peer, at: start)
                    schedule.send(.partials(Units(queries: its, heads: heads, keys: keys)), to: peer, at: last)
                    schedule.receive(.partials(Units(queries: mine, heads: theirs, keys: keys)), from: peer, at: last)
                }
                for hop in departures {
                    schedule.send(.keyValues(hop.tiles, heads: keyHeads), to: groups[hop.peer][member], at: first + hop.stage)
                }
                for hop in arrivals {
                    schedule.receive(.keyValues(hop.tiles, heads: keyHeads), from: groups[hop.peer][member], at: first + hop.stage)
                    for reading in route.readings(at: group, of: hop.tiles, stage: hop.stage + 1) {
                        schedule.lend(.keyValues(reading.tiles, heads: keyHeads), at: first + reading.stage)
                    }
                }
                for (stage, keys) in used.enumerated() {
                    schedule.attend(Units(queries: asking[group], heads: heads, keys: keys), at: first + stage)
                }
            }
            return schedule
        }
    }
}
