// What every rank of a described cluster would do when: all plans gone through at once, each rank waiting for its peers.

import Attention
import Matrices
import Tiles

/// A job on a described cluster, simulated: a timeline for each rank, where a rank that is late makes its peers wait.
///
/// A step of a rank begins when its last one has ended. A message moves once both its ranks have come to the step that it
/// is of; of a rank's messages in one direction and on one level (inside its node, between nodes) one goes after another,
/// and fills the link for its latency and its bytes, as prices have it. A step ends with its computing and all its
/// messages. Where all ranks are alike a pass takes as long as its price says; where some are slower, or work is uneven,
/// no less than the price of the slowest.
public struct Simulation: Sendable {
    /// The most ranks that are simulated: every plan is written down, and there are about as many steps as ranks in each.
    public static let mostRanks = 512

    /// What each rank does when, from the moment when all begin.
    public let timelines: [Timeline]
    /// Seconds until the last rank is done.
    public let seconds: Double

    /// Simulates one layer of each kind, one after another: dense layers, then each of its operations.
    /// - Parameters:
    ///   - problem: the job under the layout that is simulated, its ranks those of the cluster.
    ///   - footprint: its layers, and what they do outside attention. Layers that are alike stand for each other: of each
    ///     kind one is simulated.
    ///   - strategy: who computes what.
    ///   - cluster: the machines.
    ///   - capacity: the most events of a lane; see ``Timeline/init(capacity:origin:)``.
    ///   - threads: write several ranks' plans at a time.
    /// - Precondition: there are no more than ``mostRanks`` ranks.
    public init(
        _ problem: AttentionProblem, _ footprint: Footprint, _ strategy: Strategy, on cluster: Cluster,
        capacity: Int = 16_384, threads: ThreadPool? = nil
    ) {
        precondition(cluster.rankCount <= Self.mostRanks && cluster.rankCount == problem.rankCount)
        timelines = (0..<cluster.rankCount).map { _ in Timeline(capacity: capacity) }
        var clocks = Array(repeating: 0.0, count: cluster.rankCount)
        for layers in footprint.layers {
            let operations = layers.operations.isEmpty ? [problem.operation] : layers.operations
            for (number, operation) in operations.enumerated() {
                var problem = problem
                if let mask = layers.mask { problem.mask = mask }
                if let heads = layers.heads { problem.attend(heads) }
                problem.operation = operation
                let dependencies = TileDependencies(problem)
                let table = TileTable(dependencies)
                if number == 0, footprint.denseFlopPerToken > 0 {
                    for (rank, place) in cluster.ranks.enumerated() {
                        let rows = Double(table.rows(of: dependencies.queries[rank]))
                        let end = clocks[rank] + rows * footprint.denseFlopPerToken / place.flops
                        timelines[rank].add(Timeline.Event("dense", clocks[rank], end), to: .dense)
                        clocks[rank] = end
                    }
                }
                let planner = strategy.planner(dependencies)
                var costs: [[RankWalk.Costs]] = Array(repeating: [], count: cluster.rankCount)
                func write(_ rank: Int) -> [RankWalk.Costs] {
                    RankWalk.costs(planner, rank: Rank(rank), dependencies, table, cluster)
                }
                if let threads {
                    costs.withUnsafeMutableBufferPointer { costs in
                        // Disjoint: each index has its own rank.
                        threads.forEach(costs.count) { rank, _ in costs[rank] = write(rank) }
                    }
                } else {
                    for rank in costs.indices { costs[rank] = write(rank) }
                }
                var pass = Pass(costs, clocks, operation.name, timelines)
                pass.run()
                clocks = pass.clocks
            }
        }
        seconds = clocks.max() ?? 0
    }

    /// One operation of all ranks.
    private struct Pass {
        private let costs: [[RankWalk.Costs]]
        private let name: String
        private let timelines: [Timeline]
        /// When each rank came to its steps, as far as it has come.
        private var starts: [[Double]]
        /// The steps in which a rank sends to another, and receives from another: the n-th of one matches the n-th of the
        /// other.
        private var sending: [Pair: [Int]] = [:]
        private var receiving: [Pair: [Int]] = [:]

        private struct Pair: Hashable {
            let from: Int
            let to: Int
        }

        /// When each rank has come to the end of what it has done so far.
        var clocks: [Double] { starts.map { $0[$0.count - 1] } }

