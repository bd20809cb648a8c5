// The strategies whose units run where their queries are: keys and values travel to them.

import Attention
import Tiles

extension Plan {
    /// `pass-kv`: a unit runs where its queries live, and a key tile travels from its owner along the ranks that need it,
    /// in ring order (Ring Attention, Liu and others 2023; zhuzilin's zigzag ring, with the folded layouts).
    ///
    /// Bytes: Σ over key tiles of bytes × (ranks other than the owner that need it), which is the least possible.
    public static func passKeyValue(_ job: AttentionJob, rank: Rank) -> Plan {
        Plan(job, .passKeyValue, rank: rank, steps: headExchangeRing(job, rank: rank, degree: 1))
    }
}

extension Plan {
    /// Head exchange in groups of `degree` consecutive ranks, a ring across the groups: in a group each rank takes some
    /// heads and gets the group's queries, keys and values of them; keys and values then go round the ring of the ranks
    /// that take these heads in their groups; the whole of each query tile returns to its owner.
    ///
    /// Heads go in rounds (`headShares`). A round's exchange leaves while the last stage of the round before is attended,
    /// and its return while the first stage of the next one is.
    private static func headExchangeRing(_ job: AttentionJob, rank: Rank, degree: Int) -> [Step] {
        let ranks = (0..<job.rankCount).map { Rank($0) }
        let groups = stride(from: 0, to: ranks.count, by: degree).map { ranks[$0..<$0 + degree] }
        let (group, member) = (rank.index / degree, rank.index % degree)
        let seen = job.seenTiles()
        // Queries that see nothing stay where they are.
        let asking = ranks.map { job.asking(among: job.queries.tiles(of: $0), seen: seen) }
        let route = RingRoute(
            owned: groups.map { Runs($0.flatMap { job.keys.tiles(of: $0).ranges }) },
            needed: groups.map { job.needs(of: Runs($0.flatMap { asking[$0.index].ranges }), seen: seen) })
        let groupAsking = Runs(groups[group].flatMap { asking[$0.index].ranges })
        let wanted = Runs(route.needed.flatMap(\.ranges))
        let arrivals = route.arrivals(at: group)
        let departures = route.departures(from: group)
        let rounds = job.headShares(
            ranks: degree, tokensArriving: groups.map { $0.reduce(0) { $0 + job.keys.tokenCount(of: $1) } }.max() ?? 0)
        let exchanges = degree > 1 ? 1 : 0
        var schedule = Schedule(job, rank: rank, stepCount: rounds.count * groups.count + 2 * exchanges)
        for (number, shares) in rounds.enumerated() {
            let start = number * groups.count
            let first = start + exchanges
            let heads = shares[member]
            let keyHeads = job.heads.keyValueHeads(of: heads)
            for offset in 1..<max(1, degree) {
                let peerMember = (member + offset) % degree
                let peer = groups[group][group * degree + peerMember]
                let theirs = shares[peerMember]
                schedule.send(
                    .keyValues(job.keys.tiles(of: rank).intersection(wanted), heads: job.heads.keyValueHeads(of: theirs)),
                    to: peer, at: start)
                schedule.receive(.keyValues(job.keys.tiles(of: peer).intersection(wanted), heads: keyHeads), from: peer, at: start)
                schedule.send(.queries(asking[rank.index], heads: theirs), to: peer, at: start)
                schedule.receive(.queries(asking[peer.index], heads: heads), from: peer, at: start)
                let keys = route.needed[group]
                schedule.send(
                    .partials(Units(queries: asking[peer.index], heads: heads, keys: keys)), to: peer, at: first + groups.count)
                schedule.receive(
                    .partials(Units(queries: asking[rank.index], heads: theirs, keys: keys)), from: peer, at: first + groups.count)
            }
            for hop in departures {
                schedule.send(.keyValues(hop.tiles, heads: keyHeads), to: groups[hop.peer][hop.peer * degree + member], at: first + hop.stage)
            }
            for hop in arrivals {
                schedule.receive(.keyValues(hop.tiles, heads: keyHeads), from: groups[hop.peer][hop.peer * degree + member], at: first + hop.stage)
            }
            for stage in groups.indices {
                schedule.attend(Units(queries: groupAsking, heads: heads, keys: route.used(at: group, stage: stage)), at: first + stage)
            }
        }
        return schedule.steps
    }
}
