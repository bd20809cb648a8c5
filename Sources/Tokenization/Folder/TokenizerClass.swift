// What the tokenizer classes of transformers make of a vocabulary: their stages, as tokenizer.json would have them.

import Files

/// A class of transformers 5 whose instances are built anew from a vocabulary, whatever a `tokenizer.json` says of stages.
///
/// Version 4 took the stages of `tokenizer.json` and changed only some of their settings; for the files that were published
/// both come to the same.
struct TokenizerClass: Sendable {
    /// Its names without `Fast`, and those of classes that are it.
    let names: [String]
    /// How the vocabulary splits words.
    let model: Model
    /// The special tokens that it has where its files name no other, by `cls_token`, …
    let tokens: [String: String]
    /// Special tokens that take the white space before them along.
    var stripsLeft: Set<String> = []
    /// Whether the model is told which text of a pair a token is of.
    var hasTypes = false
    /// The files of its vocabulary where there is no `tokenizer.json`.
    let files: VocabularyFiles
    /// What comes before and behind the model.
    let stages: @Sendable (Options, Vocabulary) throws(FileError) -> Stages
    /// The pieces of a sentencepiece model as its vocabulary, in its order.
    var pieces: @Sendable ([JSON], Options) -> [JSON] = { pieces, _ in pieces }

    enum Model: String, Sendable {
        case wordPiece = "WordPiece"
        case bytePairs = "BPE"
        case unigram = "Unigram"
    }

    enum VocabularyFiles: Sendable {
        /// A token a line: `vocab.txt`.
        case list
        /// `vocab.json` and `merges.txt`.
        case merges
        /// A sentencepiece model of this name.
        case sentencepiece(String)
    }

    /// Members of a `tokenizer.json`.
    struct Stages {
        var model: JSON
        var normalizer: JSON = .null
        var preTokenizer: JSON = .null
        var postProcessor: JSON = .null
        var decoder: JSON = .null
    }

    /// What the files of a folder say, over what the class has.
    struct Options {
        /// `tokenizer_config.json`, over `special_tokens_map.json` where it has no list of added tokens.
        let config: JSON
        /// Special tokens by their names, `cls_token`, …
        let tokens: [String: String]
        /// The character map of sentencepiece, if the vocabulary came with one.
        let characters: JSON?
        /// The number of the unknown piece in a sentencepiece model.
        let unknownId: Int?

        func flag(_ key: String, default standard: Bool) -> Bool { config[key]?.bool ?? standard }
    }

    /// The ids of tokens.
    struct Vocabulary {
        /// As a model has it: an object, or of Unigram a list of pairs.
        let json: JSON
        let merges: JSON?
        /// The id that a token has, of the vocabulary or added.
        let id: (String) -> Int?

        /// The id of a special token; where there is none, that of the unknown one.
        func id(_ token: String, _ options: Options) -> JSON {
            .integer(id(token) ?? options.tokens["unk_token"].flatMap(id) ?? 0)
        }
    }

    /// The class of that name; nil for one that is not built anew.
    static func named(_ name: String) -> TokenizerClass? { all.first { $0.names.contains(name) } }

    /// What a model of this type has where its files name no class.
    static func usual(_ modelType: String) -> String? { modelTypes[modelType] }

    private static let modelTypes = [
        "bert": "BertTokenizer", "distilbert": "BertTokenizer", "electra": "BertTokenizer",
        "nomic_bert": "BertTokenizer", "roberta": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer",
        "camembert": "CamembertTokenizer", "albert": "AlbertTokenizer", "deberta-v2": "DebertaV2Tokenizer",
        "mpnet": "MPNetTokenizer", "modernbert": "TokenizersBackend", "esm": "EsmTokenizer",
    ]

    /// Types of models whose files are known to name a wrong class.
    static let ignoresNames: Set<String> = ["modernbert"]

