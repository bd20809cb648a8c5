// ALBERT (Lan et al. 2020): narrow embeddings, and layers that share their parameters.

import Files

extension ModelFamily {
    /// ALBERT (Lan et al. 2020): narrow embeddings, and layers that share their parameters.
    public static let albert = ModelFamily(
        name: "albert", modelTypes: ["albert"], classes: "Albert", prefix: "albert",
        configuration: { (reader, family) throws(FileError) in
            var configuration = try EncoderConfiguration.absoluteBERT(reader, family)
            configuration.activation = try reader.activation("hidden_act", default: .geluTanh)
            configuration.embeddingSize = try reader.width("embedding_size", default: 128)
            // The layer is there even where the widths are equal.
            configuration.alwaysProjectsEmbeddings = true
            configuration.dropoutPlaces.feedForwardOutput = nil
            let groups = try reader.layers("num_hidden_groups", default: 1)
            let inner = try reader.layers("inner_group_num", default: 1)
            let rounds = configuration.layerCount
            guard rounds * inner <= ConfigurationReader.mostLayers else {
                throw reader.refuse(
                    "'inner_group_num' is \(inner), too many for \(rounds) layers; the file is damaged or edited")
            }
            guard groups <= rounds else {
                throw reader.refuse("'num_hidden_groups' is \(groups), more than the \(rounds) layers")
            }
            // Round r runs all layers of its group, ⌊r / (rounds / groups)⌋ in double precision, as transformers has
            // it.
            configuration.layersPerGroup = inner
            configuration.layerSources = (0..<rounds).flatMap { round in
                let group = Int(Double(round) / (Double(rounds) / Double(groups)))
                return (0..<inner).map { group * inner + $0 }
            }
            configuration.attention = Array(repeating: configuration.attention[0], count: rounds * inner)
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.embeddingProjection = "encoder.embedding_hidden_mapping_in"
            names.layers = "encoder.albert_layer_groups"
            names.layersOfGroup = "albert_layers"
            names.projections = ["attention.query", "attention.key", "attention.value"]
            names.attentionOutput = "attention.dense"
            names.attentionNorm = "attention.LayerNorm"
            names.inner = ["ffn"]
            names.output = "ffn_output"
            names.outputNorm = "full_layer_layer_norm"
            return names
        },
        heads: TaskHeads(
            sequence: { _ throws(FileError) in
                HeadNames([.dense("pooler"), .activation(.tanh), .dropout(0), .labels("classifier")])
            },
            language: { (source) throws(FileError) in
                HeadNames([
                    .dense("predictions.dense", source.configuration.embeddingSize),
                    .activation(source.configuration.activation),
                    .norm("predictions.LayerNorm"), try source.decoder("predictions.decoder", bias: "predictions.bias"),
                ])
            }),
        shapes: [shape("albert-base", 768, 12, 12, 3072), shape("albert-large", 1024, 24, 16, 4096)])

    private static func shape(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int)
        -> PublishedShape
    {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                "albert", "AlbertModel", hidden, layers, heads, inner, vocabulary: 30_000, epsilon: "1e-12") + """

                    "hidden_act": "gelu_new"
                    "type_vocab_size": 2
                    "embedding_size": 128
                    "num_hidden_groups": 1
                    "inner_group_num": 1
                    "pad_token_id": 0
                    """,
            positionKey: "max_position_embeddings", positions: 512)
    }
}
