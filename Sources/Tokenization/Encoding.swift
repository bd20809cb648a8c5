// What a tokenizer makes of a text, or of a pair of texts.

/// The tokens of one input; all arrays have one entry a token.
public struct Encoding: Sendable, Equatable {
    /// The tokens by their number in the vocabulary (`input_ids`).
    public var ids: [Int32] = []
    /// Where each token comes from, in Unicode scalars of its own text as given; `0..<0` for special tokens that the
    /// tokenizer added. Several tokens may share a scalar, where one decomposes or lowercases into more.
    public var offsets: [Range<Int>] = []
    /// True for the special tokens that the tokenizer added, not for those found in the text.
    public var specialTokensMask: [Bool] = []
    /// Segment ids (`token_type_ids`).
    public var typeIds: [Int32] = []
    /// The word of its text that each token belongs to, counted from 0 in each text, as the pre-tokenizer splits it and
    /// with every added token found in the text a word of its own (`word_ids`); −1 for special tokens that the
    /// tokenizer added.
    public var words: [Int32] = []
    /// 0 for tokens of the first text, 1 for those of the second, −1 for special tokens that the tokenizer added.
    public var sequences: [Int8] = []

    /// An encoding without tokens.
    public init() {}

    /// How many tokens there are, special ones included.
    public var count: Int { ids.count }
}
