// What a job costs on a cluster under each strategy and layout, and which of them to take.

import Attention
import Matrices
import Tiles

/// What a job does and holds beside its attention.
public struct Footprint: Sendable, Hashable {
    /// Layers that attend alike.
    public struct Layers: Sendable, Hashable {
        /// What they see; nil: what the job says.
        public var mask: Mask?
        /// Their heads; nil: what the job says.
        public var heads: HeadShape?
        /// How many such layers there are.
        public var count: Int
        /// What each does with its queries and keys, one after another, memory being used again; empty: what the job
        /// says.
        public var operations: [OperationShape]

        /// So many layers; what they see, their heads and what they do are those of the job unless given.
        public init(mask: Mask? = nil, heads: HeadShape? = nil, count: Int, operations: [OperationShape] = []) {
            self.mask = mask
            self.heads = heads
            self.count = count
            self.operations = operations
        }
    }

    /// Attentions one after another, as an encoder has layers: each kind of them, in any order.
    public var layers = [Layers(count: 1)]
    /// Floating-point operations of a token outside attention, in each layer.
    public var denseFlopPerToken = 0.0
    /// Bytes that a rank holds for each of its query tokens: queries, outputs, hidden states.
    public var bytesPerToken = 0.0
    /// Bytes that a rank holds whatever its tokens.
    public var bytesPerRank = 0.0
    /// Bytes that ranks which share memory hold once: weights.
    public var bytesPerNode = 0.0

    /// One layer that attends as the job says, and nothing beside it.
    public init() {}

    /// Bytes that a rank holds all the time: its share of the weights, its own tokens, and their packed keys and
    /// values.
    public func bytesHeld(of problem: AttentionProblem, by rank: Rank) -> Double {
        bytesPerRank + bytesPerNode / Double(problem.topology.mates(of: rank).count) + Double(
            problem.queries.tokenCount(of: rank)) * bytesPerToken
            + Double(problem.packedBytes(of: problem.keys.tiles(of: rank)) * problem.heads.keyValueHeads)
    }
}

/// What a job costs under one strategy and layout.
public struct Price: Sendable {
    /// Who computes what.
    public let strategy: Strategy
    /// How tiles are dealt out.
    public let layout: Layout
    /// Seconds of the slowest rank, all layers.
    public let seconds: Double
    /// The most seconds in which a rank waits for messages with nothing to compute.
    public let exposedSeconds: Double
    /// Bytes that all ranks send, without control traffic.
    public let bytes: Double
    /// Messages that all ranks send, without control traffic.
    public let messages: Double
    /// Bytes of the fullest rank: its tokens, tiles of others, partials that wait, its share of the weights.
    public let memory: Double
    /// Bytes that the ranks of one node need: the one that is fullest in proportion to its memory.
    public let nodeMemory: Double
    /// The bytes of memory that this node has.
    public let nodeLimit: Double
    /// The number of that node.
    public let fullestNode: Int
    /// The slowest rank's computing over the least possible, all work over all speeds: 1 is perfect.
    public let balance: Double
    /// Floating-point operations of the ranks that were looked at.
    public let work: [(rank: Rank, flop: Double)]

    /// Whether the fullest node has the memory that its ranks need, and so whether all have.
    public var fits: Bool { nodeMemory <= nodeLimit }
}

/// Prices one job: what strategies and layouts share is found once.
public struct Pricing: Sendable {
    private let cluster: Cluster
    private let make: @Sendable (Layout) -> AttentionProblem
    private let footprint: Footprint
    private let mostRanks: Int
    private let sampledRanks: Int
    private let everyRound: Bool
    /// Each operation of each kind of layers.
    private let passes: [(layers: Footprint.Layers, operation: OperationShape?)]

    /// - Parameters:
    ///   - cluster: the machines, on whose ranks the job would run.
    ///   - footprint: what the job does and holds beside its attention.
    ///   - mostRanks: with more ranks than this, the plans of about `sampledRanks` of each kind are priced, of one
    ///     round of heads, and stand for the others: bytes, messages and balance are estimates then.
    ///   - sampledRanks: how many of each kind of ranks are priced then, at most.
    ///   - everyRound: whether all rounds of heads are priced where all ranks are; one stands for the others where not.
    ///   - problem: the job under a layout; its ranks are those of the cluster.
    public init(
        on cluster: Cluster, footprint: Footprint = Footprint(), mostRanks: Int = 64, sampledRanks: Int = 8,
        everyRound: Bool = true,
        problem: @escaping @Sendable (Layout) -> AttentionProblem
    ) {
        self.cluster = cluster
        self.footprint = footprint
        self.mostRanks = mostRanks
        self.sampledRanks = sampledRanks
        self.everyRound = everyRound
        make = problem
        var passes: [(layers: Footprint.Layers, operation: OperationShape?)] = []
        for layers in footprint.layers {
            if layers.operations.isEmpty { passes.append((layers, nil)) }
            for operation in layers.operations { passes.append((layers, operation)) }
        }
        self.passes = passes
    }

