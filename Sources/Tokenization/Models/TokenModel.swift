// The third stage of a tokenizer: from words to tokens of the vocabulary.

import Files

/// A model of `tokenizer.json`.
enum TokenModel: Sendable {
    case wordPiece(WordPiece)
    case bytePairEncoding(BytePairEncoding)
    case unigram(Unigram)
    case wordLevel(WordLevel)

    private static let supported = ["BPE", "Unigram", "WordLevel", "WordPiece"]

    /// - Parameter hasExactScores: see ``Unigram/init(_:hasExactScores:)``.
    init(_ component: Component, hasExactScores: Bool = false) throws(FileError) {
        switch try Self.type(of: component) {
        case "BPE": self = .bytePairEncoding(try BytePairEncoding(component))
        case "Unigram": self = .unigram(try Unigram(component, hasExactScores: hasExactScores))
        case "WordLevel": self = .wordLevel(try WordLevel(component))
        case "WordPiece": self = .wordPiece(try WordPiece(component))
        case let other: throw component.unsupported(other, supported: Self.supported)
        }
    }

    /// The type, which older files do not name: it follows from the members.
    private static func type(of component: Component) throws(FileError) -> String {
        let json = component.json
        if let type = json["type"] {
            guard let name = type.string else { throw component.malformed("has no type") }
            return name
        }
        if json["merges"] != nil { return "BPE" }
        if json["max_input_chars_per_word"] != nil { return "WordPiece" }
        if json["vocab"]?.array != nil { return "Unigram" }
        if json["vocab"] != nil, json["unk_token"] != nil { return "WordLevel" }
        throw component.unsupported("a model without a type", supported: supported)
    }

    var vocabulary: Vocabulary {
        switch self {
        case .wordPiece(let model): model.vocabulary
        case .bytePairEncoding(let model): model.vocabulary
        case .unigram(let model): model.vocabulary
        case .wordLevel(let model): model.vocabulary
        }
    }

    /// What pieces inside a word begin with in the vocabulary, or nil.
    var continuingSubwordPrefix: String? {
        let prefix: [UInt32] =
            switch self {
            case .wordPiece(let model): model.continuationPrefix
            case .bytePairEncoding(let model): model.continuationPrefix
            case .unigram, .wordLevel: []
            }
        return prefix.isEmpty ? nil : NormalizedText.string(prefix)
    }

    /// Whether a token stands for text that is not in the vocabulary, so that its string is the text's, not its own.
    func standsForText(_ id: Int32) -> Bool {
        if case .unigram(let model) = self { id == model.unknownId } else { false }
    }

    /// Calls `emit` with the id, the range in the words' text, and the word's number of each token.
    func tokenize(_ words: Words, _ emit: (Int32, Range<Int>, Int) -> Void) {
        words.text.scalars.withUnsafeBufferPointer { scalars in
            switch self {
            case .wordPiece(let model):
                var pieces = WordPiece.Pieces()
                for (number, word) in words.ranges.enumerated() {
                    model.tokenize(scalars, word, &pieces) { emit($0, $1, number) }
                }
            case .bytePairEncoding(let model):
                var merging = BytePairEncoding.Merging()
                for (number, word) in words.ranges.enumerated() {
                    model.tokenize(scalars, word, &merging) { emit($0, $1, number) }
                }
            case .unigram(let model):
                var lattice = Unigram.Lattice()
                for (number, word) in words.ranges.enumerated() {
                    model.tokenize(scalars, word, &lattice) { emit($0, $1, number) }
                }
            case .wordLevel(let model):
                for (number, word) in words.ranges.enumerated() { emit(model.token(scalars, word), word, number) }
            }
        }
    }
}
