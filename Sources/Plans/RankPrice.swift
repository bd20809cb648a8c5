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
    /// The most bytes at a time of tiles of other ranks, copies for messages, and results that are not whole.
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
/// A step takes as long as the longest of its work, with what its messages take of it, and, inside its node and between
/// nodes, its arrivals and its departures; the messages of one direction and level go one after another. That is the time
/// of a rank whose neighbours keep up with it. Where one does not, the neighbour's own price is the job's, which is that
/// of its slowest rank.
struct RankWalk {
    /// What a step takes: computing, and each message of either direction.
    struct Costs {
        var computing = 0.0
        var sends: [Message] = []
        var receives: [Message] = []

        /// One message: its peer, its bytes, and the seconds in which it fills its link.
        struct Message {
            let peer: Rank
            let isInside: Bool
            let seconds: Double
            let bytes: Double
            /// Seconds that it takes of computing.
            let processing: Double
        }
    }

    private let dependencies: TileDependencies
    private let table: TileTable
    private let cluster: Cluster
    private let rank: Rank
    private let own: Runs
    private let weighsMemory: Bool
    /// Bytes of tiles of other ranks.
    private var resident = 0.0
    /// What waits for the rest of it; nil where the operation gives that side nothing.
    private var rowResults: WaitingResults?
    private var columnResults: WaitingResults?
    private var problem: AttentionProblem { dependencies.problem }

    private init(
        _ dependencies: TileDependencies, _ table: TileTable, _ cluster: Cluster, rank: Rank, weighsMemory: Bool
    ) {
        self.dependencies = dependencies
        self.table = table
        self.cluster = cluster
        self.rank = rank
        self.weighsMemory = weighsMemory
        own = dependencies.queries[rank.index]
        if !dependencies.problem.operation.rowResults.isEmpty {
            rowResults = WaitingResults(own: own, meets: dependencies.seen, first: table.firstKeyTile)
        }
        if !dependencies.problem.operation.columnResults.isEmpty {
            columnResults = WaitingResults(
                own: dependencies.keys[rank.index], meets: dependencies.readersOfTiles, first: table.firstQueryTile)
        }
    }

    /// The price of a plan of which `rounds` rounds are written down: the last of them stands for those that are left
    /// out.
    /// - Parameter weighsMemory: whether `transient` is found, which takes longer than all else.
    static func price(
        _ planner: Planner, rank: Rank, rounds: Int, _ dependencies: TileDependencies, _ table: TileTable,
        _ cluster: Cluster,
        weighsMemory: Bool
    ) -> RankPrice {
        var walk = RankWalk(dependencies, table, cluster, rank: rank, weighsMemory: weighsMemory)
        let steps = planner.plan(rank, rounds: rounds).steps
        let period = planner.rounds.period
        let last = (rounds - 1) * period..<rounds * period
        // Results that wait are counted in 64 steps of a plan that has more.
        let countEvery = max(1, steps.count / 64)
        var total = RankPrice()
        var round = RankPrice()
        for (number, step) in steps.enumerated() {
            let price = walk.take(step, countsResults: number % countEvery == 0)
            total.add(price)
            if last.contains(number) { round.add(price) }
        }
        let left = planner.rounds.heads.dropFirst(rounds).reduce(0, +)
        if left > 0 { total.add(round, times: Double(left) / Double(planner.rounds.heads[rounds - 1])) }
        return total
    }

