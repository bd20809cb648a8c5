// DistilBERT (Sanh et al. 2019): BERT without token types.

import Files

extension ModelFamily {
    /// DistilBERT (Sanh et al. 2019): BERT without token types.
    public static let distilbert = ModelFamily(
        name: "distilbert", modelTypes: ["distilbert"], classes: "DistilBert", prefix: "distilbert",
        configuration: { (reader, family) throws(FileError) in
            var configuration = EncoderConfiguration(
                family: family, hiddenSize: try reader.width("dim", "hidden_size"),
                layerCount: try reader.layers("n_layers", "num_hidden_layers"),
                headCount: try reader.width("n_heads", "num_attention_heads"),
                intermediateSize: try reader.width("hidden_dim"), vocabularySize: try reader.size("vocab_size"),
                positionCount: try reader.size("max_position_embeddings"), layerNormEpsilon: 1e-12)
            configuration.activation = try reader.activation("activation")
            // Sinusoidal positions are stored as a table too.
            configuration.positions = .fromZero
            configuration.dropoutPlaces.attentionOutput = nil
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.layers = "transformer.layer"
            names.projections = ["attention.q_lin", "attention.k_lin", "attention.v_lin"]
            names.attentionOutput = "attention.out_lin"
            names.attentionNorm = "sa_layer_norm"
            names.inner = ["ffn.lin1"]
            names.output = "ffn.lin2"
            names.outputNorm = "output_layer_norm"
            return names
        },
        heads: TaskHeads(
            sequence: { _ throws(FileError) in
                HeadNames([.dense("pre_classifier"), .activation(.relu), .dropout(0), .labels("classifier")])
            },
            language: { (source) throws(FileError) in
                HeadNames([
                    .dense("vocab_transform"), .activation(source.configuration.activation), .norm("vocab_layer_norm"),
                    try source.decoder("vocab_projector", bias: "vocab_projector.bias"),
                ])
            }),
        shapes: [
            PublishedShape(
                name: "distilbert-base",
                members: """
                    "model_type": "distilbert"
                    "architectures": ["DistilBertModel"]
                    "dim": 768
                    "n_layers": 6
                    "n_heads": 12
                    "hidden_dim": 3072
                    "activation": "gelu"
                    "vocab_size": 30522
                    "pad_token_id": 0
                    """,
                positionKey: "max_position_embeddings", positions: 512)
        ])
}
