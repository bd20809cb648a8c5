// The families of models, by the names that config.json gives them.

import Checkpoints

/// The families of models that can be run.
public enum ModelFamily: String, Sendable, CaseIterable {
    case albert, bert, camembert
    case debertaV2 = "deberta-v2"
    case distilbert, electra, esm
    /// Jina BERT v2, whose `config.json` says `bert` and `alibi`.
    case jinaBert = "jina_bert"
    case modernbert, mpnet
    case nomicBert = "nomic_bert"
    case roberta
    case xlmRoberta = "xlm-roberta"

    /// The supported families, as error messages list them.
    public static var list: String { allCases.map(\.rawValue).joined(separator: ", ") }
}

extension EncoderConfiguration {
    /// Reads `config.json`.
    /// - Throws: `FileError` naming the file and the key, and what is supported.
    public init(_ config: JSON, path: String) throws(FileError) {
        let reader = ConfigurationReader(config: config, path: path)
        guard let type = config["model_type"]?.string else {
            throw reader.refuse("'model_type' is missing; supported: \(ModelFamily.list)")
        }
        guard var family = ModelFamily(rawValue: type) else {
            throw reader.refuse("model_type '\(type)' is not supported; supported: \(ModelFamily.list)")
        }
        if family == .bert, config["position_embedding_type"]?.string == "alibi" { family = .jinaBert }
        try reader.refuse(
            ifSet: "is_decoder", "add_cross_attention", "is_encoder_decoder", because: "only bidirectional encoders are supported")
        try reader.refuse("quantization_config", unless: [])
        switch family {
        case .bert, .electra: self = try .bertLike(reader, family)
        case .roberta, .xlmRoberta, .camembert: self = try .robertaLike(reader, family)
        case .albert: self = try .albert(reader)
        case .distilbert: self = try .distilbert(reader)
        case .mpnet: self = try .mpnet(reader)
        case .jinaBert: self = try .jinaBert(reader)
        case .modernbert: self = try .modernbert(reader)
        case .nomicBert: self = try .nomicBert(reader)
        case .esm: self = try .esm(reader)
        case .debertaV2: self = try .debertaV2(reader)
        }
        guard hiddenSize % headCount == 0 else {
            let heads = ["num_attention_heads", "n_heads", "n_head"].first(where: reader.has) ?? "num_attention_heads"
            let width = ["hidden_size", "dim", "n_embd"].first(where: reader.has) ?? "hidden_size"
            throw reader.refuse("'\(heads)' (\(headCount)) does not divide '\(width)' (\(hiddenSize)); the file is damaged or edited")
        }
        guard rotaryDimension % 2 == 0 else {
            throw reader.refuse("heads of \(headDimension) channels cannot be turned pair by pair; the file is damaged or edited")
        }
    }
}
