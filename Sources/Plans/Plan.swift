// The plan of one rank: what it sends, receives and attends, step by step, and the bytes of it.

import Attention
import Matrices
import Tiles

/// What one rank does in one attention.
///
/// A pure function of the job and the strategy: no rank needs to hear from another to know what it will do. Whatever
/// the strategy, a unit gives the same results and results merge on the fixed trees, so the bits are the same too.
public struct Plan: Sendable {
    /// Whose plan it is.
    public let rank: Rank
    /// The attention that the ranks carry out together.
    public let problem: AttentionProblem
    /// The strategy that the plan follows.
    public let strategy: Strategy
    /// What the rank does, one step after another. All ranks of a job have equally many steps.
    public package(set) var steps: [Step]
    /// The query tiles that see each key tile: the leaves of its fixed tree. Empty where the operation gives keys
    /// nothing.
    public let readers: [Runs]

    init(_ dependencies: TileDependencies, _ strategy: Strategy, rank: Rank, steps: [Step]) {
        problem = dependencies.problem
        readers = dependencies.readersOfTiles
        self.strategy = strategy
        self.rank = rank
        self.steps = steps
    }

    /// The bytes that this rank sends.
    public var bytesSent: Int {
        steps.reduce(0) { $0 + $1.sends.reduce(0) { $0 + $1.payloads.reduce(0) { $0 + bytes(of: $1) } } }
    }

    /// The messages that this rank sends.
    public var messagesSent: Int { steps.reduce(0) { $0 + $1.sends.count } }

    /// The bytes of what a message carries.
    ///
    /// Columns: what the operation reads of the packed panels of each tile, once for each key/value head, in half of
    /// the bytes where `narrowsWire`. Rows: 4 bytes a float that the operation's rows bring, a row and head. Results: 4
    /// bytes a float of the operation's results, a row, query tile or key, head and maximal subtree.
    public func bytes(of payload: Payload) -> Int {
        switch payload {
        case .columns(let tiles, let heads):
            return problem.packedBytes(of: tiles, problem.operation.columns) * heads.count
                / (problem.narrowsWire ? 2 : 1)
        case .rows(let tiles, let heads):
            return problem.rows(of: tiles) * 4 * problem.operation.rowOperandFloats * heads.count
        case .rowResults(let units):
            let (perRow, perTile) = (problem.operation.rowResultFloats, problem.operation.tileResults)
            return units.queries.reduce(0) {
                $0 + 4 * units.heads.count * (problem.queries.numbering.tokens(of: $1).count * perRow + perTile)
                    * problem.subtrees(of: $1, in: units.keys).count
            }
        case .columnResults(let units):
            let perKey = 4 * problem.operation.columnResultFloats * problem.columnResultHeads(of: units.heads).count
            return units.keys.reduce(0) {
                $0 + problem.keys.numbering.tokens(of: $1).count * perKey
                    * subtrees(ofKeyTile: $1, in: units.queries).count
            }
        }
    }

    /// The maximal subtrees that some query tiles fill in the fixed tree of those that see a key tile, nodes counted
    /// within its sequence.
    public func subtrees(ofKeyTile keyTile: Int, in queryTiles: Runs) -> [TreeNode] {
        let first = problem.queries.numbering.firstTile[problem.keys.numbering.sequence(of: keyTile)]
        return TreeNode.maximal(in: queryTiles.shifted(by: -first), of: readers[keyTile].shifted(by: -first))
    }
}

extension AttentionProblem {
    /// The maximal subtrees of a query tile's fixed tree that some key tiles fill, nodes counted within its sequence.
    public func subtrees(of queryTile: Int, in keyTiles: Runs) -> [TreeNode] {
        let first = keys.numbering.firstTile[queries.numbering.sequence(of: queryTile)]
        return TreeNode.maximal(
            in: keyTiles.shifted(by: -first), of: visibleTiles(queryTile: queryTile).any.shifted(by: -first))
    }
}

extension HeadShape {
    /// The key/value heads that some query heads read.
    public func keyValueHeads(of queryHeads: Range<Int>) -> Range<Int> {
        queryHeads.isEmpty ? 0..<0 : queryHeads.lowerBound / groupSize..<(queryHeads.upperBound - 1) / groupSize + 1
    }
}
