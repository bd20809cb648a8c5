// The visible pairs and the sizes of a job's tiles, summed up in advance so that units and messages are priced without
// a look at each tile.

import Attention
import Tiles

/// What pricing needs to know of the tiles of a job. It depends on the sequences, the mask, the heads and the operation
/// alone: layouts and strategies share it.
struct TileTable: Sendable {
    /// Floating-point operations of a pair and query head.
    let flopPerPair: Double
    /// Bytes of the memory of one row result, and of one column result.
    let rowBlockBytes: Double
    let columnBlockBytes: Double
    /// The first key tile of every query tile's sequence, and the first query tile of every key tile's.
    let firstKeyTile: [Int]
    let firstQueryTile: [Int]
    /// The key tiles of which every row of a query tile sees every key.
    private let all: [Runs]
    /// The part of the pairs that is visible in the other key tiles that a query tile sees.
    private let fill: [Double]
    /// Sums over the tiles before one: keys, query rows, and bytes of what the operation reads of the packed tiles of
    /// one head.
    private let keysBefore: [Int]
    private let rowsBefore: [Int]
    private let bytesBefore: [Int]

    init(_ dependencies: TileDependencies) {
        let problem = dependencies.problem
        flopPerPair = Double(problem.operation.flopPerPair)
        rowBlockBytes = Double(
            ResultPool.blockBytes(problem.operation.rowResults, tileFloats: problem.operation.tileResults))
        columnBlockBytes = Double(ResultPool.blockBytes(problem.operation.columnResults))
        firstKeyTile = (0..<problem.queries.numbering.tileCount).map {
            problem.keys.numbering.firstTile[problem.queries.numbering.sequence(of: $0)]
        }
        firstQueryTile = (0..<problem.keys.numbering.tileCount).map {
            problem.queries.numbering.firstTile[problem.keys.numbering.sequence(of: $0)]
        }
        let packed = PackedTile(problem.heads, problem.element)
        let keyTiles = (0..<problem.keys.numbering.tileCount).map { problem.keys.numbering.tokens(of: $0).count }
        let queryTiles = (0..<problem.queries.numbering.tileCount).map {
            problem.queries.numbering.tokens(of: $0).count
        }
        func sums(_ values: [Int]) -> [Int] { values.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) } }
        let keysBefore = sums(keyTiles)
        self.keysBefore = keysBefore
        rowsBefore = sums(queryTiles)
        bytesBefore = sums(
            keyTiles.indices.map {
                packed.floats(of: problem.operation.columns, capacity: problem.keys.numbering.capacity(of: $0)) * 4
            })
        var all: [Runs] = []
        var fill: [Double] = []
        for (tile, rows) in queryTiles.enumerated() {
            let sequence = problem.queries.numbering.sequence(of: tile)
            let visible = problem.visibleTiles(queryTile: tile)
            all.append(visible.all)
            if visible.any == visible.all {
                fill.append(1)
                continue
            }
            func pairs(_ tiles: Runs) -> Int {
                tiles.ranges.reduce(0) { $0 + keysBefore[$1.upperBound] - keysBefore[$1.lowerBound] } * rows
            }
            let whole = pairs(visible.all)
            let seen = problem.mask.visiblePairs(
                queryTile: tile - problem.queries.numbering.firstTile[sequence], in: problem.shapes[sequence])
            fill.append(Double(seen - whole) / Double(pairs(visible.any) - whole))
        }
        self.all = all
        self.fill = fill
    }

    /// The query rows of some tiles.
    func rows(of tiles: Runs) -> Int {
        tiles.ranges.reduce(0) { $0 + rowsBefore[$1.upperBound] - rowsBefore[$1.lowerBound] }
    }

    /// The query rows of a tile.
    func rows(of tile: Int) -> Int { rowsBefore[tile + 1] - rowsBefore[tile] }

    /// The keys of a tile.
    func keys(of tile: Int) -> Int { keysBefore[tile + 1] - keysBefore[tile] }

    /// The maximal subtrees that some tiles fill in the fixed tree of those that a tile meets.
    /// - Parameter first: the first tile of the sequence on the side of the tree's leaves.
    static func subtreeCount(of meets: Runs, in tiles: Runs, first: Int) -> Int {
        if first == 0 { return TreeNode.maximalCount(in: tiles, of: meets) }
        return TreeNode.maximalCount(in: tiles.shifted(by: -first), of: meets.shifted(by: -first))
    }

    /// The same for several tiles; neighbours that meet the same tiles are counted once.
    /// - Parameters:
    ///   - meets: the tiles of the other side that each tile meets.
    ///   - first: for each tile, the first tile of its sequence on the other side.
    static func forEachSubtreeCount(
        of tiles: Runs, in others: Runs, _ meets: [Runs], first: [Int], _ body: (_ tile: Int, _ count: Int) -> Void
    ) {
        var last: (meets: Runs, count: Int)?
        for tile in tiles {
            let count =
                last.flatMap { $0.meets == meets[tile] ? $0.count : nil }
                ?? subtreeCount(of: meets[tile], in: others, first: first[tile])
            last = (meets[tile], count)
            if count > 0 { body(tile, count) }
        }
    }

    /// Bytes of what the operation reads of some packed tiles, of one head.
    func columnBytes(of tiles: Runs) -> Int {
        tiles.ranges.reduce(0) { $0 + bytesBefore[$1.upperBound] - bytesBefore[$1.lowerBound] }
    }

    /// Pairs of a query tile, of one head.
    struct Pairs {
        /// Those that are visible.
        var visible = 0.0
        /// Those of whole tiles that take as long.
        var timed = 0.0

        static func + (left: Pairs, right: Pairs) -> Pairs {
            Pairs(visible: left.visible + right.visible, timed: left.timed + right.timed)
        }
    }

    /// What a tile that is seen in part takes beside its visible pairs, in tiles: its strips are narrow, and end where the
    /// mask does. So much it was on Zen 3 for tiles seen by halves (causal) and by less and more (windows of 128), at
    /// d = 64, within a tenth of a tile.
    static let partialTile = 0.2

    /// The pairs of a query tile, of one head, that are visible among some key tiles. A tile that is seen in part
    /// counts as the mean of those that this query tile sees in part.
    ///
    /// - Parameter seen: the key tiles that the query tile sees.
    func pairs(queryTile: Int, seen: Runs, keys: Runs) -> Pairs {
        let rows = Double(rows(of: queryTile))
        let some = overlap(seen, keys)
        let fill = fill[queryTile]
        if some == 0 || fill == 1 { return Pairs(visible: rows * Double(some), timed: rows * Double(some)) }
        let whole = overlap(all[queryTile], keys)
        let part = Double(some - whole)
        return Pairs(
            visible: rows * (Double(whole) + fill * part),
            timed: rows * (Double(whole) + min(1, fill + Self.partialTile) * part))
    }

    /// The keys in the intersection of two sets of key tiles.
    private func overlap(_ left: Runs, _ right: Runs) -> Int {
        var keys = 0
        var (l, r) = (0, 0)
        let (a, b) = (left.ranges, right.ranges)
        while l < a.count, r < b.count {
            let low = max(a[l].lowerBound, b[r].lowerBound)
            let high = min(a[l].upperBound, b[r].upperBound)
            if low < high { keys += keysBefore[high] - keysBefore[low] }
            if a[l].upperBound < b[r].upperBound { l += 1 } else { r += 1 }
        }
        return keys
    }
}
