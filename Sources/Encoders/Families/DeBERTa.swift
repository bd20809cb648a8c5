// DeBERTa v2 and v3: disentangled attention.

import Checkpoints

extension EncoderConfiguration {
    /// DeBERTa v2 and v3 (He et al. 2021; He et al. 2023).
    static func debertaV2(_ reader: ConfigurationReader) throws(FileError) -> EncoderConfiguration {
        try reader.refuse("conv_kernel_size", unless: [.integer(0)])
        var configuration = try layersOfBERT(reader, .debertaV2)
        configuration.layerNormEpsilon = try reader.epsilon("layer_norm_eps", default: 1e-7)
        configuration.tokenTypeCount = try reader.count("type_vocab_size", default: 0)
        configuration.positions = try reader.flag("position_biased_input", default: true) ? .fromZero : .none
        configuration.embeddingSize = try reader.width("embedding_size", default: configuration.hiddenSize)
        configuration.normsProjectedEmbeddings = true
        if let size = reader.config["attention_head_size"]?.int, size != configuration.headDimension {
            throw reader.refuse("attention_head_size \(size) is not supported; supported: hidden_size / num_attention_heads")
        }
        let kinds = try positionKinds(reader)
        configuration.scoreTerms = 1 + kinds.count
        guard try reader.flag("relative_attention", default: false) else { return configuration }
        let maximum = reader.config["max_relative_positions"]?.int ?? -1
        let distance = maximum < 1 ? configuration.positionCount : maximum
        let buckets = reader.config["position_buckets"]?.int ?? -1
        guard distance <= Self.mostPositions else {
            throw reader.refuse("\(distance) relative positions are more than \(Self.mostPositions), the most that are supported")
        }
        // As many on either side; of four, one distance has a position of its own, and from an odd number one is never reached.
        if buckets > 0, buckets < 4 || buckets % 2 != 0 || distance - 1 <= buckets / 2 {
            throw reader.refuse("'position_buckets' is \(buckets) for \(distance) relative positions; the file is damaged or edited")
        }
        let norm = try reader.text("norm_rel_ebd", default: "none").lowercased().split(separator: "|").map { $0.filter { $0 != " " } }
        if let other = norm.first(where: { $0 != "none" && $0 != "layer_norm" }) {
            throw reader.refuse("norm_rel_ebd '\(other)' is not supported; supported: none, layer_norm")
        }
        configuration.disentangled = DisentangledPositions(
            span: buckets > 0 ? buckets : distance, buckets: buckets > 0 ? buckets : nil, maximumDistance: distance,
            hasKeys: kinds.contains("c2p"), hasQueries: kinds.contains("p2c"),
            sharesProjections: try reader.flag("share_att_key", default: false), hasNorm: norm.contains("layer_norm"))
        return configuration
    }

    /// The table of relative positions has two rows for each, and is looked through for every distance.
    private static let mostPositions = 1 << 20

    /// `pos_att_type`, a list or names with bars between them.
    private static func positionKinds(_ reader: ConfigurationReader) throws(FileError) -> Set<String> {
        guard let value = reader.config["pos_att_type"], !value.isNull else { return [] }
        let names = value.array.map { $0.map { $0.string ?? $0.kindName } }
            ?? (value.string ?? value.kindName).lowercased().split(separator: "|").map { $0.filter { $0 != " " } }
        for name in names where !["c2p", "p2c"].contains(name) {
            throw reader.refuse("pos_att_type '\(name)' is not supported; supported: c2p, p2c")
        }
        return Set(names)
    }
}
