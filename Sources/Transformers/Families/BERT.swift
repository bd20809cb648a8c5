// BERT (Devlin et al. 2019), and what the families that keep its layers take from it.

import Files

extension ModelFamily {
    /// BERT (Devlin et al. 2019): learned positions and norms after each residual sum.
    public static let bert = ModelFamily(
        name: "bert", modelTypes: ["bert"], classes: "Bert", prefix: "bert",
        recognises: { $0["position_embedding_type"]?.string != "alibi" },
        configuration: { (reader, family) throws(FileError) in try .absoluteBERT(reader, family) },
        heads: .ofBERT(),
        shapes: [
            shape("minilm", 384, 6, 12, 1536), shape("bert-base", 768, 12, 12, 3072),
            shape("bert-large", 1024, 24, 16, 4096),
        ])

    private static func shape(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int)
        -> PublishedShape
    {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                "bert", "BertModel", hidden, layers, heads, inner, vocabulary: 30_522, epsilon: "1e-12") + """

                    "hidden_act": "gelu"
                    "type_vocab_size": 2
                    "position_embedding_type": "absolute"
                    "pad_token_id": 0
                    """,
            positionKey: "max_position_embeddings", positions: 512)
    }
}

extension EncoderConfiguration {
    /// The keys that most families share, and BERT's layers.
    static func layersOfBERT(_ reader: ConfigurationReader, _ family: ModelFamily) throws(FileError)
        -> EncoderConfiguration
    {
        var configuration = EncoderConfiguration(
            family: family, hiddenSize: try reader.width("hidden_size"),
            layerCount: try reader.layers("num_hidden_layers"),
            headCount: try reader.width("num_attention_heads"), intermediateSize: try reader.width("intermediate_size"),
            vocabularySize: try reader.size("vocab_size"), positionCount: try reader.size("max_position_embeddings"),
            layerNormEpsilon: try reader.epsilon("layer_norm_eps", default: 1e-12))
        configuration.activation = try reader.activation("hidden_act")
        return configuration
    }

    /// BERT itself: a table of token types, and one of positions that counts from zero.
    static func absoluteBERT(_ reader: ConfigurationReader, _ family: ModelFamily) throws(FileError)
        -> EncoderConfiguration
    {
        try reader.refuse("position_embedding_type", unless: [.string("absolute")])
        var configuration = try layersOfBERT(reader, family)
        configuration.tokenTypeCount = try reader.size("type_vocab_size", default: 2)
        configuration.positions = .fromZero
        return configuration
    }

    /// Takes the first rows of the position table off what the model takes.
    mutating func countPositions(_ reader: ConfigurationReader, afterPadding id: Int) throws(FileError) {
        guard positionCount > id + 1 else {
            throw reader.refuse(
                "'max_position_embeddings' (\(positionCount)) leaves no position after the padding id \(id)")
        }
        positions = .afterPadding(id)
        positionCount -= id + 1
    }
}

extension TaskHeads {
    /// The heads of BERT.
    /// - Parameters:
    ///   - width: of the language model's dense layer, where it is not that of the layers.
    ///   - activation: the language model's, where it is not that of the layers.
    ///   - hasBias: whether its dense layer has one.
    static func ofBERT(
        width: @escaping @Sendable (EncoderConfiguration) -> Int? = { _ in nil },
        activation: (@Sendable (HeadSource) throws(FileError) -> Activation)? = nil,
        hasBias: @escaping @Sendable (HeadSource, String) -> Bool = { _, _ in true }
    ) -> TaskHeads {
        TaskHeads(
            sequence: { _ throws(FileError) in
                HeadNames([.dense("pooler.dense"), .activation(.tanh), .dropout(0), .labels("classifier")])
            },
            language: { (source) throws(FileError) in
                let path = "cls.predictions.transform"
                let norm = source.parameters.has("\(path).layer_norm.weight") ? "layer_norm" : "LayerNorm"
                let function = try activation?(source) ?? source.configuration.activation
                return HeadNames([
                    .dense(
                        "\(path).dense", width(source.configuration), hasBias: hasBias(source, "\(path).dense.bias")),
                    .activation(function),
                    .norm("\(path).\(norm)"),
                    try source.decoder("cls.predictions.decoder", bias: "cls.predictions.bias"),
                ])
            })
    }
}
