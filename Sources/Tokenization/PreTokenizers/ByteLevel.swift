// Bytes instead of characters, as GPT-2 has them.

import Files

/// The pre-tokenizer ByteLevel: splits as GPT-2 does, then spells words in bytes.
struct ByteLevel: Sendable {
    private let addsPrefixSpace: Bool
    private let splits: Bool

    private static let pattern = try? RegularExpression(
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#)

    init(_ component: Component) throws(FileError) {
        addsPrefixSpace = try component.bool("add_prefix_space", default: true)
        splits = try component.bool("use_regex", default: true)
    }

    func apply(to words: inout Words) {
        if addsPrefixSpace {
            words.rewrite { word, text, result in
                if text.scalars[word.lowerBound] != 0x20 { result.append(0x20, origin: text.origins[word.lowerBound]) }
                result.append(word, of: text)
            }
        }
        if splits, let pattern = Self.pattern { words.split(at: pattern, .isolated, isInverted: false) }
        words.rewrite { ByteAlphabet.append($0, of: $1, to: &$2) }
    }
}
