// An encoder's weights in memory, packed for the kernels; shared by all ranks of a process.

import Attention
import Checkpoints
import Matrices

/// A loaded model: immutable, so any number of runs may share it.
public struct Encoder: Sendable {
    public let configuration: EncoderConfiguration
    public let kernels: KernelSet
    /// What the weights of dense layers, keys and values are stored in; everything else is float32.
    public let element: ElementKind
    let embeddings: Embeddings
    let layers: [EncoderLayer]

    /// Word, position and token-type tables and the norm over their sum.
    struct Embeddings: Sendable {
        /// (vocabulary, hidden)
        let words: [Float]
        /// (positions, hidden)
        let positions: [Float]
        /// (token types, hidden); only type 0 is used, for single sequences.
        let tokenTypes: [Float]
        let norm: LayerNorm
    }

    /// Loads the weights of a checkpoint.
    /// - Throws: `FileError` naming the file and tensor.
    public init(_ checkpoint: Checkpoint, element: ElementKind = .float32, kernels: KernelSet) throws(FileError) {
        let configuration = try EncoderConfiguration(checkpoint.config, path: checkpoint.folder + "/config.json")
        try self.init(configuration, parameters: checkpoint, element: element, kernels: kernels)
    }

    /// Takes the parameters under the names that Hugging Face publishes.
    /// - Throws: what the source throws.
    public init(
        _ configuration: EncoderConfiguration, parameters: any ParameterSource, element: ElementKind = .float32,
        kernels: KernelSet
    ) throws(FileError) {
        let hidden = configuration.hiddenSize
        let root = ParameterPath(source: parameters, name: "")
        let path = root["embeddings"]
        self.configuration = configuration
        self.kernels = kernels
        self.element = element
        embeddings = Embeddings(
            words: try path["word_embeddings"]["weight"].read(shape: [configuration.vocabularySize, hidden]),
            positions: try path["position_embeddings"]["weight"].read(shape: [configuration.positionCount, hidden]),
            tokenTypes: try path["token_type_embeddings"]["weight"].read(shape: [configuration.tokenTypeCount, hidden]),
            norm: try LayerNorm(path["LayerNorm"], width: hidden, epsilon: configuration.layerNormEpsilon))
        var layers: [EncoderLayer] = []
        for index in 0..<configuration.layerCount {
            layers.append(try EncoderLayer(root["encoder"]["layer"][index], configuration, element, kernels))
        }
        self.layers = layers
    }

    /// The head shape of its self-attention.
    public var heads: HeadShape { configuration.heads }
}

/// Scale and shift over a normalised row.
struct LayerNorm: Sendable {
    let weight: [Float]
    let bias: [Float]
    let epsilon: Float

    init(_ path: ParameterPath, width: Int, epsilon: Float) throws(FileError) {
        weight = try path["weight"].read(shape: [width])
        bias = try path["bias"].read(shape: [width])
        self.epsilon = epsilon
    }
}

/// A dense layer y = x·Wᵀ + b.
struct Dense: Sendable {
    let weight: PackedMatrix
    let bias: [Float]

    init(_ path: ParameterPath, inputs: Int, outputs: Int, element: ElementKind, kernels: KernelSet) throws(FileError) {
        let rows = try path["weight"].read(shape: [outputs, inputs])
        weight = rows.withUnsafeBufferPointer {
            PackedMatrix(weights: $0, inputs: inputs, outputs: outputs, element: element, kernels: kernels)
        }
        bias = try path["bias"].read(shape: [outputs])
    }
}

/// The weights of one block: self-attention, then two dense layers, each followed by residual and norm
/// (post-norm; Vaswani et al. 2017, Devlin et al. 2019).
struct EncoderLayer: Sendable {
    let query: Dense
    let key: Dense
    let value: Dense
    let attentionOutput: Dense
    let attentionNorm: LayerNorm
    let intermediate: Dense
    let output: Dense
    let outputNorm: LayerNorm

    init(
        _ path: ParameterPath, _ configuration: EncoderConfiguration, _ element: ElementKind, _ kernels: KernelSet
    ) throws(FileError) {
        func dense(_ path: ParameterPath, inputs: Int, outputs: Int) throws(FileError) -> Dense {
            try Dense(path, inputs: inputs, outputs: outputs, element: element, kernels: kernels)
        }
        let hidden = configuration.hiddenSize
        let inner = configuration.intermediateSize
        let epsilon = configuration.layerNormEpsilon
        let attention = path["attention"]
        query = try dense(attention["self"]["query"], inputs: hidden, outputs: hidden)
        key = try dense(attention["self"]["key"], inputs: hidden, outputs: hidden)
        value = try dense(attention["self"]["value"], inputs: hidden, outputs: hidden)
        attentionOutput = try dense(attention["output"]["dense"], inputs: hidden, outputs: hidden)
        attentionNorm = try LayerNorm(attention["output"]["LayerNorm"], width: hidden, epsilon: epsilon)
        intermediate = try dense(path["intermediate"]["dense"], inputs: hidden, outputs: inner)
        output = try dense(path["output"]["dense"], inputs: inner, outputs: hidden)
        outputNorm = try LayerNorm(path["output"]["LayerNorm"], width: hidden, epsilon: epsilon)
    }
}
