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
    /// Where the gradients of the parameters go, in the order in which the layers come to them; none where the encoder is
    /// not trained.
    public let gradientSlots: [GradientSlot]
    /// By how much the numbers of a layer's slots are greater than those that the layer itself knows, which another one
    /// may share.
    let slotOffsets: [Int]
    /// By layer, where the gradients of biases by buckets of distances go; empty where there are none, or nothing is
    /// trained.
    let distanceBiasSlots: [Int]
    /// By layer: those slots, and one past them all.
    private let firstSlots: [Int]

    /// The tables whose rows are summed for each token, the norm over their sum, and the dense layer behind it.
    struct Embeddings: Sendable {
        /// (vocabulary, embeddingSize)
        let words: WeightBlock
        let wordSlot: Int?
        /// (positionRows, embeddingSize); nil where positions are not learned.
        let positions: WeightBlock?
        let positionSlot: Int?
        /// (token types, embeddingSize); nil where there are none.
        let tokenTypes: WeightBlock?
        let tokenTypeSlot: Int?
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
    /// - Parameters:
    ///   - configuration: the shape and the options of the layers.
    ///   - parameters: what has the weights.
    ///   - storage: where the weights are put.
    ///   - element: what the weights of dense layers, keys and values are stored in.
    ///   - trains: whether gradients go back through it: dense layers then hold their weights' transposes too, and all
    ///     are float32.
    ///   - kernels: those that pack the weights and that every run computes with.
    /// - Throws: what the source throws; `FileError` where `trains` and the model's attention cannot be trained.
    public init(
        _ configuration: EncoderConfiguration, parameters: any ParameterSource,
        storage: WeightStorage = WeightStorage(),
        element: ElementKind = .float32, trains: Bool = false, kernels: KernelSet
    ) throws(FileError) {
        precondition(!trains || element == .float32, "weights that are trained are float32")
        if trains, configuration.disentangled != nil {
            throw FileError(
                .malformed, path: "config.json",
                "the disentangled attention of \(configuration.family.name) cannot be trained; other families can")
        }
        let names = configuration.names
        let slots = trains ? GradientSlots() : nil
        let root = ParameterPath(source: parameters, storage: storage, slots: slots)
        self.configuration = configuration
        self.kernels = kernels
        self.element = element
        embeddings = try Embeddings(root, configuration, names, element, kernels)
        let bias = root[names.distanceBias]["weight"]
        let biasShape = configuration.distanceBiasShape
        distanceBiasSlots = configuration.layerSources.compactMap { _ in biasShape.flatMap { bias.slot(shape: $0) } }
        var positions: PositionEmbeddings?
        if let shape = configuration.disentangled {
            positions = try PositionEmbeddings(root, shape, configuration, names, kernels)
        }
        var distinct: [Int: (layer: Block, slots: Range<Int>)] = [:]
        var layers: [Block] = []
        var slotOffsets: [Int] = []
        var firstSlots: [Int] = []
        for (index, source) in configuration.layerSources.enumerated() {
            firstSlots.append(slots?.slots.count ?? 0)
            if let shared = distinct[source] {
                layers.append(shared.layer)
                slotOffsets.append(slots?.add(again: shared.slots) ?? 0)
                continue
            }
            storage.beginPart()
            let layer = try Block(
                root[names.layer(source, configuration)], configuration.attention[index], configuration, names,
                isFirst: index == 0,
                positions: positions, element, kernels)
            distinct[source] = (layer, firstSlots[index]..<(slots?.slots.count ?? 0))
            layers.append(layer)
            slotOffsets.append(0)
        }
        self.layers = layers
        self.slotOffsets = slotOffsets
        self.firstSlots = firstSlots + [slots?.slots.count ?? 0]
        finalNorm =
            configuration.hasFinalNorm
            ? try Norm(root[names.finalNorm], width: configuration.hiddenSize, configuration) : nil
        var modifiers = try ScoreModifiers(configuration, root[names.distanceBias])
        modifiers.relativePositions = positions?.positions
        self.modifiers = modifiers
        rotary = try RotaryFrequencies(configuration, root)
        gradientSlots = slots?.slots ?? []
    }
}

extension Encoder {
    /// The slots of a layer's parameters.
    func layerSlots(_ layer: Int) -> Range<Int> { firstSlots[layer]..<firstSlots[layer + 1] }
}

extension Encoder.Embeddings {
    init(
        _ root: ParameterPath, _ configuration: EncoderConfiguration, _ names: ParameterNames, _ element: ElementKind,
        _ kernels: KernelSet
    ) throws(FileError) {
        let width = configuration.embeddingSize
        func table(_ name: String, rows: Int) throws(FileError) -> (WeightBlock, slot: Int?) {
            let (path, shape) = (root[name]["weight"], [rows, width])
            return (try path.table(shape: shape), path.slot(shape: shape, isTable: true))
        }
        (words, wordSlot) = try table(names.words, rows: configuration.vocabularySize)
        if configuration.positions == .none {
            (positions, positionSlot) = (nil, nil)
        } else {
            (positions, positionSlot) = try table(names.positions, rows: configuration.positionRows)
        }
        if configuration.tokenTypeCount == 0 {
            (tokenTypes, tokenTypeSlot) = (nil, nil)
        } else {
            (tokenTypes, tokenTypeSlot) = try table(names.tokenTypes, rows: configuration.tokenTypeCount)
        }
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
