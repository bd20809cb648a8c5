// The types in which weights, keys and values are stored.

/// What the operands of products are stored in; sums, statistics and everything between products are float32.
public enum ElementKind: String, Sendable, Hashable, CaseIterable {
    case float32
    /// The upper half of a float32: its range, and 8 bits of precision.
    case bfloat16

    /// The bytes of one element.
    @inlinable public var bytes: Int { self == .float32 ? 4 : 2 }

    /// The places of four bytes that `terms` consecutive terms of a product take: a float each, or a pair of bfloat16,
    /// the last pair of an odd count filled up with zero.
    @inlinable public func slots(_ terms: Int) -> Int { self == .float32 ? terms : (terms + 1) / 2 }
}
