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
        let text = NormalizedText(text)
        guard text.count > 0 else { return [] }
        var words = [0 ..< text.count]
        preTokenizer?.apply(to: &words, of: text)
        return words.map { NormalizedText.string(text.scalars[$0]) }
    }
}
