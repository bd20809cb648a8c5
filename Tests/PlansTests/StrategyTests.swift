// The strategies are what they say: other messages where their formulas differ, valid at any shape and rank count.

import Attention
import Plans
import Testing
import Tiles

@Suite struct StrategyTests {
    static let heads = HeadShape(queryHeads: 12, keyValueHeads: 4, headDimension: 16, valueDimension: 16)

    private func plans(_ strategy: Strategy, queries: Int, keys: Int, ranks: Int, ranksPerNode: Int = 1) throws
        -> [Plan]
    {
        var problem = AttentionProblem(
            shapes: [SequenceShape(queries: queries, keys: keys)], mask: .full, heads: Self.heads, layout: .contiguous,
            rankCount: ranks)
        problem.topology = Topology(hosts: (0..<ranks).map { $0 / ranksPerNode })
        let planner = strategy.planner(TileDependencies(problem))
        let plans = (0..<ranks).map { planner.plan(Rank($0)) }
        try Plan.validate(plans)
        return plans
    }

    /// A message by when it travels, between whom and of how many bytes.
    private struct Message: Hashable {
        let step: Int
        let from: Rank
        let to: Rank
        let bytes: Int
    }

    private func messages(_ plans: [Plan]) -> Set<Message> {
        Set(
            plans.flatMap { plan in
                plan.steps.enumerated().flatMap { number, step in
                    step.sends.map { transfer in
                        Message(
                            step: number, from: plan.rank, to: transfer.peer,
                            bytes: transfer.payloads.reduce(0) { $0 + plan.bytes(of: $1) })
                    }
                }
            })
    }

    /// When the last keys have come, a rank has the last round's heads left of all that it attends with keys of others: a quarter.
    @Test(arguments: [2, 3, 5]) func allGatherLeavesAQuarterForTheEnd(ranks: Int) throws {
        for plan in try plans(.allGather, queries: ranks * 512, keys: ranks * 512, ranks: ranks) {
            let last = try #require(plan.steps.lastIndex { !$0.receives.isEmpty })
            let own = plan.problem.keys.tiles(of: plan.rank)
            func foreign(_ steps: ArraySlice<Step>) -> Int {
                steps.flatMap(\.attend).reduce(0) { sum, units in
                    sum + units.heads.count * Array(units.queries).count * Array(units.keys.subtracting(own)).count
                }
            }
            let all = foreign(plan.steps[...])
            #expect(all > 0 && 4 * foreign(plan.steps[(last + 1)...]) == all)
        }
    }

