// The proof that a set of plans cannot deadlock and computes every unit once.

import Attention
import Tiles

extension Plan {
    /// Why a set of plans must not run.
    public struct Violation: Error, Sendable, Hashable, CustomStringConvertible {
        /// The rank whose plan is at fault.
        public let rank: Rank
        /// The step, from 0; one beyond the last where something is left behind at the end.
        public let step: Int
        /// What is wrong, in words that follow the rank and the step.
        public let reason: String
        /// One line: rank, step and reason.
        public var description: String { "\(rank), step \(step): \(reason)" }
    }

    /// Checks the plans of all ranks together, whatever their strategy: every send has exactly one matching receive in
    /// the same step; what is sent or attended is there by then, keys and values at the rank or at one that shares
    /// memory with it; every query tile and head ends at its owner with the results of all key tiles that it sees, each
    /// computed once, and every key tile with those of all query tiles that see it, where the operation gives such
    /// results; nothing is left behind.
    ///
    /// All ranks pass through the same steps; within one, receives are posted before sends, and nothing
    /// waits for the computation of another rank's step: what is read in a mate's memory got there in an earlier one.
    /// So matching sends are the absence of deadlock.
    public static func validate(_ plans: [Plan]) throws(Violation) {
        guard let problem = plans.first?.problem else { return }
        let seen = TileDependencies(problem).seen
        for (index, plan) in plans.enumerated() {
            guard plan.rank.index == index, plan.problem.rankCount == plans.count,
                plan.steps.count == plans[0].steps.count,
                plan.problem.topology == problem.topology, plan.problem.operation == problem.operation
            else {
                throw Violation(
                    rank: plan.rank, step: 0, reason: "the ranks disagree on ranks, nodes, operation or steps")
            }
        }
        for plan in plans { try plan.checkMatches(plans) }
        var holdings = plans.map { Holdings($0, seen: seen) }
        var columns = plans.map { plan in
            ResidentTiles(
                "key", own: problem.keys.tiles(of: plan.rank), heads: problem.heads.keyValueHeads,
                tileCount: problem.keys.numbering.tileCount)
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
                try holdings[plan.rank.index].use(plan.steps[number], &columns[problem.topology.mates(of: plan.rank)])
            }
            try check { plan throws(Fault) in
                try holdings[plan.rank.index].change(plan.steps[number], &columns[plan.rank.index])
            }
        }
        for plan in plans {
            if let reason = holdings[plan.rank.index].leftover ?? columns[plan.rank.index].leftover {
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
                    try require(
                        !transfer.payloads.isEmpty && !transfer.payloads.contains(where: \.isEmpty),
                        "\(verb) \(transfer.peer) nothing")
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
        private let problem: AttentionProblem
        private var rows: ResidentTiles
        /// What it has got for query tiles, and for key tiles; nil where the operation gives that side nothing.
        private var rowResults: ResultParts?
        private var columnResults: ResultParts?

        init(_ plan: Plan, seen: [Runs]) {
            problem = plan.problem
            let own = problem.queries.tiles(of: plan.rank)
            rows = ResidentTiles(
                "query", own: own, heads: problem.heads.queryHeads, tileCount: problem.queries.numbering.tileCount)
            if !problem.operation.rowResults.isEmpty {
                rowResults = ResultParts("query", own: own, meets: seen, heads: problem.heads.queryHeads)
            }
            if !problem.operation.columnResults.isEmpty {
                let heads =
                    problem.operation.columnResultHeads == .query
                    ? problem.heads.queryHeads : problem.heads.keyValueHeads
                columnResults = ResultParts(
                    "key", own: problem.keys.tiles(of: plan.rank), meets: plan.readers, heads: heads)
            }
        }

        /// What a step reads is there.
        /// - Parameter columns: the keys and values of the ranks of the node.
        mutating func use(_ step: Step, _ columns: inout ArraySlice<ResidentTiles>) throws(Fault) {
            let problem = problem
            rowResults?.begin()
            columnResults?.begin()
            for payload in step.sends.flatMap(\.payloads) {
                switch payload {
                case .columns(let tiles, let heads): try columns.use(tiles, heads, "sends")
                case .rows(let tiles, let heads): try rows.use(tiles, heads, "sends")
                case .rowResults(let units):
                    try check(units)
                    guard rowResults != nil else { throw Fault("sends results that its operation does not give") }
                    try rowResults?.send(.init(rowsOf: units))
                case .columnResults(let units):
                    try check(units)
                    guard columnResults != nil else { throw Fault("sends results that its operation does not give") }
                    try columnResults?.send(.init(columnsOf: units, problem))
                }
            }
            for units in step.attend {
                try check(units)
                try columns.use(units.keys, problem.heads.keyValueHeads(of: units.heads), "attends")
                try rows.use(units.queries, units.heads, "attends")
                try rowResults?.compute(.init(rowsOf: units), alone: true)
                // Units of different rows may give to one key tile in the same step.
                try columnResults?.compute(.init(columnsOf: units, problem), alone: false)
            }
        }

        /// What a step leaves behind, lets go of and gets.
        mutating func change(_ step: Step, _ columns: inout ResidentTiles) throws(Fault) {
            let problem = problem
            for payload in step.sends.flatMap(\.payloads) {
                if case .rowResults(let units) = payload { rowResults?.forget(.init(rowsOf: units)) }
                if case .columnResults(let units) = payload { columnResults?.forget(.init(columnsOf: units, problem)) }
            }
            for payload in step.release {
                switch payload {
                case .columns(let tiles, let heads): try columns.release(tiles, heads)
                case .rows(let tiles, let heads): try rows.release(tiles, heads)
                case .rowResults, .columnResults: throw Fault("releases results")
                }
            }
            for payload in step.receives.flatMap(\.payloads) {
                switch payload {
                case .columns(let tiles, let heads): try columns.receive(tiles, heads)
                case .rows(let tiles, let heads): try rows.receive(tiles, heads)
                case .rowResults(let units):
                    try check(units)
                    try rowResults?.merge(.init(rowsOf: units), "receives results that are here")
                case .columnResults(let units):
                    try check(units)
                    try columnResults?.merge(.init(columnsOf: units, problem), "receives results that are here")
                }
            }
        }

        /// What is wrong after the last step, if anything.
        var leftover: String? { rowResults?.leftover ?? columnResults?.leftover ?? rows.leftover }

        private func check(_ units: Units) throws(Fault) {
            guard (0..<problem.heads.queryHeads).contains(units.heads) else {
                throw Fault("names a head that does not exist")
            }
            guard Runs(0..<problem.queries.numbering.tileCount).contains(units.queries) else {
                throw Fault("names a query tile that does not exist")
            }
            guard Runs(0..<problem.keys.numbering.tileCount).contains(units.keys) else {
                throw Fault("names a key tile that does not exist")
            }
            if columnResults != nil, problem.operation.columnResultHeads == .keyValue {
                let size = problem.heads.groupSize
                guard units.heads.lowerBound % size == 0, units.heads.upperBound % size == 0 else {
                    throw Fault("splits a group of heads whose results are summed up first")
                }
            }
        }
    }

    /// The results of one side that a rank has: of each tile and head, over which tiles of the other side.
    private struct ResultParts {
        /// Some units, seen from this side.
        struct Part {
            let tiles: Runs
            let heads: Range<Int>
            let others: Runs

            init(rowsOf units: Units) {
                tiles = units.queries
                heads = units.heads
                others = units.keys
            }

            init(columnsOf units: Units, _ problem: AttentionProblem) {
                tiles = units.keys
                heads = problem.columnResultHeads(of: units.heads)
                others = units.queries
            }
        }

        private struct Unit: Hashable {
            let tile: Int
            let head: Int
        }

        private let kind: String
        private let own: Runs
        /// The tiles of the other side that each tile meets.
        private let meets: [Runs]
        private let heads: Int
        private var merged: [Unit: Runs] = [:]
        /// What leaves, and what is computed, in the step at hand.
        private var leaving = Set<Unit>()
        private var computed = Set<Unit>()

        init(_ kind: String, own: Runs, meets: [Runs], heads: Int) {
            self.kind = kind
            self.own = own
            self.meets = meets
            self.heads = heads
        }

        mutating func begin() {
            leaving.removeAll(keepingCapacity: true)
            computed.removeAll(keepingCapacity: true)
        }

        /// The other side's tiles of each unit, where there are any.
        private func expected(_ part: Part) -> [(Unit, Runs)] {
            part.tiles.flatMap { tile in
                let tiles = meets[tile].intersection(part.others)
                return tiles.isEmpty ? [] : part.heads.map { (Unit(tile: tile, head: $0), tiles) }
            }
        }

        mutating func send(_ part: Part) throws(Fault) {
            for (unit, tiles) in expected(part) {
                guard merged[unit] == tiles else {
                    throw Fault("sends results that are not here, or leaves some behind")
                }
                guard leaving.insert(unit).inserted else { throw Fault("sends results twice") }
            }
        }

        /// - Parameter alone: whether no other unit of the step may give to the same tile and head.
        mutating func compute(_ part: Part, alone: Bool) throws(Fault) {
            for (unit, _) in expected(part) {
                guard !leaving.contains(unit), computed.insert(unit).inserted || !alone else {
                    throw Fault("attends a \(kind) tile and head twice at a time, or while its results leave")
                }
            }
            try merge(part, "attends a tile twice")
        }

        mutating func merge(_ part: Part, _ reason: String) throws(Fault) {
            for (unit, tiles) in expected(part) {
                let here = merged[unit] ?? Runs()
                guard !here.intersects(tiles) else { throw Fault(reason) }
                merged[unit] = here.union(tiles)
            }
        }

        mutating func forget(_ part: Part) {
            for (unit, _) in expected(part) { merged[unit] = nil }
        }

        var leftover: String? {
            for (unit, tiles) in merged where !own.contains(unit.tile) && !tiles.isEmpty {
                return "keeps results of another rank's \(kind) tiles"
            }
            for tile in own where !meets[tile].isEmpty {
                for head in 0..<heads where merged[Unit(tile: tile, head: head)] != meets[tile] {
                    return "lacks results of tiles that its \(kind) tiles meet"
                }
            }
            return nil
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