    /// The prices of some strategies under some layouts, layout after layout.
    /// - Parameters:
    ///   - strategies: those to be priced under each layout.
    ///   - layouts: those to be priced, one after another.
    ///   - threads: price several strategies at a time.
    ///   - progressed: called once for each layout and after each price, from any thread.
    public func prices(
        _ strategies: [Strategy] = Strategy.allCases, _ layouts: [Layout] = Layout.allCases, threads: ThreadPool? = nil,
        progressed: @Sendable () -> Void = {}
    ) -> [Price] {
        var tables: [TileTable] = []
        return layouts.flatMap { layout in
            let problem = make(layout)
            let dependencies = passes.map { layers, operation in
                var problem = problem
                if let mask = layers.mask { problem.mask = mask }
                if let heads = layers.heads { problem.attend(heads) }
                if let operation { problem.operation = operation }
                return TileDependencies(problem)
            }
            // They do not depend on the layout.
            if tables.isEmpty { tables = dependencies.map { TileTable($0) } }
            progressed()
            guard let threads else {
                return strategies.map { strategy in
                    defer { progressed() }
                    return price(strategy: strategy, dependencies, tables)
                }
            }
            var prices: [Price?] = Array(repeating: nil, count: strategies.count)
            prices.withUnsafeMutableBufferPointer { prices in
                // Disjoint: each index has its own price.
                threads.forEach(strategies.count) { index, _ in
                    prices[index] = price(strategy: strategies[index], dependencies, tables)
                    progressed()
                }
            }
            return prices.compactMap { $0 }
        }
    }

    /// - Parameters:
    ///   - dependencies, tables: of each pass.
    private func price(strategy: Strategy, _ dependencies: [TileDependencies], _ tables: [TileTable]) -> Price {
        let planners = dependencies.map { strategy.planner($0) }
        let problem = dependencies[0].problem
        let sample = Sample(
            of: cluster, most: mostRanks, ofEachKind: sampledRanks, dependencies[0], takesHeads: planners[0].takesHeads)
        // Where rounds overlap, the last of these is like those that follow.
        let enough = planners.map { planner in
            let rounds = planner.rounds
            return sample.isWhole && everyRound
                ? rounds.count : min(rounds.count, (rounds.drain + rounds.period - 1) / rounds.period + 1)
        }
        let layerCount = Double(footprint.layers.reduce(0) { $0 + $1.count })
        var (slowest, exposed, bytes, messages, fullest, longest, all) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        var work: [(rank: Rank, flop: Double)] = []
        var nodes: [Int: (bytes: Double, ranks: Int)] = [:]
        for (place, (rank, weight)) in sample.ranks.enumerated() {
            let weighsMemory = sample.isWhole || sample.weighed.contains(place)
            var one = RankPrice()
            for (number, pass) in passes.enumerated() {
                let price = RankWalk.price(
                    planners[number], rank: rank, rounds: enough[number], dependencies[number], tables[number],
                    cluster, weighsMemory: weighsMemory)
                one.add(price, times: Double(pass.layers.count))
            }
            let speed = cluster.ranks[rank.index].flops
            let dense =
                layerCount * Double(tables[0].rows(of: dependencies[0].queries[rank.index]))
                * footprint.denseFlopPerToken
            let flop = one.flop + dense
            slowest = max(slowest, one.seconds + dense / speed)
            exposed = max(exposed, one.exposed)
            bytes += weight * one.bytes
            messages += weight * one.messages
            longest = max(longest, flop / speed)
            all += weight * flop
            work.append((rank, flop))
            guard weighsMemory else { continue }
            let memory = one.transient + footprint.bytesHeld(of: problem, by: rank)
            fullest = max(fullest, memory)
            let node = cluster.ranks[rank.index].node
            nodes[node, default: (0, 0)].bytes += memory
            nodes[node, default: (0, 0)].ranks += 1
        }
        let least = all / cluster.ranks.reduce(0) { $0 + $1.flops }
        let full = nodes.map { node, held in
            (
                node: node, bytes: held.bytes / Double(held.ranks) * Double(cluster.ranksOfNode[node]),
                limit: cluster.nodes[node].memory
            )
        }.max { ($0.bytes / $0.limit, $1.node) < ($1.bytes / $1.limit, $0.node) }
        guard let full else { preconditionFailure("a cluster without ranks") }
        return Price(
            strategy: strategy, layout: problem.queries.layout, seconds: slowest, exposedSeconds: exposed,
            bytes: bytes.rounded(),
            messages: messages.rounded(), memory: fullest, nodeMemory: full.bytes, nodeLimit: full.limit,
            fullestNode: full.node,
            balance: least > 0 ? longest / least : 1, work: work)
    }
}

/// The ranks whose plans stand for all: of ranks that are alike in speed, in whether they take heads, and in how many
/// tiles they have, evenly spaced ones with the first and the last. A rank without tiles does not stand for one that
/// has some, nor one tile for two.
private struct Sample {
    /// Each with the number of ranks that it stands for.
    var ranks: [(rank: Rank, weight: Double)] = []
    /// Whether every rank is in it.
    let isWhole: Bool
    /// The places in it of the ranks whose memory is weighed, if not all: a first, a middle and a last one of each
    /// group.
    private(set) var weighed: Set<Int> = []

