// What one rank's plan costs on a cluster: its steps are gone through one after another, as the executor would.

import Attention
import Tiles

/// What one attention costs one rank.
struct RankPrice: Sendable, Hashable {
    /// Seconds from the first step to the end of the last.
    var seconds = 0.0
    /// The part of them in which nothing is left to attend and messages are waited for.
    var exposed = 0.0
    /// Floating-point operations of the visible pairs that it computes.
    var flop = 0.0
    /// What it sends.
    var bytes = 0.0
    var messages = 0.0
    /// The most bytes at a time of tiles of other ranks, copies for messages, and partials.
    var transient = 0.0

    /// Adds what follows `times` over; memory is used again.
    mutating func add(_ other: RankPrice, times: Double = 1) {
        seconds += times * other.seconds
        exposed += times * other.exposed
        flop += times * other.flop
        bytes += times * other.bytes
        messages += times * other.messages
        transient = max(transient, other.transient)
    }
}

/// Goes through one rank's steps.
///
/// A step takes as long as the longest of its work and, inside its node and between nodes, its arrivals and its departures;
/// the messages of one direction and level go one after another. That is the time of a rank whose neighbours keep up with
/// it. Where one does not, the neighbour's own price is the job's, which is that of its slowest rank.
struct RankWalk {
    private let needs: Needs
    private let table: TileTable
    private let cluster: Cluster
    private let rank: Rank
    private let own: Runs
    private let weighsMemory: Bool
    private var holdings: Holdings

    private init(_ needs: Needs, _ table: TileTable, _ cluster: Cluster, rank: Rank, weighsMemory: Bool) {
        self.needs = needs
        self.table = table
        self.cluster = cluster
        self.rank = rank
        self.weighsMemory = weighsMemory
        own = needs.queries[rank.index]
        holdings = Holdings(own: own)
    }

    /// The price of a plan of which `rounds` rounds are written down: the last of them stands for those that are left out.
    /// - Parameter weighsMemory: whether `transient` is found, which takes longer than all else.
    static func price(
        _ planner: Planner, rank: Rank, rounds: Int, _ needs: Needs, _ table: TileTable, _ cluster: Cluster, weighsMemory: Bool
    ) -> RankPrice {
        var walk = RankWalk(needs, table, cluster, rank: rank, weighsMemory: weighsMemory)
        let steps = planner.plan(rank, rounds: rounds).steps
        let period = planner.rounds.period
        let last = (rounds - 1) * period..<rounds * period
        // Partials are counted in 64 steps of a plan that has more.
        let countEvery = max(1, steps.count / 64)
        var total = RankPrice()
        var round = RankPrice()
        for (number, step) in steps.enumerated() {
            let price = walk.take(step, countsPartials: number % countEvery == 0)
            total.add(price)
            if last.contains(number) { round.add(price) }
        }
        let left = planner.rounds.heads.dropFirst(rounds).reduce(0, +)
        if left > 0 { total.add(round, times: Double(left) / Double(planner.rounds.heads[rounds - 1])) }
        return total
    }

    private mutating func take(_ step: Step, countsPartials: Bool) -> RankPrice {
        var price = RankPrice()
        for units in step.attend { price.flop += flop(of: units) }
        let departing = sum(step.sends, from: true)
        let arriving = sum(step.receives, from: false)
        price.bytes = departing.bytes
        price.messages = Double(step.sends.count)
        let computing = price.flop / cluster.ranks[rank.index].flops
        let moving = max(departing.seconds, arriving.seconds)
        price.seconds = max(computing, moving)
        price.exposed = max(0, moving - computing)

        guard weighsMemory else { return price }
        // The executor makes room for what arrives, and copies the queries that leave, before it computes.
        for units in step.attend { holdings.merge(units, needs.seen) }
        if countsPartials { holdings.countPartials(needs, table) }
        price.transient = holdings.resident + arriving.kept + arriving.copied + departing.copied + (holdings.waiting + arriving.blocks) * table.blockBytes
        holdings.resident += arriving.kept
        for payload in step.release { holdings.resident -= bytes(of: payload).memory }
        for payload in step.sends.flatMap(\.payloads) {
            if case .partials(let units) = payload { holdings.forget(units, needs.seen) }
        }
        for payload in step.receives.flatMap(\.payloads) {
            if case .partials(let units) = payload { holdings.merge(units, needs.seen) }
        }
        return price
    }

