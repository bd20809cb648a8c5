// The proof that a set of plans cannot deadlock and computes every unit once.

import Attention
import Tiles

extension Plan {
    /// Why a set of plans must not run.
    public struct Violation: Error, Sendable, Hashable, CustomStringConvertible {
        public let rank: Rank
        public let step: Int
        public let reason: String
        public var description: String { "\(rank), step \(step): \(reason)" }
    }

    /// Checks the plans of all ranks together, whatever their strategy: every send has exactly one matching receive in the
    /// same step; what is sent or attended is there by then, keys and values at the rank or at one that shares memory with
    /// it; every query tile and head ends at its owner with the partials of all key tiles that it sees, each computed once;
    /// nothing is left behind.
    ///
    /// All ranks pass through the same steps; within one, receives are posted before sends, and nothing
    /// waits for the computation of another rank's step: what is read in a mate's memory got there in an earlier one. So
    /// matching sends are the absence of deadlock.
    public static func validate(_ plans: [Plan]) throws(Violation) {
        guard let job = plans.first?.job else { return }
        let seen = Needs(job).seen
        for (index, plan) in plans.enumerated() {
            guard plan.rank.index == index, plan.job.rankCount == plans.count, plan.steps.count == plans[0].steps.count,
                plan.job.topology == job.topology
            else { throw Violation(rank: plan.rank, step: 0, reason: "the ranks disagree on ranks, nodes or steps") }
        }
        for plan in plans { try plan.checkMatches(plans) }
        var holdings = plans.map { Holdings($0, seen: seen) }
        var keyValues = plans.map { plan in
            ResidentTiles(
                "key", own: job.keys.tiles(of: plan.rank), heads: job.heads.keyValueHeads, tileCount: job.keys.numbering.tileCount)
        }
        for number in plans[0].steps.indices {
            func check(_ body: (Plan) throws(Fault) -> Void) throws(Violation) {
                for plan in plans {
                    do throws(Fault) {
                        try body(plan)
                    } catch {
                        throw Violation(rank: plan.rank, step: number, reason: error.reason)
                    }
                }
            }
            // What a rank lets go of or gets in a step concerns its mates from the next one on.
            try check { plan throws(Fault) in
                try holdings[plan.rank.index].use(plan.steps[number], &keyValues[job.topology.mates(of: plan.rank)])
            }
            try check { plan throws(Fault) in
                try holdings[plan.rank.index].change(plan.steps[number], &keyValues[plan.rank.index])
            }
        }
        for plan in plans {
            if let reason = holdings[plan.rank.index].leftover ?? keyValues[plan.rank.index].leftover {
                throw Violation(rank: plan.rank, step: plan.steps.count, reason: reason)
            }
        }
    }

    fileprivate struct Fault: Error {
        let reason: String
        init(_ reason: String) { self.reason = reason }
    }

    private func checkMatches(_ plans: [Plan]) throws(Violation) {
        for (number, step) in steps.enumerated() {
            func require(_ condition: Bool, _ reason: String) throws(Violation) {
                if !condition { throw Violation(rank: rank, step: number, reason: reason) }
            }
            for (transfers, isSend) in [(step.sends, true), (step.receives, false)] {
                let verb = isSend ? "sends to" : "receives from"
                try require(Set(transfers.map(\.peer)).count == transfers.count, "\(verb) one rank twice")
                for transfer in transfers {
                    try require(plans.indices.contains(transfer.peer.index), "\(verb) a rank that does not exist")
                    try require(transfer.peer != rank, "\(verb) itself")
                    try require(!transfer.payloads.isEmpty && !transfer.payloads.contains(where: \.isEmpty), "\(verb) \(transfer.peer) nothing")
                    let other = plans[transfer.peer.index].steps[number]
                    let matching = (isSend ? other.receives : other.sends).filter { $0.peer == rank }
                    try require(
                        matching.map(\.payloads) == [transfer.payloads],
                        isSend ? "a message without its receive" : "a receive without its message")
                }
            }
        }
    }

    /// What a rank holds from step to step.
    private struct Holdings {
        private let plan: Plan
        private let heads: HeadShape
        private var queries: ResidentTiles
        private let visible: [Runs]
        /// The key tiles whose partials are here, of each query tile and head.
        private var merged: [Unit: Runs] = [:]

        struct Unit: Hashable {
            let queryTile: Int
            let head: Int
        }

        init(_ plan: Plan, seen: [Runs]) {
            self.plan = plan
            heads = plan.job.heads
            queries = ResidentTiles(
                "query", own: plan.job.queries.tiles(of: plan.rank), heads: heads.queryHeads,
                tileCount: plan.job.queries.numbering.tileCount)
            visible = seen
        }

        /// What a step reads is there.
        /// - Parameter keyValues: the keys and values of the ranks of the node.
        mutating func use(_ step: Step, _ keyValues: inout ArraySlice<ResidentTiles>) throws(Fault) {
            var busy = Set<Unit>()
            for payload in step.sends.flatMap(\.payloads) {
                switch payload {
                case .keyValues(let tiles, let heads): try keyValues.use(tiles, heads, "sends")
                case .queries(let tiles, let heads): try queries.use(tiles, heads, "sends")
                case .partials(let units):
                    try check(units)
                    for (unit, expected) in expected(units) {
                        guard merged[unit] == expected else { throw Fault("sends partials that are not here, or leaves some behind") }
                        guard busy.insert(unit).inserted else { throw Fault("sends partials twice") }
                    }
                }
            }
            for units in step.attend {
                try check(units)
                try keyValues.use(units.keys, heads.keyValueHeads(of: units.heads), "attends")
                try queries.use(units.queries, units.heads, "attends")
                for (unit, tiles) in expected(units) {
                    guard busy.insert(unit).inserted else {
                        throw Fault("attends a query tile and head twice at a time, or while its partials leave")
                    }
                    try merge(unit, tiles, "attends a key tile twice")
                }
            }
        }

