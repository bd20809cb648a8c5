// What sentence-transformers does with a model's hidden states, read from its own files.

import Files

/// How the hidden states of a document become one vector.
///
/// The names are those of the command line; sentence-transformers spells some of them otherwise.
public enum PoolingMode: String, Sendable, CaseIterable {
    /// The first token's state.
    case cls
    /// The mean over all tokens.
    case mean
    /// The greatest value of each component.
    case max
    /// The sum over all tokens divided by the square root of their number.
    case meanSquareRootLength = "mean-sqrt-len"
    /// The mean weighted by 1, 2, 3, … from the first token on.
    case weightedMean = "weighted-mean"
    /// The last token's state.
    case lastToken = "last-token"
}

/// The pipeline behind the transformer: pooling, normalisation, prompts and limits.
public struct SentenceTransformersSettings: Sendable {
    /// How the hidden states of a document become one vector.
    public var pooling: PoolingMode
    /// Whether vectors are divided by their Euclidean norm.
    public var normalize: Bool
    /// Whether the tokens of a prompt take part in pooling.
    public var includePrompt: Bool
    /// Texts put before the input, by name.
    public var prompts: [String: String]
    /// The prompt used where none is asked for.
    public var defaultPromptName: String?
    /// The tokens beyond which sentence-transformers truncates. Told, not obeyed: nothing here truncates unasked.
    public var maximumSequenceLength: Int?
    /// Whether text is lowercased before the tokenizer sees it.
    public var lowercase: Bool

    /// Reads the settings of the model in `folder`; nil where it has no `modules.json`.
    ///
    /// A module that is not Transformer, Pooling or Normalize is refused by its name, as are several pooling modes
    /// at once: leaving one out would give other vectors without a word.
    public static func load(folder: String) throws(FileError) -> SentenceTransformersSettings? {
        let modulesPath = folder + "/modules.json"
        guard FileBytes.exists(modulesPath) else { return nil }
        let modules = try JSON.load(path: modulesPath)
        guard let list = modules.array else {
            throw FileError(
                .malformed, path: modulesPath,
                "holds \(modules.kindName) where a list of modules is needed; fetch it again")
        }
        var settings = SentenceTransformersSettings(
            pooling: .mean, normalize: false, includePrompt: true, prompts: [:], defaultPromptName: nil,
            maximumSequenceLength: nil, lowercase: false)
        var seen: [String] = []
        for (position, module) in list.enumerated() {
            guard let type = module["type"]?.string, let kind = type.split(separator: ".").last else {
                throw FileError(.malformed, path: modulesPath, "module \(position) has no type; fetch it again")
            }
            // An empty name means the model's folder, which is the transformer's alone.
            let name = module["path"]?.string ?? ""
            func place() throws(FileError) -> String {
                try FileBytes.path(named: name, inFolder: folder, by: modulesPath, "module \(position), \(type)")
            }
            if !name.isEmpty { _ = try place() }
            switch (kind, seen.last) {
            case ("Transformer", nil):
                try settings.readTransformer(name.isEmpty ? folder : place(), isRoot: name.isEmpty)
            case ("Pooling", "Transformer"): try settings.readPooling(place() + "/config.json")
            case ("Normalize", "Pooling"): settings.normalize = true
            case ("Transformer", _), ("Pooling", _), ("Normalize", _):
                throw FileError(
                    .malformed, path: modulesPath,
                    "module \(position), \(type), does not stand in the order Transformer, Pooling, Normalize; this pipeline is not supported"
                )
            default:
                throw FileError(
                    .malformed, path: modulesPath,
                    "module \(position), \(type), is not supported (only Transformer, Pooling and Normalize are); use a model without it"
                )
            }
            seen.append(String(kind))
        }
        guard seen.count >= 2 else {
            throw FileError(
                .malformed, path: modulesPath,
                "needs the modules Transformer and Pooling, has [\(seen.joined(separator: ", "))]; fetch it again")
        }
        try settings.readPrompts(folder + "/config_sentence_transformers.json")
        return settings
    }

    private mutating func readTransformer(_ folder: String, isRoot: Bool) throws(FileError) {
        guard isRoot else {
            throw FileError(
                .malformed, path: folder,
                "a transformer in a folder of its own is not supported; give that folder as the model")
        }
        let path = folder + "/sentence_bert_config.json"
        guard FileBytes.exists(path) else { return }
        let config = try JSON.load(path: path)
        maximumSequenceLength = config["max_seq_length"]?.int
        lowercase = config["do_lower_case"]?.bool ?? false
    }

    private mutating func readPooling(_ path: String) throws(FileError) {
        let config = try JSON.load(path: path)
        includePrompt = config["include_prompt"]?.bool ?? true
        var names: [String]
        if let name = config["pooling_mode"]?.string {
            names = [name]
        } else if let list = config["pooling_mode"]?.array {
            names = list.map { $0.string ?? $0.kindName }
        } else {
            // The older spelling: one truth value a mode; none set means the mean.
            names = Self.flags.filter { config[$0.flag]?.bool == true }.map(\.name)
            if names.isEmpty { names = ["mean"] }
        }
        guard names.count == 1, let name = names.first else {
            throw FileError(
                .malformed, path: path,
                "asks for several pooling modes at once (\(names.joined(separator: ", "))), which is not supported; choose one with --pooling"
            )
        }
        guard let mode = Self.flags.first(where: { $0.name == name })?.mode else {
            throw FileError(
                .malformed, path: path,
                "asks for the pooling mode '\(name)', which is not supported; choose another with --pooling")
        }
        pooling = mode
    }

    private mutating func readPrompts(_ path: String) throws(FileError) {
        guard FileBytes.exists(path) else { return }
        let config = try JSON.load(path: path)
        for member in config["prompts"]?.object?.members ?? [] {
            guard let prompt = member.value.string else {
                throw FileError(
                    .malformed, path: path,
                    "prompt '\(member.key)' is \(member.value.kindName), not a string; fetch it again")
            }
            prompts[member.key] = prompt
        }
        defaultPromptName = config["default_prompt_name"]?.string
        if let name = defaultPromptName, prompts[name] == nil {
            throw FileError(
                .malformed, path: path,
                "names the default prompt '\(name)', which is not among its prompts; fetch it again")
        }
    }

    private static let flags: [(flag: String, name: String, mode: PoolingMode)] = [
        ("pooling_mode_cls_token", "cls", .cls),
        ("pooling_mode_max_tokens", "max", .max),
        ("pooling_mode_mean_tokens", "mean", .mean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", .meanSquareRootLength),
        ("pooling_mode_weightedmean_tokens", "weightedmean", .weightedMean),
        ("pooling_mode_lasttoken", "lasttoken", .lastToken),
    ]
}
