// What the files of a model's folder say of its tokenizer, in the form of one tokenizer.json.

import Files

/// The tokenizer of a folder as transformers 5 would load it.
///
/// A class of transformers is built from a vocabulary, out of `tokenizer.json` or of files of its own, and from
/// `tokenizer_config.json`; of any other class `tokenizer.json` counts as it stands, and so it does where it is alone (there
/// transformers would take the settings that the model's class has by itself, lower case among them). Tokens are added, in this order, that
/// `tokenizer.json` has, that `added_tokens_decoder` of `tokenizer_config.json` has or in its absence
/// `special_tokens_map.json` and `added_tokens.json`, and special ones that are named and not yet there.
struct TokenizerFile {
    /// The file with the vocabulary, for messages.
    let path: String
    /// What a `tokenizer.json` would say.
    let json: JSON
    /// Special tokens by their names, `mask_token`, …
    let tokens: [String: String]
    /// How that is taken.
    let reading: Tokenizer.Reading
    /// Whether spaces before punctuation are taken out of decoded text.
    let cleansUp: Bool

    init(folder: String) throws(FileError) {
        let settings = try TokenizerSettings(folder: folder)
        let kind = settings.kind
        let source = try VocabularySource(folder: folder, kind, settings)
        path = source.path
        var config = settings.config
        var added = AddedList()
        if kind == nil { added.add(file: source.json["added_tokens"]) }
        if config["added_tokens_decoder"]?.object != nil {
            added.add(decoder: config["added_tokens_decoder"])
        } else {
            // As folders were before that list: what stands beside the file counts.
            config = try settings.withSpecialTokensMap()
            let special = SpecialTokens(config, kind)
            added.add(try settings.file("added_tokens.json"), special: Set(special.names.values + special.others))
            if kind != nil { added.add(file: source.json["added_tokens"]) }
        }
        let special = SpecialTokens(config, kind)
        tokens = special.names
        added.add(special, kind)
        // Where settings list tokens of their own, those of a sentencepiece model are not looked at.
        if special.others.isEmpty { added.add(missing: source.added) }
        var reading = Tokenizer.Reading()
        reading.splitsSpecialTokens = config["split_special_tokens"]?.bool ?? false
        // A class is handed the numbers themselves.
        reading.hasExactScores = kind != nil
        let inputs = config["model_input_names"]?.array?.compactMap(\.string)
        // Where nothing tells how the tokenizer is used, types are the file's own.
        reading.hasTypes =
            inputs.map { $0.contains("token_type_ids") } ?? kind?.hasTypes ?? (settings.isBare || !settings.isNamed)
        self.reading = reading
        guard let kind else {
            json = source.json.setting("added_tokens", added.json)
            cleansUp = config["clean_up_tokenization_spaces"]?.bool == true && json["model"]?["merges"] == nil
            return
        }
        cleansUp = config["clean_up_tokenization_spaces"]?.bool == true && kind.model != .bytePairs
        let options = TokenizerClass.Options(
            config: config, tokens: special.names, characters: source.characters, unknownId: source.unknownId)
        let pieces =
            source.isSentencepiece
            ? JSON.array(kind.pieces(source.vocabulary.array ?? [], options)) : source.vocabulary
        let vocabulary = try Self.vocabulary(pieces, kind, path: path)
        let ids = added.ids(vocabulary)
        let stages = try kind.stages(
            options, .init(json: vocabulary, merges: source.merges) { ids($0) })
        json = [
            "added_tokens": added.json, "normalizer": stages.normalizer, "pre_tokenizer": stages.preTokenizer,
            "model": stages.model, "post_processor": stages.postProcessor, "decoder": stages.decoder,
        ]
    }

    /// A vocabulary in the form that the class's model has it in.
    private static func vocabulary(_ json: JSON, _ kind: TokenizerClass, path: String) throws(FileError) -> JSON {
        switch (kind.model, json) {
        case (.unigram, .array), (.wordPiece, .object), (.bytePairs, .object): return json
        case (_, .array(let list)) where kind.model != .unigram:
            var ids = JSONObject()
            for (id, entry) in list.enumerated() {
                if let token = entry.string ?? entry[0]?.string { ids.set(token, .integer(id)) }
            }
            return .object(ids)
        default:
            throw FileError(
                .malformed, path: path,
                "has a vocabulary that a \(kind.names[0]), as tokenizer_config.json or config.json has it, cannot take; name the right tokenizer_class"
            )
        }
    }

    /// Whether the folder has a tokenizer that can be read, or one that is to be refused by name.
    static func exists(folder: String) -> Bool {
        FileBytes.names(inFolder: folder).contains { name in
            ["tokenizer.json", "vocab.txt", "vocab.json"].contains(name) || name.hasSuffix(".model")
        }
    }
}

/// What a folder says of its tokenizer beside the vocabulary.
struct TokenizerSettings {
    private let folder: String
    /// `tokenizer_config.json`; empty where there is none.
    let config: JSON
    /// The class that it is built by; nil: as `tokenizer.json` stands.
    let kind: TokenizerClass?
    /// Whether any file names a class or a type of model.
    let isNamed: Bool
    /// Whether there is no `tokenizer_config.json`.
    let isBare: Bool
    /// The name of a class that is neither.
    let className: String?

