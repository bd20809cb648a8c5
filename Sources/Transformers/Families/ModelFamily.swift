// What a family of models is, and which there are.

import Files

/// A family of models, defined once, in a file of its own: which `config.json` is of it, what that makes of the shared
/// layers, what its parameters and heads are called, and the shapes that were published. Nothing else asks which family
/// a model is of.
public struct ModelFamily: Sendable {
    /// What messages call it.
    public let name: String
    /// The `model_type`s that its files have.
    let modelTypes: [String]
    /// What the names of its classes in transformers begin with: `BertForMaskedLM` is of `Bert`.
    public let classes: String
    /// The prefix under which checkpoints of a model with a head have the encoder's parameters.
    public let prefix: String
    /// Whether a `config.json` of one of these types is of this family: several share one.
    var recognises: @Sendable (JSON) -> Bool = { _ in true }
    /// The encoder that a `config.json` describes; handed the family itself.
    let configuration: @Sendable (ConfigurationReader, ModelFamily) throws(FileError) -> EncoderConfiguration
    /// The names of the parameters of such an encoder.
    var names: @Sendable (EncoderConfiguration) -> ParameterNames = { _ in ParameterNames() }
    /// The heads of its tasks.
    let heads: TaskHeads
    /// The padding token where a `config.json` names none.
    var paddingId: Int? = 0
    /// Shapes that can be made without their checkpoints.
    var shapes: [PublishedShape] = []

    /// All families, in the order in which their shapes are listed.
    static let all: [ModelFamily] = [
        .bert, .roberta, .xlmRoberta, .camembert, .distilbert, .albert, .debertaV2, .electra, .mpnet, .modernbert,
        .nomicBert, .jinaBert, .esm,
    ]

    /// The supported families, as error messages list them.
    public static var list: String { all.map(\.name).sorted().joined(separator: ", ") }
}

extension ModelFamily: Hashable {
    /// Families are told apart by their names.
    public static func == (one: ModelFamily, other: ModelFamily) -> Bool { one.name == other.name }
    /// Hashes the name.
    public func hash(into hasher: inout Hasher) { hasher.combine(name) }
}

extension EncoderConfiguration {
    /// Reads `config.json`.
    /// - Throws: `FileError` naming the file and the key, and what is supported.
    public init(_ config: JSON, path: String) throws(FileError) {
        let reader = ConfigurationReader(config: config, path: path)
        guard let type = config["model_type"]?.string else {
            throw reader.refuse("'model_type' is missing; supported: \(ModelFamily.list)")
        }
        guard let family = ModelFamily.all.first(where: { $0.modelTypes.contains(type) && $0.recognises(config) })
        else {
            throw reader.refuse("model_type '\(type)' is not supported; supported: \(ModelFamily.list)")
        }
        try reader.refuse(
            ifSet: "is_decoder", "add_cross_attention", "is_encoder_decoder",
            because: "only bidirectional encoders are supported")
        try reader.refuse("quantization_config", unless: [])
        self = try family.configuration(reader, family)
        // As transformers and PyTorch read it: null is no padding token, and a negative one counts from the end of the table.
        paddingId = config["pad_token_id"].map { $0.int.map { $0 < 0 ? vocabularySize + $0 : $0 } } ?? family.paddingId
        if case .afterPadding(let id) = positions { paddingId = id }
        guard hiddenSize % headCount == 0 else {
            let heads = ["num_attention_heads", "n_heads", "n_head"].first(where: reader.has) ?? "num_attention_heads"
            let width = ["hidden_size", "dim", "n_embd"].first(where: reader.has) ?? "hidden_size"
            throw reader.refuse(
                "'\(heads)' (\(headCount)) does not divide '\(width)' (\(hiddenSize)); the file is damaged or edited")
        }
        guard rotaryDimension % 2 == 0 else {
            throw reader.refuse(
                "heads of \(headDimension) channels cannot be turned pair by pair; the file is damaged or edited")
        }
    }
}
