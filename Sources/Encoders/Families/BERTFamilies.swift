// BERT and the families that keep its layers: other embeddings, other positions, shared layers.

import Checkpoints

extension EncoderConfiguration {
    /// The keys that all of these families share, and BERT's layers.
    static func layersOfBERT(_ reader: ConfigurationReader, _ family: ModelFamily) throws(FileError) -> EncoderConfiguration {
        var configuration = EncoderConfiguration(
            family: family, hiddenSize: try reader.width("hidden_size"), layerCount: try reader.layers("num_hidden_layers"),
            headCount: try reader.width("num_attention_heads"), intermediateSize: try reader.width("intermediate_size"),
            vocabularySize: try reader.size("vocab_size"), positionCount: try reader.size("max_position_embeddings"),
            layerNormEpsilon: try reader.epsilon("layer_norm_eps", default: 1e-12))
        configuration.activation = try reader.activation("hidden_act")
        return configuration
    }

    /// BERT (Devlin et al. 2019) and ELECTRA (Clark et al. 2020), whose embeddings may be narrower.
    static func bertLike(_ reader: ConfigurationReader, _ family: ModelFamily) throws(FileError) -> EncoderConfiguration {
        try reader.refuse("position_embedding_type", unless: [.string("absolute")])
        var configuration = try layersOfBERT(reader, family)
        configuration.tokenTypeCount = try reader.size("type_vocab_size", default: 2)
        configuration.positions = .fromZero
        if family == .electra {
            configuration.embeddingSize = try reader.width("embedding_size", default: configuration.hiddenSize)
        }
        return configuration
    }

    /// RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020) and CamemBERT (Martin et al. 2020): positions count from
    /// the padding id.
    static func robertaLike(_ reader: ConfigurationReader, _ family: ModelFamily) throws(FileError) -> EncoderConfiguration {
        try reader.refuse("position_embedding_type", unless: [.string("absolute")])
        var configuration = try layersOfBERT(reader, family)
        configuration.tokenTypeCount = try reader.size("type_vocab_size", default: 2)
        try configuration.countPositions(reader, afterPadding: try reader.tokenId("pad_token_id") ?? 1)
        return configuration
    }

    /// Takes the first rows of the position table off what the model takes.
    mutating func countPositions(_ reader: ConfigurationReader, afterPadding id: Int) throws(FileError) {
        guard positionCount > id + 1 else {
            throw reader.refuse("'max_position_embeddings' (\(positionCount)) leaves no position after the padding id \(id)")
        }
        positions = .afterPadding(id)
        positionCount -= id + 1
    }

    /// ALBERT (Lan et al. 2020): narrow embeddings, and layers that share their parameters.
    static func albert(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        try reader.refuse("position_embedding_type", unless: [.string("absolute")])
        var configuration = try layersOfBERT(reader, .albert)
        configuration.activation = try reader.activation("hidden_act", default: .geluTanh)
        configuration.tokenTypeCount = try reader.size("type_vocab_size", default: 2)
        configuration.positions = .fromZero
        configuration.embeddingSize = try reader.width("embedding_size", default: 128)
        let groups = try reader.layers("num_hidden_groups", default: 1)
        let inner = try reader.layers("inner_group_num", default: 1)
        let rounds = configuration.layerCount
        guard rounds * inner <= ConfigurationReader.mostLayers else {
            throw reader.refuse("'inner_group_num' is \(inner), too many for \(rounds) layers; the file is damaged or edited")
        }
        guard groups <= rounds else { throw reader.refuse("'num_hidden_groups' is \(groups), more than the \(rounds) layers") }
        // Round r runs all layers of its group, ⌊r / (rounds / groups)⌋ in double precision, as transformers has it.
        configuration.layersPerGroup = inner
        configuration.layerSources = (0..<rounds).flatMap { round in
            let group = Int(Double(round) / (Double(rounds) / Double(groups)))
            return (0..<inner).map { group * inner + $0 }
        }
        configuration.attention = Array(repeating: AttentionPattern(), count: rounds * inner)
        return configuration
    }

    /// DistilBERT (Sanh et al. 2019): no token types.
    static func distilbert(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        var configuration = EncoderConfiguration(
            family: .distilbert, hiddenSize: try reader.width("dim", "hidden_size"),
            layerCount: try reader.layers("n_layers", "num_hidden_layers"), headCount: try reader.width("n_heads", "num_attention_heads"),
            intermediateSize: try reader.width("hidden_dim"), vocabularySize: try reader.size("vocab_size"),
            positionCount: try reader.size("max_position_embeddings"), layerNormEpsilon: 1e-12)
        configuration.activation = try reader.activation("activation")
        // Sinusoidal positions are stored as a table too.
        configuration.positions = .fromZero
        return configuration
    }

    /// MPNet (Song et al. 2020): a bias by buckets of distances, shared by all layers; the padding id is always 1.
    static func mpnet(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        var configuration = try layersOfBERT(reader, .mpnet)
        try configuration.countPositions(reader, afterPadding: 1)
        let buckets = try reader.width("relative_attention_num_buckets", default: 32)
        // Half of them are for keys behind the query, and half of those for single distances.
        guard buckets >= 4 else { throw reader.refuse("'relative_attention_num_buckets' is \(buckets), and at least 4 are needed") }
        configuration.distanceBias = .buckets(count: buckets, maximumDistance: 128)
        return configuration
    }

    /// Jina BERT v2 (Günther et al. 2023): ALiBi instead of positions, gated dense layers.
    static func jinaBert(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        if let map = reader.config["auto_map"]?.object, map.members.contains(where: { $0.value.string?.contains("qk-post-norm") == true }) {
            throw reader.refuse("auto_map names jina-bert-v2-qk-post-norm, a variant with norms on queries and keys, which is not supported")
        }
        var configuration = try layersOfBERT(reader, .jinaBert)
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
        case let other: throw reader.refuse("feed_forward_type '\(other)' is not supported; supported: original, geglu, reglu")
        }
        return configuration
    }
}