    private mutating func take(_ step: Step, countsResults: Bool) -> RankPrice {
        let problem = problem
        var price = RankPrice()
        let work = work(of: step)
        price.flop = work.visible
        let departing = sum(step.sends, from: true)
        let arriving = sum(step.receives, from: false)
        price.bytes = departing.bytes
        price.messages = Double(step.sends.count)
        let computing = work.timed / cluster.ranks[rank.index].flops + departing.processing + arriving.processing
        let moving = max(departing.seconds, arriving.seconds)
        price.seconds = max(computing, moving)
        price.exposed = max(0, moving - computing)

        guard weighsMemory else { return price }
        // The executor makes room for what arrives, and copies the rows that leave, before it computes.
        for units in step.attend {
            rowResults?.merge(units.queries, units.heads, units.keys)
            columnResults?.merge(units.keys, problem.columnResultHeads(of: units.heads), units.queries)
        }
        if countsResults {
            rowResults?.count()
            columnResults?.count()
        }
        price.transient =
            resident + arriving.kept + arriving.copied + departing.copied + arriving.blocks
            + (rowResults?.waiting ?? 0) * table.rowBlockBytes + (columnResults?.waiting ?? 0) * table.columnBlockBytes
        resident += arriving.kept
        for payload in step.release { resident -= bytes(of: payload).memory }
        for payload in step.sends.flatMap(\.payloads) {
            if case .rowResults(let units) = payload { rowResults?.forget(units.queries, units.heads, units.keys) }
            if case .columnResults(let units) = payload {
                columnResults?.forget(units.keys, problem.columnResultHeads(of: units.heads), units.queries)
            }
        }
        for payload in step.receives.flatMap(\.payloads) {
            if case .rowResults(let units) = payload { rowResults?.merge(units.queries, units.heads, units.keys) }
            if case .columnResults(let units) = payload {
                columnResults?.merge(units.keys, problem.columnResultHeads(of: units.heads), units.queries)
            }
        }
        return price
    }

    /// The messages of one direction in one step.
    private struct Flow {
        var seconds = 0.0
        var bytes = 0.0
        /// Seconds that they take of computing.
        var processing = 0.0
        /// Bytes of columns and rows, which stay when they arrive.
        var kept = 0.0
        /// Bytes of copies: own rows that leave, and what travels narrowed.
        var copied = 0.0
        /// Bytes of blocks of results.
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
                case .columns:
                    // What travels narrowed is a copy on both sides.
                    flow.kept += size.memory
                    if problem.narrowsWire { flow.copied += size.bytes }
                case .rows(let tiles, let heads):
                    flow.kept += size.memory
                    if isDeparting { flow.copied += rowBytes(tiles.intersection(own), heads) }
                case .rowResults, .columnResults: break
                }
            }
            let route = cluster.route(from: rank, to: transfer.peer)
            let seconds = route.latency + bytes * route.perByte
            if route.isInside { inside += seconds } else { between += seconds }
            flow.bytes += bytes
            flow.processing += bytes * route.processing
        }
        flow.seconds = max(inside, between)
        return flow
    }

    /// What each step of a rank's plan takes, all rounds of it.
    static func costs(
        _ planner: Planner, rank: Rank, _ dependencies: TileDependencies, _ table: TileTable, _ cluster: Cluster
    ) -> [Costs] {
        let walk = RankWalk(dependencies, table, cluster, rank: rank, weighsMemory: false)
        return planner.plan(rank).steps.map { step in
            let (sends, receives) = (step.sends.map { walk.cost(of: $0) }, step.receives.map { walk.cost(of: $0) })
            let processing = (sends + receives).reduce(0) { $0 + $1.processing }
            return Costs(
                computing: walk.work(of: step).timed / cluster.ranks[rank.index].flops + processing, sends: sends,
                receives: receives)
        }
    }

    private func cost(of transfer: Transfer) -> Costs.Message {
        let bytes = transfer.payloads.reduce(0) { $0 + self.bytes(of: $1).bytes }
        let route = cluster.route(from: rank, to: transfer.peer)
        return Costs.Message(
            peer: transfer.peer, isInside: route.isInside, seconds: route.latency + bytes * route.perByte, bytes: bytes,
            processing: bytes * route.processing)
    }

    /// Floating-point operations of a step: of its visible pairs, and of whole tiles that take as long.
    private func work(of step: Step) -> (visible: Double, timed: Double) {
        var work = (visible: 0.0, timed: 0.0)
        for units in step.attend {
            let pairs = units.queries.reduce(TileTable.Pairs()) {
                $0 + table.pairs(queryTile: $1, seen: dependencies.seen[$1], keys: units.keys)
            }
            let flopPerPair = table.flopPerPair * Double(units.heads.count)
            work.visible += pairs.visible * flopPerPair
            work.timed += pairs.timed * flopPerPair
        }
        return work
    }

    private func rowBytes(_ tiles: Runs, _ heads: Range<Int>) -> Double {
        Double(table.rows(of: tiles) * 4 * problem.operation.rowOperandFloats * heads.count)
    }

    /// As `Plan.bytes(of:)` counts them, what tiles take in memory, and bytes of blocks of results.
    private func bytes(of payload: Payload) -> (bytes: Double, memory: Double, blocks: Double) {
        switch payload {
        case .columns(let tiles, let heads):
            let memory = Double(table.columnBytes(of: tiles) * heads.count)
            return (problem.narrowsWire ? memory / 2 : memory, memory, 0)
        case .rows(let tiles, let heads):
            let bytes = rowBytes(tiles, heads)
            return (bytes, bytes, 0)
        case .rowResults(let units):
            var (rows, blocks) = (0, 0)
            TileTable.forEachSubtreeCount(
                of: units.queries, in: units.keys, dependencies.seen, first: table.firstKeyTile
            ) {
                tile, count in
                rows += table.rows(of: tile) * count
                blocks += count
            }
            return (
                Double(
                    4 * (rows * problem.operation.rowResultFloats + blocks * problem.operation.tileResults)
                        * units.heads.count), 0,
                Double(blocks * units.heads.count) * table.rowBlockBytes
            )
        case .columnResults(let units):
            let heads = problem.columnResultHeads(of: units.heads).count
            var (keys, blocks) = (0, 0)
            TileTable.forEachSubtreeCount(
                of: units.keys, in: units.queries, dependencies.readersOfTiles, first: table.firstQueryTile
            ) { tile, count in
                keys += table.keys(of: tile) * count
                blocks += count
            }
            return (
                Double(keys * 4 * problem.operation.columnResultFloats * heads), 0,
                Double(blocks * heads) * table.columnBlockBytes
            )
        }
    }
}

