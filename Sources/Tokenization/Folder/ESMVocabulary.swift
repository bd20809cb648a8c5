// The tokenizer of ESM, whose published models have a list of tokens and nothing else.

import Files

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
        var ids = JSONObject()
        for (id, token) in tokens.enumerated() where !token.isEmpty { ids.set(token, .integer(id)) }
        let added = ids.members.map { token -> JSON in
            [
                "id": token.value, "content": .string(token.key), "special": .bool(Self.special.contains(token.key)),
                "normalized": false,
            ]
        }
        func around(_ token: String) -> JSON { ["SpecialToken": ["id": .string(token), "type_id": 0]] }
        func text(_ name: String) -> JSON { ["Sequence": ["id": .string(name), "type_id": 0]] }
        func named(_ token: String) -> JSON {
            ["id": .string(token), "ids": [ids[token] ?? .null], "tokens": [.string(token)]]
        }
        return [
            "added_tokens": .array(added),
            // What Python calls whitespace: Unicode's, and four separators among the controls.
            "pre_tokenizer": [
                "type": "Split", "pattern": ["Regex": #"[\s\x1c-\x1f]+"#], "behavior": "Removed", "invert": false,
            ],
            "model": ["type": "WordLevel", "vocab": .object(ids), "unk_token": "<unk>"],
            "post_processor": [
                "type": "TemplateProcessing",
                "single": [around("<cls>"), text("A"), around("<eos>")],
                "pair": [around("<cls>"), text("A"), around("<eos>"), text("B"), around("<eos>")],
                "special_tokens": ["<cls>": named("<cls>"), "<eos>": named("<eos>")],
            ],
        ]
    }
}
