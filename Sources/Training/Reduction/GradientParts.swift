// What a rank has of the gradients of a step: the sums over the maximal subtrees of its tiles.

import Matrices
import Tiles
import Transformers

/// Some floats of a parameter whose gradient is one sum over the tiles of a step. Slots over the same floats are added in
/// their order.
public struct GradientSlot: Sendable {
    /// The parameter.
    public let parameter: Parameter
    /// Which of its floats, in row-major order.
    public let floats: Range<Int>
    /// nil: tiles add to all floats. Else the floats of a row, and tiles add to some rows.
    public let rowWidth: Int?

    /// A slot of some floats of a parameter.
    public init(parameter: Parameter, floats: Range<Int>, rowWidth: Int? = nil) {
        self.parameter = parameter
        self.floats = floats
        self.rowWidth = rowWidth
    }
}

/// The sum of a slot over the tiles below a node of the fixed tree over a step's tiles.
public struct GradientPart {
    /// What it covers.
    public let node: TreeNode
    /// The rows that are there, ascending; nil: all floats of the slot.
    public let rows: [Int32]?
    /// The slot's floats, or those of `rows`, and perhaps more that nothing is in.
    public let values: AlignedBuffer
    /// How many floats there are.
    public let count: Int

    /// The sum of a slot below a node.
    public init(node: TreeNode, rows: [Int32]?, values: AlignedBuffer, count: Int) {
        self.node = node
        self.rows = rows
        self.values = values
        self.count = count
    }
}