        /// What a step leaves behind, lets go of and gets.
        mutating func change(_ step: Step, _ keyValues: inout ResidentTiles) throws(Fault) {
            for payload in step.sends.flatMap(\.payloads) {
                if case .partials(let units) = payload { for (unit, _) in expected(units) { merged[unit] = nil } }
            }
            for payload in step.release {
                switch payload {
                case .keyValues(let tiles, let heads): try keyValues.release(tiles, heads)
                case .queries(let tiles, let heads): try queries.release(tiles, heads)
                case .partials: throw Fault("releases partials")
                }
            }
            for payload in step.receives.flatMap(\.payloads) {
                switch payload {
                case .keyValues(let tiles, let heads): try keyValues.receive(tiles, heads)
                case .queries(let tiles, let heads): try queries.receive(tiles, heads)
                case .partials(let units):
                    try check(units)
                    for (unit, tiles) in expected(units) { try merge(unit, tiles, "receives partials that are here") }
                }
            }
        }

        /// What is wrong after the last step, if anything.
        var leftover: String? {
            let own = plan.job.queries.tiles(of: plan.rank)
            for (unit, tiles) in merged where !own.contains(unit.queryTile) && !tiles.isEmpty { return "keeps partials of another rank's queries" }
            for tile in own where !visible[tile].isEmpty {
                for head in 0..<heads.queryHeads where merged[Unit(queryTile: tile, head: head)] != visible[tile] {
                    return "lacks partials of key tiles that its queries see"
                }
            }
            return queries.leftover
        }

        private func check(_ units: Units) throws(Fault) {
            guard (0..<heads.queryHeads).contains(units.heads) else { throw Fault("names a head that does not exist") }
            guard Runs(0..<visible.count).contains(units.queries) else { throw Fault("names a query tile that does not exist") }
            guard Runs(0..<plan.job.keys.numbering.tileCount).contains(units.keys) else { throw Fault("names a key tile that does not exist") }
        }

        /// The key tiles of each unit, where there are any.
        private func expected(_ units: Units) -> [(Unit, Runs)] {
            units.queries.flatMap { tile in
                let tiles = visible[tile].intersection(units.keys)
                return tiles.isEmpty ? [] : units.heads.map { (Unit(queryTile: tile, head: $0), tiles) }
            }
        }

        private mutating func merge(_ unit: Unit, _ tiles: Runs, _ reason: String) throws(Fault) {
            let here = merged[unit] ?? Runs()
            guard !here.intersects(tiles) else { throw Fault(reason) }
            merged[unit] = here.union(tiles)
        }
    }

    /// The tiles of one kind, head by head, that a rank can read.
    fileprivate struct ResidentTiles {
        fileprivate let kind: String
        private let own: Runs
        private let all: Runs
        private var arrived: [Runs]
        fileprivate var unused: [Runs]

        init(_ kind: String, own: Runs, heads: Int, tileCount: Int) {
            self.kind = kind
            self.own = own
            all = Runs(0..<tileCount)
            arrived = Array(repeating: Runs(), count: heads)
            unused = arrived
        }

        /// What can be read of a head.
        fileprivate func here(_ head: Int) -> Runs { own.union(arrived[head]) }

        fileprivate func check(_ tiles: Runs, _ heads: Range<Int>) throws(Fault) {
            guard arrived.indices.contains(heads) else { throw Fault("names a head that does not exist") }
            guard all.contains(tiles) else { throw Fault("names a \(kind) tile that does not exist") }
        }

        mutating func use(_ tiles: Runs, _ heads: Range<Int>, _ verb: String) throws(Fault) {
            var one = [self][...]
            try one.use(tiles, heads, verb)
            self = one[0]
        }

        mutating func receive(_ tiles: Runs, _ heads: Range<Int>) throws(Fault) {
            try check(tiles, heads)
            for head in heads {
                guard !here(head).intersects(tiles) else { throw Fault("receives a \(kind) tile that is resident") }
                arrived[head] = arrived[head].union(tiles)
                unused[head] = unused[head].union(tiles)
            }
        }

        mutating func release(_ tiles: Runs, _ heads: Range<Int>) throws(Fault) {
            try check(tiles, heads)
            for head in heads {
                guard arrived[head].contains(tiles) else { throw Fault("releases a \(kind) tile that has not arrived") }
                guard !unused[head].intersects(tiles) else { throw Fault("releases a \(kind) tile before its use") }
                arrived[head] = arrived[head].subtracting(tiles)
            }
        }

        var leftover: String? { arrived.allSatisfy(\.isEmpty) ? nil : "keeps a \(kind) tile of another rank" }
    }
}

extension ArraySlice<Plan.ResidentTiles> {
    /// Reads tiles wherever in a node they are.
    fileprivate mutating func use(_ tiles: Runs, _ heads: Range<Int>, _ verb: String) throws(Plan.Fault) {
        guard let first else { return }
        try first.check(tiles, heads)
        for head in heads {
            let here = count == 1 ? first.here(head) : Runs(flatMap { $0.here(head).ranges })
            guard here.contains(tiles) else { throw Plan.Fault("\(verb) a \(first.kind) tile that is not resident") }
            for place in indices { self[place].unused[head] = self[place].unused[head].subtracting(tiles) }
        }
    }
}
