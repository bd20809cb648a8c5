// A sum over the tiles of all ranks: parts of tiles, on the fixed tree, the same bits on every rank.

import Attention
import Matrices
import Plans
import Tiles

/// A part of a sum over tiles.
struct SummedTiles: Mergeable {
    var floats: [Float]

    mutating func merge(right: SummedTiles) {
        for place in floats.indices { floats[place] += right.floats[place] }
    }
}

extension Transport {
    /// Sums what tiles have over all tiles of a batch, on the fixed tree of their numbers. Collective.
    ///
    /// Each rank tells the others a part for every maximal subtree that its tiles fill; all merge them in the same way.
    /// - Parameters:
    ///   - tiles: this rank's tiles.
    ///   - count: the tiles of all ranks, of which each is one rank's.
    ///   - floats: how many each tile has.
    ///   - values: what a tile of this rank has, by its place among them.
    /// - Returns: the sums; zeros where there are no tiles.
    public func sum(
        over tiles: Runs, of count: Int, floats: Int, values: (_ place: Int) -> [Float]
    ) throws -> [Float] {
        var mine = MergeForest<SummedTiles>(tiles: Runs([0..<count]))
        for (place, tile) in tiles.enumerated() { mine.insert(SummedTiles(floats: values(place)), tile: tile) }
        var told: [UInt8] = []
        for part in mine.parts {
            withUnsafeBytes(of: Int64(part.node.level)) { told += $0 }
            withUnsafeBytes(of: Int64(part.node.index)) { told += $0 }
            part.value.floats.withUnsafeBytes { told += $0 }
        }
        var all = MergeForest<SummedTiles>(tiles: Runs([0..<count]))
        for bytes in try allGather(told) {
            bytes.withUnsafeBytes { raw in
                let size = 16 + 4 * floats
                for start in Swift.stride(from: 0, to: raw.count, by: size) {
                    let level = raw.loadUnaligned(fromByteOffset: start, as: Int64.self)
                    let index = raw.loadUnaligned(fromByteOffset: start + 8, as: Int64.self)
                    let part = (0..<floats).map {
                        raw.loadUnaligned(fromByteOffset: start + 16 + 4 * $0, as: Float.self)
                    }
                    all.insert(SummedTiles(floats: part), at: TreeNode(level: Int(level), index: Int(index)))
                }
            }
        }
        return all.root?.floats ?? Array(repeating: 0, count: floats)
    }
}
