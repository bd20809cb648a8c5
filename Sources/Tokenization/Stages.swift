// The results of single stages, for tests that hold each against its reference.

extension Tokenizer {
    /// `text` after the normalizer, added tokens not looked for.
    package func normalized(_ text: String) -> String {
        var normalized = NormalizedText(text)
        normalizer?.apply(to: &normalized)
        return NormalizedText.string(normalized.scalars)
    }

    /// The words that the pre-tokenizer makes of `text`, which is not normalised first.
    package func words(of text: String) -> [String] {
        var words = Words(NormalizedText(text))
        preTokenizer?.apply(to: &words)
        return words.ranges.map { NormalizedText.string(words.text.scalars[$0]) }
    }
}
