// A model folder in Hugging Face format: its configuration and its weights, addressed as the checkpoint names them.

import Files

/// An open model folder: `config.json` and the weights, of which the first that are there count: `model.safetensors`, the
/// shards of `model.safetensors.index.json`, `model.fp16.safetensors`, `pytorch_model.bin`, the shards of
/// `pytorch_model.bin.index.json`.
///
/// Weights are addressed by path: `checkpoint["encoder"]["layer"][3]["output"]["dense"]["weight"]`. A prefix that
/// the whole model was saved under (`bert.`) is found when the folder is opened and need not be written, and layer
/// norms are found under their old names `gamma` and `beta` too.
public struct Checkpoint: Sendable {
    /// The model's folder, as the caller named it.
    public let folder: String
    /// The contents of `config.json`.
    public let config: JSON
    /// Where they stand, for messages.
    public var configPath: String { folder + "/config.json" }
    /// The weight files, in the order of their names.
    public let files: [TensorFile]
    /// The prefix that the base model's tensors carry, with its dot (`bert.`), or empty.
    public let prefix: String
    private let fileIndices: [String: Int]

    /// Opens the model in `folder`; see ``resolve(_:)`` for names of the Hugging Face cache.
    public init(folder: String) throws(FileError) {
        guard FileBytes.exists(folder) else {
            throw FileError(
                .missing, path: folder, "no such folder; give the folder that holds config.json and the weights")
        }
        guard FileBytes.isFolder(folder) else {
            throw FileError(
                .malformed, path: folder,
                "is not a folder; give the folder that holds config.json and the weights")
        }
        self.folder = folder
        let configPath = folder + "/config.json"
        guard FileBytes.exists(configPath) else {
            throw FileError(.missing, path: configPath, "no such file; give a model folder in Hugging Face format")
        }
        config = try JSON.load(path: configPath)
        guard case .object = config else {
            throw FileError(
                .malformed, path: configPath, "holds \(config.kindName) where an object is needed; fetch it again")
        }
        (files, fileIndices) = try Self.openWeights(folder)
        prefix = Self.commonPrefix(of: fileIndices.keys)
    }

    /// All tensor names, sorted.
    public var names: [String] { fileIndices.keys.sorted() }

    /// Sum of the elements of all tensors.
    public var parameterCount: Int {
        fileIndices.reduce(0) { $0 + (files[$1.value].tensors[$1.key]?.elementCount ?? 0) }
    }

    /// The description of the tensor stored under exactly that name.
    public func tensor(named name: String) -> StoredTensor? {
        fileIndices[name].flatMap { files[$0].tensors[name] }
    }

    /// The file that holds the tensor stored under exactly that name.
    public func file(of name: String) -> TensorFile? { fileIndices[name].map { files[$0] } }

    /// Begins a path.
    public subscript(_ component: String) -> WeightPath {
        WeightPath(checkpoint: self, path: component)
    }

    /// The file and stored name of the tensor that `path` means, or nil.
    func locate(_ path: String) -> (file: TensorFile, name: String)? {
        for name in spellings(of: path) {
            if let index = fileIndices[name] { return (files[index], name) }
        }
        return nil
    }

