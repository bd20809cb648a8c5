// MPNet (Song et al. 2020): a bias by buckets of distances, shared by all layers; the padding id is always 1.

import Files

extension ModelFamily {
    /// MPNet (Song et al. 2020): beside learned positions a bias by distance, the same in all layers.
    public static let mpnet = ModelFamily(
        name: "mpnet", modelTypes: ["mpnet"], classes: "MPNet", prefix: "mpnet",
        configuration: { (reader, family) throws(FileError) in
            var configuration = try EncoderConfiguration.layersOfBERT(reader, family)
            try configuration.countPositions(reader, afterPadding: 1)
            let buckets = try reader.width("relative_attention_num_buckets", default: 32)
            // Half of them are for keys behind the query, and half of those for single distances.
            guard buckets >= 4 else {
                throw reader.refuse("'relative_attention_num_buckets' is \(buckets), and at least 4 are needed")
            }
            configuration.distanceBias = .buckets(count: buckets, maximumDistance: 128)
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.projections = ["attention.attn.q", "attention.attn.k", "attention.attn.v"]
            names.attentionOutput = "attention.attn.o"
            names.attentionNorm = "attention.LayerNorm"
            return names
        },
        heads: .ofRoBERTa,
        shapes: [
            PublishedShape(
                name: "mpnet-base",
                members: PublishedShape.layers(
                    "mpnet", "MPNetModel", 768, 12, 12, 3072, vocabulary: 30_527, epsilon: "1e-05") + """

                        "hidden_act": "gelu"
                        "relative_attention_num_buckets": 32
                        "pad_token_id": 1
                        """,
                positionKey: "max_position_embeddings", positions: 514, firstRow: 2)
        ])
}
