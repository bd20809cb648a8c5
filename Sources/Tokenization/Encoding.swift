// What a tokenizer makes of a text.

/// The tokens of one sequence; all arrays have one entry a token.
public struct Encoding: Sendable, Equatable {
    public var ids: [Int32] = []
    /// Where each token comes from, in Unicode scalars of the text as given; `0..<0` for special tokens that the
    /// tokenizer added. Several tokens may share a scalar, where one decomposes or lowercases into more.
    public var offsets: [Range<Int>] = []
    /// True for the special tokens that the tokenizer added, not for those found in the text.
    public var specialTokensMask: [Bool] = []
    /// Segment ids (`token_type_ids`).
    public var typeIds: [Int32] = []

    public init() {}

    public var count: Int { ids.count }

    mutating func append(_ id: Int32, _ offsets: Range<Int>, isSpecial: Bool, typeId: Int32) {
        ids.append(id)
        self.offsets.append(offsets)
        specialTokensMask.append(isSpecial)
        typeIds.append(typeId)
    }
}
