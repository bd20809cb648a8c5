// The results of a rank on their way up the fixed trees: of its own tiles and of those it works for.

import Attention
import Matrices
import Plans
import Synchronization
import Tiles

/// A query tile as a rank meets it, or a key tile: one side of a unit.
struct SideTile {
    /// Its number in the batch.
    let number: Int
    let sequence: SequenceShape
    /// The sequence's place in the batch.
    let sequenceNumber: Int
    /// Its index in its sequence.
    let index: Int
    /// The number that the first tile of the other side's sequence has in the batch.
    let firstOther: Int
    /// Its rows, or its keys.
    let count: Int
    /// Which of the rank's own rows, or keys, it holds; nil for a tile of another rank.
    let own: Range<Int>?
    /// Its place among the rank's own tiles; nil likewise.
    let place: Int?
    /// The tiles of the other side that it meets, by their number in the batch; for a query tile also those it sees
    /// entirely.
    let meets: VisibleTiles
    /// The tiles of the other side that it meets, by their index in the sequence: the leaves of its fixed tree.
    let tree: Runs

    /// The maximal subtrees that some tiles of the other side fill.
    func subtrees(in others: Runs) -> [TreeNode] { TreeNode.maximal(in: others.shifted(by: -firstOther), of: tree) }

    static func query(_ number: Int, of problem: AttentionProblem, firstRow: Int?, place: Int?) -> SideTile {
        let sequence = problem.queries.numbering.sequence(of: number)
        let first = problem.keys.numbering.firstTile[sequence]
        let count = problem.queries.numbering.tokens(of: number).count
        let visible = problem.visibleTiles(queryTile: number)
        return SideTile(
            number: number, sequence: problem.shapes[sequence], sequenceNumber: sequence,
            index: number - problem.queries.numbering.firstTile[sequence],
            firstOther: first,
            count: count, own: firstRow.map { $0..<$0 + count }, place: place, meets: visible,
            tree: visible.any.shifted(by: -first))
    }

    static func key(_ number: Int, of plan: Plan, firstKey: Int?, place: Int?) -> SideTile {
        let problem = plan.problem
        let sequence = problem.keys.numbering.sequence(of: number)
        let first = problem.queries.numbering.firstTile[sequence]
        let count = problem.keys.numbering.tokens(of: number).count
        let readers = plan.readers[number]
        return SideTile(
            number: number, sequence: problem.shapes[sequence], sequenceNumber: sequence,
            index: number - problem.keys.numbering.firstTile[sequence],
            firstOther: first,
            count: count, own: firstKey.map { $0..<$0 + count }, place: place,
            meets: VisibleTiles(any: readers, all: Runs()),
            tree: readers.shifted(by: -first))
    }
}

/// The reduction of one tile and head: the results that wait for their siblings. Threads take turns.
final class Reduction {
    let tile: SideTile
    let head: Int
    private var forest: MergeForest<PartialResult>
    private let turn = Mutex(())

    init(_ tile: SideTile, head: Int) {
        self.tile = tile
        self.head = head
        forest = MergeForest(tiles: tile.tree)
    }

    /// Adds the result of a subtree; calls `finish` with the whole once it is there, if the tile is this rank's.
    func insert(_ value: PartialResult, at node: TreeNode, finish: (PartialResult) -> Void) {
        turn.withLock { _ in
            forest.insert(value, at: node)
            guard tile.own != nil, let whole = forest.root else { return }
            finish(whole)
            forest = MergeForest(tiles: Runs())
        }
    }

    /// What waits, from left to right.
    var parts: [PartialResult] {
        forest.parts.sorted { $0.node.tiles.lowerBound < $1.node.tiles.lowerBound }.map(\.value)
    }
}

/// The results of one side that a rank has under way in one call.
final class SideResults {
    /// The tiles that the plan may name.
    let tiles: [Int: SideTile]
    let pool: ResultPool
    private let heads: Int
    private var underWay: [Int: Reduction] = [:]

    init(tiles: [Int: SideTile], heads: Int, pool: ResultPool) {
        self.tiles = tiles
        self.heads = heads
        self.pool = pool
    }

    /// The tile of that number.
    func tile(_ number: Int) -> SideTile {
        guard let tile = tiles[number] else { preconditionFailure("tile \(number) is not in the plan") }
        return tile
    }

    /// The reduction of a tile and head, begun where there is none. For one thread.
    func reduction(of tile: SideTile, head: Int) -> Reduction {
        let place = tile.number * heads + head
        if let begun = underWay[place] { return begun }
        let new = Reduction(tile, head: head)
        underWay[place] = new
        return new
    }

    /// Calls `body` for some tiles and heads that meet tiles of the other side: head after head, so that a head's keys
    /// stay in the cache while every query tile goes over them.
    func forEach(
        _ numbers: Runs, _ heads: Range<Int>, meeting others: Runs, _ body: (_ tile: SideTile, _ head: Int) -> Void
    ) {
        for head in heads {
            for number in numbers {
                let tile = tile(number)
                if tile.meets.any.intersects(others) { body(tile, head) }
            }
        }
    }

    /// Appends what some units gave to a message, subtrees from left to right; what was sent is forgotten here.
    func take(_ numbers: Runs, _ heads: Range<Int>, meeting others: Runs, into message: inout MessagePieces) {
        forEach(numbers, heads, meeting: others) { tile, head in
            guard let reduction = underWay.removeValue(forKey: tile.number * self.heads + head) else {
                preconditionFailure("tile \(tile.number), head \(head) has no results")
            }
            for part in reduction.parts { part.append(to: &message) }
        }
    }
}

extension PartialResult {
    /// Appends the planes of the rows in use, and what the tile has beside them.
    func append(to message: inout MessagePieces) {
        for (index, width) in pool.planes.enumerated() {
            let bytes = rows * width * MemoryLayout<Float>.stride
            message.append(UnsafeMutableRawBufferPointer(start: plane(index), count: bytes), keeping: self)
        }
        if pool.tileFloats > 0 {
            let bytes = pool.tileFloats * MemoryLayout<Float>.stride
            message.append(UnsafeMutableRawBufferPointer(start: ofTile, count: bytes), keeping: self)
        }
    }
}
