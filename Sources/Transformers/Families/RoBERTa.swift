// RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020) and CamemBERT (Martin et al. 2020): BERT whose positions count
// from the padding id.

import Files

extension ModelFamily {
    /// RoBERTa (Liu et al. 2019): BERT whose positions count from the padding id.
    public static let roberta = robertaLike(
        "roberta", "Roberta",
        [
            shape("roberta-base", "roberta", "RobertaModel", 768, 12, 12, 3072, vocabulary: 50_265),
            shape("roberta-large", "roberta", "RobertaModel", 1024, 24, 16, 4096, vocabulary: 50_265),
        ])
    /// XLM-R (Conneau et al. 2020): RoBERTa's layers, with a vocabulary for many languages.
    public static let xlmRoberta = robertaLike(
        "xlm-roberta", "XLMRoberta",
        [
            shape("xlm-roberta-base", "xlm-roberta", "XLMRobertaModel", 768, 12, 12, 3072, vocabulary: 250_002),
            shape("xlm-roberta-large", "xlm-roberta", "XLMRobertaModel", 1024, 24, 16, 4096, vocabulary: 250_002),
        ])
    /// CamemBERT (Martin et al. 2020): RoBERTa's layers, trained on French.
    public static let camembert = robertaLike(
        "camembert", "Camembert",
        [shape("camembert-base", "camembert", "CamembertModel", 768, 12, 12, 3072, vocabulary: 32_005)])

    private static func robertaLike(_ name: String, _ classes: String, _ shapes: [PublishedShape]) -> ModelFamily {
        ModelFamily(
            name: name, modelTypes: [name], classes: classes, prefix: "roberta",
            configuration: { (reader, family) throws(FileError) in
                try reader.refuse("position_embedding_type", unless: [.string("absolute")])
                var configuration = try EncoderConfiguration.layersOfBERT(reader, family)
                configuration.tokenTypeCount = try reader.size("type_vocab_size", default: 2)
                try configuration.countPositions(reader, afterPadding: try reader.tokenId("pad_token_id") ?? 1)
                return configuration
            },
            heads: .ofRoBERTa, shapes: shapes)
    }

    private static func shape(
        _ name: String, _ type: String, _ architecture: String, _ hidden: Int, _ layers: Int, _ heads: Int,
        _ inner: Int, vocabulary: Int
    ) -> PublishedShape {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                type, architecture, hidden, layers, heads, inner, vocabulary: vocabulary, epsilon: "1e-05") + """

                    "hidden_act": "gelu"
                    "type_vocab_size": 1
                    "bos_token_id": 0
                    "eos_token_id": 2
                    "pad_token_id": 1
                    """,
            positionKey: "max_position_embeddings", positions: 514, firstRow: 2)
    }
}

extension TaskHeads {
    /// The heads of RoBERTa.
    static let ofRoBERTa = TaskHeads(
        sequence: { _ throws(FileError) in
            HeadNames([
                .dropout(1), .dense("classifier.dense"), .activation(.tanh), .dropout(0),
                .labels("classifier.out_proj"),
            ])
        },
        language: { (source) throws(FileError) in
            HeadNames([
                .dense("lm_head.dense"), .activation(.gelu), .norm("lm_head.layer_norm"),
                try source.decoder("lm_head.decoder", bias: "lm_head.bias"),
            ])
        })
}
