// The fixed tree on which everything that sums over tokens is merged, whoever computed the parts.

/// A node of the fixed binary tree over the tiles of a sequence: it covers the tiles
/// `index · 2^level ..< (index + 1) · 2^level`.
public struct TreeNode: Hashable, Sendable {
    /// The height above the leaves, which are at level 0.
    public let level: Int
    /// The place among the nodes of its level, from 0 on the left.
    public let index: Int

    /// The node at a place of a level.
    public init(level: Int, index: Int) {
        self.level = level
        self.index = index
    }

    /// The leaf of one tile.
    @inlinable public init(tile: Int) { self.init(level: 0, index: tile) }

    /// The tiles that the node covers, some of which may lie beyond the end of the sequence.
    @inlinable public var tiles: Range<Int> { index << level..<(index + 1) << level }
    /// The node one level up that covers this one and its sibling.
    @inlinable public var parent: TreeNode { TreeNode(level: level + 1, index: index >> 1) }
    /// The other node below the same parent.
    @inlinable public var sibling: TreeNode { TreeNode(level: level, index: index ^ 1) }
    /// Whether it is the left one of the two below its parent: its tiles come before its sibling's.
    @inlinable public var isLeft: Bool { index & 1 == 0 }

    /// The level at which a tree over some tiles has its root.
    @inlinable static func rootLevel(over tiles: Runs) -> Int {
        var level = 0
        if let last = tiles.ranges.last {
            while 1 << level < last.upperBound { level += 1 }
        }
        return level
    }

    /// The maximal subtrees that some of a tree's tiles fill: where a ``MergeForest`` over `tiles` stands once the
    /// parts of `arrived` are in, from left to right. Tiles of `arrived` that are not in `tiles` do not count.
    public static func maximal(in arrived: Runs, of tiles: Runs) -> [TreeNode] {
        let arrived = arrived.intersection(tiles)
        var nodes: [TreeNode] = []
        func visit(_ node: TreeNode) {
            guard arrived.intersects(node.tiles) else { return }
            if arrived.intersection(node.tiles) == tiles.intersection(node.tiles) {
                nodes.append(node)
            } else {
                // Some of the node's tiles are missing, so it is no leaf.
                visit(TreeNode(level: node.level - 1, index: 2 * node.index))
                visit(TreeNode(level: node.level - 1, index: 2 * node.index + 1))
            }
        }
        if !arrived.isEmpty { visit(TreeNode(level: rootLevel(over: tiles), index: 0)) }
        return nodes
    }
}

extension TreeNode {
    /// How many subtrees ``maximal(in:of:)`` gives, without listing them.
    public static func maximalCount(in arrived: Runs, of tiles: Runs) -> Int {
        let arrived = arrived.intersection(tiles)
        guard let first = arrived.ranges.first, let last = arrived.ranges.last else { return 0 }
        func count(_ node: TreeNode) -> Int {
            let here = arrived.count(in: node.tiles)
            if here == 0 { return 0 }
            if here == tiles.count(in: node.tiles) { return 1 }
            return count(TreeNode(level: node.level - 1, index: 2 * node.index))
                + count(TreeNode(level: node.level - 1, index: 2 * node.index + 1))
        }
        // Above the lowest node over all that has arrived, nodes only tell what it tells.
        let level = Int.bitWidth - (first.lowerBound ^ (last.upperBound - 1)).leadingZeroBitCount
        return count(TreeNode(level: level, index: first.lowerBound >> level))
    }
}

/// A partial result over some tokens that can absorb the partial result over later tokens.
///
/// Merging need not be associative in floating point: `MergeForest` always applies it along the same
/// tree, left before right, which is what makes the bits independent of who computed which part.
public protocol Mergeable {
    /// Absorbs the partial result of the tokens to the right of this one's.
    mutating func merge(right: Self)
}

/// The parts of one reduction that have arrived so far, merged as far up the fixed tree as they reach.
///
/// A node whose tiles contribute nothing is absent: it is skipped, its sibling moves up unchanged,
/// and nothing is added as zero. With the tiles of two runs at most about 2·log₂(tiles) parts wait.
public struct MergeForest<Value: Mergeable> {
    /// The tiles that contribute.
    public let tiles: Runs
    @usableFromInline let rootLevel: Int
    @usableFromInline var pending: [(node: TreeNode, value: Value)] = []

    /// - Parameter tiles: the tiles whose parts will arrive, each exactly once (alone or inside a subtree).
    @inlinable public init(tiles: Runs) {
        self.tiles = tiles
        rootLevel = TreeNode.rootLevel(over: tiles)
    }

    /// Adds the part of one tile.
    @inlinable public mutating func insert(_ value: Value, tile: Int) { insert(value, at: TreeNode(tile: tile)) }

    /// Adds the merged part of a whole subtree.
    @inlinable public mutating func insert(_ value: Value, at node: TreeNode) {
        var node = node
        var value = value
        while node.level < rootLevel {
            let sibling = node.sibling
            if tiles.intersects(sibling.tiles) {
                guard let place = pending.firstIndex(where: { $0.node == sibling }) else { break }
                var other = pending.remove(at: place).value
                if node.isLeft {
                    value.merge(right: other)
                } else {
                    other.merge(right: value)
                    value = other
                }
            }
            node = node.parent
        }
        pending.append((node, value))
    }

    /// How many parts wait for their siblings.
    @inlinable public var pendingCount: Int { pending.count }

    /// The parts that wait, with the nodes they stand for.
    @inlinable public var parts: [(node: TreeNode, value: Value)] { pending }

    /// The whole, once every part has arrived; nil before that, or where no tile contributes.
    @inlinable public var root: Value? {
        guard pending.count == 1, pending[0].node.level == rootLevel else { return nil }
        return pending[0].value
    }
}
