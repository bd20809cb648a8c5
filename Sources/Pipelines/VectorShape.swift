// What becomes of pooled states: the modules of a model's folder, and what was asked for instead.

import Checkpoints
import Files
import RingAttention
import Transformers

/// How vectors leave a model: through its head, cut, and divided by their norms.
package struct VectorShape: Sendable {
    let head: VectorHead
    /// How many values are kept; nil: all.
    let dimensions: Int?
    /// Whether vectors are divided by their norms before they are cut, and behind.
    private let normalizes: (before: Bool, behind: Bool)

    /// - Parameters:
    ///   - head: what the model's folder does with states.
    ///   - saved: how many values the folder's files keep, of vectors that are divided by their norms already.
    ///   - dimensions: how many are asked for, of vectors that are divided by their norms behind.
    ///   - normalizes: whether they are divided by their norms in the end; nil: where the folder does.
    init(_ head: VectorHead, saved: Int?, dimensions: Int? = nil, normalizes: Bool? = nil) {
        self.head = head
        self.dimensions = dimensions ?? saved.map { min($0, head.width) }
        let isCutLast = dimensions == nil && normalizes == nil
        self.normalizes = (
            isCutLast && head.normalizes, !isCutLast && (normalizes ?? head.normalizes)
        )
    }

    /// Values of a vector.
    package var width: Int { dimensions ?? head.width }

    func vector(_ pooled: [Float]) -> [Float] {
        var vector = head.vector(pooled)
        if normalizes.before { vector = normalized(vector) }
        if let dimensions { vector = Array(vector.prefix(dimensions)) }
        return normalizes.behind ? normalized(vector) : vector
    }
}
