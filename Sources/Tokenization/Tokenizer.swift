// Text to token ids with offsets, exactly as Hugging Face's `tokenizers` does from the same `tokenizer.json`.

import Files

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
    private let hasTypes: Bool
    private let addedIds: [ExactString: Int32]
    private let addedTokens: [Int32: String]

    /// Of a few stages in a row that each make more of what there is, a line of text would fill any memory.
    static let mostGrowth = 4096.0

    /// All distinct tokens, added ones included.
    public let vocabularySize: Int
    /// The largest id that ``encode(_:addSpecialTokens:)`` can give; a model's embedding must have more rows.
    public let largestId: Int32
    /// The largest type that a token gets, alone or in a pair; a model that has several needs more rows for them.
    public let largestTypeId: Int32
    /// Ids put before a sequence, as `[CLS]`.
    public let prefixIds: [Int32]
    /// Ids put behind a sequence, as `[SEP]`.
    public let suffixIds: [Int32]

    /// Reads the tokenizer of the model in `folder` as transformers 5 does: `tokenizer.json` or
    /// files of a vocabulary, under what `tokenizer_config.json` and the files beside it say.
    /// - Parameters:
    ///   - folder: the model's, as a path.
    ///   - lowercase: as in ``init(json:path:lowercase:)``.
    public static func load(folder: String, lowercase: Bool = false) throws(FileError) -> Tokenizer {
        let file = try TokenizerFile(folder: folder)
        return try Tokenizer(json: file.json, path: file.path, lowercase: lowercase, file.reading)
    }

    /// Whether the model in `folder` has a tokenizer that ``load(folder:lowercase:)`` would read.
    public static func exists(folder: String) -> Bool { TokenizerFile.exists(folder: folder) }

    /// Reads a tokenizer from the contents of a `tokenizer.json`.
    /// - Parameters:
    ///   - json: the contents.
    ///   - path: names the file in errors.
    ///   - lowercase: lowercase text before the file's own normalizer, unless that lowercases, as
    ///     sentence-transformers does for its `do_lower_case`. Text must not be lowercased by itself: what grows by it
    ///     has offsets of its own then.
    public init(json: JSON, path: String, lowercase: Bool = false) throws(FileError) {
        try self.init(json: json, path: path, lowercase: lowercase, Reading())
    }

    /// How the contents of a file are taken, where it is not as the file alone would be.
    struct Reading {
        /// Whether special tokens that stand in a text are text like any other.
        var splitsSpecialTokens = false
        /// Whether tokens have the types that the file's templates give them; otherwise all are of type 0.
        var hasTypes = true
        /// Whether scores are what is written, not what the reference implementation makes of that when it reads a file.
        var hasExactScores = false
    }

    init(json: JSON, path: String, lowercase: Bool, _ reading: Reading) throws(FileError) {
        let hasTypes = reading.hasTypes
        self.hasTypes = hasTypes
        func component(_ key: String) -> Component? {
            guard let value = json[key], !value.isNull else { return nil }
            return Component(json: value, place: key, path: path)
        }
        let root = Component(json: json, place: "tokenizer", path: path)
        guard let modelComponent = component("model") else { throw root.malformed("has no model") }
        model = try TokenModel(modelComponent, hasExactScores: reading.hasExactScores)
        var steps: Normalizer?
        if let part = component("normalizer") { steps = try Normalizer(part) }
        normalizer = lowercase ? Normalizer.lowercasing(steps) : steps
        if let part = component("pre_tokenizer") { preTokenizer = try PreTokenizer(part) } else { preTokenizer = nil }
        let growth = (normalizer?.growth ?? 1) * (preTokenizer?.growth ?? 1)
        guard growth <= Self.mostGrowth else {
            throw root.malformed(
                "its stages one after another could make a text more than \(Int(Self.mostGrowth)) times as long")
        }
        postProcessor = try PostProcessor(component("post_processor"))

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
        givenMatcher = AddedTokenMatcher(given, splitsSpecial: reading.splitsSpecialTokens)
        normalizedMatcher = AddedTokenMatcher(normalized, splitsSpecial: reading.splitsSpecialTokens)
        addedIds = Dictionary(tokens.map { (ExactString($0.content), $0.id) }) { $1 }
        addedTokens = Dictionary(tokens.map { ($0.id, $0.content) }) { $1 }
        let vocabulary = model.vocabulary
        vocabularySize = vocabulary.count + addedIds.keys.count { vocabulary.id(of: $0.string) == nil }
        let single = postProcessor.layout(texts: 1, addSpecialTokens: true)
        prefixIds = single.prefix.map(\.id)
        suffixIds = single.suffix.map(\.id)
        largestTypeId = hasTypes ? postProcessor.largestTypeId : 0
        largestId = max(vocabulary.largestId, tokens.map(\.id).max() ?? -1, postProcessor.largestId)
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

    /// What pieces inside a word begin with in the vocabulary, as `##`; nil where they bear no mark.
    public var continuingSubwordPrefix: String? { model.continuingSubwordPrefix }

    /// The tokens of a text.
    ///
    /// - Parameters:
    ///   - text: as it stands: it is normalised and split here.
    ///   - addSpecialTokens: whether ``prefixIds`` and ``suffixIds`` are put around.
    /// - Precondition: the text has fewer than 2³¹ scalars, normalised and, where the tokenizer spells bytes, spelled.
    public func encode(_ text: String, addSpecialTokens: Bool = true) -> Encoding {
        lay([tokens(of: text)], addSpecialTokens: addSpecialTokens)
    }

    /// The tokens of a pair of texts, as a question and a passage, with the special tokens that the file puts around
    /// and between them.
    ///
    /// - Parameters:
    ///   - first: the text of sequence 0, as the question.
    ///   - second: the text of sequence 1, as the passage.
    ///   - addSpecialTokens: whether special tokens are put around and between.
    /// - Precondition: each text has fewer than 2³¹ scalars, normalised and spelled as well.
    public func encode(_ first: String, pair second: String, addSpecialTokens: Bool = true) -> Encoding {
        lay([tokens(of: first), tokens(of: second)], addSpecialTokens: addSpecialTokens)
    }

    /// The number of tokens that ``encode(_:addSpecialTokens:)`` gives.
    public func tokenCount(_ text: String, addSpecialTokens: Bool = true) -> Int {
        tokens(of: text).count + (addSpecialTokens ? specialTokenCount : 0)
    }

    /// Texts with what stands around and between them.
    private func lay(_ texts: [TextTokens], addSpecialTokens: Bool) -> Encoding {
        let layout = postProcessor.layout(texts: texts.count, addSpecialTokens: addSpecialTokens)
        var encoding = Encoding()
        for part in layout.parts {
            switch part {
            case .special(let token):
                encoding.ids.append(token.id)
                encoding.offsets.append(0..<0)
                encoding.specialTokensMask.append(true)
                encoding.typeIds.append(hasTypes ? token.typeId : 0)
                encoding.words.append(-1)
                encoding.sequences.append(-1)
            case .text(let text, let typeId, let trimmings):
                var tokens = texts[text]
                for trimming in trimmings { tokens.trim(trimming) }
                encoding.ids += tokens.ids
                encoding.offsets += zip(tokens.starts, tokens.ends).lazy.map { Int($0)..<Int($1) }
                encoding.specialTokensMask += repeatElement(false, count: tokens.count)
                encoding.typeIds += repeatElement(hasTypes ? typeId : 0, count: tokens.count)
                encoding.words += tokens.words
                encoding.sequences += repeatElement(Int8(text), count: tokens.count)
            }
        }
        return encoding
    }

    /// The tokens of a text alone, in time linear in it.
    private func tokens(of text: String) -> TextTokens {
        var tokens = TextTokens()
        var word: Int32 = 0
        let given = NormalizedText(text)
        for segment in givenMatcher.segments(of: given.scalars) {
            if let id = segment.id {
                append(id, segment.range, of: given, word: word, to: &tokens)
                word += 1
            } else {
                encodeText(given.slice(segment.range), &word, into: &tokens)
            }
        }
        return tokens
    }

    /// Text without added tokens as given; normalised ones may still be in it.
    private func encodeText(_ given: NormalizedText, _ word: inout Int32, into tokens: inout TextTokens) {
        var text = given
        normalizer?.apply(to: &text)
        for segment in normalizedMatcher.segments(of: text.scalars) {
            if let id = segment.id {
                append(id, segment.range, of: text, word: word, to: &tokens)
                word += 1
                continue
            }
            var words = Words(text.slice(segment.range))
            preTokenizer?.apply(to: &words)
            model.tokenize(words) { id, range, number in
                tokens.append(id, words.text.offsets(of: range), word: word + Int32(number))
                if postProcessor.trims {
                    tokens.addMargins(
                        model.standsForText(id)
                            ? NormalizedText.margins(of: words.text.scalars[range]) : model.vocabulary.margins(of: id))
                }
            }
            word += Int32(words.ranges.count)
        }
    }

    /// Appends an added token found in the text.
    private func append(
        _ id: Int32, _ range: Range<Int>, of text: NormalizedText, word: Int32, to tokens: inout TextTokens
    ) {
        tokens.append(id, text.offsets(of: range), word: word)
        if postProcessor.trims {
            tokens.addMargins(NormalizedText.margins(of: text.scalars[range]))
        }
    }
}
