// Tokenizers, good ones with hostile texts and hostile ones.

import Files
import Tokenization

/// Encodes a text and checks what every encoding promises.
private func encode(_ text: String, _ tokenizer: Tokenizer) {
    let length = text.unicodeScalars.count
    func checked(_ encoding: Encoding, _ name: String) {
        let count = encoding.ids.count
        check(
            encoding.offsets.count == count && encoding.typeIds.count == count
                && encoding.specialTokensMask.count == count
                && encoding.words.count == count && encoding.sequences.count == count,
            "\(name): lists of several lengths")
        check(encoding.ids.allSatisfy { (0...tokenizer.largestId).contains($0) }, "\(name): an id beyond the largest")
        check(
            encoding.offsets.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= length },
            "\(name): offsets outside of the text")
    }
    let whole = tokenizer.encode(text)
    checked(whole, "the text")
    checked(tokenizer.encode(text, addSpecialTokens: false), "the text without special tokens")
    checked(tokenizer.encode(text, pair: text), "the text twice")
    check(tokenizer.tokenCount(text) == whole.ids.count, "tokenCount and the tokens differ")
}

private func decode(_ text: String, _ tokenizer: Tokenizer, _ json: JSON) {
    guard let decoder = try? TokenDecoder(json: json, path: "tokenizer.json") else { return }
    _ = decoder.text(tokenizer.encode(text).ids.compactMap { tokenizer.token(of: $0) })
}

func fuzzTokenizer(_ bytes: [UInt8]) {
    let parts = parts(bytes, 2)
    guard let json = try? JSON.parse(parts[0], path: "tokenizer.json"),
        let tokenizer = try? Tokenizer(json: json, path: "tokenizer.json")
    else {
        return
    }
    // What a text may grow by in normalisation is bounded, and so is a text here.
    for text in [
        String(decoding: parts[1].prefix(256), as: UTF8.self), "",
        "Hello, wörld 12 é\u{301}ﬁ 中文 \u{1F600}\u{200D}\u{1F600}\n a",
    ] {
        encode(text, tokenizer)
        decode(text, tokenizer, json)
    }
    for id in [0, 1, tokenizer.largestId] { _ = tokenizer.token(of: id).map { tokenizer.id(of: $0) } }
}

func fuzzText(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let tokenizers = FixedTokenizers.all
    guard !tokenizers.isEmpty else { return }
    let (json, tokenizer) = tokenizers[Int(first) % tokenizers.count]
    // Bytes that are no UTF-8 become replacement characters: what a reader of documents would refuse.
    let text = String(decoding: bytes.dropFirst(), as: UTF8.self)
    encode(text, tokenizer)
    decode(text, tokenizer, json)
}

func fuzzPattern(_ bytes: [UInt8]) {
    let parts = parts(bytes, 2)
    let pattern = JSON.quoted(String(decoding: parts[0], as: UTF8.self))
    let description = """
        {"normalizer": {"type": "Replace", "pattern": {"Regex": \(pattern)}, "content": "x"},
         "pre_tokenizer": {"type": "Split", "pattern": {"Regex": \(pattern)}, "behavior": "MergedWithPrevious", "invert": false},
         "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "x": 1}, "unk_token": "[UNK]"}}
        """
    // A pattern that matches nothing is refused for Replace alone.
    let alone = description.split(separator: "\n").dropFirst().joined(separator: "\n")
    for text in [description, "{" + alone] {
        guard let json = try? JSON.parse(Array(text.utf8), path: "tokenizer.json"),
            let tokenizer = try? Tokenizer(json: json, path: "tokenizer.json")
        else { continue }
        for text in [parts[1], parts[0]] { encode(String(decoding: text, as: UTF8.self), tokenizer) }
    }
}

