// Which ranks share memory.

import Tiles

/// The nodes of a job: ranks of one node read each other's keys and values in shared memory, so that only what crosses
/// from node to node is sent.
///
/// A property of the machines, not a strategy: the units of a strategy run where they always do.
public struct Topology: Sendable, Hashable {
    /// For each rank, the ranks of its node, itself included.
    private let nodes: [Range<Int>]

    /// Neighbouring ranks of one host are a node; a host whose ranks are not neighbours counts as several, since a ring
    /// that goes by rank would enter it several times.
    public init(hosts: [String]) { self.init(ranks: hosts.count) { hosts[$0] == hosts[$1] } }

    /// The same of hosts that have numbers.
    public init(hosts: [Int]) { self.init(ranks: hosts.count) { hosts[$0] == hosts[$1] } }

    /// The same of so many ranks, however hosts are told apart.
    package init(ranks: Int, areOfOneHost: (_ rank: Int, _ neighbour: Int) -> Bool) {
        var nodes: [Range<Int>] = []
        while nodes.count < ranks {
            let first = nodes.count
            var end = first + 1
            while end < ranks, areOfOneHost(first, end) { end += 1 }
            nodes += Array(repeating: first..<end, count: end - first)
        }
        self.nodes = nodes
    }

    /// Ranks that share nothing.
    public init(separate ranks: Int) { nodes = (0..<ranks).map { $0..<$0 + 1 } }

    /// The same hosts, cut into nodes of at most so many ranks.
    public func split(ranksPerNode: Int) -> Topology {
        let places = nodes.enumerated().map { rank, node in (rank - node.lowerBound) / max(1, ranksPerNode) }
        return Topology(ranks: rankCount) { nodes[$0] == nodes[$1] && places[$0] == places[$1] }
    }

    /// The same for some of the ranks, in ascending order, numbered anew.
    func ring(of ranks: [Rank]) -> Topology { Topology(hosts: ranks.map { mates(of: $0).lowerBound }) }

    /// How many ranks the job has, on all nodes together.
    public var rankCount: Int { nodes.count }

    /// The ranks that share memory with a rank, itself included.
    public func mates(of rank: Rank) -> Range<Int> { nodes[rank.index] }

    /// Whether two ranks share memory.
    public func areMates(_ one: Rank, _ other: Rank) -> Bool { nodes[one.index].contains(other.index) }

    /// Whether any ranks do.
    public var isShared: Bool { nodes.contains { $0.count > 1 } }

    /// How many nodes there are.
    public var nodeCount: Int { nodes.enumerated().count { $0 == $1.lowerBound } }
}