/// The results of one side that a rank has and that are not whole.
private struct WaitingResults {
    /// Blocks that waited for their siblings when they were last counted.
    private(set) var waiting = 0.0
    private let own: Runs
    /// The tiles of the other side that each tile meets, and the first one of its sequence.
    private let meets: [Runs]
    private let first: [Int]
    /// The tiles of the other side that each tile has met, for the heads under way; unsorted.
    private var met: [Unit: [Range<Int>]] = [:]

    private struct Unit: Hashable {
        let tile: Int
        let heads: Range<Int>
    }

    init(own: Runs, meets: [Runs], first: [Int]) {
        self.own = own
        self.meets = meets
        self.first = first
    }

    mutating func merge(_ tiles: Runs, _ heads: Range<Int>, _ others: Runs) {
        for tile in tiles where meets[tile].intersects(others) {
            met[Unit(tile: tile, heads: heads), default: []] += others.ranges
        }
    }

    mutating func forget(_ tiles: Runs, _ heads: Range<Int>, _ others: Runs) {
        for tile in tiles where meets[tile].intersects(others) { met[Unit(tile: tile, heads: heads)] = nil }
    }

    /// Counts what waits now. Tiles of this rank that have met all they meet are finished.
    mutating func count() {
        var total = 0
        for (unit, ranges) in met {
            let others = Runs(ranges)
            if own.contains(unit.tile), others.contains(meets[unit.tile]) {
                met[unit] = nil
            } else {
                met[unit] = others.ranges
                total +=
                    TileTable.subtreeCount(of: meets[unit.tile], in: others, first: first[unit.tile]) * unit.heads.count
            }
        }
        waiting = Double(total)
    }
}
