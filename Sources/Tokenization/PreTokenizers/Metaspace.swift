// Spaces as visible characters, as sentencepiece has them.

import Files

/// The pre-tokenizer Metaspace: spaces become another character, which starts the words.
struct Metaspace: Sendable {
    private enum Prepending: String {
        /// Every word that does not start with the character gets it.
        case always
        /// Only one that starts the text.
        case first
        case never
    }

    private let replacement: UInt32
    private let prepending: Prepending
    private let splits: Bool

    init(_ component: Component) throws(FileError) {
        replacement = try component.scalar("replacement")
        let name = try component.string("prepend_scheme", default: Prepending.always.rawValue)
        guard var prepending = Prepending(rawValue: name) else {
            throw component.malformed("has the unknown prepend_scheme '\(name)'")
        }
        // The key of older files.
        if let adds = component.json["add_prefix_space"], !adds.isNull, try !component.bool("add_prefix_space") {
            guard component.json["prepend_scheme"] == nil || prepending == .never else {
                throw component.malformed("add_prefix_space and prepend_scheme contradict each other")
            }
            prepending = .never
        }
        self.prepending = prepending
        splits = if let split = component.json["split"], !split.isNull { try component.bool("split") } else { true }
    }

    func apply(to words: inout Words) {
        words.rewrite { word, text, result in
            let first = text.scalars[word.lowerBound]
            let origin = text.origins[word.lowerBound]
            let isMissing = first != replacement && first != 0x20
            if isMissing, prepending == .always || prepending == .first && origin == 0 {
                result.append(replacement, origin: origin)
            }
            for index in word {
                let scalar = text.scalars[index]
                result.append(scalar == 0x20 ? replacement : scalar, origin: text.origins[index])
            }
        }
        if splits { words.split(at: replacement, .mergedWithNext) }
    }
}
