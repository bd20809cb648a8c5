// The shapes of published models, as the config.json that makes them: for benchmarks and for `init`.

import Checkpoints

/// The shape of a published model, which can be made without its checkpoint.
public struct PublishedShape: Sendable {
    public let name: String
    /// The members of `config.json`, without the outer braces.
    private let members: String
    /// The member that holds the number of positions, and what it holds.
    private let positionKey: String
    private let positions: Int
    /// Rows of the position table that no document uses.
    private let firstRow: Int

    /// `config.json`, for documents of so many tokens; the published number where nil.
    public func config(positions: Int? = nil) -> String {
        let count = positions.map { $0 + firstRow } ?? self.positions
        return "{\n" + (members.split(separator: "\n").joined(separator: ",\n") + ",\n\"\(positionKey)\": \(count)")
            .split(separator: "\n").map { "  " + $0 }.joined(separator: "\n") + "\n}\n"
    }

    /// The encoder that `config` describes.
    public func configuration(positions: Int? = nil) throws(FileError) -> EncoderConfiguration {
        let path = "shape \(name)"
        return try EncoderConfiguration(JSON.parse(Array(config(positions: positions).utf8), path: path), path: path)
    }

    /// The shape of that name, or nil.
    public static func named(_ name: String) -> PublishedShape? { all.first { $0.name == name } }

    /// The names of all shapes, for messages.
    public static var list: String { all.map(\.name).joined(separator: ", ") }

