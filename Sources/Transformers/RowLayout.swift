// How a rank's rows lie in memory: tile after tile, in blocks for threads and in groups that go through all layers
// together.

import Attention
import Plans
import Tiles

/// A tile of this rank.
public struct LocalTile: Sendable {
    /// Its number in the batch.
    public let number: Int
    /// The sequence of the batch that it is a tile of.
    public let sequence: Int
    /// The positions in the sequence.
    public let tokens: Range<Int>
    /// The first of the rank's rows that hold its tokens.
    public let firstRow: Int
    /// Its place among the rank's tiles.
    let place: Int
    /// The rank's rows that hold its tokens, in order.
    public var rows: Range<Int> { firstRow..<firstRow + tokens.count }
}

/// Rows handled by one thread at a time: tiles and parts of tiles, cut where packing may cut them.
struct RowBlock {
    var parts: [(tile: LocalTile, rows: Range<Int>)] = []
    var firstRow: Int
    var count: Int
}

/// Rows that go through all layers before others do: all of the rank's, or some whole documents, few enough that their
/// states stay in the last-level cache from layer to layer.
struct RowGroup {
    /// Places among the rank's tiles.
    let tiles: Range<Int>
    let rows: Range<Int>
    let blocks: [RowBlock]

    init(_ all: [LocalTile], tiles: Range<Int>, threads: Int) {
        self.tiles = tiles
        rows = tiles.isEmpty ? 0..<0 : all[tiles.lowerBound].firstRow..<all[tiles.upperBound - 1].rows.upperBound
        blocks = RowLayout.blocks(all, tiles, rows: RowLayout.blockRows(rows: rows.count, threads: threads))
    }
}

/// The rows of one rank.
struct RowLayout {
    /// The rank's tiles in ascending order, with the rows that hold them.
    let tiles: [LocalTile]
    let rowCount: Int
    let groups: [RowGroup]

    /// Rows of a group for each thread, if documents are not longer.
    private static let rowsPerThread = 2048

    /// - Parameter isLocal: whether every document is whole on one rank.
    init(_ sharding: Sharding, rank: Rank, isLocal: Bool, threads: Int) {
        var tiles: [LocalTile] = []
        var row = 0
        for run in sharding.tiles(of: rank).ranges {
            for tile in run {
                let tokens = sharding.numbering.tokens(of: tile)
                tiles.append(
                    LocalTile(
                        number: tile, sequence: sharding.numbering.sequence(of: tile), tokens: tokens, firstRow: row,
                        place: tiles.count))
                row += tokens.count
            }
        }
        self.tiles = tiles
        rowCount = row
        // Where ranks meet, one without rows of its own meets them too.
        groups =
            isLocal
            ? Self.groups(tiles, rows: Self.rowsPerThread * threads, threads: threads)
            : [RowGroup(tiles, tiles: 0..<tiles.count, threads: threads)]
    }

    /// The rows of the largest block.
    var mostBlockRows: Int { groups.flatMap(\.blocks).map(\.count).max() ?? 0 }

    /// Rows a block: enough blocks for all threads, whole panels, at most a tile.
    static func blockRows(rows: Int, threads: Int) -> Int {
        let panel = PackedTile.productColumns
        let share = rows / (threads * 4)
        return min(TileGrid.tileSize, max(panel, share / panel * panel))
    }

    /// - Parameter rows: of a group, if no document is longer.
    private static func groups(_ tiles: [LocalTile], rows: Int, threads: Int) -> [RowGroup] {
        var groups: [RowGroup] = []
        var first = 0
        while first < tiles.count {
            var end = first
            while end < tiles.count {
                let next = tiles[end..<tiles.count].firstIndex { $0.sequence != tiles[end].sequence } ?? tiles.count
                if end > first, tiles[next - 1].rows.upperBound - tiles[first].firstRow > rows { break }
                end = next
            }
            groups.append(RowGroup(tiles, tiles: first..<end, threads: threads))
            first = end
        }
        return groups
    }

    static func blocks(_ tiles: [LocalTile], _ places: Range<Int>, rows limit: Int) -> [RowBlock] {
        var blocks: [RowBlock] = []
        for place in places {
            let tile = tiles[place]
            var next = 0
            while next < tile.tokens.count {
                let left = tile.tokens.count - next
                let room = blocks.last.map { limit - $0.count } ?? 0
                // Within a tile, cuts fall where panels begin.
                let fitting = left <= room ? left : room / PackedTile.productColumns * PackedTile.productColumns
                if fitting > 0 {
                    blocks[blocks.count - 1].parts.append((tile, next..<next + fitting))
                    blocks[blocks.count - 1].count += fitting
                    next += fitting
                } else {
                    blocks.append(RowBlock(parts: [], firstRow: tile.firstRow + next, count: 0))
                }
            }
        }
        return blocks
    }
}