    /// No strategy is another under a new name.
    @Test(arguments: [4, 6, 8, 12]) func everyStrategyHasItsOwnMessages(ranks: Int) throws {
        let all = try Strategy.allCases.map {
            (strategy: $0, plans: try plans($0, queries: 24 * 256, keys: 24 * 256, ranks: ranks))
        }
        for (index, one) in all.enumerated() {
            for other in all[..<index] {
                #expect(messages(one.plans) != messages(other.plans), "\(one.strategy) and \(other.strategy)")
                // All but these two differ in bytes: all-gather sends what pass-kv sends, straight and at once.
                if Set([one.strategy, other.strategy]) != [.passKeyValue, .allGather] {
                    #expect(
                        one.plans.reduce(0) { $0 + $1.bytesSent } != other.plans.reduce(0) { $0 + $1.bytesSent },
                        "\(one.strategy) and \(other.strategy)")
                }
            }
        }
    }

    /// Each is the best somewhere: few queries and many keys, few key/value heads, and so on.
    @Test func whereTheBytesAreFewest() throws {
        func bytes(_ strategy: Strategy, queries: Int, keys: Int) throws -> Int {
            try plans(strategy, queries: queries, keys: keys, ranks: 8).reduce(0) { $0 + $1.bytesSent }
        }
        let fewQueries = try Strategy.allCases.map { (try bytes($0, queries: 4, keys: 64 * 256), $0) }.min {
            $0.0 < $1.0
        }
        #expect(fewQueries?.1 == .tree || fewQueries?.1 == .passQueries)
        #expect(
            try bytes(.headExchange, queries: 64 * 256, keys: 64 * 256)
                < bytes(.passKeyValue, queries: 64 * 256, keys: 64 * 256))
    }

    /// The bytes of keys and values that a set of plans sends, and from node to node alone.
    private func keyValueBytes(_ plans: [Plan]) -> (all: Int, betweenNodes: Int) {
        var (all, betweenNodes) = (0, 0)
        for plan in plans {
            for transfer in plan.steps.flatMap(\.sends) {
                for case .columns(let tiles, let heads) in transfer.payloads {
                    let bytes = plan.bytes(of: .columns(tiles, heads: heads))
                    all += bytes
                    if !plan.problem.topology.areMates(plan.rank, transfer.peer) { betweenNodes += bytes }
                }
            }
        }
        return (all, betweenNodes)
    }

    /// Ranks of one node send each other no keys and values; where there are several nodes, each tile enters each once.
    @Test(arguments: Strategy.allCases, [1, 2, 3, 4, 6, 12]) func nodesShareKeysAndValues(
        strategy: Strategy, ranksPerNode: Int
    ) throws {
        let plans = try plans(strategy, queries: 24 * 256, keys: 24 * 256, ranks: 12, ranksPerNode: ranksPerNode)
        let sent = keyValueBytes(plans)
        #expect(sent.all == sent.betweenNodes)
        if ranksPerNode == 12 { #expect(sent.all == 0) }
        if [.passKeyValue, .allGather].contains(strategy) {
            let every = plans[0].bytes(of: .columns(Runs(0..<24), heads: 0..<4))
            #expect(sent.all == every * (12 / ranksPerNode - 1))
        }
    }

    /// Ranks that come back to a host count as another node, and nodes can be cut.
    @Test func neighboursOfOneHostAreANode() {
        let topology = Topology(hosts: ["a", "a", "b", "a", "a", "a"])
        #expect((0..<6).map { topology.mates(of: Rank($0)) } == [0..<2, 0..<2, 2..<3, 3..<6, 3..<6, 3..<6])
        #expect(topology.isShared && topology.nodeCount == 3)
        #expect(Topology(hosts: [0, 0, 0, 1, 2, 2]).nodeCount == 3 && Topology(hosts: [0, 0, 0, 1, 1]).nodeCount == 2)
        #expect(Topology(separate: 4).nodeCount == 4)
        let cut = topology.split(ranksPerNode: 2)
        #expect((0..<6).map { cut.mates(of: Rank($0)) } == [0..<2, 0..<2, 2..<3, 3..<5, 3..<5, 5..<6])
        #expect(topology.split(ranksPerNode: 1) == Topology(separate: 6) && !Topology(separate: 6).isShared)
    }

    /// The queries of one tile: a message down and one up for each edge of the tree, over a depth of log₂ ranks.
    @Test(arguments: [1, 2, 3, 5, 8, 13, 16]) func aTreeIsAsDeepAsTheLogarithmOfItsRanks(ranks: Int) throws {
        let plans = try plans(.tree, queries: 7, keys: 64 * 256, ranks: ranks)
        var levels = 0
        while 1 << levels < ranks { levels += 1 }
        #expect(plans[0].steps.count == 2 * levels + 1)
        #expect(plans.reduce(0) { $0 + $1.messagesSent } == 2 * (ranks - 1))
        #expect(plans.map(\.messagesSent).max()! <= levels + 1)
    }

    /// More ranks than heads, heads that do not divide, one head.
    @Test(arguments: [1, 2, 3, 5, 7], [1, 2, 3, 4, 6, 16]) func headsNeedNotDivide(heads: Int, ranks: Int) throws {
        let shape = HeadShape(heads: heads, headDimension: 8)
        let problem = AttentionProblem(
            shapes: [SequenceShape(length: 2000), SequenceShape(length: 3)], mask: .causal, heads: shape,
            layout: .zigzag,
            rankCount: ranks)
        for strategy in [Strategy.headExchange, .hybrid] {
            let planner = strategy.planner(TileDependencies(problem))
            try Plan.validate((0..<ranks).map { planner.plan(Rank($0)) })
        }
        for degree in 1...ranks where ranks % degree == 0 {
            let planner = Planner.hybrid(TileDependencies(problem), degree: degree)
            try Plan.validate((0..<ranks).map { planner.plan(Rank($0)) })
        }
    }
}