        init(_ costs: [[RankWalk.Costs]], _ clocks: [Double], _ name: String, _ timelines: [Timeline]) {
            self.costs = costs
            self.name = name
            self.timelines = timelines
            starts = clocks.map { [$0] }
            for (rank, steps) in costs.enumerated() {
                for (number, step) in steps.enumerated() {
                    for message in step.sends {
                        sending[Pair(from: rank, to: message.peer.index), default: []].append(number)
                    }
                    for message in step.receives {
                        receiving[Pair(from: message.peer.index, to: rank), default: []].append(number)
                    }
                }
            }
        }

        /// Takes every rank as far as it comes until all are through: who waits for a peer is taken up again when the peer
        /// has come a step further.
        mutating func run() {
            var next: [Int] = Array(costs.indices.reversed())
            var waiting: [Int: [Int]] = [:]
            var sent: [Pair: Int] = [:]
            var received: [Pair: Int] = [:]
            while let rank = next.popLast() {
                while starts[rank].count <= costs[rank].count {
                    let step = costs[rank][starts[rank].count - 1]
                    if let peer = missing(step, rank, sent, received) {
                        waiting[peer, default: []].append(rank)
                        break
                    }
                    finish(step, rank, &sent, &received)
                    next += waiting.removeValue(forKey: rank) ?? []
                }
            }
            precondition(
                zip(starts, costs).allSatisfy { $0.count == $1.count + 1 }, "each message has a receive that is reached"
            )
        }

        /// When the peer of a message came to the step that it is of there; nil: it has not.
        private func peerStart(_ steps: [Int]?, _ number: Int, of peer: Int) -> Double? {
            guard let steps, number < steps.count, steps[number] < starts[peer].count else { return nil }
            return starts[peer][steps[number]]
        }

        /// A peer that has not come to the step of one of the messages yet.
        private func missing(_ step: RankWalk.Costs, _ rank: Int, _ sent: [Pair: Int], _ received: [Pair: Int]) -> Int?
        {
            for message in step.sends {
                let pair = Pair(from: rank, to: message.peer.index)
                if peerStart(receiving[pair], sent[pair] ?? 0, of: pair.to) == nil { return pair.to }
            }
            for message in step.receives {
                let pair = Pair(from: message.peer.index, to: rank)
                if peerStart(sending[pair], received[pair] ?? 0, of: pair.from) == nil { return pair.from }
            }
            return nil
        }

        private mutating func finish(
            _ step: RankWalk.Costs, _ rank: Int, _ sent: inout [Pair: Int], _ received: inout [Pair: Int]
        ) {
            let number = starts[rank].count - 1
            let start = starts[rank][number]
            // Of each direction and level, when the last message is through.
            var (out, into) = ([start, start], [start, start])
            var bytes = 0.0
            for message in step.sends {
                let pair = Pair(from: rank, to: message.peer.index)
                let peer = peerStart(receiving[pair], sent[pair, default: 0], of: pair.to) ?? start
                sent[pair, default: 0] += 1
                out[message.isInside ? 0 : 1] = max(out[message.isInside ? 0 : 1], peer) + message.seconds
                bytes += message.bytes
            }
            for message in step.receives {
                let pair = Pair(from: message.peer.index, to: rank)
                let peer = peerStart(sending[pair], received[pair, default: 0], of: pair.from) ?? start
                received[pair, default: 0] += 1
                into[message.isInside ? 0 : 1] = max(into[message.isInside ? 0 : 1], peer) + message.seconds
            }
            let computed = start + step.computing
            let arrived = max(out[0], out[1], into[0], into[1])
            let end = max(computed, arrived)
            let timeline = timelines[rank]
            if !step.sends.isEmpty || !step.receives.isEmpty {
                timeline.add(
                    Timeline.Event(name, start, arrived, number: number, bytes: Int(bytes.rounded())), to: .exchange)
            }
            if computed > start { timeline.add(Timeline.Event(name, start, computed, number: number), to: .compute) }
            if end > computed { timeline.add(Timeline.Event("messages", computed, end, number: number), to: .wait) }
            starts[rank].append(end)
        }
    }
}

extension Timeline.Event {
    /// A span between two times in seconds.
    fileprivate init(_ name: String, _ start: Double, _ end: Double, number: Int = -1, bytes: Int = 0) {
        // 292 years are as many nanoseconds as there are.
        func nanoseconds(_ seconds: Double) -> Int { Int(min(seconds * 1e9, 9e18).rounded()) }
        self.init(name, start: nanoseconds(start), end: nanoseconds(end), number: number, bytes: bytes)
    }
}
