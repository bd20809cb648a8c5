// The partials of a rank on their way up the fixed tree: of its own queries and of those it works for.

import Attention
import Matrices
import Plans
import Tiles

/// A query tile as a rank meets it.
struct QueryTile {
    /// Its number in the batch.
    let number: Int
    let sequence: SequenceShape
    /// Its index in its sequence.
    let index: Int
    /// The number that the sequence's first key tile has in the batch.
    let firstKeyTile: Int
    /// Its query rows.
    let rowCount: Int
    /// Which of the rank's own rows it holds; nil for a tile of another rank.
    let firstRow: Int?
    /// The key tiles it sees, by their number in the batch.
    let visible: VisibleTiles
    /// The key tiles it sees, by their index in the sequence: those of its fixed tree.
    let tree: Runs

    init(_ number: Int, of job: AttentionJob, firstRow: Int?) {
        let sequence = job.queries.numbering.sequence(of: number)
        self.number = number
        self.sequence = job.shapes[sequence]
        index = number - job.queries.numbering.firstTile[sequence]
        firstKeyTile = job.keys.numbering.firstTile[sequence]
        rowCount = job.queries.numbering.tokens(of: number).count
        self.firstRow = firstRow
        visible = job.visibleTiles(queryTile: number)
        tree = visible.any.shifted(by: -firstKeyTile)
    }

    /// The maximal subtrees that some key tiles fill.
    func subtrees(in keyTiles: Runs) -> [TreeNode] { TreeNode.maximal(in: keyTiles.shifted(by: -firstKeyTile), of: tree) }
}

/// The reduction of one query tile and head: the partials that wait for their siblings. One thread at a time has it.
final class Reduction {
    let tile: QueryTile
    let head: Int
    var forest: MergeForest<PartialAttention>

    init(_ tile: QueryTile, head: Int) {
        self.tile = tile
        self.head = head
        forest = MergeForest(tiles: tile.tree)
    }
}

/// The reductions that a rank has under way in one attention.
final class Reductions {
    /// The query tiles that the plan may name.
    let tiles: [Int: QueryTile]
    private let queryHeads: Int
    private var underWay: [Int: Reduction] = [:]

    init(tiles: [Int: QueryTile], queryHeads: Int) {
        self.tiles = tiles
        self.queryHeads = queryHeads
    }

    /// The query tile of that number.
    func tile(_ number: Int) -> QueryTile {
        guard let tile = tiles[number] else { preconditionFailure("query tile \(number) is not in the plan") }
        return tile
    }

    /// The reduction of a query tile and head, begun where there is none.
    func reduction(of tile: QueryTile, head: Int) -> Reduction {
        let place = tile.number * queryHeads + head
        if let begun = underWay[place] { return begun }
        let new = Reduction(tile, head: head)
        underWay[place] = new
        return new
    }

    /// Calls `body` for the units that have key tiles: head after head, so that a head's keys stay in the cache while
    /// every query tile goes over them.
    func forEach(_ units: Units, _ body: (_ tile: QueryTile, _ head: Int) -> Void) {
        for head in units.heads {
            for number in units.queries {
                let tile = tile(number)
                if tile.visible.any.intersects(units.keys) { body(tile, head) }
            }
        }
    }

    /// Appends what some units gave to a message, subtrees from left to right; what was sent is forgotten here.
    func take(_ units: Units, into message: inout MessagePieces) {
        forEach(units) { tile, head in
            guard let reduction = underWay.removeValue(forKey: tile.number * queryHeads + head) else {
                preconditionFailure("query tile \(tile.number), head \(head) has no partials")
            }
            for part in reduction.forest.parts.sorted(by: { $0.node.tiles.lowerBound < $1.node.tiles.lowerBound }) {
                part.value.append(to: &message)
            }
        }
    }
}

extension PartialAttention {
    /// Appends m, ℓ and O of the rows in use.
    func append(to message: inout MessagePieces) {
        for (start, count) in [(rowMax, rows), (rowSum, rows), (output, rows * outputStride)] {
            message.append(UnsafeMutableRawBufferPointer(start: start, count: count * MemoryLayout<Float>.stride), keeping: self)
        }
    }
}