    public static let all: [PublishedShape] = [
        bert("minilm", 384, 6, 12, 1536),
        bert("bert-base", 768, 12, 12, 3072),
        bert("bert-large", 1024, 24, 16, 4096),
        roberta("roberta-base", "roberta", 768, 12, 12, 3072, vocabulary: 50_265),
        roberta("roberta-large", "roberta", 1024, 24, 16, 4096, vocabulary: 50_265),
        roberta("xlm-roberta-base", "xlm-roberta", 768, 12, 12, 3072, vocabulary: 250_002),
        roberta("xlm-roberta-large", "xlm-roberta", 1024, 24, 16, 4096, vocabulary: 250_002),
        roberta("camembert-base", "camembert", 768, 12, 12, 3072, vocabulary: 32_005),
        PublishedShape(
            name: "distilbert-base",
            members: """
                "model_type": "distilbert"
                "architectures": ["DistilBertModel"]
                "dim": 768
                "n_layers": 6
                "n_heads": 12
                "hidden_dim": 3072
                "activation": "gelu"
                "vocab_size": 30522
                "pad_token_id": 0
                """,
            positionKey: "max_position_embeddings", positions: 512, firstRow: 0),
        albert("albert-base", 768, 12, 12, 3072),
        albert("albert-large", 1024, 24, 16, 4096),
        deberta("deberta-v3-xsmall", 384, 12, 6, 1536),
        deberta("deberta-v3-small", 768, 6, 12, 3072),
        deberta("deberta-v3-base", 768, 12, 12, 3072),
        deberta("deberta-v3-large", 1024, 24, 16, 4096),
        electra("electra-small", embedding: 128, 256, 12, 4, 1024),
        electra("electra-base", embedding: 768, 768, 12, 12, 3072),
        electra("electra-large", embedding: 1024, 1024, 24, 16, 4096),
        PublishedShape(
            name: "mpnet-base",
            members: layers("mpnet", "MPNetModel", 768, 12, 12, 3072, vocabulary: 30_527, epsilon: "1e-05") + """

                "hidden_act": "gelu"
                "relative_attention_num_buckets": 32
                "pad_token_id": 1
                """,
            positionKey: "max_position_embeddings", positions: 514, firstRow: 2),
        modernbert("modernbert-base", 768, 22, 12, 1152),
        modernbert("modernbert-large", 1024, 28, 16, 2624),
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
            positionKey: "n_positions", positions: 8192, firstRow: 0),
        jina("jina-v2-small", 512, 4, 8, 2048),
        jina("jina-v2-base", 768, 12, 12, 3072),
        esm("esm2-8m", 320, 6, 20),
        esm("esm2-35m", 480, 12, 20),
        esm("esm2-150m", 640, 30, 20),
        esm("esm2-650m", 1280, 33, 20),
    ]

    /// The members that most families share.
    private static func layers(
        _ type: String, _ architecture: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int, vocabulary: Int, epsilon: String
    ) -> String {
        """
        "model_type": "\(type)"
        "architectures": ["\(architecture)"]
        "hidden_size": \(hidden)
        "num_hidden_layers": \(layers)
        "num_attention_heads": \(heads)
        "intermediate_size": \(inner)
        "vocab_size": \(vocabulary)
        "layer_norm_eps": \(epsilon)
        """
    }

    private static func bert(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int) -> PublishedShape {
        PublishedShape(
            name: name,
            members: Self.layers("bert", "BertModel", hidden, layers, heads, inner, vocabulary: 30_522, epsilon: "1e-12") + """

                "hidden_act": "gelu"
                "type_vocab_size": 2
                "position_embedding_type": "absolute"
                "pad_token_id": 0
                """,
            positionKey: "max_position_embeddings", positions: 512, firstRow: 0)
    }

    private static func roberta(
        _ name: String, _ type: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int, vocabulary: Int
    ) -> PublishedShape {
        let architecture = ["roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel"][type] ?? "CamembertModel"
        return PublishedShape(
            name: name,
            members: Self.layers(type, architecture, hidden, layers, heads, inner, vocabulary: vocabulary, epsilon: "1e-05") + """

                "hidden_act": "gelu"
                "type_vocab_size": 1
                "bos_token_id": 0
                "eos_token_id": 2
                "pad_token_id": 1
                """,
            positionKey: "max_position_embeddings", positions: 514, firstRow: 2)
    }

    private static func albert(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int) -> PublishedShape {
        PublishedShape(
            name: name,
            members: Self.layers("albert", "AlbertModel", hidden, layers, heads, inner, vocabulary: 30_000, epsilon: "1e-12") + """

                "hidden_act": "gelu_new"
                "type_vocab_size": 2
                "embedding_size": 128
                "num_hidden_groups": 1
                "inner_group_num": 1
                "pad_token_id": 0
                """,
            positionKey: "max_position_embeddings", positions: 512, firstRow: 0)
    }

    private static func electra(
        _ name: String, embedding: Int, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int
    ) -> PublishedShape {
        PublishedShape(
            name: name,
            members: Self.layers("electra", "ElectraModel", hidden, layers, heads, inner, vocabulary: 30_522, epsilon: "1e-12") + """

                "hidden_act": "gelu"
                "type_vocab_size": 2
                "embedding_size": \(embedding)
                "pad_token_id": 0
                """,
            positionKey: "max_position_embeddings", positions: 512, firstRow: 0)
    }

    private static func deberta(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int) -> PublishedShape {
        PublishedShape(
            name: name,
            members: Self.layers("deberta-v2", "DebertaV2Model", hidden, layers, heads, inner, vocabulary: 128_100, epsilon: "1e-07") + """

                "hidden_act": "gelu"
                "type_vocab_size": 0
                "relative_attention": true
                "max_relative_positions": -1
                "position_buckets": 256
                "norm_rel_ebd": "layer_norm"
                "share_att_key": true
                "pos_att_type": "p2c|c2p"
                "position_biased_input": false
                "pad_token_id": 0
                """,
            positionKey: "max_position_embeddings", positions: 512, firstRow: 0)
    }

    private static func modernbert(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int) -> PublishedShape {
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
            positionKey: "max_position_embeddings", positions: 8192, firstRow: 0)
    }

    private static func jina(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int) -> PublishedShape {
        PublishedShape(
            name: name,
            members: Self.layers("bert", "JinaBertModel", hidden, layers, heads, inner, vocabulary: 30_528, epsilon: "1e-12") + """

                "hidden_act": "gelu"
                "type_vocab_size": 2
                "position_embedding_type": "alibi"
                "feed_forward_type": "geglu"
                "emb_pooler": "mean"
                "pad_token_id": 0
                """,
            positionKey: "max_position_embeddings", positions: 8192, firstRow: 0)
    }

    private static func esm(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int) -> PublishedShape {
        PublishedShape(
            name: name,
            members: Self.layers("esm", "EsmModel", hidden, layers, heads, 4 * hidden, vocabulary: 33, epsilon: "1e-05") + """

                "hidden_act": "gelu"
                "position_embedding_type": "rotary"
                "emb_layer_norm_before": false
                "token_dropout": true
                "mask_token_id": 32
                "pad_token_id": 1
                """,
            positionKey: "max_position_embeddings", positions: 1026, firstRow: 0)
    }
}