    /// The messages of one direction in one step.
    private struct Flow {
        var seconds = 0.0
        var bytes = 0.0
        /// Bytes of keys, values and queries, which stay when they arrive.
        var kept = 0.0
        /// Bytes of copies: own queries that leave, and what travels narrowed.
        var copied = 0.0
        /// Blocks of partials.
        var blocks = 0.0
    }

    private func sum(_ transfers: [Transfer], from isDeparting: Bool) -> Flow {
        var flow = Flow()
        var (inside, between) = (0.0, 0.0)
        for transfer in transfers {
            var bytes = 0.0
            for payload in transfer.payloads {
                let size = self.bytes(of: payload)
                bytes += size.bytes
                flow.blocks += size.blocks
                switch payload {
                case .keyValues:
                    // What travels narrowed is a copy on both sides.
                    flow.kept += size.memory
                    if needs.job.narrowsWire { flow.copied += size.bytes }
                case .queries(let tiles, let heads):
                    flow.kept += size.memory
                    if isDeparting { flow.copied += queryBytes(tiles.intersection(own), heads) }
                case .partials: break
                }
            }
            let route = cluster.route(from: rank, to: transfer.peer)
            let seconds = route.latency + bytes * route.perByte
            if route.isInside { inside += seconds } else { between += seconds }
            flow.bytes += bytes
        }
        flow.seconds = max(inside, between)
        return flow
    }

    private func flop(of units: Units) -> Double {
        let pairs = units.queries.reduce(0.0) {
            $0 + table.pairs(queryTile: $1, seen: needs.seen[$1], keys: units.keys)
        }
        return pairs * table.flopPerPair * Double(units.heads.count)
    }

    private func queryBytes(_ tiles: Runs, _ heads: Range<Int>) -> Double {
        Double(table.rows(of: tiles) * 4 * needs.job.heads.headDimension * heads.count)
    }

    /// As `AttentionJob.bytes(of:)` counts them, what tiles take in memory, and the blocks of partials.
    private func bytes(of payload: Payload) -> (bytes: Double, memory: Double, blocks: Double) {
        switch payload {
        case .keyValues(let tiles, let heads):
            let memory = Double(table.keyValueBytes(of: tiles) * heads.count)
            return (needs.job.narrowsWire ? memory / 2 : memory, memory, 0)
        case .queries(let tiles, let heads):
            let bytes = queryBytes(tiles, heads)
            return (bytes, bytes, 0)
        case .partials(let units):
            var rows = 0
            var blocks = 0
            table.forEachSubtreeCount(of: units.queries, in: units.keys, needs.seen) { tile, count in
                rows += table.rows(of: tile) * count
                blocks += count
            }
            let perRow = 4 * (2 + needs.job.heads.paddedValueDimension) * units.heads.count
            return (Double(rows * perRow), 0, Double(blocks * units.heads.count))
        }
    }
}

/// What a rank holds beside its own tokens.
private struct Holdings {
    /// Bytes of tiles of other ranks.
    var resident = 0.0
    /// Blocks of partials that waited for their siblings when they were last counted.
    var waiting = 0.0
    private let own: Runs
    /// The key tiles that each query tile has met, for the heads under way; unsorted.
    private var met: [Unit: [Range<Int>]] = [:]

    private struct Unit: Hashable {
        let queryTile: Int
        let heads: Range<Int>
    }

    init(own: Runs) { self.own = own }

    mutating func merge(_ units: Units, _ seen: [Runs]) {
        for tile in units.queries where seen[tile].intersects(units.keys) {
            met[Unit(queryTile: tile, heads: units.heads), default: []] += units.keys.ranges
        }
    }

    mutating func forget(_ units: Units, _ seen: [Runs]) {
        for tile in units.queries where seen[tile].intersects(units.keys) {
            met[Unit(queryTile: tile, heads: units.heads)] = nil
        }
    }

    /// Counts what waits now. Queries of this rank that have met all they see are finished.
    mutating func countPartials(_ needs: Needs, _ table: TileTable) {
        var total = 0
        for (unit, ranges) in met {
            let keys = Runs(ranges)
            let seen = needs.seen[unit.queryTile]
            if own.contains(unit.queryTile), keys.contains(seen) {
                met[unit] = nil
            } else {
                met[unit] = keys.ranges
                total += table.subtreeCount(of: unit.queryTile, in: keys, seen: seen) * unit.heads.count
            }
        }
        waiting = Double(total)
    }
}
