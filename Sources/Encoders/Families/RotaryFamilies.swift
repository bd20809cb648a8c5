// The families with rotary positions: ModernBERT, Nomic BERT, ESM-2.

import Checkpoints

extension EncoderConfiguration {
    /// ModernBERT (Warner et al. 2024): norms before, no biases unless asked for, GeGLU, global and local layers.
    static func modernbert(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        var configuration = EncoderConfiguration(
            family: .modernbert, hiddenSize: try reader.width("hidden_size", default: 768),
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
        let attentionBias = try reader.flag("attention_bias", default: false)
        let denseBias = try reader.flag("mlp_bias", default: false)
        configuration.biases = Biases(
            attention: attentionBias, inner: denseBias, output: denseBias, norms: try reader.flag("norm_bias", default: false))
        configuration.rotaryDimension = configuration.headDimension
        let global = AttentionPattern(rotaryBase: try rotaryBase(reader, "full_attention", "global_rope_theta", default: 160_000))
        let local = AttentionPattern(
            window: try reader.size("local_attention", default: 128) / 2,
            rotaryBase: try rotaryBase(reader, "sliding_attention", "local_rope_theta", default: 10_000))
        configuration.attention = try localLayers(reader, configuration.layerCount).map { $0 ? local : global }
        return configuration
    }

    /// Which layers are local: by name (`layer_types`), else every one but each n-th.
    private static func localLayers(_ reader: ConfigurationReader, _ count: Int) throws(FileError) -> [Bool] {
        guard let types = reader.config["layer_types"]?.array else {
            let period = try reader.size("global_attn_every_n_layers", default: 3)
            return (0..<count).map { $0 % period != 0 }
        }
        guard types.count == count else { throw reader.refuse("'layer_types' has \(types.count) entries for \(count) layers") }
        var local: [Bool] = []
        for type in types {
            switch type.string {
            case "full_attention": local.append(false)
            case "sliding_attention": local.append(true)
            default: throw reader.refuse("layer_types '\(type.string ?? type.kindName)' is not supported; supported: full_attention, sliding_attention")
            }
        }
        return local
    }

    /// The base of one kind of layers, under the new key `rope_parameters` or the old one.
    private static func rotaryBase(
        _ reader: ConfigurationReader, _ kind: String, _ oldKey: String, default standard: Double
    ) throws(FileError) -> Double {
        try refuseScaling(reader.config["rope_scaling"], reader)
        let parameters = reader.config["rope_parameters"]?[kind]
        try refuseScaling(parameters, reader)
        if let base = parameters?["rope_theta"]?.double { return try checkedBase(base, reader) }
        return try checkedBase(try reader.number(oldKey, default: standard), reader)
    }

    private static func checkedBase(_ base: Double, _ reader: ConfigurationReader) throws(FileError) -> Double {
        guard base > 1, base < 1e12 else { throw reader.refuse("the rotary base must be more than 1, not \(base)") }
        return base
    }

    /// Refuses rotary parameters of another type than the plain one.
    private static func refuseScaling(_ parameters: JSON?, _ reader: ConfigurationReader) throws(FileError) {
        guard let parameters, !parameters.isNull else { return }
        for key in ["rope_type", "type"] {
            if let type = parameters[key]?.string, type != "default" {
                throw reader.refuse("\(key) '\(type)' of the rotary positions is not supported; supported: default")
            }
        }
    }

    /// Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions, SwiGLU and no biases in dense layers. Its files have
    /// the keys of GPT-2; those that transformers itself writes are read too.
    static func nomicBert(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        let hidden = try reader.width("n_embd", "hidden_size")
        // Where the files of the published models leave a key out, their code and transformers' own differ.
        let isPublished = reader.has("n_embd")
        var configuration = EncoderConfiguration(
            family: .nomicBert, hiddenSize: hidden, layerCount: try reader.layers("n_layer", "num_hidden_layers"),
            headCount: try reader.width("n_head", "num_attention_heads"),
            intermediateSize: try reader.width("n_inner", "intermediate_size", default: 4 * hidden),
            vocabularySize: try reader.size("vocab_size"),
            positionCount: try reader.size("n_positions", "max_position_embeddings"),
            layerNormEpsilon: try reader.epsilon("layer_norm_epsilon", "layer_norm_eps", default: 1e-12))
        try reader.refuse(
            ifSet: "prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved", "scale_attn_by_inverse_layer_idx",
            "tie_qkv", because: "this variant of nomic_bert is not supported")
        for key in ["rotary_emb_scale_base", "rotary_scaling_factor"] { try reader.refuse(key, unless: []) }
        for key in ["num_experts", "moe_every_n_layers"] { try reader.refuse(key, unless: [.integer(0)]) }
        // The vocabulary is padded to a multiple; the file's count may be from before.
        let multiple = try reader.size("pad_vocab_size_multiple", default: 1)
        configuration.vocabularySize = (configuration.vocabularySize + multiple - 1) / multiple * multiple
        configuration.tokenTypeCount = try reader.count("type_vocab_size", default: 2)
        if reader.has("activation_function") {
            switch try reader.text("activation_function", default: "swiglu") {
            case "swiglu": configuration.activation = .silu
            case "geglu": configuration.activation = .gelu
            case let other: throw reader.refuse("activation_function '\(other)' is not supported; supported: swiglu, geglu")
            }
        } else {
            configuration.activation = try reader.activation("hidden_act", default: .silu)
        }
        configuration.isGated = true
        configuration.biases = Biases(
            attention: try reader.flag("qkv_proj_bias", default: isPublished), inner: try reader.flag("mlp_fc1_bias", default: isPublished),
            output: try reader.flag("mlp_fc2_bias", default: isPublished))
        let fraction = try reader.number("rotary_emb_fraction", default: isPublished ? 0 : 1)
        guard fraction > 0, fraction <= 1 else {
            throw reader.refuse("'rotary_emb_fraction' is \(fraction); only models with rotary positions are supported")
        }
        configuration.rotaryDimension = Int(Double(configuration.headDimension) * fraction) / 2 * 2
        let parameters = reader.config["rope_parameters"]
        try refuseScaling(parameters, reader)
        let standard = parameters?["rope_theta"]?.double ?? (isPublished ? 10_000 : 1000)
        let pattern = AttentionPattern(
            rotaryBase: try checkedBase(try reader.number("rotary_emb_base", "rope_theta", default: standard), reader))
        configuration.attention = Array(repeating: pattern, count: configuration.layerCount)
        return configuration
    }

    /// ESM-2 and ESM-1b (Lin et al. 2023): protein language models with norms before.
    static func esm(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        try reader.refuse(ifSet: "is_folding_model", because: "only the language model is supported")
        var configuration = try layersOfBERT(reader, .esm)
        configuration.activation = .gelu
        configuration.norms = .beforeSublayer
        configuration.hasFinalNorm = true
        configuration.hasEmbeddingNorm = try reader.flag("emb_layer_norm_before", default: false)
        let padding = try reader.tokenId("pad_token_id") ?? 1
        switch try reader.text("position_embedding_type", default: "absolute") {
        case "absolute": try configuration.countPositions(reader, afterPadding: padding)
        case "rotary":
            configuration.rotaryDimension = configuration.headDimension
            let pattern = AttentionPattern(rotaryBase: try checkedBase(try reader.number("rope_theta", default: 10_000), reader))
            configuration.attention = Array(repeating: pattern, count: configuration.layerCount)
        case let other: throw reader.refuse("position_embedding_type '\(other)' is not supported; supported: absolute, rotary")
        }
        if try reader.flag("token_dropout", default: false) {
            guard let mask = try reader.tokenId("mask_token_id") else { throw reader.refuse("'token_dropout' needs 'mask_token_id'") }
            configuration.maskedTokens = MaskedTokenRule(maskId: mask)
        }
        return configuration
    }
}
