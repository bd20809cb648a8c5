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
    /// Queries, keys and values: three parameters, or one that holds all three, in this order.
    var projections = ["attention.self.query", "attention.self.key", "attention.self.value"]
    var attentionOutput = "attention.output.dense"
    /// After the attention's residual sum, or before attention.
    var attentionNorm = "attention.output.LayerNorm"
    /// The first dense layer; where it is gated, one parameter that holds the activated half and then the other, or two.
    var inner = ["intermediate.dense"]
    var output = "output.dense"
    /// After the second residual sum, or before the dense layers.
    var outputNorm = "output.LayerNorm"

    /// Those of a family.
    init(_ family: ModelFamily, isGated: Bool) {
        switch family {
        case .bert, .electra, .roberta, .xlmRoberta, .camembert: break
        case .albert:
            embeddingProjection = "encoder.embedding_hidden_mapping_in"
            layers = "encoder.albert_layer_groups"
            projections = ["attention.query", "attention.key", "attention.value"]
            attentionOutput = "attention.dense"
            attentionNorm = "attention.LayerNorm"
            inner = ["ffn"]
            output = "ffn_output"
            outputNorm = "full_layer_layer_norm"
        case .debertaV2:
            embeddingProjection = "embeddings.embed_proj"
            projections = ["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"]
        case .distilbert:
            layers = "transformer.layer"
            projections = ["attention.q_lin", "attention.k_lin", "attention.v_lin"]
            attentionOutput = "attention.out_lin"
            attentionNorm = "sa_layer_norm"
            inner = ["ffn.lin1"]
            output = "ffn.lin2"
            outputNorm = "output_layer_norm"
        case .mpnet:
            projections = ["attention.attn.q", "attention.attn.k", "attention.attn.v"]
            attentionOutput = "attention.attn.o"
            attentionNorm = "attention.LayerNorm"
        case .jinaBert:
            guard isGated else { break }
            inner = ["mlp.gated_layers"]
            output = "mlp.wo"
            outputNorm = "mlp.layernorm"
        case .modernbert:
            words = "embeddings.tok_embeddings"
            embeddingNorm = "embeddings.norm"
            finalNorm = "final_norm"
            layers = "layers"
            projections = ["attn.Wqkv"]
            attentionOutput = "attn.Wo"
            attentionNorm = "attn_norm"
            inner = ["mlp.Wi"]
            output = "mlp.Wo"
            outputNorm = "mlp_norm"
        case .nomicBert:
            embeddingNorm = "emb_ln"
            layers = "encoder.layers"
            projections = ["attn.Wqkv"]
            attentionOutput = "attn.out_proj"
            attentionNorm = "norm1"
            inner = ["mlp.fc12", "mlp.fc11"]
            output = "mlp.fc2"
            outputNorm = "norm2"
        case .esm:
            embeddingNorm = "embeddings.layer_norm"
            attentionNorm = "attention.LayerNorm"
            outputNorm = "LayerNorm"
            finalNorm = "encoder.emb_layer_norm_after"
        }
    }

    /// Where the parameters of a layer are, by its place in `layerSources`.
    func layer(_ source: Int, _ configuration: EncoderConfiguration) -> String {
        let inGroup = configuration.layersPerGroup
        return inGroup == 0 ? "\(layers).\(source)" : "\(layers).\(source / inGroup).albert_layers.\(source % inGroup)"
    }
}
