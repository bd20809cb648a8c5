// Options of config.json that no golden has: read as they are meant, and run as the reference runs them.

import Attention
import Checkpoints
import Files
import Foundation
import Matrices
import Testing
import Tiles
import Transformers

@Suite struct OptionTests {
    static func configuration(_ text: String) throws -> EncoderConfiguration {
        try EncoderConfiguration(JSON.parse(Array(text.utf8), path: "config.json"), path: "config.json")
    }

    private static let nomic =
        #"{"model_type": "nomic_bert", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 40, "vocab_size": 48, "n_positions": 300, "#
    private static let deberta =
        #"{"model_type": "deberta-v2", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 48, "max_position_embeddings": 300, "relative_attention": true, "#
    private static let jina =
        #"{"model_type": "bert", "position_embedding_type": "alibi", "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 40, "vocab_size": 48, "max_position_embeddings": 300, "#
    private static let modernbert =
        #"{"model_type": "modernbert", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 48, "max_position_embeddings": 300, "local_attention": 16, "#

    static let cases = [
        modernbert + #""attention_bias": true, "mlp_bias": true, "norm_bias": true}"#,
        modernbert
            + #""layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"], "hidden_activation": "silu"}"#,
        nomic + #""rotary_emb_fraction": 0.5, "qkv_proj_bias": false, "mlp_fc1_bias": true, "mlp_fc2_bias": true}"#,
        nomic + #""rotary_emb_fraction": 1.0, "activation_function": "geglu", "type_vocab_size": 0}"#,
        deberta
            + #""pos_att_type": "c2p", "position_buckets": 8, "norm_rel_ebd": "layer_norm", "max_relative_positions": 60}"#,
        deberta + #""pos_att_type": ["p2c"], "share_att_key": true, "max_relative_positions": 20}"#,
        deberta.replacingOccurrences(of: "true, ", with: "false}"),
        jina + #""feed_forward_type": "reglu"}"#,
        jina + #""feed_forward_type": "original", "hidden_act": "gelu_new"}"#,
    ]

    /// Random parameters of a size that matters, biases among them.
    struct LargeParameters: ParameterSource {
        func has(_ name: String) -> Bool { !name.hasSuffix("inv_freq") }

        func check(_ name: String, shape: [Int]) {}

