// The description of a cluster, as `annulus plan --cluster` reads it.

import Files
import Plans

enum ClusterFile {
    static let help = """
        The cluster is a JSON file: kinds of nodes, in the order in which ranks are numbered.

          {"kinds": [
            {"name": "thin", "nodes": 4064, "ranks_per_node": 1, "gflops_per_rank": 2000, "memory_gib": 192,
             "between": {"latency_us": 2, "gbit_per_s": 100}},
            {"name": "fat", "nodes": 8, "ranks_per_node": 4, "gflops_per_rank": 2500, "memory_gib": 1024,
             "inside": {"latency_us": 0.6, "gbit_per_s": 80}, "between": {"latency_us": 2, "gbit_per_s": 200}}]}

        gflops_per_rank: what one rank sustains, all its threads together (annulus bench attention). memory_gib: of a \
        node, in 2^30 bytes. inside: the link between two ranks of a node; needed where it has several. between: the node's \
        link to the others, which its ranks share; needed where there are several nodes. latency_us: microseconds of a \
        message, its handling included; gbit_per_s: 10^9 bits a second, in each direction (annulus bench exchange).
        """

    /// More ranks than this are refused.
    static let mostRanks = 65_536

    /// Reads and checks a file.
    /// - Parameters:
    ///   - path: the file.
    ///   - nodeCount: how many nodes there are instead of those that the file says, which has one kind then.
    /// - Throws: `FileError` naming the file and the key.
    static func read(path: String, nodeCount: Int? = nil) throws(FileError) -> Cluster {
        let file = try JSON.load(path: path)
        func refuse(_ message: String) -> FileError { FileError(.malformed, path: path, message) }
        guard case .object(let root) = file else {
            throw refuse("is \(file.kindName), and a cluster is an object with the key 'kinds'")
        }
        if let other = root.members.first(where: { $0.key != "kinds" }) {
            throw refuse("the key '\(other.key)' is unknown; known: kinds")
        }
        guard let kinds = root["kinds"]?.array, !kinds.isEmpty else {
            throw refuse("'kinds' must be a list of kinds of nodes, at least one; see annulus plan --help")
        }
        guard nodeCount == nil || kinds.count == 1 else {
            throw refuse("has \(kinds.count) kinds of nodes, and --nodes is for one")
        }
        var result: [(node: Cluster.Node, count: Int, ranksPerNode: Int, flops: Double)] = []
        var ranks = 0
        for (number, kind) in kinds.enumerated() {
            let reader = Reader(path: path, at: "kinds[\(number)]", value: kind)
            try reader.check(known: [
                "name", "nodes", "ranks_per_node", "gflops_per_rank", "memory_gib", "inside", "between",
            ])
            let described = try reader.count("nodes")
            let nodes = nodeCount ?? described
            let ranksPerNode = try reader.count("ranks_per_node")
            // Both are at most `mostRanks`, so the product is no overflow.
            ranks += nodes * ranksPerNode
            guard ranks <= mostRanks else { throw refuse("the kinds have more than \(mostRanks) ranks together") }
            let node = Cluster.Node(
                name: try reader.name(), memory: try reader.number("memory_gib", atMost: 1e9) * 0x1p30,
                inside: try reader.link("inside", isNeeded: ranksPerNode > 1, because: "its nodes have several ranks"),
                between: try reader.link(
                    "between", isNeeded: nodes > 1 || kinds.count > 1, because: "there are several nodes"))
            result.append((node, nodes, ranksPerNode, try reader.number("gflops_per_rank", atMost: 1e9) * 1e9))
        }
        return Cluster(kinds: result)
    }

    /// Reads the members of one object.
    private struct Reader {
        let path: String
        let at: String
        let value: JSON

        func refuse(_ message: String) -> FileError { FileError(.malformed, path: path, message) }

        func check(known: [String]) throws(FileError) {
            guard let object = value.object else {
                throw refuse("'\(at)' is \(value.kindName), and an object is needed")
            }
            if let other = object.members.first(where: { !known.contains($0.key) }) {
                throw refuse("the key '\(at).\(other.key)' is unknown; known: \(known.joined(separator: ", "))")
            }
        }

        func count(_ key: String) throws(FileError) -> Int {
            guard let member = value[key] else { throw refuse("'\(at).\(key)' is missing") }
            guard let number = member.int, (1...mostRanks).contains(number) else {
                throw refuse("'\(at).\(key)' must be a whole number from 1 to \(mostRanks)")
            }
            return number
        }

        /// A number above 0, or from 0 on.
        func number(_ key: String, atMost limit: Double, mayBeZero: Bool = false) throws(FileError) -> Double {
            guard let member = value[key] else { throw refuse("'\(at).\(key)' is missing") }
            guard let number = member.double, mayBeZero ? number >= 0 : number >= 1e-9, number <= limit else {
                throw refuse("'\(at).\(key)' must be a number \(mayBeZero ? "from 0" : "above 0") to \(limit)")
            }
            return number
        }

        func name() throws(FileError) -> String {
            guard let member = value["name"] else { return at }
            guard let name = member.string else { throw refuse("'\(at).name' must be a string") }
            return name
        }

        /// A link; where none is given and none needed, one that nothing travels over.
        func link(_ key: String, isNeeded: Bool, because reason: String) throws(FileError) -> Cluster.Link {
            guard let member = value[key] else {
                if isNeeded { throw refuse("'\(at).\(key)' is missing, and \(reason)") }
                return Cluster.Link(latency: 0, bandwidth: 1)
            }
            let reader = Reader(path: path, at: "\(at).\(key)", value: member)
            try reader.check(known: ["latency_us", "gbit_per_s"])
            return Cluster.Link(
                latency: try reader.number("latency_us", atMost: 1e9, mayBeZero: true) * 1e-6,
                bandwidth: try reader.number("gbit_per_s", atMost: 1e9) * 1e9 / 8)
        }
    }
}
