// Where the vocabulary of a folder's tokenizer comes from.

import Files

/// A vocabulary, and what came with it.
struct VocabularySource {
    /// The file, for messages.
    let path: String
    /// The whole `tokenizer.json`; empty where there is none.
    let json: JSON
    /// Tokens and their ids, or of Unigram pairs of tokens and scores.
    let vocabulary: JSON
    let merges: JSON?
    /// The character map of sentencepiece, in base 64.
    let characters: JSON?
    /// Whether the vocabulary is that of a sentencepiece model, in its order.
    var isSentencepiece = false
    /// The number of the unknown piece, as such a model has it.
    var unknownId: Int?
    /// Pieces of such a model that are found in the text as it stands, as entries of added tokens.
    var added: [JSON] = []

    init(folder: String, _ kind: TokenizerClass?, _ settings: TokenizerSettings) throws(FileError) {
        let file = folder + "/tokenizer.json"
        let list = folder + "/vocab.txt"
        // Its class reads no other file.
        if settings.className == "EsmTokenizer", FileBytes.exists(list) || !FileBytes.exists(file) {
            self = .init(path: list, whole: try ESMVocabulary(path: list).json)
            return
        }
        if let name = settings.className, Self.needsCode.contains(name) {
            throw FileError(
                .malformed, path: folder + "/tokenizer_config.json",
                "names the tokenizer \(name), whose splitting of words is code of its own and not supported; give token ids instead (--input-format ids)"
            )
        }
        if FileBytes.exists(file) {
            self = .init(path: file, whole: try JSON.load(path: file))
            return
        }
        guard let kind else { throw Self.missing(folder, settings) }
        switch kind.files {
        case .list:
            let path = folder + "/vocab.txt"
            guard FileBytes.exists(path) else { throw Self.missing(folder, settings) }
            var ids = JSONObject()
            for (id, line) in try Self.lines(path).enumerated() {
                var token = line
                while token.last?.isWhitespace == true { token.removeLast() }
                ids.set(token, .integer(id))
            }
            self = .init(path: path, vocabulary: .object(ids), merges: nil)
        case .merges:
            let path = folder + "/vocab.json"
            let mergesPath = folder + "/merges.txt"
            guard FileBytes.exists(path), FileBytes.exists(mergesPath) else { throw Self.missing(folder, settings) }
            let merges = try Self.lines(mergesPath).filter { !$0.isEmpty && !$0.hasPrefix("#version") }
            self = .init(
                path: path, vocabulary: try JSON.load(path: path), merges: .array(merges.map { .string($0) }))
        case .sentencepiece(let name):
            guard let path = [name, "tokenizer.model"].map({ folder + "/" + $0 }).first(where: FileBytes.exists) else {
                throw Self.missing(folder, settings)
            }
            let model = try SentencepieceModel(path: path)
            guard model.isUnigram else {
                throw FileError(
                    .malformed, path: path,
                    "is a sentencepiece model of merges (BPE), and a \(kind.names[0]) has one of unigrams; name the right tokenizer_class"
                )
            }
            self = .init(path: path, model)
        }
    }

    private init(path: String, _ model: SentencepieceModel) {
        self.path = path
        json = [:]
        vocabulary = .array(model.pieces.map { [.string($0.text), .number(Double($0.score))] })
        merges = nil
        characters = model.characters.isEmpty ? nil : .string(Base64.encoded(model.characters))
        isSentencepiece = true
        unknownId = model.unknownId
        added = model.pieces.filter { $0.kind == .control || $0.kind == .userDefined }.map { piece in
            [
                "content": .string(piece.text), "special": .bool(piece.kind == .control), "normalized": false,
            ]
        }
    }

    private init(path: String, whole json: JSON) {
        self.path = path
        self.json = json
        vocabulary = json["model"]?["vocab"] ?? .null
        merges = json["model"]?["merges"]
        characters = Self.characters(json["normalizer"])
    }

    private init(path: String, vocabulary: JSON, merges: JSON?) {
        self.path = path
        json = [:]
        self.vocabulary = vocabulary
        self.merges = merges
        characters = nil
    }

    /// Classes of transformers that split words by code of their own.
    private static let needsCode: Set<String> = [
        "BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "CanineTokenizer", "RoCBertTokenizer",
        "BioGptTokenizer", "XLMTokenizer", "FlaubertTokenizer", "LukeTokenizer", "TapasTokenizer",
    ]

    private static func missing(_ folder: String, _ settings: TokenizerSettings) -> FileError {
        FileError(
            .missing, path: folder + "/tokenizer.json",
            "no such file, nor a vocabulary that \(settings.className.map { "a \($0)" } ?? "a tokenizer of no named class") is built from; save the model's fast tokenizer there (transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…))"
        )
    }

    /// The lines of a text file, the last end of line left out.
    private static func lines(_ path: String) throws(FileError) -> [String] {
        let bytes = try FileBytes.read(path: path)
        if let offset = UTF8Validation.firstInvalidByte(in: bytes[...]) {
            throw FileError(.malformed, path: path, "byte \(offset) is not UTF-8; fetch the file again")
        }
        var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            String(decoding: line.last == UInt8(ascii: "\r") ? line.dropLast() : line, as: UTF8.self)
        }
        if lines.last?.isEmpty == true { lines.removeLast() }
        return lines
    }

    /// The character map that a normalizer holds, itself or among others.
    private static func characters(_ normalizer: JSON?) -> JSON? {
        let steps = normalizer?["normalizers"]?.array ?? normalizer.map { [$0] } ?? []
        return steps.first { $0["type"]?.string == "Precompiled" }?["precompiled_charsmap"]
    }
}
