// A model's folder read whole, once, into one description that every verb consults.

import Files

/// What the files of a model's folder say: `config.json` and the weights, and what sentence-transformers keeps beside them.
///
/// A folder is opened where its transformer can be run, whatever else it is made for: what a pipeline behind the
/// transformer cannot do is told by the part that needs it.
public struct ModelFolder: Sendable {
    /// The folder, as the caller named it or as it lies in the cache.
    public let path: String
    /// The transformer's files; in old layouts they lie in a folder of the folder, `0_Transformer`.
    public let checkpoint: Checkpoint
    /// What the folder is made for.
    public let kind: Kind
    /// What follows the transformer; nil where the folder has no `modules.json`.
    public let modules: [SentenceModule]?
    /// Texts put before the input, by name; an empty one stands for none.
    public let prompts: [String: String]
    /// The prompt used where none is asked for.
    public let defaultPromptName: String?
    /// How vectors are compared.
    public let similarity: Similarity
    /// How many values of a vector are kept, as the folder's files say; nil: all.
    public let dimensions: Int?
    /// The tokens of the longest document that the model was trained for, where its files say that.
    public let trainedLength: TrainedLength?
    /// Whether text is lowercased before the tokenizer sees it.
    public let lowercases: Bool
    /// What turns the logits of a cross-encoder into scores; nil for any other model.
    public let scores: TorchActivation?

    /// What a folder is made for, by the classes of sentence-transformers.
    public enum Kind: String, Sendable {
        /// Vectors of texts, or a model of no pipeline.
        case vectors = "SentenceTransformer"
        /// Scores of pairs.
        case crossEncoder = "CrossEncoder"
        /// Weights of words (SPLADE).
        case sparse = "SparseEncoder"
        /// A vector for each token (ColBERT).
        case multiVector = "MultiVectorEncoder"
    }

    /// A length, and the key that tells it.
    public struct TrainedLength: Sendable, Equatable {
        /// In tokens.
        public let tokens: Int
        /// The key and its file, for messages.
        public let source: String

        /// - Parameters:
        ///   - tokens: the length.
        ///   - source: the key that tells it, and its file.
        public init(tokens: Int, source: String) {
            self.tokens = tokens
            self.source = source
        }
    }

    /// Opens the model that `name` means: a folder, or `org/name` in the Hugging Face cache.
    /// - Throws: `FileError` naming the file and the key that cannot be honoured.
    public init(named name: String) throws(FileError) {
        try self.init(path: try Checkpoint.resolve(name))
    }

    /// Opens the model in a folder.
    /// - Throws: `FileError` naming the file and the key that cannot be honoured.
    public init(path: String) throws(FileError) {
        self.path = path
        let settings = try PipelineSettings(folder: path)
        let list = try SentenceModuleList(folder: path, isMultiVector: settings.kind == .multiVector)
        checkpoint = try Checkpoint(folder: list?.transformer ?? path)
        let (config, configPath) = (checkpoint.config, checkpoint.configPath)

        var modules = list?.modules
        if modules == nil, config["architectures"]?[0]?.string == "HF_ColBERT" {
            let projection = try Self.colbert(checkpoint)
            modules = [.dense(projection, ofTokens: true)]
        }
        self.modules = modules
        var scores = settings.activation
        if scores == nil { scores = try Self.activation(config, path: configPath) }
        kind = settings.kind ?? (scores == nil ? .vectors : .crossEncoder)
        self.scores = kind == .crossEncoder ? scores ?? .standard(config) : nil
        prompts = settings.prompts
        defaultPromptName = settings.defaultPromptName
        similarity = settings.similarity
        dimensions = settings.dimensions
        let transformer = try TransformerSettings(list?.settings)
        lowercases = transformer.lowercases
        var trainedLength = transformer.trainedLength
        if trainedLength == nil { trainedLength = try Self.modelMaxLength(checkpoint.folder) }
        self.trainedLength = trainedLength
    }

    /// Where `config.json` and the tokenizer's files of the model lie that `name` means; no weights are asked for.
    public static func transformerFolder(named name: String) throws(FileError) -> String {
        let folder = try Checkpoint.resolve(name)
        return try SentenceModuleList(folder: folder, isMultiVector: false)?.transformer ?? folder
    }

    /// The projection of a ColBERT as Stanford's code saves it: among the weights of the transformer.
    private static func colbert(_ checkpoint: Checkpoint) throws(FileError) -> DenseModule {
        guard let shape = checkpoint["linear"]["weight"].tensor?.shape, shape.count == 2 else {
            throw FileError(
                .malformed, path: checkpoint.configPath,
                "names the architecture HF_ColBERT, and the weights have no matrix 'linear.weight'; fetch them again")
        }
        return DenseModule(
            folder: checkpoint.folder, name: "linear", inputs: shape[1], outputs: shape[0], hasBias: false,
            activation: .identity, hasResidual: false)
    }

    /// The function that the `config.json` of a cross-encoder names, in either of the places where it has stood.
    private static func activation(_ config: JSON, path: String) throws(FileError) -> TorchActivation? {
        for (key, value) in [
            ("sentence_transformers.activation_fn", config["sentence_transformers"]?["activation_fn"]),
            ("sbert_ce_default_activation_function", config["sbert_ce_default_activation_function"]),
        ] {
            guard let text = value?.string else { continue }
            return try TorchActivation(named: text, in: path, key: key, softmaxIsSupported: true)
        }
        return nil
    }

