// The tokens of one text, before special tokens are put around them.

/// Tokens of one text; all arrays have one entry a token, except ``margins``.
struct TextTokens {
    private(set) var ids: [Int32] = []
    private(set) var words: [Int32] = []
    /// Offsets in the text as given.
    private(set) var starts: [Int32] = []
    private(set) var ends: [Int32] = []

    /// How many whitespace scalars a token's string begins and ends with.
    struct Margin {
        var token: Int
        var leading: Int32
        var trailing: Int32
    }
    /// The tokens that begin or end with whitespace, in order; kept only where a post-processor trims them.
    private(set) var margins: [Margin] = []

    var count: Int { ids.count }

    mutating func append(_ id: Int32, _ offsets: Range<Int32>, word: Int32) {
        ids.append(id)
        starts.append(offsets.lowerBound)
        ends.append(offsets.upperBound)
        words.append(word)
    }

    /// Notes that the last token's string begins or ends with whitespace.
    mutating func addMargins(_ size: (leading: Int32, trailing: Int32)) {
        if size.leading > 0 || size.trailing > 0 {
            margins.append(Margin(token: count - 1, leading: size.leading, trailing: size.trailing))
        }
    }

    /// Takes the whitespace at the ends of tokens out of their offsets.
    ///
    /// A single space in front of the first token, or of one that starts the text, stays where it may be one that the
    /// tokenizer put there. The reference implementation counts whitespace in the token and not in the text, so a
    /// second trimming takes it off once more.
    mutating func trim(_ trimming: PostProcessor.Trimming) {
        for margin in margins {
            let token = margin.token
            var leading = margin.leading
            if trimming.keepsPrefixSpace, leading == 1, starts[token] == 0 || token == 0 && trimming.startsEncoding {
                leading = 0
            }
            starts[token] = min(starts[token] + leading, ends[token])
            if ends[token] >= margin.trailing { ends[token] = max(ends[token] - margin.trailing, starts[token]) }
        }
    }
}