    /// Where `path` may be stored, in order of preference.
    private func spellings(of path: String) -> [String] {
        var spellings = [path]
        for (new, old) in [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
        where path.hasSuffix(new) {
            spellings.append(path.dropLast(new.count) + old)
        }
        // A tensor that a language model's decoder shares may be stored under the decoder's name alone.
        if config["tie_word_embeddings"]?.bool != false { spellings += Self.tied[path] ?? [] }
        return prefix.isEmpty ? spellings : spellings + spellings.map { prefix + $0 }
    }

    private static let tied: [String: [String]] = {
        let decoders = [
            "cls.predictions.decoder", "lm_head.decoder", "lm_head", "vocab_projector", "generator_lm_head",
            "predictions.decoder",
        ]
        return [
            "embeddings.word_embeddings.weight": decoders.map { $0 + ".weight" },
            "embeddings.tok_embeddings.weight": ["decoder.weight"],
            "cls.predictions.bias": ["cls.predictions.decoder.bias"],
            "lm_head.bias": ["lm_head.decoder.bias"],
            "predictions.bias": ["predictions.decoder.bias"],
        ]
    }()

    func missing(_ path: String) -> FileError {
        let others = Self.tied[path].map { Set($0 + $0.map { prefix + $0 }) } ?? []
        let also = spellings(of: path).dropFirst().filter { !others.contains($0) }.map { "'\($0)'" }
        let tried = also.isEmpty ? "" : ", also not as " + also.joined(separator: " or ")
        let wanted = prefix + path
        let similar = similarNames(to: wanted, among: fileIndices.keys)
        let hint = similar.isEmpty ? "" : "; similar: " + similar.joined(separator: ", ")
        let place = files.count == 1 ? files[0].path : folder
        return FileError(
            .malformed, path: place,
            "tensor '\(path)' is missing\(tried)\(hint); use weights of the architecture that config.json describes")
    }

    /// The files that weights may lie in, in order of preference; an index names shards.
    private static let weightNames = [
        "model.safetensors", "model.safetensors.index.json", "model.fp16.safetensors", "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ]

    private static func openWeights(_ folder: String) throws(FileError) -> ([TensorFile], [String: Int]) {
        guard let name = weightNames.first(where: { FileBytes.exists(folder + "/" + $0) }) else {
            let names = FileBytes.names(inFolder: folder)
            if let adapter = names.first(where: { $0.hasPrefix("adapter_") }) {
                throw FileError(
                    .malformed, path: folder + "/" + adapter,
                    "is an adapter, to be merged with the model that it was made for; save the merged model (peft: merge_and_unload)"
                )
            }
            let others = names.filter {
                [".bin", ".safetensors", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf"].contains(
                    where: $0.hasSuffix)
            }
            let hint = others.isEmpty ? "" : " (found instead: \(others.joined(separator: ", ")))"
            throw FileError(
                .missing, path: folder + "/" + weightNames[0],
                "no such file, nor \(weightNames.dropFirst().joined(separator: ", "))\(hint); save the model with save_pretrained(…)"
            )
        }
        let path = folder + "/" + name
        guard name.hasSuffix(".json") else {
            let file = try TensorFile(path: path, isNoted: true)
            return ([file], file.tensors.mapValues { _ in 0 })
        }
        return try openShards(folder, indexPath: path)
    }

    private static func openShards(_ folder: String, indexPath: String) throws(FileError) -> (
        [TensorFile], [String: Int]
    ) {
        let index = try JSON.load(path: indexPath)
        guard let map = index["weight_map"]?.object else {
            throw FileError(.malformed, path: indexPath, "has no weight_map; fetch it again")
        }
        var shardNames: Set<String> = []
        for member in map.members {
            guard let shard = member.value.string else {
                throw FileError(
                    .malformed, path: indexPath,
                    "tensor '\(member.key)': its shard is \(member.value.kindName), not a file's name; fetch the index again"
                )
            }
            _ = try FileBytes.path(named: shard, inFolder: folder, by: indexPath, "the shard of tensor '\(member.key)'")
            shardNames.insert(shard)
        }
        var files: [TensorFile] = []
        var indices: [String: Int] = [:]
        for (position, shard) in shardNames.sorted().enumerated() {
            let file = try TensorFile(path: folder + "/" + shard, isNoted: true)
            files.append(file)
            for name in file.names where map[name]?.string == shard { indices[name] = position }
        }
        for member in map.members where indices[member.key] == nil {
            throw FileError(
                .malformed, path: folder + "/" + (member.value.string ?? ""),
                "tensor '\(member.key)' is missing though \(indexPath) places it here; fetch the shard again"
            )
        }
        return (files, indices)
    }

    /// The first component under which the embeddings, which every model has, are stored.
    private static func commonPrefix(of names: some Sequence<String>) -> String {
        var candidates: Set<Substring> = []
        for name in names {
            if name.hasPrefix("embeddings.") { return "" }
            let parts = name.split(separator: ".", maxSplits: 2)
            if parts.count == 3, parts[1] == "embeddings" { candidates.insert(parts[0]) }
        }
        // Several parts with embeddings of their own (an encoder and a decoder) have no common prefix.
        guard candidates.count == 1, let only = candidates.first else { return "" }
        return only + "."
    }
}

/// The place of a weight in a ``Checkpoint``, written component by component.
public struct WeightPath: Sendable, CustomStringConvertible {
    /// The model that the path leads into.
    public let checkpoint: Checkpoint
    /// The dotted path so far, without the checkpoint's common prefix.
    public let path: String

    /// The path with one more component.
    public subscript(_ component: String) -> WeightPath {
        WeightPath(checkpoint: checkpoint, path: path + "." + component)
    }
    /// The path with a number as its next component, as in lists of layers.
    public subscript(_ index: Int) -> WeightPath { self[String(index)] }

    /// The dotted path so far.
    public var description: String { path }

    /// Whether a tensor is stored here.
    public var exists: Bool { checkpoint.locate(path) != nil }

    /// The description of the tensor stored here, or nil.
    public var tensor: StoredTensor? {
        checkpoint.locate(path).flatMap { $0.file.tensors[$0.name] }
    }

    /// The name under which a tensor is stored here, or nil.
    public var storedName: String? { checkpoint.locate(path)?.name }

    /// All elements as float32, row-major.
    ///
    /// - Parameter shape: the shape that the model's configuration demands.
    public func read(shape: [Int]) throws(FileError) -> [Float] {
        let (file, name) = try locate()
        return try file.readFloat32(name, expecting: shape)
    }

    /// Elements `range` of a tensor that must have `shape`, as float32, into the start of `buffer`.
    public func read(shape: [Int], range: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>) throws(FileError)
    {
        let (file, name) = try locate()
        _ = try file.tensor(name, expecting: shape)
        try file.readFloat32(name, range: range, into: buffer)
    }

    /// Throws unless a tensor of that shape and a readable type is stored here, without reading it.
    public func check(shape: [Int]) throws(FileError) {
        let (file, name) = try locate()
        let tensor = try file.tensor(name, expecting: shape)
        guard [.float32, .float16, .bfloat16, .float64].contains(tensor.elementType) else {
            throw FileError(
                .malformed, path: file.path,
                "tensor '\(name)': has dtype \(tensor.elementType.rawValue) where F32, F16, BF16 or F64 is needed; convert the file"
            )
        }
    }

    private func locate() throws(FileError) -> (file: TensorFile, name: String) {
        guard let found = checkpoint.locate(path) else { throw checkpoint.missing(path) }
        return found
    }
}