    /// `model_max_length` of `tokenizer_config.json`. Where a model has no limit, it is a number beyond every text.
    private static func modelMaxLength(_ folder: String) throws(FileError) -> TrainedLength? {
        let path = folder + "/tokenizer_config.json"
        guard FileBytes.exists(path) else { return nil }
        let config = try JSON.load(path: path)
        for key in ["model_max_length", "max_len"] {
            guard let value = config[key]?.double else { continue }
            guard value >= 1, value < 1e9 else { return nil }
            return TrainedLength(tokens: Int(value), source: "\(key) in \(path)")
        }
        return nil
    }
}

extension TorchActivation {
    /// What a cross-encoder's logits go through where no file says it.
    fileprivate static func standard(_ config: JSON) -> TorchActivation {
        let labels = config["num_labels"]?.int ?? config["id2label"]?.object?.count ?? 2
        return labels == 1 ? .sigmoid : .identity
    }
}

/// How two vectors are compared; the larger, the nearer.
public enum Similarity: String, Sendable {
    case cosine, dot
    /// The distance, its sign changed.
    case euclidean, manhattan
}

/// What `config_sentence_transformers.json` says.
private struct PipelineSettings {
    var kind: ModelFolder.Kind?
    var prompts: [String: String] = [:]
    var defaultPromptName: String?
    var similarity = Similarity.cosine
    var dimensions: Int?
    var activation: TorchActivation?

    init(folder: String) throws(FileError) {
        let path = folder + "/config_sentence_transformers.json"
        guard FileBytes.exists(path) else { return }
        let config = try JSON.load(path: path)
        func malformed(_ text: String) -> FileError { FileError(.malformed, path: path, text + "; fetch it again") }
        if let text = config["model_type"]?.string {
            guard let kind = ModelFolder.Kind(rawValue: text) else {
                throw FileError(
                    .malformed, path: path,
                    "'model_type' is '\(text)', which is not supported; supported: SentenceTransformer, CrossEncoder, SparseEncoder, MultiVectorEncoder"
                )
            }
            self.kind = kind
        }
        for member in config["prompts"]?.object?.members ?? [] {
            guard member.value.isNull || member.value.string != nil else {
                throw malformed("prompt '\(member.key)' is \(member.value.kindName), not a string")
            }
            prompts[member.key] = member.value.string ?? ""
        }
        // Late interaction has had its prefixes in keys of their own.
        for (key, name) in [("query_prefix", "query"), ("document_prefix", "document")] where prompts[name] == nil {
            prompts[name] = config[key]?.string
        }
        defaultPromptName = config["default_prompt_name"]?.string
        if let name = defaultPromptName, prompts[name] == nil {
            throw malformed("names the default prompt '\(name)', which is not among its prompts")
        }
        if let name = config["similarity_fn_name"]?.string {
            // As the functions were called before they were named.
            let short = name.hasPrefix("dot") ? "dot" : name.hasPrefix("cos") ? "cosine" : name
            if let similarity = Similarity(rawValue: short) {
                self.similarity = similarity
            } else if name.lowercased() != "maxsim" {
                throw FileError(
                    .malformed, path: path,
                    "'similarity_fn_name' is '\(name)', which is not supported; supported: cosine, dot, euclidean, manhattan"
                )
            }
        }
        if let value = config["truncate_dim"], !value.isNull {
            guard let count = value.int, count > 0 else { throw malformed("'truncate_dim' must be a positive integer") }
            dimensions = count
        }
        if let text = config["activation_fn"]?.string {
            activation = try TorchActivation(named: text, in: path, key: "activation_fn", softmaxIsSupported: true)
        }
    }
}

/// What the settings of the transformer's module say: `sentence_bert_config.json`, or one of its other names.
private struct TransformerSettings {
    var lowercases = false
    var trainedLength: ModelFolder.TrainedLength?

    /// Keys that change nothing that is computed here: how tensors are laid out and where they come from.
    private static let harmless: Set<String> = [
        "torch_dtype", "dtype", "attn_implementation", "trust_remote_code", "add_pooling_layer", "revision",
        "unpad_inputs", "use_memory_efficient_attention", "low_cpu_mem_usage", "device_map", "padding_side",
        "use_fast", "cache_dir", "token", "local_files_only", "subfolder", "use_cache", "code_revision",
        "use_safetensors", "safe_serialization",
    ]

    init(_ settings: (json: JSON, path: String)?) throws(FileError) {
        guard let (config, path) = settings else { return }
        lowercases = config["do_lower_case"]?.bool ?? false
        var length = config["max_seq_length"].map { ("max_seq_length", $0) }
        for group in [
            "model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs",
        ] {
            for member in config[group]?.object?.members ?? [] where !Self.harmless.contains(member.key) {
                guard member.key == "model_max_length", group == "tokenizer_args" || group == "processor_kwargs" else {
                    throw FileError(
                        .malformed, path: path,
                        "'\(group)' sets '\(member.key)', which is not supported; set it in the file that it is of")
                }
                length = ("\(group).model_max_length", member.value)
            }
        }
        for key in ["method", "method_output_name"] {
            guard let name = config["modality_config"]?["text"]?[key]?.string else { continue }
            guard ["forward", "last_hidden_state", "logits"].contains(name) else {
                throw FileError(
                    .malformed, path: path,
                    "'modality_config' takes '\(name)' of the transformer, which is not supported; supported: forward, and last_hidden_state or logits of it"
                )
            }
        }
        if let (key, value) = length, !value.isNull {
            guard let number = value.double, number >= 1 else {
                throw FileError(.malformed, path: path, "'\(key)' must be a positive integer; fetch it again")
            }
            if number < 1e9 { trainedLength = .init(tokens: Int(number), source: "\(key) in \(path)") }
        }
    }
}