func fuzzTokenizerSettings(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    let names = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"]
    for (name, part) in zip(names, parts(bytes, 4)) where !part.isEmpty { folder.write(name, part) }
    folder.write("config.json", Array(#"{"model_type": "bert"}"#.utf8))
    guard let tokenizer = try? Tokenizer.load(folder: folder.path) else { return }
    for text in ["", "Hello, [MASK] wörld 12 é\u{301} 中文 <s> a"] { encode(text, tokenizer) }
}

func fuzzPieces(_ bytes: [UInt8]) {
    for (type, name) in [("xlm-roberta", "sentencepiece.bpe"), ("albert", "spiece"), ("deberta-v2", "spm")] {
        guard var folder = ScratchFolder.make() else { return }
        folder.write(name + ".model", bytes)
        folder.write("config.json", Array(#"{"model_type": "\#(type)"}"#.utf8))
        guard let tokenizer = try? Tokenizer.load(folder: folder.path) else { continue }
        for text in ["", "The river runs cold, Ａé 中文 \u{1F600}\n a"] { encode(text, tokenizer) }
    }
}

func fuzzVocabulary(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    let parts = parts(bytes, 2)
    folder.write("vocab.txt", parts[0])
    folder.write("config.json", Array(#"{"model_type": "esm"}"#.utf8))
    guard let tokenizer = try? Tokenizer.load(folder: folder.path) else { return }
    for text in [parts[1], parts[0]] { encode(String(decoding: text, as: UTF8.self), tokenizer) }
}

/// A tokenizer of each kind, as small as they come.
private enum FixedTokenizers {
    static let all: [(JSON, Tokenizer)] = descriptions.compactMap { text in
        guard let json = try? JSON.parse(Array(text.utf8), path: "tokenizer.json") else { return nil }
        guard let tokenizer = try? Tokenizer(json: json, path: "tokenizer.json") else { return nil }
        return (json, tokenizer)
    }

    /// How many there are, for the test that all of them can be read.
    static var count: Int { descriptions.count }

    private static let added = """
        "added_tokens": [
          {"id": 0, "content": "[UNK]", "special": true}, {"id": 1, "content": "[CLS]", "special": true, "lstrip": true, "rstrip": true},
          {"id": 2, "content": "[SEP]", "special": true, "single_word": true}, {"id": 90, "content": "héllo", "normalized": true}]
        """
    private static let template = """
        "post_processor": {"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
          "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
          "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}}
        """
    /// Every byte as GPT-2 spells it, and a few merges.
    private static let byteVocabulary: String = {
        var next: UInt32 = 0x100
        let alphabet = (UInt32(0)..<256).map { byte -> String in
            var scalar = byte
            if !(0x21...0x7E ~= byte || 0xA1...0xAC ~= byte || 0xAE...0xFF ~= byte) {
                scalar = next
                next += 1
            }
            return Unicode.Scalar(scalar).map { String(Character($0)) } ?? ""
        }
        let tokens = alphabet + ["he", "ll", "hell", "Ġhe", "Ã©"]
        return "{" + tokens.enumerated().map { JSON.quoted($1) + ":\($0 + 3)" }.joined(separator: ",") + "}"
    }()

    private static let descriptions = [
        """
        {\(added), \(template), "normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"},
         "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##a": 4, "e": 5, "##e": 6,
           "hello": 7, "##ll": 8, "中": 9, "!": 10, "##i̇": 11, "i": 12, "##̇": 13, "1": 14, "##1": 15}},
         "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}}
        """,
        """
        {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true},
         "model": {"type": "BPE", "vocab": \(byteVocabulary), "merges": ["h e", "l l", "he ll", ["Ġ", "he"], ["Ã", "©"]]},
         "post_processor": {"type": "RobertaProcessing", "cls": ["Ā", 3], "sep": ["ā", 4], "trim_offsets": true, "add_prefix_space": true},
         "decoder": {"type": "ByteLevel"}}
        """,
        """
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
         "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
           "vocab": {"<unk>": 0, "▁": 1, "a": 2, "▁a": 3, "aa": 4, "<0xC3>": 5, "<0xA9>": 6, "b": 7}, "merges": ["▁ a", "a a"]},
         "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
           {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}
        """,
        """
        {\(added), \(template), "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"},
           {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
         "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
         "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
           "vocab": [["<unk>", 0], ["[CLS]", 0], ["[SEP]", 0], ["▁", -2.5], ["a", -3.25], ["aa", -4.1234567], ["▁a", -3.5], ["aaa", -6], ["é", -7]]},
         "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}}
        """,
        """
        {\(added), "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": true}]},
         "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Contiguous"},
           {"type": "Digits", "individual_digits": true}, {"type": "CharDelimiterSplit", "delimiter": "-"}]},
         "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "hello": 1, "1": 2}}}
        """,
        #"""
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
           "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
           "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
         "model": {"type": "BPE", "ignore_merges": true, "end_of_word_suffix": "", "vocab": \#(byteVocabulary), "merges": ["h e", "l l", "he ll"]},
         "post_processor": {"type": "ByteLevel", "trim_offsets": true, "add_prefix_space": false}, "decoder": {"type": "ByteLevel"}}
        """#,
        """
        {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "WhitespaceSplit"},
         "model": {"type": "BPE", "unk_token": "<unk>", "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
           "vocab": {"<unk>": 0, "a": 1, "##a": 2, "##a</w>": 3, "a</w>": 4, "aa": 5}, "merges": [["a", "##a"]]},
         "decoder": {"type": "BPEDecoder", "suffix": "</w>"}}
        """,
    ]
}

extension FuzzTarget {
    /// Whether all of the tokenizers that texts are tried on can be read.
    public static var hasAllTokenizers: Bool { FixedTokenizers.all.count == FixedTokenizers.count }
}
