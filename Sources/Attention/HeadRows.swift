// Rows of tokens with heads: where operations read their operands and write their results.

import Matrices

/// Rows of tokens, each with heads of some width.
///
/// Element (token t, head h, channel c) is at `base[t · tokenStride + h · headStride + c]`; tokens are a rank's own,
/// tile after tile in ascending order.
public struct HeadRows {
    /// Channel 0 of the first token and head.
    public let base: UnsafeMutablePointer<Float>
    /// The floats from one token to the next, of the same head.
    public let tokenStride: Int
    /// The floats from one head to the next, of the same token.
    public let headStride: Int
    /// What owns the memory: kept alive as long as the rows are.
    private let owner: AlignedBuffer?

    /// Rows in a buffer, the first one at `offset` floats from its start.
    public init(_ buffer: AlignedBuffer, offset: Int = 0, tokenStride: Int, headStride: Int) {
        base = buffer.pointer + offset
        self.tokenStride = tokenStride
        self.headStride = headStride
        owner = buffer
    }

    /// One row of one head.
    package func row(_ token: Int, _ head: Int) -> UnsafeMutablePointer<Float> {
        base + token * tokenStride + head * headStride
    }
}
