// Numbers that sum over the tiles of a step, on every rank with the same bits.

import RingAttention
import Tiles

/// Some sums over the tiles of a step, in double precision on the fixed tree.
struct TileSums: Mergeable {
    var values: [Double]

    mutating func merge(right: TileSums) {
        for index in values.indices { values[index] += right.values[index] }
    }
}

/// Sums over the tiles of a step: losses, and whatever else is counted with them.
///
/// A tile's numbers are one leaf; whoever adds them up within a tile goes in ascending order of rows.
public struct StepSums {
    private let count: Int
    private var forest: MergeForest<TileSums>

    /// - Parameters:
    ///   - count: how many sums there are.
    ///   - tiles: how many tiles the step has.
    public init(count: Int, tiles: Int) {
        self.count = count
        forest = MergeForest(tiles: Runs(0..<tiles))
    }

    /// Adds a tile's numbers; each tile of this rank once.
    public mutating func add(_ values: [Double], tile: Int) {
        precondition(values.count == count, "a number for every sum")
        forest.insert(TileSums(values: values), tile: tile)
    }

    /// The sums over the tiles of all ranks, on every rank. Collective; control traffic of 24 bytes a subtree and sum at
    /// most.
    /// - Throws: what the transport throws.
    public func total(over transport: any Transport) throws -> [Double] {
        if transport.size == 1 { return forest.root?.values ?? Array(repeating: 0, count: count) }
        var words: [UInt64] = []
        for (node, sums) in forest.parts {
            words += [UInt64(node.level), UInt64(node.index)] + sums.values.map(\.bitPattern)
        }
        var whole = MergeForest<TileSums>(tiles: forest.tiles)
        for bytes in try transport.allGather(words.withUnsafeBytes { Array($0) }) {
            let words = bytes.withUnsafeBytes { raw in
                (0..<raw.count / 8).map { raw.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self) }
            }
            for first in stride(from: 0, to: words.count, by: 2 + count) {
                let values = words[first + 2..<first + 2 + count].map { Double(bitPattern: $0) }
                whole.insert(
                    TileSums(values: values), at: TreeNode(level: Int(words[first]), index: Int(words[first + 1])))
            }
        }
        return whole.root?.values ?? Array(repeating: 0, count: count)
    }
}