    init(folder: String) throws(FileError) {
        self.folder = folder
        func read(_ name: String) throws(FileError) -> JSON? {
            let path = folder + "/" + name
            return FileBytes.exists(path) ? try JSON.load(path: path) : nil
        }
        let config = try read("tokenizer_config.json")
        self.config = config ?? [:]
        isBare = config == nil
        let model = try read("config.json")
        let type = model?["model_type"]?.string ?? ""
        let usual = TokenizerClass.usual(type)
        let named = config?["tokenizer_class"]?.string ?? model?["tokenizer_class"]?.string
        func plain(_ name: String) -> String { name.hasSuffix("Fast") ? String(name.dropLast(4)) : name }
        var name = named.map(plain)
        if let usual, name == nil || TokenizerClass.ignoresNames.contains(type) { name = usual }
        // Where nothing but tokenizer.json is there, nothing is said over it.
        if config == nil, FileBytes.exists(folder + "/tokenizer.json") { name = nil }
        isNamed = name != nil
        className = name
        kind = name.flatMap { TokenizerClass.named($0) }
    }

    /// A file of the folder, empty where there is none.
    func file(_ name: String) throws(FileError) -> JSON {
        let path = folder + "/" + name
        return FileBytes.exists(path) ? try JSON.load(path: path) : [:]
    }

    /// The settings under what `special_tokens_map.json` says.
    func withSpecialTokensMap() throws(FileError) -> JSON {
        try file("special_tokens_map.json").object?.members.reduce(config) { $0.setting($1.key, $1.value) } ?? config
    }
}

/// The special tokens that settings name.
struct SpecialTokens {
    /// `cls_token`, … and others that end so.
    let names: [String: String]
    /// Those without a name.
    let others: [String]
    /// Entries as they are written, by content: text, or an object with what else is said of the token.
    let entries: [(content: String, entry: JSON)]

    private static let usual = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]

    init(_ config: JSON, _ kind: TokenizerClass?) {
        func content(_ entry: JSON) -> String? { entry.string ?? entry["content"]?.string }
        var names: [String: String] = [:]
        var entries: [(String, JSON)] = []
        let own = config.object?.members.map(\.key).filter { $0.hasSuffix("_token") && !Self.usual.contains($0) } ?? []
        for key in Self.usual + own {
            // A name that is there and null stands for no token.
            let entry = config[key] ?? kind?.tokens[key].map { .string($0) }
            guard let entry, let text = content(entry) else { continue }
            names[key] = text
            entries.append((text, entry))
        }
        var others: [String] = []
        for key in ["extra_special_tokens", "additional_special_tokens"] {
            let list = config[key]?.array ?? config[key]?.object?.members.map(\.value) ?? []
            for entry in list {
                guard let text = content(entry) else { continue }
                others.append(text)
                entries.append((text, entry))
            }
            if !list.isEmpty { break }
        }
        self.names = names
        self.others = others
        self.entries = entries
    }
}

/// The tokens that are added to a vocabulary, in order; of the same content the last entry counts, in the place of the first.
private struct AddedList {
    private var contents: [ExactString: Int] = [:]
    private var entries: [JSON] = []

    var json: JSON { .array(entries) }

    private mutating func set(_ content: String, _ entry: JSON) {
        let whole = entry.setting("id", .integer(entries.count)).setting("content", .string(content))
        if let place = contents[ExactString(content)] {
            entries[place] = whole
        } else {
            contents[ExactString(content)] = entries.count
            entries.append(whole)
        }
    }

    /// `added_tokens` of a `tokenizer.json`.
    mutating func add(file list: JSON?) {
        for entry in list?.array ?? [] { if let content = entry["content"]?.string { set(content, entry) } }
    }

    /// `added_tokens_decoder`: tokens by their ids.
    mutating func add(decoder: JSON?) {
        let members = decoder?.object?.members ?? []
        for member in members.sorted(by: { (Int($0.key) ?? 0) < (Int($1.key) ?? 0) }) {
            if let content = member.value["content"]?.string { set(content, member.value) }
        }
    }

    /// `added_tokens.json`: ids of tokens.
    mutating func add(_ ids: JSON, special: Set<String>) {
        for member in (ids.object?.members ?? []).sorted(by: { ($0.value.int ?? 0) < ($1.value.int ?? 0) }) {
            let isSpecial = special.contains(member.key)
            set(member.key, ["special": .bool(isSpecial), "normalized": .bool(!isSpecial)])
        }
    }

    /// Special tokens that are not there yet.
    mutating func add(_ special: SpecialTokens, _ kind: TokenizerClass?) {
        for (content, entry) in special.entries where contents[ExactString(content)] == nil {
            let name = special.names.first { $0.value == content }?.key ?? ""
            let stripsLeft = entry["lstrip"]?.bool ?? (entry.string != nil && kind?.stripsLeft.contains(name) == true)
            set(
                content,
                [
                    "special": true, "normalized": .bool(entry["normalized"]?.bool ?? false),
                    "lstrip": .bool(stripsLeft), "rstrip": .bool(entry["rstrip"]?.bool ?? false),
                    "single_word": .bool(entry["single_word"]?.bool ?? false),
                ])
        }
    }

    /// Entries that are not there yet.
    mutating func add(missing entries: [JSON]) {
        for entry in entries {
            if let content = entry["content"]?.string, contents[ExactString(content)] == nil { set(content, entry) }
        }
    }

    /// The id of each token once these are added to a vocabulary: its own there, else the next free one.
    func ids(_ vocabulary: JSON) -> (String) -> Int? {
        var places: [ExactString: Int] = [:]
        let count: Int
        if let list = vocabulary.array {
            count = list.count
            for (id, entry) in list.enumerated() { if let token = entry[0]?.string { places[ExactString(token)] = id } }
        } else {
            count = vocabulary.object?.count ?? 0
        }
        func known(_ token: String) -> Int? { places[ExactString(token)] ?? vocabulary[token]?.int }
        var added: [ExactString: Int] = [:]
        for entry in entries {
            guard let content = entry["content"]?.string, known(content) == nil else { continue }
            added[ExactString(content)] = count + added.count
        }
        return { known($0) ?? added[ExactString($0)] }
    }
}
