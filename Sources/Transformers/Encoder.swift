// An encoder's weights in memory, packed for the kernels; shared by all ranks of a process.

import Attention
import Checkpoints
import Files
import Matrices

/// A loaded model: immutable, so any number of runs may share it.
public struct Encoder: Sendable {
    /// The shape and the options of the layers.
    public let configuration: EncoderConfiguration
    /// The kernels that packed the weights and that every run computes with.
    public let kernels: KernelSet
    /// What the weights of dense layers, keys and values are stored in; everything else is float32.
    public let element: ElementKind
    let embeddings: Embeddings
    let layers: [Block]
    let finalNorm: Norm?
    /// What is done to the scores of every layer.
    let modifiers: ScoreModifiers
    let rotary: RotaryFrequencies

    /// The tables whose rows are summed for each token, the norm over their sum, and the dense layer behind it.
    struct Embeddings: Sendable {
        /// (vocabulary, embeddingSize)
        let words: WeightBlock
        /// (positionRows, embeddingSize); nil where positions are not learned.
        let positions: WeightBlock?
        /// (token types, embeddingSize); nil where there are none.
        let tokenTypes: WeightBlock?
        let norm: Norm?
        /// From embeddingSize to hiddenSize; nil where they are the same.
        let projection: Dense?
        /// Whether the norm stands behind the projection.
        let normIsLast: Bool
    }

    /// Loads the weights of a checkpoint.
    /// - Parameters:
    ///   - checkpoint: the model's files, from whose `config.json` the configuration is read.
    ///   - storage: where the weights are put.
    ///   - element: what the weights of dense layers, keys and values are stored in.
    ///   - kernels: those that pack the weights and that every run computes with.
    /// - Throws: `FileError` naming the file and tensor.
    public init(
        _ checkpoint: Checkpoint, storage: WeightStorage = WeightStorage(), element: ElementKind = .float32,
        kernels: KernelSet
    ) throws(FileError) {
        let configuration = try EncoderConfiguration(checkpoint.config, path: checkpoint.configPath)
        try self.init(configuration, parameters: checkpoint, storage: storage, element: element, kernels: kernels)
    }

    /// Takes the parameters under the names that Hugging Face publishes.
    /// - Throws: what the source throws.
    public init(
        _ configuration: EncoderConfiguration, parameters: any ParameterSource,
        storage: WeightStorage = WeightStorage(),
        element: ElementKind = .float32, kernels: KernelSet
    ) throws(FileError) {
        let names = configuration.names
        let root = ParameterPath(source: parameters, storage: storage)
        self.configuration = configuration
        self.kernels = kernels
        self.element = element
        embeddings = try Embeddings(root, configuration, names, element, kernels)
        var positions: PositionEmbeddings?
        if let shape = configuration.disentangled {
            positions = try PositionEmbeddings(root, shape, configuration, names, kernels)
        }
        var distinct: [Int: Block] = [:]
        var layers: [Block] = []
        for (index, source) in configuration.layerSources.enumerated() {
            if let shared = distinct[source] {
                layers.append(shared)
                continue
            }
            storage.beginPart()
            let layer = try Block(
                root[names.layer(source, configuration)], configuration.attention[index], configuration, names,
                isFirst: index == 0,
                positions: positions, element, kernels)
            distinct[source] = layer
            layers.append(layer)
        }
        self.layers = layers
        finalNorm =
            configuration.hasFinalNorm
            ? try Norm(root[names.finalNorm], width: configuration.hiddenSize, configuration) : nil
        var modifiers = try ScoreModifiers(configuration, root[names.distanceBias])
        modifiers.relativePositions = positions?.positions
        self.modifiers = modifiers
        rotary = try RotaryFrequencies(configuration, root)
    }
}

extension Encoder.Embeddings {
    init(
        _ root: ParameterPath, _ configuration: EncoderConfiguration, _ names: ParameterNames, _ element: ElementKind,
        _ kernels: KernelSet
    ) throws(FileError) {
        let width = configuration.embeddingSize
        words = try root[names.words]["weight"].table(shape: [configuration.vocabularySize, width])
        positions =
            configuration.positions == .none
            ? nil : try root[names.positions]["weight"].table(shape: [configuration.positionRows, width])
        tokenTypes =
            configuration.tokenTypeCount == 0
            ? nil : try root[names.tokenTypes]["weight"].table(shape: [configuration.tokenTypeCount, width])
        norm =
            configuration.hasEmbeddingNorm
            ? try Norm(
                root[names.embeddingNorm],
                width: configuration.normsProjectedEmbeddings ? configuration.hiddenSize : width, configuration) : nil
        normIsLast = configuration.normsProjectedEmbeddings
        projection =
            configuration.hasEmbeddingProjection
            ? try Dense(
                root[names.embeddingProjection], inputs: width, outputs: configuration.hiddenSize,
                hasBias: !configuration.normsProjectedEmbeddings, element: element, kernels: kernels) : nil
    }
}
