// The gradients of a model's parameters over one rank's tiles of a step, as parts of the fixed tree.

import Matrices
import Tiles

/// Some floats of a parameter whose gradient is one sum over the tiles of a step.
///
/// A parameter's gradient is the sum of its slots': a fused projection has several over different floats; where layers
/// share a parameter each has one over the same floats, and so has a language model's head whose decoder is the word
/// table. Slots over the same floats are added in their order, each a whole sum of its own.
public struct GradientSlot: Sendable, Hashable {
    /// The parameter that the floats belong to.
    public let parameter: Parameter
    /// Which of its floats, in row-major order.
    public let floats: Range<Int>
    /// nil: tiles contribute to all floats. Else the floats of a row, and tiles contribute to the rows that their
    /// tokens read: a table of embeddings.
    public let rowWidth: Int?

    /// - Parameters:
    ///   - parameter: the one that the floats belong to.
    ///   - floats: which of its floats, in row-major order.
    ///   - rowWidth: the floats of a row where only rows occur that tokens read.
    public init(parameter: Parameter, floats: Range<Int>, rowWidth: Int? = nil) {
        (self.parameter, self.floats, self.rowWidth) = (parameter, floats, rowWidth)
    }
}

/// Notes the slots of a model while its layers are made, in the order in which they come to their parameters.
final class GradientSlots {
    private(set) var slots: [GradientSlot] = []

    /// Adds a slot.
    /// - Returns: its number.
    func add(_ slot: GradientSlot) -> Int {
        slots.append(slot)
        return slots.count - 1
    }

    /// Adds the slots of a layer that is used once more.
    /// - Returns: by how much their numbers are greater.
    func add(again range: Range<Int>) -> Int {
        defer { slots += Array(slots[range]) }
        return slots.count - range.lowerBound
    }
}

/// The tiles of a batch among those of a whole step, over which gradients sum.
public struct StepTiles: Sendable, Hashable {
    /// The step's number of the batch's first tile; the others follow.
    public let first: Int
    /// The tiles of the step.
    public let count: Int

    /// - Precondition: `first` lies in the step.
    public init(first: Int, count: Int) {
        precondition(first >= 0 && first <= count, "a batch lies in its step")
        (self.first, self.count) = (first, count)
    }
}

/// The sum over the tiles below a node of the fixed tree over a step's tiles.
public struct GradientPart {
    /// What it covers: a maximal subtree of this rank's tiles.
    public let node: TreeNode
    /// The rows that occur below the node, ascending; nil: all floats of the slot. A row that is missing here is taken
    /// from the other side of a merge as it is.
    public let rows: [Int32]?
    /// The slot's floats, or those of `rows`, one row after the other, and perhaps more that nothing is in.
    public let values: AlignedBuffer
    /// How many floats there are.
    public let count: Int

    /// - Parameters:
    ///   - node: what the sum covers.
    ///   - rows: the rows that occur below it; nil: all floats.
    ///   - values: at least `count` floats.
    ///   - count: how many of them there are.
    public init(node: TreeNode, rows: [Int32]? = nil, values: AlignedBuffer, count: Int) {
        precondition(values.count >= count, "a part has its floats")
        (self.node, self.rows, self.values, self.count) = (node, rows, values, count)
    }
}

/// One rank's gradients of a model over some of a step's tiles.
///
/// A leaf is one tile's sum over its rows, ascending; leaves merge on the fixed tree over the step's tiles, left before
/// right, a tile that contributes nothing being skipped. What is here reaches as far up as this rank's tiles do:
/// whoever has the parts of all ranks merges on.
public final class Gradients {
    /// Those of the model, in the order in which those over the same floats are added.
    public let slots: [GradientSlot]
    private let wanted: [Bool]
    private var parts: [[GradientPart]]

    /// - Parameters:
    ///   - slots: those of an encoder, or of a head.
    ///   - frozen: names of parameters whose gradients nobody wants.
    public init(_ slots: [GradientSlot], frozen: Set<String> = []) {
        self.slots = slots
        wanted = slots.map { !frozen.contains($0.parameter.name) }
        parts = slots.map { _ in [] }
    }

    /// Gives the parts of a slot, from left to right, and keeps them no longer.
    public func takeParts(of slot: Int) -> [GradientPart] {
        defer { parts[slot] = [] }
        return parts[slot]
    }

    /// Whether anybody wants a slot's gradient.
    func wants(_ slot: Int?) -> Bool { slot.map { wanted[$0] } ?? false }

    /// Whether anybody wants the gradient of some slot before that one.
    func wantsAny(below slot: Int) -> Bool { wanted[..<slot].contains(true) }

    /// Puts the parts of a slot in.
    func put(_ new: [GradientPart], in slot: Int) { parts[slot] = new }
}
