// Regular expressions of tokenizer files.

/// A regular expression: Oniguruma's syntax and semantics, as far as tokenizers use them.
struct RegularExpression: Sendable {
    private let program: PatternProgram
    /// Whether it can match without a scalar.
    let matchesEmpty: Bool

    init(_ text: String) throws(PatternParser.Refusal) {
        let pattern = try PatternParser.parse(text)
        program = try PatternProgram(pattern)
        matchesEmpty = pattern.matchesEmpty
    }

    /// What matches `literal` and nothing else.
    init(literal: String) throws(PatternParser.Refusal) {
        let sets = literal.unicodeScalars.map { ScalarSet([$0.value...$0.value]) }
        program = try PatternProgram(literal: sets)
        matchesEmpty = sets.isEmpty
    }

    /// All matches, leftmost first, each behind the one before; an empty one not right behind another match.
    ///
    /// Time is linear in the text, the factor depends on the pattern.
    func matches(in scalars: Slice<UnsafeBufferPointer<UInt32>>) -> [Range<Int>] {
        var matcher = PatternMatcher(program, PatternText(scalars))
        var matches: [Range<Int>] = []
        var position = 0
        while let match = matcher.search(from: position) {
            if match.isEmpty, match.lowerBound == matches.last?.upperBound {
                position = match.upperBound + 1
            } else {
                matches.append(match)
                position = match.upperBound
            }
        }
        return matches
    }
}
