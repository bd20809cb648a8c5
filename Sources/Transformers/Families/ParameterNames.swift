// What the parameters of an encoder are called in the checkpoints of each family.

/// The names of an encoder's parameters, without the prefix of the whole model; each stands for a `.weight` and, where
/// there is one, a `.bias`. Those of a layer follow `layers`.N.
///
/// As it is made, it has the names of BERT.
struct ParameterNames: Sendable {
    var words = "embeddings.word_embeddings"
    var positions = "embeddings.position_embeddings"
    var tokenTypes = "embeddings.token_type_embeddings"
    var embeddingNorm = "embeddings.LayerNorm"
    /// From the width of the embeddings to that of the layers.
    var embeddingProjection = "embeddings_project"
    /// The biases by buckets of distances.
    var distanceBias = "encoder.relative_attention_bias"
    var finalNorm = ""

    var layers = "encoder.layer"
    /// Where layers share parameters in groups, what the layers of a group are called.
    var layersOfGroup = ""
    /// Queries, keys and values: three parameters, or one that holds all three, in this order.
    var projections = ["attention.self.query", "attention.self.key", "attention.self.value"]
    var attentionOutput = "attention.output.dense"
    /// After the attention's residual sum, or before attention.
    var attentionNorm = "attention.output.LayerNorm"
    /// The first dense layer; where it is gated, one parameter that holds the activated half and then the other, or
    /// two.
    var inner = ["intermediate.dense"]
    var output = "output.dense"
    /// After the second residual sum, or before the dense layers.
    var outputNorm = "output.LayerNorm"

    /// Relative positions, where attention is disentangled: their table, its norm, and a layer's projections of it.
    var relativePositions = "encoder.rel_embeddings"
    var relativePositionNorm = "encoder.LayerNorm"
    var positionKey = "attention.self.pos_key_proj"
    var positionQuery = "attention.self.pos_query_proj"
    /// Norms of queries and keys.
    var queryNorm = "attention.self.query_norm"
    var keyNorm = "attention.self.key_norm"

    /// Where the parameters of a layer are, by its place in `layerSources`.
    func layer(_ source: Int, _ configuration: EncoderConfiguration) -> String {
        let inGroup = configuration.layersPerGroup
        return inGroup == 0
            ? "\(layers).\(source)" : "\(layers).\(source / inGroup).\(layersOfGroup).\(source % inGroup)"
    }
}

extension EncoderConfiguration {
    /// The layer that a parameter is of, the first where several share it; nil where it is none's.
    public func layer(of parameter: String) -> Int? {
        layerSources.firstIndex { parameter.hasPrefix(names.layer($0, self) + ".") }
    }
}
