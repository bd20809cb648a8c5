// Plans broken in named ways: validation refuses each, and says why.

import Attention
import Plans
import Testing
import Tiles

/// A way to break a valid set of plans.
struct Breakage: Sendable, CustomStringConvertible {
    let name: String
    let strategy: Strategy
    /// How many neighbouring ranks share memory.
    let ranksPerNode: Int
    /// A part of the reason that validation gives.
    let reason: String
    let apply: @Sendable (inout [Plan]) -> Void

    var description: String { name }

    init(
        _ name: String, in strategy: Strategy = .passKeyValue, ranksPerNode: Int = 1, _ reason: String,
        _ apply: @escaping @Sendable (inout [Plan]) -> Void
    ) {
        self.name = name
        self.strategy = strategy
        self.ranksPerNode = ranksPerNode
        self.reason = reason
        self.apply = apply
    }
}

@Suite struct BrokenPlansTests {
    /// Six tiles over four ranks, four query heads that share two of keys; every query sees every key.
    static func plans(_ strategy: Strategy, ranksPerNode: Int = 1) -> [Plan] {
        var problem = AttentionProblem(
            shapes: [SequenceShape(length: 6 * 256)], mask: .full,
            heads: HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 8, valueDimension: 8), layout: .contiguous,
            rankCount: 4)
        problem.topology = Topology(hosts: (0..<4).map { $0 / ranksPerNode })
        return (0..<4).map { strategy.plan(problem, rank: Rank($0)) }
    }

    /// Moves what is sent and received in a step to another step, on all ranks.
    private static func moveMessages(_ plans: inout [Plan], from: Int, to: Int) {
        for rank in plans.indices {
            let step = plans[rank].steps[from]
            for transfer in step.sends { add(transfer, to: &plans[rank].steps[to].sends) }
            for transfer in step.receives { add(transfer, to: &plans[rank].steps[to].receives) }
            plans[rank].steps[from].sends = []
            plans[rank].steps[from].receives = []
        }
    }

    private static func add(_ transfer: Transfer, to transfers: inout [Transfer]) {
        if let place = transfers.firstIndex(where: { $0.peer == transfer.peer }) {
            transfers[place].payloads += transfer.payloads
        } else {
            transfers.append(transfer)
        }
    }

    /// Changes the first message that some rank sends in a step, and its receive with it.
    private static func change(_ plans: inout [Plan], _ rank: Int, step: Int, _ body: (inout Payload) -> Void) {
        let peer = plans[rank].steps[step].sends[0].peer.index
        let place = plans[peer].steps[step].receives.firstIndex { $0.peer == Rank(rank) }!
        body(&plans[rank].steps[step].sends[0].payloads[0])
        plans[peer].steps[step].receives[place].payloads[0] = plans[rank].steps[step].sends[0].payloads[0]
    }

    /// The first step in which a rank sends partials.
    private static func returning(_ plan: Plan) -> Int {
        plan.steps.firstIndex {
            $0.sends.contains { $0.payloads.contains { if case .rowResults = $0 { true } else { false } } }
        }!
    }

    static let breakages: [Breakage] = [
        Breakage("a send is missing", "a receive without its message") { $0[1].steps[0].sends = [] },
        Breakage("a receive is missing", "a message without its receive") { $0[1].steps[0].receives = [] },
        Breakage("a rank sends to itself", "sends to itself") { $0[1].steps[0].sends[0].peer = Rank(1) },
        Breakage("a rank receives from itself", "receives from itself") { $0[0].steps[0].receives[0].peer = Rank(0) },
        Breakage("a message goes beyond the last rank", "sends to a rank that does not exist") {
            $0[1].steps[0].sends[0].peer = Rank(4)
        },
        Breakage("a message comes from beyond the last rank", "receives from a rank that does not exist") {
            $0[0].steps[0].receives[0].peer = Rank(9)
        },
        Breakage("two messages to one rank in a step", "sends to one rank twice") {
            $0[1].steps[0].sends.append($0[1].steps[0].sends[0])
        },
        Breakage("two messages from one rank in a step", "receives from one rank twice") {
            $0[0].steps[0].receives.append($0[0].steps[0].receives[0])
        },
        Breakage("a message without content", "nothing") { $0[1].steps[0].sends[0].payloads = [] },
        Breakage("a payload without tiles", "nothing") {
            change(&$0, 1, step: 0) { $0 = .columns(Runs(), heads: 0..<2) }
        },
        Breakage("a message goes to another rank than expects it", "a message without its receive") {
            $0[1].steps[0].sends[0].peer = Rank(3)
        },
        Breakage("the sides expect other tiles", "without its") {
            $0[1].steps[0].sends[0].payloads = [.columns(Runs(2..<3), heads: 0..<2)]
            $0[2].steps[0].receives[0].payloads = [.columns(Runs(1..<3), heads: 0..<2)]
        },
        Breakage("the sides expect other heads", "without its") {
            $0[2].steps[0].receives[0].payloads = $0[2].steps[0].receives[0].payloads.map {
                if case .columns(let tiles, _) = $0 { .columns(tiles, heads: 1..<2) } else { $0 }
            }
        },
        Breakage("the sides put a message together in another order", in: .headExchange, "without its") {
            $0[1].steps[0].sends[0].payloads.reverse()
        },
        Breakage("keys are passed on before they arrive", "sends a key tile that is not resident") {
            moveMessages(&$0, from: 1, to: 0)
        },
        Breakage(
            "queries are passed on before they arrive", in: .passQueries, "sends a query tile that is not resident"
        ) {
            change(&$0, 1, step: 0) { if case .rows(_, let heads) = $0 { $0 = .rows(Runs(0..<1), heads: heads) } }
        },
        Breakage("keys are attended before they arrive", "attends a key tile that is not resident") {
            $0[1].steps[0].attend += $0[1].steps[1].attend
            $0[1].steps[1].attend = []
        },
        Breakage(
            "queries are attended before they arrive", in: .passQueries, "attends a query tile that is not resident"
        ) {
            $0[1].steps[0].attend += $0[1].steps[1].attend
            $0[1].steps[1].attend = []
        },
        Breakage("keys of another head are attended", in: .headExchange, "attends a key tile that is not resident") {
            $0[1].steps[1].attend[0].heads = 3..<4
        },
        Breakage("a tile is attended twice", "attends a tile twice") { $0[1].steps[1].attend = $0[1].steps[0].attend },
        Breakage("two units of one query tile and head at a time", "twice at a time") {
            $0[1].steps[0].attend += $0[1].steps[0].attend
        },
        Breakage("a unit is left out", "lacks results") { $0[1].steps[2].attend = [] },
        Breakage("a head is left out", "lacks results") { $0[1].steps[2].attend[0].heads = 0..<3 },
        Breakage("queries arrive and are not attended", in: .headExchange, "before its use") {
            $0[1].steps[1].attend[0].queries = Runs(1..<6)
        },
        Breakage("a tile is let go before it is passed on", "sends a key tile that is not resident") {
            moveMessages(&$0, from: 2, to: 3)
        },
        Breakage("a tile is never let go", "keeps a key tile") { plans in
            for step in plans[1].steps.indices { plans[1].steps[step].release = [] }
        },
        Breakage("queries are never let go", in: .passQueries, "keeps a query tile") { plans in
            for step in plans[1].steps.indices { plans[1].steps[step].release = [] }
        },
        Breakage("a rank lets its own tile go", "has not arrived") {
            $0[1].steps[0].release = [.columns($0[1].problem.keys.tiles(of: Rank(1)), heads: 0..<1)]
        },
        Breakage("a tile is let go twice", "has not arrived") { plans in
            let step = plans[1].steps.firstIndex { !$0.release.isEmpty }!
            plans[1].steps[step].release += plans[1].steps[step].release
        },
        Breakage("a tile is let go unused", "before its use") { plans in
            plans[3].steps[3].attend = []
        },
        Breakage("a tile arrives that is there", "receives a key tile that is resident") { plans in
            let first = plans[3].steps[0].sends[0].payloads
            plans[3].steps[1].sends[0].payloads += first
            plans[0].steps[1].receives[0].payloads += first
            plans[0].steps[1].release = []
        },
        Breakage("partials return before they are computed", in: .passQueries, "results that are not here") { plans in
            moveMessages(&plans, from: 4, to: 3)
        },
        Breakage("partials leave while they are computed", in: .headExchange, "while its results leave") { plans in
            let step = returning(plans[1])
            for rank in plans.indices {
                plans[rank].steps[step].attend += plans[rank].steps[step - 1].attend.map {
                    var units = $0
                    units.keys = Runs(0..<1)
                    return units
                }
                plans[rank].steps[step - 1].attend = plans[rank].steps[step - 1].attend.map {
                    var units = $0
                    units.keys = Runs(1..<6)
                    return units
                }
                for place in plans[rank].steps[step].sends.indices {
                    plans[rank].steps[step].sends[place].payloads = shortened(
                        plans[rank].steps[step].sends[place].payloads)
                }
                for place in plans[rank].steps[step].receives.indices {
                    plans[rank].steps[step].receives[place].payloads = shortened(
                        plans[rank].steps[step].receives[place].payloads)
                }
                plans[rank].steps[step].release += plans[rank].steps[step - 1].release
                plans[rank].steps[step - 1].release = []
            }
        },
        Breakage("partials never return", in: .headExchange, "keeps results of another rank's query tiles") { plans in
            let step = returning(plans[1])
            for rank in plans.indices {
                plans[rank].steps[step].sends = []
                plans[rank].steps[step].receives = []
            }
        },
        Breakage("some of the partials stay", in: .passQueries, "leaves some behind") { plans in
            change(&plans, 1, step: 4) {
                if case .rowResults(var units) = $0 {
                    units.keys = Runs(units.keys.ranges[0].lowerBound..<units.keys.ranges[0].lowerBound + 1)
                    $0 = .rowResults(units)
                }
            }
        },
        Breakage("partials return to another rank", in: .tree, "results") { plans in
            let step = returning(plans[1])
            let transfer = plans[1].steps[step].sends[0]
            plans[1].steps[step].sends[0].peer = Rank(2)
            plans[transfer.peer.index].steps[step].receives.removeAll { $0.peer == Rank(1) }
            plans[2].steps[step].receives.append(Transfer(peer: Rank(1), payloads: transfer.payloads))
        },
        Breakage("a head that does not exist", "names a head that does not exist") {
            $0[1].steps[0].attend[0].heads = 0..<5
        },
        Breakage("a key/value head that does not exist", "names a head that does not exist") {
            change(&$0, 0, step: 0) { if case .columns(let tiles, _) = $0 { $0 = .columns(tiles, heads: 0..<3) } }
        },
        Breakage("a key tile that does not exist", "names a key tile that does not exist") {
            $0[1].steps[0].attend[0].keys = Runs(0..<7)
        },
        Breakage("a query tile that does not exist", "names a query tile that does not exist") {
            $0[1].steps[0].attend[0].queries = Runs(0..<7)
        },
        Breakage("partials are let go", in: .passQueries, "releases results") {
            $0[1].steps[0].release.append(.rowResults($0[1].steps[0].attend[0]))
        },
        // Ranks 0 and 1, and 2 and 3, share memory: tiles 0 to 2 and 3 to 5 are theirs.
        Breakage(
            "a mate's arrival is read before it is there", ranksPerNode: 2, "attends a key tile that is not resident"
        ) {
            $0[3].steps[0].attend += $0[3].steps[2].attend
            $0[3].steps[2].attend = []
        },
        Breakage(
            "a mate's arrival is let go before it is read", ranksPerNode: 2, "attends a key tile that is not resident"
        ) { plans in
            let last = plans[2].steps.lastIndex { !$0.release.isEmpty }!
            plans[2].steps[last - 1].release += plans[2].steps[last].release
            plans[2].steps[last].release = []
        },
        Breakage("an arrival is read by no mate either", in: .allGather, ranksPerNode: 2, "before its use") { plans in
            plans[2].steps[1].attend = []
            plans[3].steps[1].attend = []
        },
        Breakage("the ranks disagree on who shares memory", "disagree") { plans in
            plans[3] = Self.plans(.passKeyValue, ranksPerNode: 2)[3]
        },
        Breakage("two ranks have changed places", "disagree") { $0.swapAt(0, 1) },
        Breakage("a rank is missing", "disagree") { $0.removeLast() },
        Breakage("a rank has a step more", "disagree") { $0[2].steps.append(Step()) },
    ]

    /// The same payloads without key tile 0.
    private static func shortened(_ payloads: [Payload]) -> [Payload] {
        payloads.map { payload in
            guard case .rowResults(var units) = payload else { return payload }
            units.keys = Runs(1..<6)
            return .rowResults(units)
        }
    }

    @Test(arguments: Strategy.allCases, [1, 2, 4]) func thePlansAreValid(strategy: Strategy, ranksPerNode: Int) throws {
        try Plan.validate(Self.plans(strategy, ranksPerNode: ranksPerNode))
    }

    @Test(arguments: breakages) func aBrokenPlanIsRefused(breakage: Breakage) throws {
        var plans = Self.plans(breakage.strategy, ranksPerNode: breakage.ranksPerNode)
        breakage.apply(&plans)
        do {
            try Plan.validate(plans)
            Issue.record("\(breakage.name): accepted")
        } catch {
            #expect(error.reason.contains(breakage.reason), "\(breakage.name): \(error)")
            if breakage.reason == "disagree" { #expect(error.step == 0) }
        }
    }

    @Test func thereAreManyKinds() { #expect(Set(Self.breakages.map(\.name)).count >= 20) }
}
