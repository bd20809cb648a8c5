// What an encoder is made of: the shape and the options of its shared layers, whatever its family.

import Attention

/// The shape and the options of an encoder.
///
/// A family is a way to read these from `config.json` and a table of parameter names; the layers that they describe
/// are the same for all.
public struct EncoderConfiguration: Sendable, Hashable {
    /// The family, which says what parameters and the heads of tasks are called.
    public var family: ModelFamily
    /// The channels of a hidden state.
    public var hiddenSize: Int
    /// How many layers run, one after the other.
    public var layerCount: Int { layerSources.count }
    /// The query heads of a layer. Biases by distance have an entry for each.
    public var headCount: Int
    /// The width between the two dense layers of a block, after the gate where there is one.
    public var intermediateSize: Int
    /// The rows of the word table: token ids lie below.
    public var vocabularySize: Int
    /// The padding token: its rows of the tables of words and positions learn from no place where it stands, as in PyTorch
    /// (`padding_idx`).
    public var paddingId: Int?
    /// The longest document that the model takes, in tokens.
    public var positionCount: Int

    /// The width of the embedding tables; where it differs from `hiddenSize`, a dense layer follows the sum.
    public var embeddingSize: Int
    /// Whether that layer is there even where the widths are equal.
    public var alwaysProjectsEmbeddings = false
    /// The rows of the token-type table; 0 where there is none.
    public var tokenTypeCount = 0
    /// How the table of learned positions is read.
    public var positions = PositionTable.none
    /// Whether a norm follows the sum of the embeddings.
    public var hasEmbeddingNorm = true
    /// Whether that norm stands behind the dense layer which widens the embeddings, which then has no bias.
    public var normsProjectedEmbeddings = false
    /// The token-dropout rule of ESM, where the model was trained with it.
    public var maskedTokens: MaskedTokenRule?

    /// Where norms stand.
    public var norms = NormPlacement.afterResidual
    /// What they do.
    public var normKind = NormKind.layer
    /// Norms that go over queries and keys before they are turned.
    public var queryKeyNorms: QueryKeyNorms?
    /// Whether the first layer's attention reads the embeddings as they are, in a model whose norms stand before.
    public var skipsFirstNorm = false
    /// Whether a norm follows the last layer.
    public var hasFinalNorm = false
    /// What a norm adds to the variance, or to the mean square, before it takes the root.
    public var layerNormEpsilon: Float
    /// Which parts of the layers have biases.
    public var biases = Biases()

    /// The non-linearity between the two dense layers.
    public var activation = Activation.gelu
    /// Whether the inner layer has two halves, of which the second multiplies the activated first (Shazeer 2020).
    public var isGated = false
    /// Where values of hidden rows are dropped while the model is trained.
    public var dropoutPlaces = DropoutPlaces()

    /// Which parameters each layer uses: 0, 1, 2, … unless layers share them.
    public var layerSources: [Int]
    /// Layers in a group of shared ones, as ALBERT names them; 0 where layers are numbered one by one.
    public var layersPerGroup = 0
    /// What each layer's queries see, the shape of its heads, and how it turns queries and keys.
    public var attention: [AttentionPattern]
    /// The channels of a head that are turned by rotary positions, from the first one on.
    public var rotaryDimension = 0
    /// The parameters that may hold the frequencies of rotary positions, of which the first that is there counts.
    public var storedFrequencies: [String] = []
    /// What is added to scores by the distance of query and key.
    public var distanceBias: DistanceBias?
    /// How many kinds of scores the scale of their sum reckons with.
    public var scoreTerms = 1
    /// The relative positions that contents meet, where attention is disentangled.
    public var disentangled: DisentangledPositions?

    /// The width of a query and of a key of the first layer.
    public var headDimension: Int { attention.first?.heads.headDimension ?? hiddenSize / headCount }

    /// What scores are multiplied by: one over the root of the head's width times the kinds of scores that are summed.
    func scoreScale(_ heads: HeadShape) -> Float { 1 / Float(heads.headDimension * scoreTerms).squareRoot() }

    /// What the family calls the parameters.
    var names: ParameterNames { family.names(self) }

    /// Whether a dense layer stands between the embeddings and the layers.
    var hasEmbeddingProjection: Bool { alwaysProjectsEmbeddings || embeddingSize != hiddenSize }

    /// Whether positions are computed, not read out of a table, so that documents may be longer than the model's own
    /// number of positions: rotary ones, and slopes of distances (ALiBi).
    public var hasComputedPositions: Bool { positions == .none && (rotaryDimension > 0 || distanceBias == .alibi) }

    /// The rows of the table of learned positions.
    var positionRows: Int { positionCount + positions.firstRow }

    /// An encoder of which only the shape is given: the rest is that of BERT without its embedding tables.
    public init(
        family: ModelFamily, hiddenSize: Int, layerCount: Int, headCount: Int, intermediateSize: Int,
        vocabularySize: Int,
        positionCount: Int, layerNormEpsilon: Float = 1e-12
    ) {
        self.family = family
        self.hiddenSize = hiddenSize
        self.headCount = headCount
        self.intermediateSize = intermediateSize
        self.vocabularySize = vocabularySize
        self.positionCount = positionCount
        self.layerNormEpsilon = layerNormEpsilon
        embeddingSize = hiddenSize
        layerSources = Array(0..<layerCount)
        // Where the heads do not divide the width, the file is refused later.
        let heads = HeadShape(heads: headCount, headDimension: max(1, hiddenSize / headCount))
        attention = Array(repeating: AttentionPattern(heads: heads), count: layerCount)
    }
}