    private struct Likeness: Hashable {
        let flops: Double
        let memory: Double
        let takesHeads: Bool
        let queries: Int
        let keys: Int
    }

    /// Tiles, as they are while there are few of them; of many, their number's binary digits.
    private static func size(_ tiles: Runs) -> Int {
        let count = tiles.count
        return count < 4 ? count : 2 + Int.bitWidth - count.leadingZeroBitCount
    }

    init(
        of cluster: Cluster, most: Int, ofEachKind each: Int, _ dependencies: TileDependencies,
        takesHeads: (Rank) -> Bool
    ) {
        isWhole = cluster.rankCount <= most
        let everyone = (0..<cluster.rankCount).map { Rank($0) }
        if isWhole {
            ranks = everyone.map { ($0, 1) }
            return
        }
        let groups = Dictionary(grouping: everyone) {
            Likeness(
                flops: cluster.ranks[$0.index].flops, memory: cluster.node(of: $0).memory, takesHeads: takesHeads($0),
                queries: Self.size(dependencies.queries[$0.index]), keys: Self.size(dependencies.keys[$0.index]))
        }
        var weighedRanks: Set<Rank> = []
        for group in groups.values {
            let count = min(each, group.count)
            for index in 0..<count {
                let rank = group[count == 1 ? 0 : index * (group.count - 1) / (count - 1)]
                if index == 0 || index == count / 2 || index == count - 1 { weighedRanks.insert(rank) }
                ranks.append((rank, Double(group.count) / Double(count)))
            }
        }
        // In one order, whatever the dictionary's, so that sums have the same bits.
        ranks.sort { $0.rank < $1.rank }
        weighed = Set(ranks.indices.filter { weighedRanks.contains(ranks[$0].rank) })
    }
}

/// Which price to take, and why.
public struct Choice: Sendable {
    /// The price to take, of those that were offered.
    public let price: Price
    /// A line for the user: how the next one compares, and which would be faster if it fitted.
    public let reason: String

    /// Times, and bytes, closer than this are alike: of like times fewer bytes decide.
    private static let likeness = 1.01

    /// The fastest that fits into memory; nil where none does.
    public init?(of prices: [Price]) {
        let fitting = prices.filter(\.fits)
        guard let least = fitting.map(\.seconds).min() else { return nil }
        let alike = fitting.filter { $0.seconds <= least * Self.likeness }
        // Of equals the first: strategies and layouts are listed from the plainest on.
        guard let fewest = alike.map(\.bytes).min(),
            let best = alike.first(where: { $0.bytes <= fewest * Self.likeness })
        else { return nil }
        self.init(best, among: prices)
    }

    private init(_ best: Price, among prices: [Price]) {
        price = best
        func name(_ price: Price) -> String { "\(price.strategy.rawValue) with \(price.layout.rawValue)" }
        let others = prices.filter { $0.strategy != best.strategy || $0.layout != best.layout }
        guard !others.isEmpty else {
            reason = "the only one asked for"
            return
        }
        var parts: [String] = []
        // The layouts of one strategy are often alike: another strategy tells more.
        let rivals = others.filter { $0.fits && $0.strategy != best.strategy }
        if let next = (rivals.isEmpty ? others.filter(\.fits) : rivals).min(by: { $0.seconds < $1.seconds }) {
            // Where nothing is attended nothing takes any time.
            let more = next.seconds > best.seconds ? next.seconds / best.seconds - 1 : 0
            if more <= Self.likeness - 1 {
                parts.append(
                    next.bytes > best.bytes * Self.likeness
                        ? "as fast as \(name(next)), which sends \(best.bytes > 0 ? "\(Self.ratio(next.bytes, best.bytes)) the bytes" : "messages")"
                        : "as fast as \(name(next)), and the plainer one")
            } else {
                let why =
                    next.exposedSeconds - best.exposedSeconds > 0.5 * (next.seconds - best.seconds)
                    ? "waiting for messages"
                    : "its work is less even, \(Self.decimals(next.balance)) against \(Self.decimals(best.balance))"
                parts.append("the next, \(name(next)), takes \(Int((min(more, 1e6) * 100).rounded())) % longer: \(why)")
            }
        } else {
            parts.append("the only one that fits")
        }
        let full = others.filter { !$0.fits && $0.seconds < best.seconds }
        if let faster = full.min(by: { $0.seconds < $1.seconds }) {
            parts.append(
                "\(name(faster)) would be faster, but needs \(Self.ratio(faster.nodeMemory, faster.nodeLimit)) a node's memory"
            )
        }
        reason = parts.joined(separator: "; ")
    }

    private static func decimals(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }
    private static func ratio(_ value: Double, _ base: Double) -> String {
        base > 0 ? "\(decimals(value / base)) times" : "more than"
    }
}
