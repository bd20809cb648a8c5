// ModernBERT (Warner et al. 2024): norms before, no biases unless asked for, GeGLU, global and local layers.

import Checkpoints
import Files

extension ModelFamily {
    /// ModernBERT (Warner et al. 2024): rotary positions, and layers that see a window among layers that see all.
    public static let modernbert = ModelFamily(
        name: "modernbert", modelTypes: ["modernbert"], classes: "ModernBert", prefix: "model",
        configuration: { (reader, family) throws(FileError) in
            var configuration = EncoderConfiguration(
                family: family, hiddenSize: try reader.width("hidden_size", default: 768),
                layerCount: try reader.layers("num_hidden_layers", default: 22),
                headCount: try reader.width("num_attention_heads", default: 12),
                intermediateSize: try reader.width("intermediate_size", default: 1152),
                vocabularySize: try reader.size("vocab_size", default: 50_368),
                positionCount: try reader.size("max_position_embeddings", default: 8192),
                layerNormEpsilon: try reader.epsilon("norm_eps", default: 1e-5))
            configuration.activation = try reader.activation("hidden_activation")
            configuration.isGated = true
            configuration.norms = .beforeSublayer
            configuration.skipsFirstNorm = true
            configuration.hasFinalNorm = true
            configuration.dropoutPlaces = DropoutPlaces(
                attentionOutput: .weights, feedForwardInner: .values, feedForwardOutput: nil)
            let attentionBias = try reader.flag("attention_bias", default: false)
            let denseBias = try reader.flag("mlp_bias", default: false)
            configuration.biases = Biases(
                attention: attentionBias, inner: denseBias, output: denseBias,
                norms: try reader.flag("norm_bias", default: false))
            configuration.rotaryDimension = configuration.headDimension
            let global = try rotaryBase(reader, "full_attention", "global_rope_theta", default: 160_000)
            let window = try reader.size("local_attention", default: 128) / 2
            let local = try rotaryBase(reader, "sliding_attention", "local_rope_theta", default: 10_000)
            for (layer, isLocal) in try localLayers(reader, configuration.layerCount).enumerated() {
                configuration.attention[layer].rotaryBase = isLocal ? local : global
                if isLocal { configuration.attention[layer].mask = .window(left: window, right: window) }
            }
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.words = "embeddings.tok_embeddings"
            names.embeddingNorm = "embeddings.norm"
            names.finalNorm = "final_norm"
            names.layers = "layers"
            names.projections = ["attn.Wqkv"]
            names.attentionOutput = "attn.Wo"
            names.attentionNorm = "attn_norm"
            names.inner = ["mlp.Wi"]
            names.output = "mlp.Wo"
            names.outputNorm = "mlp_norm"
            return names
        },
        heads: TaskHeads(
            sequence: { (source) throws(FileError) in
                let pooling: PoolingMode
                switch try source.reader.text("classifier_pooling", default: "cls") {
                case "cls": pooling = .cls
                case "mean": pooling = .mean
                case let other:
                    throw source.reader.refuse("classifier_pooling '\(other)' is not supported; supported: cls, mean")
                }
                return HeadNames(try transform(source) + [.dropout(0), .labels("classifier")], pooling: pooling)
            },
            tokens: { (source) throws(FileError) in
                HeadNames(try transform(source) + [.dropout(0), .labels("classifier")])
            },
            answers: { (source) throws(FileError) in HeadNames(try transform(source) + [.labels("classifier")]) },
            language: { (source) throws(FileError) in
                let bias = try source.reader.flag("decoder_bias", default: true) ? "decoder.bias" : nil
                return HeadNames(try transform(source) + [try source.decoder("decoder", bias: bias)])
            }),
        paddingId: 50_283,
        shapes: [shape("modernbert-base", 768, 22, 12, 1152), shape("modernbert-large", 1024, 28, 16, 2624)])

    /// What every head begins with.
    private static func transform(_ source: HeadSource) throws(FileError) -> [HeadNames.Step] {
        [
            .dense("head.dense", hasBias: try source.reader.flag("classifier_bias", default: false)),
            .activation(try source.reader.activation("classifier_activation")),
            .norm("head.norm", hasBias: source.configuration.biases.norms),
        ]
    }

    /// Which layers are local: by name (`layer_types`), else every one but each n-th.
    private static func localLayers(_ reader: ConfigurationReader, _ count: Int) throws(FileError) -> [Bool] {
        guard let types = reader.config["layer_types"]?.array else {
            let period = try reader.size("global_attn_every_n_layers", default: 3)
            return (0..<count).map { $0 % period != 0 }
        }
        guard types.count == count else {
            throw reader.refuse("'layer_types' has \(types.count) entries for \(count) layers")
        }
        var local: [Bool] = []
        for type in types {
            switch type.string {
            case "full_attention": local.append(false)
            case "sliding_attention": local.append(true)
            default:
                throw reader.refuse(
                    "layer_types '\(type.string ?? type.kindName)' is not supported; supported: full_attention, sliding_attention"
                )
            }
        }
        return local
    }

    /// The base of one kind of layers, under the new key `rope_parameters` or the old one.
    private static func rotaryBase(
        _ reader: ConfigurationReader, _ kind: String, _ oldKey: String, default standard: Double
    ) throws(FileError) -> Double {
        try reader.refuseRotaryScaling(reader.config["rope_scaling"])
        let parameters = reader.config["rope_parameters"]?[kind]
        try reader.refuseRotaryScaling(parameters)
        if let base = parameters?["rope_theta"]?.double { return try reader.rotaryBase(base) }
        return try reader.rotaryBase(try reader.number(oldKey, default: standard))
    }

    private static func shape(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int)
        -> PublishedShape
    {
        PublishedShape(
            name: name,
            members: """
                "model_type": "modernbert"
                "architectures": ["ModernBertModel"]
                "hidden_size": \(hidden)
                "num_hidden_layers": \(layers)
                "num_attention_heads": \(heads)
                "intermediate_size": \(inner)
                "vocab_size": 50368
                "hidden_activation": "gelu"
                "norm_eps": 1e-05
                "local_attention": 128
                "global_attn_every_n_layers": 3
                "global_rope_theta": 160000.0
                "local_rope_theta": 10000.0
                "pad_token_id": 50283
                """,
            positionKey: "max_position_embeddings", positions: 8192)
    }
}
