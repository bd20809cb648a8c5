// The machines that a job is priced on: nodes, the speed and memory of what they run, and the links between ranks.

import Tiles

/// A cluster as the planner sees it: described in a file, or measured by the ranks of a job.
public struct Cluster: Sendable, Hashable {
    /// What a message costs on a link: `latency` + bytes / `bandwidth`, as in Hockney's model (1994); and of what its rank
    /// computes meanwhile `processing` · bytes.
    public struct Link: Sendable, Hashable {
        /// Seconds before the first byte arrives, the handling of a message included.
        public var latency: Double
        /// Bytes a second, in each direction at the same time.
        public var bandwidth: Double
        /// Seconds by which a byte that a rank sends or receives delays what it computes: 0 where an adapter moves it,
        /// more where processors do, as with TCP.
        public var processing: Double

        /// - Parameters:
        ///   - latency: in seconds.
        ///   - bandwidth: in bytes a second.
        ///   - processing: in seconds a byte.
        public init(latency: Double, bandwidth: Double, processing: Double = 0) {
            self.latency = latency
            self.bandwidth = bandwidth
            self.processing = processing
        }
    }

    /// A machine, whose ranks share its memory and its link to the others.
    public struct Node: Sendable, Hashable {
        /// Its kind, or its host's name.
        public var name: String
        /// Bytes of memory, shared by its ranks.
        public var memory: Double
        /// Between two of its ranks.
        public var inside: Link
        /// Its link to other nodes, which its ranks share. Between two nodes the slower link counts.
        public var between: Link

        /// - Parameters:
        ///   - name: its kind, or its host's name.
        ///   - memory: in bytes.
        ///   - inside: the link between two of its ranks.
        ///   - between: its link to other nodes.
        public init(name: String, memory: Double, inside: Link, between: Link) {
            self.name = name
            self.memory = memory
            self.inside = inside
            self.between = between
        }
    }

    /// One rank: where it runs and how fast it is.
    public struct Place: Sendable, Hashable {
        /// The number of its node.
        public var node: Int
        /// Floating-point operations a second that it sustains in attention and dense layers, all its threads together.
        public var flops: Double

        /// - Parameters:
        ///   - node: the number of the rank's node in ``Cluster/nodes``.
        ///   - flops: floating-point operations a second.
        public init(node: Int, flops: Double) {
            self.node = node
            self.flops = flops
        }
    }

    /// The machines, in the order in which places number them.
    public let nodes: [Node]
    /// The place of every rank.
    public let ranks: [Place]
    /// How many ranks each node has.
    let ranksOfNode: [Int]
    /// Whether ranks are numbered node after node.
    private let isInNodeOrder: Bool

    /// - Precondition: every place is on one of the nodes and has a positive speed.
    public init(nodes: [Node], ranks: [Place]) {
        precondition(ranks.allSatisfy { nodes.indices.contains($0.node) && $0.flops > 0 })
        self.nodes = nodes
        self.ranks = ranks
        ranksOfNode = ranks.reduce(into: Array(repeating: 0, count: nodes.count)) { $0[$1.node] += 1 }
        isInNodeOrder = zip(ranks, ranks.dropFirst()).allSatisfy { $0.node <= $1.node }
    }

    /// Nodes that are alike, with their ranks in order of the nodes, as `mpirun --map-by slot` places them.
    public init(kinds: [(node: Node, count: Int, ranksPerNode: Int, flops: Double)]) {
        var nodes: [Node] = []
        var ranks: [Place] = []
        for kind in kinds {
            for _ in 0..<kind.count {
                ranks += Array(repeating: Place(node: nodes.count, flops: kind.flops), count: kind.ranksPerNode)
                nodes.append(kind.node)
            }
        }
        self.init(nodes: nodes, ranks: ranks)
    }

    /// The same with another bandwidth between nodes.
    public func with(bandwidthBetweenNodes bandwidth: Double) -> Cluster {
        Cluster(
            nodes: nodes.map { node in
                var node = node
                node.between.bandwidth = bandwidth
                return node
            }, ranks: ranks)
    }

    /// How many ranks run on all nodes together.
    public var rankCount: Int { ranks.count }

    /// The ranks' speeds in proportion to the fastest, for the balanced layout.
    public var speeds: [Double] {
        let fastest = ranks.map(\.flops).max() ?? 1
        return ranks.map { $0.flops / fastest }
    }

    /// Ranks of a node share memory.
    public var topology: Topology { Topology(hosts: ranks.map(\.node)) }

    func node(of rank: Rank) -> Node { nodes[ranks[rank.index].node] }

    /// What a message from one rank to another costs the node's link that it takes, in seconds: `latency` for itself
    /// and `perByte` while the other ranks of the node do the like.
    ///
    /// Plans are alike from rank to rank: where one sends to the rank `d` places on, its neighbours do so too. So of a
    /// node's ranks, min(d, ranks of the node) share the link to the other nodes.
    ///
    /// `processing` is what a byte of it takes of the rank's computing.
    func route(from rank: Rank, to peer: Rank) -> (
        isInside: Bool, latency: Double, perByte: Double, processing: Double
    ) {
        let (here, there) = (ranks[rank.index].node, ranks[peer.index].node)
        if here == there {
            let link = nodes[here].inside
            return (true, link.latency, 1 / link.bandwidth, link.processing)
        }
        let (mine, other) = (nodes[here].between, nodes[there].between)
        let distance = min(rank.distance(from: peer, count: rankCount), peer.distance(from: rank, count: rankCount))
        func shared(_ node: Int) -> Double {
            Double(isInNodeOrder ? min(distance, ranksOfNode[node]) : ranksOfNode[node])
        }
        return (
            false, max(mine.latency, other.latency),
            max(shared(here) / mine.bandwidth, shared(there) / other.bandwidth), mine.processing
        )
    }
}