/// How the table of learned positions is read.
public enum PositionTable: Sendable, Hashable {
    /// There is no table.
    case none
    /// Token t reads row t.
    case fromZero
    /// As in fairseq: token t reads row `padding + n`, n being the number of tokens up to and with t that are not the
    /// padding token; the padding token itself reads row `padding`.
    case afterPadding(Int)

    /// The row that the first token of a document reads.
    var firstRow: Int { if case .afterPadding(let id) = self { id + 1 } else { 0 } }
}

/// Where the norms of a layer stand.
public enum NormPlacement: Sendable, Hashable {
    /// After each residual sum (Vaswani et al. 2017).
    case afterResidual
    /// Before attention and before the dense layers, the residual sum left as it is (Xiong et al. 2020).
    case beforeSublayer
}

/// What a norm does with a row.
public enum NormKind: Sendable, Hashable {
    /// Takes the mean off and divides by the standard deviation (Ba et al. 2016).
    case layer
    /// Divides by the root of the mean square (Zhang & Sennrich 2019).
    case rootMeanSquare
}

/// Norms of queries and keys.
public enum QueryKeyNorms: Sendable, Hashable {
    /// Over each head by itself, all with the same weights.
    case eachHead
    /// Over all heads of a row together.
    case wholeRow
}

/// Which parts of a layer have biases.
public struct Biases: Sendable, Hashable {
    /// Queries, keys, values and the attention's output.
    public var attention = true
    /// The first of the two dense layers.
    public var inner = true
    /// The second one.
    public var output = true
    /// Norms, which then shift what they have scaled.
    public var norms = true
}

/// What one layer's queries see, and with what heads: layers that agree in it can share an executor.
public struct AttentionKind: Sendable, Hashable {
    /// Which keys queries see.
    public var mask: Mask
    /// Heads of queries, keys and values, and their widths.
    public var heads: HeadShape
}

/// How one layer attends.
public struct AttentionPattern: Sendable, Hashable {
    /// What queries see.
    public var mask: Mask
    /// Heads of queries, keys and values, and their widths.
    public var heads: HeadShape
    /// The base θ of rotary positions (Su et al. 2021); nil where queries and keys are not turned.
    public var rotaryBase: Double?

    /// - Parameters:
    ///   - heads: the heads of queries, keys and values, and their widths.
    ///   - mask: what queries see.
    ///   - rotaryBase: the base θ of rotary positions; nil where queries and keys are not turned.
    public init(heads: HeadShape, mask: Mask = .full, rotaryBase: Double? = nil) {
        self.heads = heads
        self.mask = mask
        self.rotaryBase = rotaryBase
    }

    /// Mask and heads, by which layers share an executor: queries and keys come to it turned already.
    public var kind: AttentionKind { AttentionKind(mask: mask, heads: heads) }
}

/// What is added to scores by the distance of query and key.
public enum DistanceBias: Sendable, Hashable {
    /// −slope·|i − j|, a slope a head (Press et al. 2022).
    case alibi
    /// A learned bias for each head and bucket of distances, logarithmic beyond the first (Raffel et al. 2020).
    case buckets(count: Int, maximumDistance: Int)
}

/// Disentangled attention (He et al. 2021): scores of contents against a table of relative positions.
public struct DisentangledPositions: Sendable, Hashable {
    /// Half the rows of the table: one for each position on either side.
    public var span: Int
    /// Up to half of these many distances have a position of their own, the others share by their logarithm; nil: all
    /// have.
    public var buckets: Int?
    /// The distance at which the last position begins.
    public var maximumDistance: Int
    /// Whether queries meet the keys of positions (content to position).
    public var hasKeys: Bool
    /// Whether keys meet the queries of positions (position to content).
    public var hasQueries: Bool
    /// Whether positions are projected as contents are.
    public var sharesProjections: Bool
    /// Whether a norm goes over the table.
    public var hasNorm: Bool
}

/// ESM's token dropout (Lin et al. 2023): the embeddings of mask tokens are zero, and all are scaled by
/// (1 − 0.12) / (1 − share of mask tokens), for 0.12 is the share that training masked.
public struct MaskedTokenRule: Sendable, Hashable {
    /// The id of the mask token.
    public var maskId: Int
}

/// The non-linearity between the two dense layers of a block.
public enum Activation: String, Sendable {
    /// x·Φ(x) through the error function.
    case gelu
    /// Its tanh approximation.
    case geluTanh
    /// x·σ(x), also called swish.
    case silu
    /// max(x, 0).
    case relu
    case tanh

    /// By the names of `config.json`; nil for any other.
    init?(published name: String) {
        switch name {
        case "gelu", "gelu_python": self = .gelu
        case "gelu_new", "gelu_fast", "gelu_pytorch_tanh": self = .geluTanh
        case "silu", "swish": self = .silu
        case "relu": self = .relu
        case "tanh": self = .tanh
        default: return nil
        }
    }

    static let published = "gelu, gelu_python, gelu_new, gelu_fast, gelu_pytorch_tanh, silu, swish, relu, tanh"
}
