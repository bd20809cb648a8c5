// Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions, SwiGLU and no biases in dense layers.

import Files

extension ModelFamily {
    /// Its files have the keys of GPT-2; those that transformers itself writes are read too.
    public static let nomicBert = ModelFamily(
        name: "nomic_bert", modelTypes: ["nomic_bert"], classes: "NomicBert", prefix: "nomic_bert",
        configuration: { (reader, family) throws(FileError) in
            let hidden = try reader.width("n_embd", "hidden_size")
            // Where the files of the published models leave a key out, their code and transformers' own differ.
            let isPublished = reader.has("n_embd")
            var configuration = EncoderConfiguration(
                family: family, hiddenSize: hidden, layerCount: try reader.layers("n_layer", "num_hidden_layers"),
                headCount: try reader.width("n_head", "num_attention_heads"),
                intermediateSize: try reader.width("n_inner", "intermediate_size", default: 4 * hidden),
                vocabularySize: try reader.size("vocab_size"),
                positionCount: try reader.size("n_positions", "max_position_embeddings"),
                layerNormEpsilon: try reader.epsilon("layer_norm_epsilon", "layer_norm_eps", default: 1e-12))
            try reader.refuse(
                ifSet: "prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved",
                "scale_attn_by_inverse_layer_idx",
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
                case let other:
                    throw reader.refuse("activation_function '\(other)' is not supported; supported: swiglu, geglu")
                }
            } else {
                configuration.activation = try reader.activation("hidden_act", default: .silu)
            }
            configuration.isGated = true
            configuration.biases = Biases(
                attention: try reader.flag("qkv_proj_bias", default: isPublished),
                inner: try reader.flag("mlp_fc1_bias", default: isPublished),
                output: try reader.flag("mlp_fc2_bias", default: isPublished))
            let fraction = try reader.number("rotary_emb_fraction", default: isPublished ? 0 : 1)
            guard fraction > 0, fraction <= 1 else {
                throw reader.refuse(
                    "'rotary_emb_fraction' is \(fraction); only models with rotary positions are supported")
            }
            configuration.rotaryDimension = Int(Double(configuration.headDimension) * fraction) / 2 * 2
            let parameters = reader.config["rope_parameters"]
            try reader.refuseRotaryScaling(parameters)
            let standard = parameters?["rope_theta"]?.double ?? (isPublished ? 10_000 : 1000)
            let base = try reader.rotaryBase(try reader.number("rotary_emb_base", "rope_theta", default: standard))
            for layer in configuration.attention.indices { configuration.attention[layer].rotaryBase = base }
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.embeddingNorm = "emb_ln"
            names.layers = "encoder.layers"
            names.projections = ["attn.Wqkv"]
            names.attentionOutput = "attn.out_proj"
            names.attentionNorm = "norm1"
            names.inner = ["mlp.fc12", "mlp.fc11"]
            names.output = "mlp.fc2"
            names.outputNorm = "norm2"
            return names
        },
        // Published models have no bias there.
        heads: .ofBERT(hasBias: { source, bias in source.parameters.has(bias) }),
        shapes: [
            PublishedShape(
                name: "nomic-bert",
                members: """
                    "model_type": "nomic_bert"
                    "architectures": ["NomicBertModel"]
                    "n_embd": 768
                    "n_layer": 12
                    "n_head": 12
                    "n_inner": 3072
                    "vocab_size": 30528
                    "pad_vocab_size_multiple": 64
                    "type_vocab_size": 2
                    "activation_function": "swiglu"
                    "layer_norm_epsilon": 1e-12
                    "prenorm": false
                    "qkv_proj_bias": false
                    "mlp_fc1_bias": false
                    "mlp_fc2_bias": false
                    "rotary_emb_base": 1000
                    "rotary_emb_fraction": 1.0
                    "rotary_emb_interleaved": false
                    """,
                positionKey: "n_positions", positions: 8192)
        ])
}
