// Text to token ids with offsets, exactly as Hugging Face's `tokenizers` does from the same `tokenizer.json`.

import Checkpoints

/// A tokenizer read from `tokenizer.json`.
///
/// The stages are those of the file: added tokens are cut out, the rest is normalised, split into words, turned
/// into tokens, and special tokens are put around. `truncation` and `padding` in the file are ignored: what a text
/// says is never dropped in silence. A component that is not implemented is refused by its name.
public struct Tokenizer: Sendable {
    let normalizer: Normalizer?
    let preTokenizer: PreTokenizer?
    private let model: TokenModel
    private let postProcessor: PostProcessor
    /// Finds added tokens in the text as given.
    private let givenMatcher: AddedTokenMatcher
    /// Finds added tokens in normalised text.
    private let normalizedMatcher: AddedTokenMatcher
    private let addedIds: [ExactString: Int32]
    private let addedTokens: [Int32: String]

    /// All distinct tokens, added ones included.
    public let vocabularySize: Int
    /// The largest id that ``encode(_:addSpecialTokens:)`` can give; a model's embedding must have more rows.
    public let largestId: Int32
    /// Ids put before a sequence, as `[CLS]`.
    public let prefixIds: [Int32]
    /// Ids put behind a sequence, as `[SEP]`.
    public let suffixIds: [Int32]

    /// Reads the tokenizer of the model in `folder`.
    public static func load(folder: String) throws(FileError) -> Tokenizer {
        let path = folder + "/tokenizer.json"
        guard FileBytes.exists(path) else {
            throw FileError(
                .missing, path: path,
                "no such file; save the model's fast tokenizer there (transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…))")
        }
        return try Tokenizer(json: JSON.load(path: path), path: path)
    }

    /// Reads a tokenizer from the contents of a `tokenizer.json`; `path` names the file in errors.
    public init(json: JSON, path: String) throws(FileError) {
        func component(_ key: String) -> Component? {
            guard let value = json[key], !value.isNull else { return nil }
            return Component(json: value, place: key, path: path)
        }
        let root = Component(json: json, place: "tokenizer", path: path)
        guard let modelComponent = component("model") else { throw root.malformed("has no model") }
        model = try TokenModel(modelComponent)
        if let part = component("normalizer") { normalizer = try Normalizer(part) } else { normalizer = nil }
        if let part = component("pre_tokenizer") { preTokenizer = try PreTokenizer(part) } else { preTokenizer = nil }
        if let part = component("post_processor") { postProcessor = try PostProcessor(part) } else { postProcessor = PostProcessor() }

        let tokens = try Self.addedTokens(root, model.vocabulary)
        var given: [(AddedToken, [UInt32])] = []
        var normalized: [(AddedToken, [UInt32])] = []
        for token in tokens {
            var text = NormalizedText(token.content)
            if token.isNormalized {
                normalizer?.apply(to: &text)
                normalized.append((token, text.scalars))
            } else {
                given.append((token, text.scalars))
            }
        }
        givenMatcher = AddedTokenMatcher(given)
        normalizedMatcher = AddedTokenMatcher(normalized)
        addedIds = Dictionary(tokens.map { (ExactString($0.content), $0.id) }) { $1 }
        addedTokens = Dictionary(tokens.map { ($0.id, $0.content) }) { $1 }
        let vocabulary = model.vocabulary
        vocabularySize = vocabulary.count + addedIds.keys.count { vocabulary.id(of: $0.string) == nil }
        prefixIds = postProcessor.prefix.map(\.id)
        suffixIds = postProcessor.suffix.map(\.id)
        largestId = max(vocabulary.largestId, tokens.map(\.id).max() ?? -1, prefixIds.max() ?? -1, suffixIds.max() ?? -1)
    }

    /// The added tokens with the ids that they really have: that of the vocabulary for a token in it, otherwise the
    /// next free one, whatever the file says. Of the same content the last entry counts.
    private static func addedTokens(_ root: Component, _ vocabulary: Vocabulary) throws(FileError) -> [AddedToken] {
        guard let list = root.json["added_tokens"], !list.isNull else { return [] }
        var tokens: [AddedToken] = []
        var positions: [ExactString: Int] = [:]
        var next = Int32(vocabulary.count)
        for component in try root.elements("added_tokens") {
            var token = try AddedToken(component)
            guard !token.content.isEmpty else { continue }
            let key = ExactString(token.content)
            if let position = positions[key] {
                token.id = tokens[position].id
                tokens[position] = token
                continue
            }
            if let id = vocabulary.id(of: token.content) {
                token.id = id
            } else {
                token.id = next
                next += 1
            }
            positions[key] = tokens.count
            tokens.append(token)
        }
        return tokens
    }

    /// The id of a token by its exact content, or nil.
    public func id(of token: String) -> Int32? {
        addedIds[ExactString(token)] ?? model.vocabulary.id(of: token)
    }

    /// The content of the token with that id, or nil.
    public func token(of id: Int32) -> String? {
        addedTokens[id] ?? model.vocabulary.token(of: id)
    }

    /// How many special tokens are put around a single sequence.
    public var specialTokenCount: Int { prefixIds.count + suffixIds.count }

    /// The tokens of `text`, in time linear in it.
    ///
    /// - Parameter addSpecialTokens: whether ``prefixIds`` and ``suffixIds`` are put around.
    /// - Precondition: the text has fewer than 2³¹ scalars.
    public func encode(_ text: String, addSpecialTokens: Bool = true) -> Encoding {
        var encoding = Encoding()
        if addSpecialTokens {
            for token in postProcessor.prefix { encoding.append(token.id, 0 ..< 0, isSpecial: true, typeId: token.typeId) }
        }
        let given = NormalizedText(text)
        for segment in givenMatcher.segments(of: given.scalars) {
            if let id = segment.id {
                encoding.append(id, given.offsets(of: segment.range), isSpecial: false, typeId: postProcessor.typeId)
            } else {
                encodeText(given.slice(segment.range), into: &encoding)
            }
        }
        if addSpecialTokens {
            for token in postProcessor.suffix { encoding.append(token.id, 0 ..< 0, isSpecial: true, typeId: token.typeId) }
        }
        return encoding
    }

    /// The number of tokens that ``encode(_:addSpecialTokens:)`` gives.
    public func tokenCount(_ text: String, addSpecialTokens: Bool = true) -> Int {
        encode(text, addSpecialTokens: addSpecialTokens).count
    }

    /// Text without added tokens as given; normalised ones may still be in it.
    private func encodeText(_ given: NormalizedText, into encoding: inout Encoding) {
        var text = given
        normalizer?.apply(to: &text)
        for segment in normalizedMatcher.segments(of: text.scalars) {
            if let id = segment.id {
                encoding.append(id, text.offsets(of: segment.range), isSpecial: false, typeId: postProcessor.typeId)
                continue
            }
            var words = [segment.range]
            preTokenizer?.apply(to: &words, of: text)
            model.tokenize(words, of: text) { id, range in
                encoding.append(id, text.offsets(of: range), isSpecial: false, typeId: postProcessor.typeId)
            }
        }
    }
}
