// ELECTRA (Clark et al. 2020): BERT whose embeddings may be narrower.

import Files

extension ModelFamily {
    /// ELECTRA (Clark et al. 2020): BERT whose embeddings may be narrower.
    public static let electra = ModelFamily(
        name: "electra", modelTypes: ["electra"], classes: "Electra", prefix: "electra",
        configuration: { (reader, family) throws(FileError) in
            var configuration = try EncoderConfiguration.absoluteBERT(reader, family)
            configuration.embeddingSize = try reader.width("embedding_size", default: configuration.hiddenSize)
            return configuration
        },
        heads: TaskHeads(
            sequence: { _ throws(FileError) in
                HeadNames([
                    .dropout(1), .dense("classifier.dense"), .activation(.gelu), .dropout(0),
                    .labels("classifier.out_proj"),
                ])
            },
            language: { (source) throws(FileError) in
                HeadNames([
                    .dense("generator_predictions.dense", source.configuration.embeddingSize), .activation(.gelu),
                    .norm("generator_predictions.LayerNorm"),
                    try source.decoder("generator_lm_head", bias: "generator_lm_head.bias"),
                ])
            }),
        shapes: [
            shape("electra-small", embedding: 128, 256, 12, 4, 1024),
            shape("electra-base", embedding: 768, 768, 12, 12, 3072),
            shape("electra-large", embedding: 1024, 1024, 24, 16, 4096),
        ])

    private static func shape(
        _ name: String, embedding: Int, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int
    ) -> PublishedShape {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                "electra", "ElectraModel", hidden, layers, heads, inner, vocabulary: 30_522, epsilon: "1e-12") + """

                    "hidden_act": "gelu"
                    "type_vocab_size": 2
                    "embedding_size": \(embedding)
                    "pad_token_id": 0
                    """,
            positionKey: "max_position_embeddings", positions: 512)
    }
}
