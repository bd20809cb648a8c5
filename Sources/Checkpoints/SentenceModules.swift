// The modules of a sentence-transformers model: what its modules.json lists, and what each one's own file says.

import Files

/// A part of a model behind its transformer.
public enum SentenceModule: Sendable {
    /// States of tokens to one vector; those of several modes are put side by side.
    case pooling(modes: [PoolingMode], includesPrompt: Bool)
    /// A dense layer, over vectors or over the states of tokens.
    case dense(DenseModule, ofTokens: Bool)
    /// A layer norm over vectors, whose weights lie in the folder: `norm.weight` and `norm.bias`.
    case layerNorm(folder: String, width: Int)
    /// Divides by the Euclidean norm: vectors, or the states of tokens.
    case normalize(ofTokens: Bool)
    /// What has no part in vectors: dropout, or which tokens count when a query is scored.
    case passive(type: String)
    /// One that cannot be computed here, by its type: vectors are refused, and what needs none of them runs.
    case other(type: String)

    /// What a module's folder is called in the model's.
    /// - Parameter folder: as a path.
    public static func name(_ folder: String) -> String { folder.split(separator: "/").last.map(String.init) ?? folder }

    /// The folder of its weights, where it has any.
    public var weights: String? {
        switch self {
        case .dense(let dense, _): dense.folder
        case .layerNorm(let folder, _): folder
        case .pooling, .normalize, .passive, .other: nil
        }
    }
}

/// A dense layer of sentence-transformers: y = f(W·x + b), and with a residual f(W·x + b) + R·x.
public struct DenseModule: Sendable {
    /// Where its weights lie.
    public let folder: String
    /// What its parameters are called: `linear`, with `.weight` and `.bias`.
    public let name: String
    /// Values of x.
    public let inputs: Int
    /// Values of y.
    public let outputs: Int
    /// Whether there is a b.
    public let hasBias: Bool
    /// f.
    public let activation: TorchActivation
    /// Whether x is added; through the parameter `residual` where the widths differ.
    public let hasResidual: Bool
}

/// A function that a file names by its class in PyTorch.
public enum TorchActivation: String, Sendable, CaseIterable {
    case identity = "Identity"
    case sigmoid = "Sigmoid"
    case tanh = "Tanh"
    case relu = "ReLU"
    case gelu = "GELU"
    case silu = "SiLU"
    /// Over all values of a row.
    case softmax = "Softmax"

    /// Reads a name as `torch.nn.modules.activation.Tanh`.
    /// - Throws: `FileError` where it is none of PyTorch's, which would be code of the model's own, or not supported.
    init(named text: String, in path: String, key: String, softmaxIsSupported: Bool) throws(FileError) {
        let supported = Self.allCases.filter { $0 != .softmax || softmaxIsSupported }
        guard text.hasPrefix("torch.nn."),
            let found = supported.first(where: { $0.rawValue == text.split(separator: ".").last.map(String.init) })
        else {
            throw FileError(
                .malformed, path: path,
                "'\(key)' is '\(text)', which is not supported (supported of torch.nn: \(supported.map(\.rawValue).joined(separator: ", ")))"
            )
        }
        self = found
    }
}

/// The list of a `modules.json`, read with the files that it names.
struct SentenceModuleList {
    /// The transformer's folder, as a path, and the contents of its `sentence_bert_config.json` with that file's path.
    let transformer: String
    let settings: (json: JSON, path: String)?
    /// What follows it.
    let modules: [SentenceModule]

    /// Reads the list of the model in `folder`; nil where there is none.
    /// - Parameter isMultiVector: whether the model gives a vector for each token, as its settings say.
    init?(folder: String, isMultiVector: Bool) throws(FileError) {
        let path = folder + "/modules.json"
        guard FileBytes.exists(path) else { return nil }
        let json = try JSON.load(path: path)
        guard let list = json.array else {
            throw FileError(
                .malformed, path: path, "holds \(json.kindName) where a list of modules is needed; fetch it again")
        }
        var transformer: String?
        var settings: (json: JSON, path: String)?
        var modules: [SentenceModule] = []
        // Until vectors are pooled, modules go over the states of tokens.
        var isPooled = false
        for (position, module) in list.enumerated() {
            guard let type = module["type"]?.string, let kind = type.split(separator: ".").last else {
                throw FileError(.malformed, path: path, "module \(position) has no type; fetch it again")
            }
            // An empty name means the model's folder, which is the transformer's; of what else there is, each has its own.
            let name = module["path"]?.string ?? ""
            func place() throws(FileError) -> String {
                try FileBytes.path(named: name, inFolder: folder, by: path, "module \(position), \(type)")
            }
            if !name.isEmpty { _ = try place() }
            if transformer == nil {
                guard Self.transformers.contains(String(kind)) else {
                    throw FileError(
                        .malformed, path: path,
                        "module \(position), \(type), is no transformer, and only models that begin with one are supported"
                    )
                }
                let found = name.isEmpty ? folder : try place()
                transformer = found
                settings = try Self.settings(of: found)
                continue
            }
            let read = try Self.module(
                String(kind), type: type, place: place, isPooled: isPooled, isMultiVector: isMultiVector)
            if case .pooling = read { isPooled = true }
            modules.append(read)
        }
        guard let transformer else {
            throw FileError(.malformed, path: path, "lists no module; fetch it again")
        }
        self.transformer = transformer
        self.settings = settings
        self.modules = modules
    }