    private static let bertTokens = [
        "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    ]
    private static let robertaTokens = [
        "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "mask_token": "<mask>",
    ]

    static let all: [TokenizerClass] = [
        TokenizerClass(
            names: [
                "BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "LxmertTokenizer",
                "LayoutLMTokenizer", "ConvBertTokenizer",
            ], model: .wordPiece, tokens: bertTokens, hasTypes: true, files: .list, stages: bert),
        TokenizerClass(
            names: ["DistilBertTokenizer"], model: .wordPiece, tokens: bertTokens, files: .list, stages: bert),
        TokenizerClass(
            names: ["MPNetTokenizer"], model: .wordPiece,
            tokens: robertaTokens.merging(["unk_token": "[UNK]"]) { $1 }, stripsLeft: ["mask_token"], files: .list
        ) { (options, vocabulary) throws(FileError) in
            var stages = try bert(options, vocabulary)
            stages.postProcessor = roberta(options, vocabulary, trims: true, addsSpace: false)
            return stages
        },
        TokenizerClass(
            names: ["RobertaTokenizer", "LongformerTokenizer", "BartTokenizer"], model: .bytePairs,
            tokens: robertaTokens, files: .merges
        ) { (options, vocabulary) throws(FileError) in
            let addsSpace = options.flag("add_prefix_space", default: false)
            var stages = bytes(vocabulary, addsSpace: addsSpace)
            stages.postProcessor = roberta(
                options, vocabulary, trims: options.flag("trim_offsets", default: true), addsSpace: addsSpace)
            return stages
        },
        TokenizerClass(
            names: ["DebertaTokenizer"], model: .bytePairs,
            tokens: bertTokens.merging(["bos_token": "[CLS]", "eos_token": "[SEP]"]) { $1 }, hasTypes: true,
            files: .merges
        ) { (options, vocabulary) throws(FileError) in
            var stages = bytes(vocabulary, addsSpace: options.flag("add_prefix_space", default: false))
            let (cls, sep) = (options.tokens["cls_token"] ?? "", options.tokens["sep_token"] ?? "")
            stages.postProcessor = template([cls, nil, sep], [cls, nil, sep, sep, nil, sep], options, vocabulary)
            return stages
        },
        TokenizerClass(
            names: ["GPT2Tokenizer"], model: .bytePairs,
            tokens: ["unk_token", "bos_token", "eos_token"].reduce(into: [:]) { $0[$1] = "<|endoftext|>" },
            files: .merges
        ) { (options, vocabulary) throws(FileError) in
            bytes(vocabulary, addsSpace: options.flag("add_prefix_space", default: false))
        },
        TokenizerClass(
            names: ["XLMRobertaTokenizer"], model: .unigram, tokens: robertaTokens,
            files: .sentencepiece("sentencepiece.bpe.model"),
            stages: { (options, vocabulary) throws(FileError) in
                var stages = pieces(options, vocabulary, unknown: 3)
                stages.postProcessor = around("bos_token", "eos_token", options, vocabulary)
                return stages
            },
            pieces: { pieces, options in
                // The order of fairseq, in which the model was trained.
                ["bos_token", "pad_token", "eos_token", "unk_token"].map { [.string(options.tokens[$0] ?? ""), 0] }
                    + pieces.dropFirst(3) + [[.string(options.tokens["mask_token"] ?? ""), 0]]
            }),
        TokenizerClass(
            names: ["CamembertTokenizer"], model: .unigram, tokens: robertaTokens, stripsLeft: ["mask_token"],
            files: .sentencepiece("sentencepiece.bpe.model"),
            stages: { (options, vocabulary) throws(FileError) in
                let unknown = vocabulary.json.array?.firstIndex {
                    $0[0]?.string == options.tokens["unk_token"]
                }
                var stages = pieces(options, vocabulary, unknown: unknown ?? 0)
                stages.postProcessor = around("bos_token", "eos_token", options, vocabulary)
                return stages
            },
            pieces: { pieces, options in
                [
                    ["<s>NOTUSED", 0], [.string(options.tokens["pad_token"] ?? ""), 0], ["</s>NOTUSED", 0],
                    [.string(options.tokens["unk_token"] ?? ""), 0], ["<unk>NOTUSED", -100],
                ] + pieces.dropFirst() + [[.string(options.tokens["mask_token"] ?? ""), 0]]
            }),
        TokenizerClass(
            names: ["AlbertTokenizer"], model: .unigram,
            tokens: bertTokens.merging([
                "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>",
            ]) { $1 }, files: .sentencepiece("spiece.model")
        ) { (options, vocabulary) throws(FileError) in
            var stages = pieces(options, vocabulary, unknown: 1)
            var steps: [JSON] = [
                ["type": "Replace", "pattern": ["String": "``"], "content": "\""],
                ["type": "Replace", "pattern": ["String": "''"], "content": "\""],
            ]
            if !options.flag("keep_accents", default: false) {
                steps += [["type": "NFKD"], ["type": "StripAccents"]]
            }
            if options.flag("do_lower_case", default: true) { steps.append(["type": "Lowercase"]) }
            if !stages.normalizer.isNull { steps.append(stages.normalizer) }
            stages.normalizer = ["type": "Sequence", "normalizers": .array(steps)]
            let (cls, sep) = (options.tokens["cls_token"] ?? "", options.tokens["sep_token"] ?? "")
            stages.postProcessor = template([cls, nil, sep], [cls, nil, sep, nil, sep], options, vocabulary)
            return stages
        },
        TokenizerClass(
            names: ["DebertaV2Tokenizer"], model: .unigram,
            tokens: bertTokens.merging(["bos_token": "[CLS]", "eos_token": "[SEP]"]) { $1 }, hasTypes: true,
            files: .sentencepiece("spm.model")
        ) { (options, vocabulary) throws(FileError) in
            let unknown = vocabulary.json.array?.firstIndex {
                $0[0]?.string == options.tokens["unk_token"] && $0[1]?.double == 0
            }
            let addsSpace = options.flag("add_prefix_space", default: true)
            var stages = pieces(
                options, vocabulary, unknown: unknown ?? options.unknownId ?? options.config["unk_id"]?.int ?? 1,
                scheme: addsSpace ? "always" : "first")
            // The character map of the sentencepiece model is left out, as the class does.
            stages.normalizer = [
                "type": "Sequence",
                "normalizers": .array(
                    (options.flag("do_lower_case", default: false) ? [["type": "Lowercase"]] : []) + [
                        ["type": "Replace", "pattern": ["Regex": "\\s{2,}|[\\n\\r\\t]"], "content": " "],
                        ["type": "NFC"], ["type": "Strip", "strip_left": false, "strip_right": true],
                    ]),
            ]
            let splits = options.flag("split_by_punct", default: false)
            let metaspace = metaspace(addsSpace ? "always" : "first")
            stages.preTokenizer = [
                "type": "Sequence",
                "pretokenizers": .array(
                    (splits ? [["type": "Punctuation", "behavior": "Isolated"]] : []) + [metaspace]),
            ]
            let (cls, sep) = (options.tokens["cls_token"] ?? "", options.tokens["sep_token"] ?? "")
            stages.postProcessor = template(
                [cls, nil, sep], [cls, nil, sep, nil, sep], options, vocabulary, hasTypes: true)
            return stages
        },
    ]

    // MARK: Stages that classes share

    /// BERT's: the words of BERT, split into pieces.
    private static let bert: @Sendable (Options, Vocabulary) throws(FileError) -> Stages = {
        (options, vocabulary) throws(FileError) in
        let (cls, sep) = (options.tokens["cls_token"] ?? "", options.tokens["sep_token"] ?? "")
        return Stages(
            model: [
                "type": "WordPiece", "vocab": vocabulary.json, "unk_token": .string(options.tokens["unk_token"] ?? ""),
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            ],
            normalizer: [
                "type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": .bool(options.flag("tokenize_chinese_chars", default: true)),
                "strip_accents": options.config["strip_accents"]?.bool.map { .bool($0) } ?? .null,
                "lowercase": .bool(options.flag("do_lower_case", default: true)),
            ],
            preTokenizer: ["type": "BertPreTokenizer"],
            postProcessor: template(
                [cls, nil, sep], [cls, nil, sep, nil, sep], options, vocabulary, hasTypes: true),
            decoder: ["type": "WordPiece", "prefix": "##", "cleanup": true])
    }

    /// GPT-2's: bytes, of which pairs merge.
    private static func bytes(_ vocabulary: Vocabulary, addsSpace: Bool) -> Stages {
        Stages(
            model: [
                "type": "BPE", "vocab": vocabulary.json, "merges": vocabulary.merges ?? [],
                "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false,
            ],
            preTokenizer: [
                "type": "ByteLevel", "add_prefix_space": .bool(addsSpace), "trim_offsets": true, "use_regex": true,
            ],
            decoder: ["type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true])
    }

    private static func metaspace(_ scheme: String) -> JSON {
        ["type": "Metaspace", "replacement": "▁", "prepend_scheme": .string(scheme), "split": true]
    }

    /// Sentencepiece's: pieces with their scores; a mark stands for a space.
    private static func pieces(
        _ options: Options, _ vocabulary: Vocabulary, unknown: Int, scheme: String? = nil
    ) -> Stages {
        let scheme = scheme ?? (options.flag("add_prefix_space", default: true) ? "always" : "never")
        return Stages(
            model: [
                "type": "Unigram", "vocab": vocabulary.json, "unk_id": .integer(unknown), "byte_fallback": false,
            ],
            normalizer: options.characters.map { ["type": "Precompiled", "precompiled_charsmap": $0] } ?? .null,
            preTokenizer: [
                "type": "Sequence", "pretokenizers": [["type": "WhitespaceSplit"], metaspace(scheme)],
            ],
            decoder: metaspace(scheme))
    }

    private static func roberta(_ options: Options, _ vocabulary: Vocabulary, trims: Bool, addsSpace: Bool) -> JSON {
        let (cls, sep) = (options.tokens["cls_token"] ?? "", options.tokens["sep_token"] ?? "")
        return [
            "type": "RobertaProcessing", "sep": [.string(sep), vocabulary.id(sep, options)],
            "cls": [.string(cls), vocabulary.id(cls, options)], "trim_offsets": .bool(trims),
            "add_prefix_space": .bool(addsSpace),
        ]
    }

    private static func around(
        _ first: String, _ last: String, _ options: Options, _ vocabulary: Vocabulary
    ) -> JSON {
        let (first, last) = (options.tokens[first] ?? "", options.tokens[last] ?? "")
        return template([first, nil, last], [first, nil, last, last, nil, last], options, vocabulary)
    }

    /// Special tokens around one text and two, a text where nothing is named.
    /// - Parameter hasTypes: whether what follows the first text and its end is of the second type.
    private static func template(
        _ single: [String?], _ pair: [String?], _ options: Options, _ vocabulary: Vocabulary, hasTypes: Bool = false
    ) -> JSON {
        func parts(_ names: [String?]) -> JSON {
            var texts = 0
            return .array(
                names.map { name in
                    if name == nil { texts += 1 }
                    let type: JSON = .integer(hasTypes && texts == 2 ? 1 : 0)
                    guard let name else {
                        return ["Sequence": ["id": texts == 1 ? "A" : "B", "type_id": type]]
                    }
                    return ["SpecialToken": ["id": .string(name), "type_id": type]]
                })
        }
        var special = JSONObject()
        for name in single.compactMap({ $0 }) + pair.compactMap({ $0 }) {
            special.set(
                name, ["id": .string(name), "ids": [vocabulary.id(name, options)], "tokens": [.string(name)]])
        }
        return [
            "type": "TemplateProcessing", "single": parts(single), "pair": parts(pair),
            "special_tokens": .object(special),
        ]
    }
}