        func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>) {
            let key = name.utf8.reduce(UInt64(7)) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
            let scale =
                shape.count == 1 || name.contains("embed") ? 0.3 : 1.2 / Float(shape[shape.count - 1]).squareRoot()
            let centre: Float = shape.count == 1 && name.hasSuffix("weight") ? 1 : 0
            for (place, index) in range.enumerated() {
                floats[place] = centre + scale * CountedNormal.value(key: key, index: index)
            }
        }
    }

    @Test(arguments: cases) func runsAsTheReferenceDoes(text: String) throws {
        let configuration = try Self.configuration(text)
        let ids = [1, 40, 270].map { length in (0..<length).map { Int32(($0 * 7 + length) % 48) } }
        let types = ids.map { ids in ids.indices.map { Int32(configuration.tokenTypeCount > 1 && $0 % 2 == 1 ? 1 : 0) }
        }
        let encoder = try Encoder(configuration, parameters: LargeParameters(), kernels: .best)
        let reference = ReferenceEncoder(configuration, parameters: LargeParameters(), threads: ThreadPool(threads: 2))
        let agreement = Agreement(
            states: try hiddenStates(encoder, ids, ranks: 2, typeIds: types),
            exact: try reference.exactStates(ids: ids, typeIds: types),
            plain: try reference.plainStates(ids: ids, typeIds: types))
        #expect(
            agreement.holds, "off by \(agreement.error) of \(agreement.scale), plain float32 by \(agreement.plainError)"
        )
    }

    @Test func keysMeanWhatTheySay() throws {
        let read = try Self.cases.map { try Self.configuration($0) }
        let biases = read[0].biases
        #expect(
            biases.attention && biases.inner && biases.output && biases.norms && !read[1].biases.inner
                && !read[1].biases.norms)
        let local = Mask.window(left: 8, right: 8)
        #expect(read[1].attention.map(\.mask) == [local, local, local, .full])
        #expect(read.map(\.rotaryDimension) == [16, 16, 8, 16, 0, 0, 0, 0, 0])
        // One for contents, and one for each kind of positions.
        #expect(read.map(\.scoreTerms) == [1, 1, 1, 1, 2, 2, 1, 1, 1])
        #expect(read[7].activation == .relu && read[7].isGated && !read[7].biases.inner)
        #expect(read[8].activation == .geluTanh && !read[8].isGated)
    }

    /// As transformers reads it, and PyTorch its `padding_idx`: none where it is null, from the end of the table where negative,
    /// and MPNet's own whatever the file says.
    @Test(arguments: [
        ("bert", "", 0), ("bert", #""pad_token_id": 3, "#, 3), ("bert", #""pad_token_id": null, "#, nil),
        ("bert", #""pad_token_id": -1, "#, 47), ("distilbert", #""pad_token_id": null, "#, nil),
        ("electra", #""pad_token_id": null, "#, nil), ("esm", "", nil), ("esm", #""pad_token_id": 1, "#, 1),
        ("mpnet", "", 1), ("mpnet", #""pad_token_id": null, "#, 1), ("roberta", "", 1),
    ])
    func thePaddingTokenIsThatOfTransformers(type: String, key: String, expected: Int?) throws {
        let names =
            type == "distilbert"
            ? ("dim", "n_layers", "n_heads", "hidden_dim")
            : ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        let configuration = try Self.configuration(
            #"{"model_type": "\#(type)", \#(key)"\#(names.0)": 24, "\#(names.1)": 2, "\#(names.2)": 3, "\#(names.3)": 40, "#
                + #""vocab_size": 48, "max_position_embeddings": 300, "position_embedding_type": "\#(type == "esm" ? "rotary" : "absolute")"}"#
        )
        #expect(configuration.paddingId == expected, "\(type), \(key)")
    }

    /// 2^(−8/n), 2^(−16/n), … for a power of two; else those of the power below and every second one of the power
    /// above.
    @Test func slopesOfALiBiAreThoseOfThePaper() {
        #expect(ScoreModifiers.alibiSlopes(heads: 8) == [1, 2, 3, 4, 5, 6, 7, 8].map { exp2(-Float($0)) })
        let twelve = [1, 2, 3, 4, 5, 6, 7, 8].map { exp2(-Double($0)) } + [0.5, 1.5, 2.5, 3.5].map { exp2(-$0) }
        #expect(zip(ScoreModifiers.alibiSlopes(heads: 12), twelve).allSatisfy { abs(Double($0) - $1) <= 0x1p-24 * $1 })
    }

    /// Frequencies that an ESM checkpoint stores count, not those that it should have.
    @Test func storedFrequenciesCount() throws {
        struct Stretched: ParameterSource {
            let checkpoint: Checkpoint
            func has(_ name: String) -> Bool { name == "rotary_embeddings.inv_freq" || checkpoint.has(name) }
            func check(_ name: String, shape: [Int]) throws(FileError) {
                if !name.hasSuffix("inv_freq") { try checkpoint.check(name, shape: shape) }
            }
            func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
                throws(FileError)
            {
                guard name.hasSuffix("inv_freq") else {
                    return try checkpoint.read(name, shape: shape, range: range, into: floats)
                }
                for (place, index) in range.enumerated() { floats[place] = 1 / Float(index + 1) }
            }
        }
        let checkpoint = try Checkpoint(folder: golden("tiny-esm"))
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let ids = [(0..<50).map { Int32(4 + $0 % 20) }]
        let plain = try hiddenStates(Encoder(checkpoint, kernels: .best), ids)
        let stretched = try hiddenStates(
            Encoder(configuration, parameters: Stretched(checkpoint: checkpoint), kernels: .best), ids)
        #expect(zip(plain[0], stretched[0]).contains { abs($0 - $1) > 0.1 })
    }

    /// What no family says yet: causal layers, grouped heads of any width, layers of different heads, root-mean-square
    /// norms, norms on queries and keys.
    @Test(arguments: [NormPlacement.afterResidual, .beforeSublayer], [QueryKeyNorms.eachHead, .wholeRow])
    func layersCanDifferInMasksHeadsAndNorms(norms: NormPlacement, queryKeyNorms: QueryKeyNorms) throws {
        var configuration = EncoderConfiguration(
            family: .bert, hiddenSize: 48, layerCount: 4, headCount: 4, intermediateSize: 80, vocabularySize: 50,
            positionCount: 600,
            layerNormEpsilon: 1e-5)
        let grouped = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 12)
        configuration.attention = [
            AttentionPattern(heads: HeadShape(heads: 4, headDimension: 12), mask: .causal, rotaryBase: 10_000),
            AttentionPattern(heads: grouped, mask: .window(left: 40, right: 3)),
            AttentionPattern(heads: grouped, rotaryBase: 500),
            AttentionPattern(
                heads: HeadShape(queryHeads: 6, keyValueHeads: 1, headDimension: 16, valueDimension: 16), mask: .causal),
        ]
        configuration.rotaryDimension = 8
        configuration.norms = norms
        configuration.normKind = .rootMeanSquare
        configuration.queryKeyNorms = queryKeyNorms
        configuration.hasFinalNorm = norms == .beforeSublayer
        let parameters = RandomParameters(seed: 4)
        let encoder = try Encoder(configuration, parameters: parameters, kernels: .best)
        var generator = SystemRandomNumberGenerator()
        let ids = [1, 300, 530, 64].map { length in
            (0..<length).map { _ in Int32.random(in: 0..<50, using: &generator) }
        }
        let types = ids.map { $0.map { _ in Int32(0) } }
        let states = try hiddenStates(encoder, ids)
        let reference = ReferenceEncoder(configuration, parameters: parameters, threads: ThreadPool(threads: 2))
        let agreement = Agreement(
            states: states, exact: try reference.exactStates(ids: ids, typeIds: types),
            plain: try reference.plainStates(ids: ids, typeIds: types))
        #expect(
            agreement.holds, "off by \(agreement.error) of \(agreement.scale), plain float32 by \(agreement.plainError)"
        )
        for ranks in [2, 3, 5] { #expect(try hiddenStates(encoder, ids, ranks: ranks) == states, "\(ranks) ranks") }
    }

    @Test func theCostOfATokenCountsAllDenseLayers() throws {
        let (hidden, inner) = (768.0, 1152.0)
        let modern = try #require(PublishedShape.named("modernbert-base")).configuration()
        // Four projections, the two halves of the gated layer, and the one behind it.
        #expect(modern.denseFlopPerToken == 2 * (4 * hidden * hidden + 3 * hidden * inner))
        let plain = try #require(PublishedShape.named("bert-base")).configuration()
        #expect(plain.denseFlopPerToken == 2 * (4 * hidden * hidden + 2 * hidden * 3072))
    }

    @Test func aSingleLabelHasALogisticScore() throws {
        let labels = try LabelSet(JSON.parse(Array(#"{"id2label": {"0": "relevant"}}"#.utf8), path: "c"), path: "c")
        #expect(abs(labels.scores([0.75])[0] - 0.679_178_7) < 1e-6)
    }
}
