// DeBERTa v2 (He et al. 2021) and v3 (He et al. 2023): disentangled attention.

import Files

extension ModelFamily {
    /// DeBERTa v2 (He et al. 2021) and v3 (He et al. 2023), whose files have the same `model_type`.
    public static let debertaV2 = ModelFamily(
        name: "deberta-v2", modelTypes: ["deberta-v2"], classes: "DebertaV2", prefix: "deberta",
        configuration: { (reader, family) throws(FileError) in
            try reader.refuse("conv_kernel_size", unless: [.integer(0)])
            var configuration = try EncoderConfiguration.layersOfBERT(reader, family)
            configuration.layerNormEpsilon = try reader.epsilon("layer_norm_eps", default: 1e-7)
            configuration.tokenTypeCount = try reader.count("type_vocab_size", default: 0)
            configuration.positions = try reader.flag("position_biased_input", default: true) ? .fromZero : .none
            configuration.embeddingSize = try reader.width("embedding_size", default: configuration.hiddenSize)
            configuration.normsProjectedEmbeddings = true
            if let size = reader.config["attention_head_size"]?.int, size != configuration.headDimension {
                throw reader.refuse(
                    "attention_head_size \(size) is not supported; supported: hidden_size / num_attention_heads")
            }
            let kinds = try positionKinds(reader)
            configuration.scoreTerms = 1 + kinds.count
            guard try reader.flag("relative_attention", default: false) else { return configuration }
            let maximum = reader.config["max_relative_positions"]?.int ?? -1
            let distance = maximum < 1 ? configuration.positionCount : maximum
            let buckets = reader.config["position_buckets"]?.int ?? -1
            guard distance <= mostPositions else {
                throw reader.refuse(
                    "\(distance) relative positions are more than \(mostPositions), the most that are supported")
            }
            // As many on either side; of four, one distance has a position of its own, and from an odd number one is
            // never reached.
            if buckets > 0, buckets < 4 || buckets % 2 != 0 || distance - 1 <= buckets / 2 {
                throw reader.refuse(
                    "'position_buckets' is \(buckets) for \(distance) relative positions; the file is damaged or edited"
                )
            }
            let norm = try reader.text("norm_rel_ebd", default: "none").lowercased().split(separator: "|").map {
                $0.filter { $0 != " " }
            }
            if let other = norm.first(where: { $0 != "none" && $0 != "layer_norm" }) {
                throw reader.refuse("norm_rel_ebd '\(other)' is not supported; supported: none, layer_norm")
            }
            configuration.disentangled = DisentangledPositions(
                span: buckets > 0 ? buckets : distance, buckets: buckets > 0 ? buckets : nil, maximumDistance: distance,
                hasKeys: kinds.contains("c2p"), hasQueries: kinds.contains("p2c"),
                sharesProjections: try reader.flag("share_att_key", default: false),
                hasNorm: norm.contains("layer_norm"))
            return configuration
        },
        names: { _ in
            var names = ParameterNames()
            names.embeddingProjection = "embeddings.embed_proj"
            names.projections = ["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"]
            return names
        },
        heads: heads,
        shapes: [
            shape("deberta-v3-xsmall", 384, 12, 6, 1536), shape("deberta-v3-small", 768, 6, 12, 3072),
            shape("deberta-v3-base", 768, 12, 12, 3072),
            shape("deberta-v3-large", 1024, 24, 16, 4096),
        ])

    private static var heads: TaskHeads {
        let bert = TaskHeads.ofBERT(width: \.embeddingSize)
        return TaskHeads(
            sequence: { (source) throws(FileError) in
                HeadNames([
                    .dense("pooler.dense"), .activation(try source.reader.activation("pooler_hidden_act")),
                    .dropout(0), .labels("classifier"),
                ])
            },
            language: { (source) throws(FileError) in
                if source.reader.config["legacy"]?.bool == false {
                    throw source.reader.refuse(
                        "'legacy' is false; this form of the language model's head is not supported")
                }
                return try bert.language(source)
            })
    }

    /// The table of relative positions has two rows for each, and is looked through for every distance.
    private static let mostPositions = 1 << 20

    /// `pos_att_type`, a list or names with bars between them.
    private static func positionKinds(_ reader: ConfigurationReader) throws(FileError) -> Set<String> {
        guard let value = reader.config["pos_att_type"], !value.isNull else { return [] }
        let names =
            value.array.map { $0.map { $0.string ?? $0.kindName } }
            ?? (value.string ?? value.kindName).lowercased().split(separator: "|").map { $0.filter { $0 != " " } }
        for name in names where !["c2p", "p2c"].contains(name) {
            throw reader.refuse("pos_att_type '\(name)' is not supported; supported: c2p, p2c")
        }
        return Set(names)
    }

    private static func shape(_ name: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int)
        -> PublishedShape
    {
        PublishedShape(
            name: name,
            members: PublishedShape.layers(
                "deberta-v2", "DebertaV2Model", hidden, layers, heads, inner, vocabulary: 128_100, epsilon: "1e-07")
                    + """

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
            positionKey: "max_position_embeddings", positions: 512)
    }
}
