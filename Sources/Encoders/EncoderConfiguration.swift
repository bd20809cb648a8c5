// What a checkpoint's config.json says of the encoder, checked once and refused by name where unsupported.

import Checkpoints

/// The shape and the options of an encoder, whatever its family.
public struct EncoderConfiguration: Sendable, Hashable {
    public var family: ModelFamily
    public var hiddenSize: Int
    public var layerCount: Int
    public var headCount: Int
    public var intermediateSize: Int
    public var vocabularySize: Int
    public var tokenTypeCount: Int
    /// The rows of the position table, which is the longest document that the model takes.
    public var positionCount: Int
    public var layerNormEpsilon: Float
    public var activation: Activation

    public var headDimension: Int { hiddenSize / headCount }
}

extension EncoderConfiguration {
    /// The published shapes that can be made without a checkpoint, by name.
    public static let shapes: [String: EncoderConfiguration] = [
        "minilm": bert(hidden: 384, layers: 6, heads: 12, intermediate: 1536),
        "bert-base": bert(hidden: 768, layers: 12, heads: 12, intermediate: 3072),
        "bert-large": bert(hidden: 1024, layers: 24, heads: 16, intermediate: 4096),
    ]

    private static func bert(hidden: Int, layers: Int, heads: Int, intermediate: Int) -> EncoderConfiguration {
        EncoderConfiguration(
            family: .bert, hiddenSize: hidden, layerCount: layers, headCount: heads, intermediateSize: intermediate,
            vocabularySize: 30_522, tokenTypeCount: 2, positionCount: 512, layerNormEpsilon: 1e-12, activation: .gelu)
    }
}

/// The families of models that can be run.
public enum ModelFamily: String, Sendable, CaseIterable {
    case bert
}

/// The non-linearity between the two dense layers of a block.
public enum Activation: String, Sendable {
    /// x·Φ(x) through the error function.
    case gelu
    /// The tanh approximation, under the names `gelu_new` and `gelu_pytorch_tanh`.
    case geluTanh
}

extension EncoderConfiguration {
    /// Reads `config.json`.
    /// - Throws: `FileError` naming the file and the key, and what is supported.
    public init(_ config: JSON, path: String) throws(FileError) {
        func refuse(_ message: String) -> FileError { FileError(.malformed, path: path, message) }
        func integer(_ key: String, default standard: Int? = nil) throws(FileError) -> Int {
            guard let value = config[key], !value.isNull else {
                if let standard { return standard }
                throw refuse("'\(key)' is missing; is this the config.json of an encoder?")
            }
            guard let number = value.int, number > 0, number < 1 << 32 else {
                throw refuse("'\(key)' must be a positive integer")
            }
            return number
        }
        guard let type = config["model_type"]?.string else {
            throw refuse("'model_type' is missing; supported: \(ModelFamily.list)")
        }
        guard let family = ModelFamily(rawValue: type) else {
            throw refuse("model_type '\(type)' is not supported; supported: \(ModelFamily.list)")
        }
        self.family = family
        hiddenSize = try integer("hidden_size")
        layerCount = try integer("num_hidden_layers")
        headCount = try integer("num_attention_heads")
        intermediateSize = try integer("intermediate_size")
        vocabularySize = try integer("vocab_size")
        tokenTypeCount = try integer("type_vocab_size", default: 2)
        positionCount = try integer("max_position_embeddings")
        guard hiddenSize % headCount == 0 else {
            throw refuse(
                "'num_attention_heads' (\(headCount)) does not divide 'hidden_size' (\(hiddenSize)); the file is damaged or edited")
        }
        let epsilon = config["layer_norm_eps"]?.double ?? 1e-12
        guard epsilon >= 0, epsilon < 1 else { throw refuse("'layer_norm_eps' must be a small number, not \(epsilon)") }
        layerNormEpsilon = Float(epsilon)
        switch config["hidden_act"]?.string ?? "gelu" {
        case "gelu": activation = .gelu
        case "gelu_new", "gelu_pytorch_tanh": activation = .geluTanh
        case let other: throw refuse("hidden_act '\(other)' is not supported; supported: gelu, gelu_new, gelu_pytorch_tanh")
        }
        if let positions = config["position_embedding_type"]?.string, positions != "absolute" {
            throw refuse("position_embedding_type '\(positions)' is not supported; supported: absolute")
        }
        for key in ["is_decoder", "add_cross_attention"] where config[key]?.bool == true {
            throw refuse("'\(key)' is true; only bidirectional encoders are supported")
        }
    }
}

extension ModelFamily {
    /// The supported families, as error messages list them.
    public static var list: String { allCases.map(\.rawValue).joined(separator: ", ") }
}
