// The trained parameters as one vector, cut into blocks that ranks own.

import Tiles
import Transformers

/// The parameters that are trained, one behind the other in the order of their names, as one vector of floats that is
/// cut into blocks of a fixed size.
///
/// Whatever goes over all parameters goes by these blocks: a block of the optimizer's state, of the sum of squares that
/// clipping asks for, of what ranks send to each other. A rank owns a run of blocks. None of the numbers that a block
/// gives depends on who owns it.
public struct ParameterBlocks: Sendable {
    /// A parameter's place.
    public struct Entry: Sendable, Equatable {
        /// Its name and shape.
        public let parameter: Parameter
        /// Where it is in the vector.
        public let range: Range<Int>
        /// Whether its weights decay: neither biases nor the weights of norms do, as in the transformers trainer.
        public let decays: Bool
        /// Whether it is of a task's head.
        public let isOfHead: Bool
    }

    /// In the order of names, by their bytes.
    public let entries: [Entry]
    /// The floats of the vector.
    public let count: Int
    /// The floats of a block, but for the last one: 256 KiB, so that a block's gradient, weights and state stay in the
    /// second-level cache while it is updated.
    public static let blockSize = 1 << 16

    /// - Parameters:
    ///   - parameters: those that are trained.
    ///   - heads: the names of those that are of a task's head.
    public init(_ parameters: [Parameter], heads: Set<String> = []) {
        var entries: [Entry] = []
        var next = 0
        for parameter in parameters.sorted(by: { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }) {
            let size = parameter.shape.reduce(1, *)
            entries.append(
                Entry(
                    parameter: parameter, range: next..<next + size,
                    decays: parameter.shape.count > 1 && !parameter.name.contains("bias"),
                    isOfHead: heads.contains(parameter.name)))
            next += size
        }
        self.entries = entries
        count = next
    }

    /// How many blocks there are.
    public var blockCount: Int { (count + Self.blockSize - 1) / Self.blockSize }

    /// The floats of a run of blocks.
    public func floats(of blocks: Range<Int>) -> Range<Int> {
        min(count, blocks.lowerBound * Self.blockSize)..<min(count, blocks.upperBound * Self.blockSize)
    }

    /// The blocks that a rank owns, as many as any other or one fewer.
    public func blocks(of rank: Rank, of ranks: Int) -> Range<Int> {
        rank.index * blockCount / ranks..<(rank.index + 1) * blockCount / ranks
    }

    /// The entry of that name.
    public func entry(_ name: String) -> Entry? { entries.first { $0.parameter.name == name } }

    /// The places among ``entries`` of those that have floats in a range.
    func entries(in range: Range<Int>) -> Range<Int> {
        if range.isEmpty { return 0..<0 }
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].range.upperBound > range.lowerBound { high = middle } else { low = middle + 1 }
        }
        var end = low
        while end < entries.count, entries[end].range.lowerBound < range.upperBound { end += 1 }
        return low..<end
    }
}
