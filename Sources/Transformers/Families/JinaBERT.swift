// Jina BERT v2 (Günther et al. 2023): ALiBi instead of positions, gated dense layers. Its `config.json` says `bert` and
// `alibi`.

import Files

extension ModelFamily {
    /// Jina BERT v2 (Günther et al. 2023): ALiBi instead of learned positions. Its files may call themselves `bert`.
    public static let jinaBert = ModelFamily(
        name: "jina_bert", modelTypes: ["jina_bert", "bert"], classes: "JinaBert", prefix: "bert",
        recognises: { $0["model_type"]?.string == "jina_bert" || $0["position_embedding_type"]?.string == "alibi" },
        configuration: { (reader, family) throws(FileError) in
            if let map = reader.config["auto_map"]?.object,
                map.members.contains(where: { $0.value.string?.contains("qk-post-norm") == true })
            {
                throw reader.refuse(
                    "auto_map names jina-bert-v2-qk-post-norm, a variant with norms on queries and keys, which is not supported"
                )
            }
            var configuration = try EncoderConfiguration.layersOfBERT(reader, family)
            configuration.tokenTypeCount = try reader.size("type_vocab_size", default: 2)
            configuration.distanceBias = .alibi
            switch try reader.text("feed_forward_type", default: "original") {
            case "original": break
            case "geglu":
                configuration.isGated = true
                configuration.activation = .gelu
                configuration.biases.inner = false
            case "reglu":
                configuration.isGated = true
                configuration.activation = .relu
                configuration.biases.inner = false
            case let other:
                throw reader.refuse("feed_forward_type '\(other)' is not supported; supported: original, geglu, reglu")
            }
            if configuration.isGated {
                configuration.dropoutPlaces = DropoutPlaces(feedForwardInner: .values, feedForwardOutput: nil)
            }
            return configuration
        },
        names: { configuration in
            var names = ParameterNames()
            guard configuration.isGated else { return names }
            names.inner = ["mlp.gated_layers"]
            names.output = "mlp.wo"
            names.outputNorm = "mlp.layernorm"
            return names
        },
        // A gated feed-forward has an activation of its own, which is not the head's.
        heads: .ofBERT(activation: { (source) throws(FileError) in try source.reader.activation("hidden_act") }),
        shapes: [shape("jina-v2-small", 512, 4, 8, 2048), shape("jina-v2-base", 768, 12, 12, 3072)])

    private static func shape(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int)
        -> PublishedShape
    {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                "bert", "JinaBertModel", hidden, layers, heads, inner, vocabulary: 30_528, epsilon: "1e-12") + """

                    "hidden_act": "gelu"
                    "type_vocab_size": 2
                    "position_embedding_type": "alibi"
                    "feed_forward_type": "geglu"
                    "emb_pooler": "mean"
                    "pad_token_id": 0
                    """,
            positionKey: "max_position_embeddings", positions: 8192)
    }
}
