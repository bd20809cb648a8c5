// ESM-2 and ESM-1b (Lin et al. 2023): protein language models with norms before.

import Files

extension ModelFamily {
    /// ESM-2 and ESM-1b (Lin et al. 2023), language models of proteins; their folding models are refused.
    public static let esm = ModelFamily(
        name: "esm", modelTypes: ["esm"], classes: "Esm", prefix: "esm",
        configuration: { (reader, family) throws(FileError) in
            try reader.refuse(ifSet: "is_folding_model", because: "only the language model is supported")
            var configuration = try EncoderConfiguration.layersOfBERT(reader, family)
            configuration.activation = .gelu
            configuration.norms = .beforeSublayer
            configuration.hasFinalNorm = true
            configuration.dropoutPlaces.embeddings = nil
            configuration.hasEmbeddingNorm = try reader.flag("emb_layer_norm_before", default: false)
            let padding = try reader.tokenId("pad_token_id") ?? 1
            switch try reader.text("position_embedding_type", default: "absolute") {
            case "absolute": try configuration.countPositions(reader, afterPadding: padding)
            case "rotary":
                configuration.rotaryDimension = configuration.headDimension
                let base = try reader.rotaryBase(try reader.number("rope_theta", default: 10_000))
                for layer in configuration.attention.indices { configuration.attention[layer].rotaryBase = base }
                // Checkpoints keep the frequencies, some of which were rounded to float16 in training; those count.
                configuration.storedFrequencies = [
                    "rotary_embeddings.inv_freq", "encoder.layer.0.attention.self.rotary_embeddings.inv_freq",
                ]
            case let other:
                throw reader.refuse("position_embedding_type '\(other)' is not supported; supported: absolute, rotary")
            }
            if try reader.flag("token_dropout", default: false) {
                guard let mask = try reader.tokenId("mask_token_id") else {
                    throw reader.refuse("'token_dropout' needs 'mask_token_id'")
                }
                configuration.maskedTokens = MaskedTokenRule(maskId: mask)
            }
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.embeddingNorm = "embeddings.layer_norm"
            names.attentionNorm = "attention.LayerNorm"
            names.outputNorm = "LayerNorm"
            names.finalNorm = "encoder.emb_layer_norm_after"
            return names
        },
        heads: .ofRoBERTa, paddingId: nil,
        shapes: [
            shape("esm2-8m", 320, 6, 20), shape("esm2-35m", 480, 12, 20), shape("esm2-150m", 640, 30, 20),
            shape("esm2-650m", 1280, 33, 20),
        ])

    private static func shape(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int) -> PublishedShape {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                "esm", "EsmModel", hidden, layers, heads, 4 * hidden, vocabulary: 33, epsilon: "1e-05") + """

                    "hidden_act": "gelu"
                    "position_embedding_type": "rotary"
                    "emb_layer_norm_before": false
                    "token_dropout": true
                    "mask_token_id": 32
                    "pad_token_id": 1
                    """,
            positionKey: "max_position_embeddings", positions: 1026)
    }
}
