// Which file of a model's folder holds its tokenizer, and what it says.

import Files

/// The tokenizer of a folder, in the form of a `tokenizer.json`.
///
/// ESM's published models have none: their tokenizer is a list of tokens, `vocab.txt`, for which ``json`` is what a
/// `tokenizer.json` would say.
struct TokenizerFile {
    let path: String
    let json: JSON

    init(folder: String) throws(FileError) {
        guard let path = Self.path(folder: folder) else {
            throw FileError(
                .missing, path: folder + "/tokenizer.json",
                "no such file; save the model's fast tokenizer there (transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…))"
            )
        }
        self.path = path
        json = path.hasSuffix(".json") ? try JSON.load(path: path) : try ESMVocabulary(path: path).json
    }

    /// The file, or nil where the folder has no tokenizer that can be read.
    static func path(folder: String) -> String? {
        let (file, list) = (folder + "/tokenizer.json", folder + "/vocab.txt")
        if FileBytes.exists(file) { return file }
        // Other families' lists say too little: how text is normalised and split stands elsewhere.
        let family = FileBytes.exists(list) ? try? JSON.load(path: folder + "/config.json")["model_type"]?.string : nil
        return family == "esm" ? list : nil
    }
}

/// The tokens of ESM (Lin et al. 2023), one a line: residues, what is like them, and special tokens.
///
/// As the EsmTokenizer of transformers reads them: every token is found in the text as it stands, and what lies between
/// tokens and whitespace is unknown, as one token. `<cls>` and `<eos>` stand around.
struct ESMVocabulary {
    /// By id.
    let tokens: [String]
    private let path: String

    init(path: String) throws(FileError) {
        let bytes = try FileBytes.read(path: path)
        if let offset = UTF8Validation.firstInvalidByte(in: bytes[...]) {
            throw FileError(.malformed, path: path, "byte \(offset) is not UTF-8; fetch the file again")
        }
        var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            String(decoding: line, as: UTF8.self).filter { !$0.isWhitespace }
        }
        if lines.last?.isEmpty == true { lines.removeLast() }
        tokens = lines
        self.path = path
        for name in Self.special where !lines.contains(name) {
            throw FileError(.malformed, path: path, "has no line '\(name)'; fetch the vocab.txt of an ESM model again")
        }
    }

    private static let special = ["<cls>", "<pad>", "<eos>", "<unk>", "<mask>"]

    var json: JSON {
        func object(_ members: KeyValuePairs<String, JSON>) -> JSON {
            var object = JSONObject()
            for (key, value) in members { object.set(key, value) }
            return .object(object)
        }
        var ids = JSONObject()
        for (id, token) in tokens.enumerated() where !token.isEmpty { ids.set(token, .integer(id)) }
        func id(_ token: String) -> JSON { ids[token] ?? .null }
        let added = ids.members.map { token in
            object([
                "id": token.value, "content": .string(token.key), "special": .bool(Self.special.contains(token.key)),
                "normalized": .bool(false),
            ])
        }
        func around(_ token: String) -> JSON {
            object(["SpecialToken": object(["id": .string(token), "type_id": .integer(0)])])
        }
        func text(_ name: String) -> JSON {
            object(["Sequence": object(["id": .string(name), "type_id": .integer(0)])])
        }
        func named(_ token: String) -> JSON {
            object(["id": .string(token), "ids": .array([id(token)]), "tokens": .array([.string(token)])])
        }
        return object([
            "added_tokens": .array(added),
            // What Python calls whitespace: Unicode's, and four separators among the controls.
            "pre_tokenizer": object([
                "type": .string("Split"), "pattern": object(["Regex": .string(#"[\s\x1c-\x1f]+"#)]),
                "behavior": .string("Removed"),
                "invert": .bool(false),
            ]),
            "model": object(["type": .string("WordLevel"), "vocab": .object(ids), "unk_token": .string("<unk>")]),
            "post_processor": object([
                "type": .string("TemplateProcessing"),
                "single": .array([around("<cls>"), text("A"), around("<eos>")]),
                "pair": .array([around("<cls>"), text("A"), around("<eos>"), text("B"), around("<eos>")]),
                "special_tokens": object(["<cls>": named("<cls>"), "<eos>": named("<eos>")]),
            ]),
        ])
    }
}
