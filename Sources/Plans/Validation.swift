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
    /// same step; what is sent or attended is there by then; every query tile and head ends at its owner with the partials
    /// of all key tiles that it sees, each computed once; nothing is left behind.
    ///
    /// All ranks pass through the same steps; within one, receives are posted before sends, and nothing
    /// waits for the computation of another rank's step. So matching sends are the absence of deadlock.
    public static func validate(_ plans: [Plan]) throws(Violation) {
        guard let job = plans.first?.job else { return }
        let seen = Needs(job).seen
        for (index, plan) in plans.enumerated() {
            guard plan.rank.index == index, plan.job.rankCount == plans.count, plan.steps.count == plans[0].steps.count else {
                throw Violation(rank: plan.rank, step: 0, reason: "the ranks disagree on ranks or steps")
            }
            try plan.checkMatches(plans)
            var holdings = Holdings(plan, seen: seen)
            for (number, step) in plan.steps.enumerated() {
                do throws(Fault) {
                    try holdings.run(step)
                } catch {
                    throw Violation(rank: plan.rank, step: number, reason: error.reason)
                }
            }
            if let reason = holdings.leftover {
                throw Violation(rank: plan.rank, step: plan.steps.count, reason: reason)
            }
        }
    }

    private struct Fault: Error {
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
        private var keyValues: ResidentTiles
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
            keyValues = ResidentTiles(
                "key", own: plan.job.keys.tiles(of: plan.rank), heads: heads.keyValueHeads, tileCount: plan.job.keys.numbering.tileCount)
            queries = ResidentTiles(
                "query", own: plan.job.queries.tiles(of: plan.rank), heads: heads.queryHeads,
                tileCount: plan.job.queries.numbering.tileCount)
            visible = seen
        }

        mutating func run(_ step: Step) throws(Fault) {
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
            for tile in own.ranges.joined() where !visible[tile].isEmpty {
                for head in 0..<heads.queryHeads where merged[Unit(queryTile: tile, head: head)] != visible[tile] {
                    return "lacks partials of key tiles that its queries see"
                }
            }
            return keyValues.leftover ?? queries.leftover
        }

        private func check(_ units: Units) throws(Fault) {
            guard (0..<heads.queryHeads).contains(units.heads) else { throw Fault("names a head that does not exist") }
            guard Runs(0..<visible.count).contains(units.queries) else { throw Fault("names a query tile that does not exist") }
            guard Runs(0..<plan.job.keys.numbering.tileCount).contains(units.keys) else { throw Fault("names a key tile that does not exist") }
        }

        /// The key tiles of each unit, where there are any.
        private func expected(_ units: Units) -> [(Unit, Runs)] {
            units.queries.ranges.joined().flatMap { tile in
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
    private struct ResidentTiles {
        private let kind: String
        private let own: Runs
        private let all: Runs
        private var arrived: [Runs]
        private var unused: [Runs]

        init(_ kind: String, own: Runs, heads: Int, tileCount: Int) {
            self.kind = kind
            self.own = own
            all = Runs(0..<tileCount)
            arrived = Array(repeating: Runs(), count: heads)
            unused = arrived
        }

        private func check(_ tiles: Runs, _ heads: Range<Int>) throws(Fault) {
            guard arrived.indices.contains(heads) else { throw Fault("names a head that does not exist") }
            guard all.contains(tiles) else { throw Fault("names a \(kind) tile that does not exist") }
        }

        mutating func use(_ tiles: Runs, _ heads: Range<Int>, _ verb: String) throws(Fault) {
            try check(tiles, heads)
            for head in heads {
                guard own.union(arrived[head]).contains(tiles) else { throw Fault("\(verb) a \(kind) tile that is not resident") }
                unused[head] = unused[head].subtracting(tiles)
            }
        }

        mutating func receive(_ tiles: Runs, _ heads: Range<Int>) throws(Fault) {
            try check(tiles, heads)
            for head in heads {
                guard !own.union(arrived[head]).intersects(tiles) else { throw Fault("receives a \(kind) tile that is resident") }
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