    private static let transformers = ["Transformer", "MLMTransformer"]

    /// The names that the settings of the transformer's module have had, by its kind.
    private static let settingsNames = ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"]
        .map { "sentence_\($0)_config.json" }

    /// The first of them that says anything.
    static func settings(of folder: String) throws(FileError) -> (json: JSON, path: String)? {
        for name in settingsNames where FileBytes.exists(folder + "/" + name) {
            let path = folder + "/" + name
            let json = try JSON.load(path: path)
            guard let object = json.object else {
                throw FileError(
                    .malformed, path: path, "holds \(json.kindName) where an object is needed; fetch it again")
            }
            if object.count > 0 { return (json, path) }
        }
        return nil
    }

    /// - Parameter place: the module's folder; throws where it has no name.
    private static func module(
        _ kind: String, type: String, place: () throws(FileError) -> String, isPooled: Bool, isMultiVector: Bool
    ) throws(FileError) -> SentenceModule {
        switch kind {
        case "Pooling":
            let path = try place() + "/config.json"
            return try pooling(try JSON.load(path: path), path: path)
        case "Dense":
            let (dense, ofTokens) = try dense(in: place())
            return .dense(dense, ofTokens: ofTokens ?? !isPooled)
        case "LayerNorm":
            let folder = try place()
            let path = folder + "/config.json"
            guard let width = try JSON.load(path: path)["dimension"]?.int, width > 0 else {
                throw FileError(.malformed, path: path, "has no 'dimension'; fetch it again")
            }
            return .layerNorm(folder: folder, width: width)
        case "Normalize":
            // It has a file only where it goes over something else than vectors.
            let path = (try? place()).map { $0 + "/config.json" }.flatMap { FileBytes.exists($0) ? $0 : nil }
            let input = try path.flatMap { path throws(FileError) in try JSON.load(path: path) }?["module_input_name"]
            return .normalize(
                ofTokens: input?.string.map { $0 == "token_embeddings" } ?? (isMultiVector && !isPooled))
        case "Dropout", "MultiVectorMask": return .passive(type: type)
        default: return .other(type: type)
        }
    }

    private static func pooling(_ config: JSON, path: String) throws(FileError) -> SentenceModule {
        var names: [String]
        if let name = config["pooling_mode"]?.string {
            names = [name]
        } else if let list = config["pooling_mode"]?.array {
            names = list.map { $0.string ?? $0.kindName }
        } else {
            // The older spelling: one truth value a mode; none set means the mean.
            names = PoolingMode.published.filter { config[$0.flag]?.bool == true }.map(\.name)
        }
        if names.isEmpty { names = ["mean"] }
        var modes: [PoolingMode] = []
        for name in names {
            guard let mode = PoolingMode.published.first(where: { $0.name == name })?.mode else {
                throw FileError(
                    .malformed, path: path,
                    "asks for the pooling mode '\(name)', which is not supported; supported: \(PoolingMode.published.map(\.name).joined(separator: ", "))"
                )
            }
            modes.append(mode)
        }
        return .pooling(modes: modes, includesPrompt: config["include_prompt"]?.bool ?? true)
    }

    /// A dense layer, and whether it says itself that it goes over the states of tokens.
    private static func dense(in folder: String) throws(FileError) -> (DenseModule, Bool?) {
        let path = folder + "/config.json"
        let config = try JSON.load(path: path)
        func width(_ key: String) throws(FileError) -> Int {
            guard let value = config[key]?.int, (1...1 << 20).contains(value) else {
                throw FileError(.malformed, path: path, "'\(key)' must be a positive integer; fetch it again")
            }
            return value
        }
        let input = config["module_input_name"]?.string
        let output = config["module_output_name"]?.string
        guard [nil, "sentence_embedding", "token_embeddings"].contains(input), output == nil || output == input else {
            throw FileError(
                .malformed, path: path,
                "takes '\(input ?? "sentence_embedding")' and gives '\(output ?? "")', which is not supported; supported: sentence_embedding or token_embeddings, replaced"
            )
        }
        let activation = config["activation_function"]?.string ?? "torch.nn.modules.activation.Tanh"
        let module = DenseModule(
            folder: folder, name: "linear", inputs: try width("in_features"), outputs: try width("out_features"),
            hasBias: config["bias"]?.bool ?? true,
            activation: try TorchActivation(
                named: activation, in: path, key: "activation_function", softmaxIsSupported: false),
            hasResidual: config["use_residual"]?.bool ?? false)
        return (module, input.map { $0 == "token_embeddings" })
    }
}
