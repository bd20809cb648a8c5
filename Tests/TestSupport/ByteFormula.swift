// The bytes of every strategy by its documented formula, counted tile by tile and apart from the plans.

import Attention
import Matrices
import Plans
import Tiles

/// What the ranks of a job send together, as the constructors of the plans document it.
public struct ByteFormula {
    private let problem: AttentionProblem
    private let seen: [Runs]
    private let queryOwner: [Int]
    private let keyOwner: [Int]

    /// Looks up who sees what and who has what; no plan is made.
    public init(_ problem: AttentionProblem) {
        self.problem = problem
        seen = (0..<problem.queries.numbering.tileCount).map { problem.visibleTiles(queryTile: $0).any }
        queryOwner = (0..<problem.queries.numbering.tileCount).map { problem.queries.owner(of: $0).index }
        keyOwner = (0..<problem.keys.numbering.tileCount).map { problem.keys.owner(of: $0).index }
    }

    /// The bytes that all ranks send under a strategy.
    public func bytes(_ strategy: Strategy) -> Int {
        switch strategy {
        case .passKeyValue, .allGather: exchangeRing(degree: 1)
        case .headExchange: exchangeRing(degree: problem.rankCount)
        case .hybrid: exchangeRing(degree: problem.hybridDegree)
        case .passQueries: passQueries
        case .tree: tree
        }
    }

    private var receives: Bool { problem.operation.name == "receive" }
    private var differentiates: Bool { problem.operation.name == "differentiate" }
    /// Of a row and head, with statistics: two sums, and each of the largest scores with its key.
    private var statistics: Int {
        problem.operation.name == "observe" ? 2 + 2 * (problem.operation.rowResults.last ?? 0) : 0
    }
    private func padded(_ width: Int) -> Int { (width + 15) / 16 * 16 }
    /// Packed keys, and values where they are needed.
    private func keyBytes(_ tile: Int) -> Int {
        let packed = PackedTile(problem.heads, problem.element)
        let keys = problem.keys.numbering.tokens(of: tile).count
        return (receives ? packed.keyFloats(capacity: keys) : packed.floats(capacity: keys))
            * (problem.narrowsWire ? 2 : 4)
    }
    /// Queries; with m, ℓ and a weight where mass is received; with dO, m, ℓ and D where gradients are.
    private func queryBytes(_ tile: Int) -> Int {
        problem.queries.numbering.tokens(of: tile).count
            * (problem.heads.headDimension + (receives ? 3 : differentiates ? problem.heads.valueDimension + 3 : 0)) * 4
    }
    /// m, ℓ and O, and statistics where they are asked for; nothing where mass is received; dQ of gradients, and the
    /// tile's gradients of biases.
    private func partialBytes(_ tile: Int) -> Int {
        if receives { return 0 }
        let floats =
            differentiates
            ? padded(problem.heads.headDimension) : 2 + padded(problem.heads.valueDimension) + statistics
        return (problem.queries.numbering.tokens(of: tile).count * floats + problem.operation.tileResults) * 4
    }
    /// A mass for each query head; dK and dV for each key/value head.
    private func returningBytes(_ tile: Int, queryHeads: Int, keyHeads: Int) -> Int {
        let keys = problem.keys.numbering.tokens(of: tile).count
        if receives { return keys * 4 * queryHeads }
        let width = padded(problem.heads.headDimension) + padded(problem.heads.valueDimension)
        return differentiates ? keys * 4 * width * keyHeads : 0
    }

    /// The maximal subtrees that some of the tiles a query tile sees fill: what waits in a forest once they are in.
    private func subtrees(_ queryTile: Int, _ keyTiles: [Int]) -> Int {
        struct Nothing: Mergeable { mutating func merge(right: Nothing) {} }
        let first = problem.keys.numbering.firstTile[problem.queries.numbering.sequence(of: queryTile)]
        var forest = MergeForest<Nothing>(tiles: seen[queryTile].shifted(by: -first))
        for tile in keyTiles { forest.insert(Nothing(), tile: tile - first) }
        return forest.pendingCount
    }

    /// The maximal subtrees that some of the query tiles that see a key tile fill.
    private func readerSubtrees(_ keyTile: Int, _ queryTiles: [Int], of all: [Int]) -> Int {
        struct Nothing: Mergeable { mutating func merge(right: Nothing) {} }
        let first = problem.queries.numbering.firstTile[problem.keys.numbering.sequence(of: keyTile)]
        var forest = MergeForest<Nothing>(tiles: Runs(all.map { $0 - first..<$0 - first + 1 }))
        for tile in queryTiles { forest.insert(Nothing(), tile: tile - first) }
        return forest.pendingCount
    }

    /// The number of a rank's node: keys and values that are there already are not sent.
    private func node(_ rank: Int) -> Int { problem.topology.mates(of: Rank(rank)).lowerBound }

    /// Head exchange in groups, rings across them.
    private func exchangeRing(degree: Int) -> Int {
        let (keyHeads, queryHeads, size) = (
            problem.heads.keyValueHeads, problem.heads.queryHeads, problem.heads.groupSize
        )
        var total = 0
        for member in 0..<degree {
            let heads =
                keyHeads >= degree || differentiates
                ? keyHeads * member / degree * size..<keyHeads * (member + 1) / degree * size
                : queryHeads * member / degree..<queryHeads * (member + 1) / degree
            let keysOfHeads = Set(heads.map { $0 / size }).count
            for tile in keyOwner.indices {
                let groups = Set(seen.indices.filter { seen[$0].contains(tile) }.map { queryOwner[$0] / degree })
                let home = node(keyOwner[tile] / degree * degree + member)
                if !groups.isEmpty && node(keyOwner[tile]) != home { total += keyBytes(tile) * keysOfHeads }
                let others = Set(groups.map { node($0 * degree + member) }).subtracting([home])
                total += others.count * keyBytes(tile) * keysOfHeads
                // What keys get of these heads goes home, but from the owner itself.
                let readers = seen.indices.filter { seen[$0].contains(tile) }
                let returning = returningBytes(tile, queryHeads: heads.count, keyHeads: keysOfHeads)
                for group in groups where group * degree + member != keyOwner[tile] && returning > 0 {
                    total +=
                        returning
                        * readerSubtrees(tile, readers.filter { queryOwner[$0] / degree == group }, of: readers)
                }
            }
            for tile in queryOwner.indices where !seen[tile].isEmpty && queryOwner[tile] % degree != member {
                total += (queryBytes(tile) + partialBytes(tile)) * heads.count
            }
        }
        return total
    }

    private var passQueries: Int {
        var total = 0
        for tile in queryOwner.indices {
            for rank in 0..<problem.rankCount where rank != queryOwner[tile] {
                let keys = seen[tile].ranges.joined().filter { keyOwner[$0] == rank }
                if !keys.isEmpty { total += queryBytes(tile) + subtrees(tile, keys) * partialBytes(tile) }
            }
        }
        return total * problem.heads.queryHeads
    }

    private var tree: Int {
        var total = 0
        for tile in queryOwner.indices {
            for place in 1..<max(1, problem.rankCount) {
                let below = place..<place + (place & -place)
                let keys = seen[tile].ranges.joined().filter {
                    below.contains((keyOwner[$0] - queryOwner[tile] + problem.rankCount) % problem.rankCount)
                }
                if !keys.isEmpty { total += queryBytes(tile) + subtrees(tile, keys) * partialBytes(tile) }
            }
        }
        return total * problem.heads.queryHeads
    }
}
