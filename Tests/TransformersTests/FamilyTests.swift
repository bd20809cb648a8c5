// Every family against transformers, by goldens that scripts/goldens/make.py makes, and the same bits however it is spread.

import Attention
import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import Testing
import Tiles
import Transformers

@Suite struct FamilyTests {
    /// The tiny checkpoints of `scripts/goldens/make.py families`.
    static let names = [
        "tiny-roberta", "tiny-xlm-roberta", "tiny-camembert", "tiny-distilbert", "tiny-albert", "tiny-electra",
        "tiny-mpnet", "tiny-modernbert",
        "tiny-deberta-v3", "tiny-deberta-v2", "tiny-nomic-bert", "tiny-esm", "tiny-esm-absolute", "tiny-jina-bert",
    ]

    @Test(arguments: names) func hiddenStatesEqualTransformers(name: String) throws {
        let file = try TensorFile(path: golden(name) + "/goldens.safetensors")
        let encoder = try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
        let width = encoder.configuration.hiddenSize
        // The largest error of transformers in float32 against float64 on the same rows, and the largest state.
        let float32Error = Float(try #require(file.metadata["float32_error"]))!
        let scale = Float(try #require(file.metadata["scale"]))!
        let documents = file.names.filter { $0.hasSuffix(".input_ids") }.map { String($0.dropLast(10)) }
        #expect(documents.count == 9)
        var worst: Float = 0
        for document in documents {
            let ids = try file.readIntegers("\(document).input_ids").map { Int32($0) }
            let expected = try file.readFloat32("\(document).last_hidden_state")
            let states = try hiddenStates(encoder, [ids])[0]
            #expect(states.count == ids.count * width)
            for (place, row) in try file.readIntegers("\(document).rows").enumerated() {
                for column in 0..<width {
                    let error = abs(states[Int(row) * width + column] - expected[place * width + column])
                    worst = max(worst, error.isNaN ? .infinity : error)
                }
            }
            #expect(
                worst <= 2 * float32Error && worst <= 1e-5 * scale,
                "\(name), document \(document): off by \(worst), transformers by \(float32Error)")
        }
        print("\(name): off by \(worst) of \(scale), transformers in float32 by \(float32Error)")
    }

    @Test(arguments: names) func documentsHaveTheSameBitsHoweverTheyAreSpread(name: String) throws {
        let encoder = try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
        let vocabulary = Int32(encoder.configuration.vocabularySize)
        let lengths = [1, 2, 257, 300, 70]
        // All ids, those of the padding and the mask among them.
        let ids = lengths.map { length in (0..<length).map { Int32($0 * 7 + length) % vocabulary } }
        let alone = try ids.map { try hiddenStates(encoder, [$0])[0] }
        for layout in Layout.allCases {
            for ranks in [1, 2, 3, 5] {
                let states = try hiddenStates(encoder, ids, ranks: ranks, threads: 1 + ranks % 2, layout: layout)
                for (document, pair) in zip(states, alone).enumerated() {
                    #expect(
                        pair.0.map(\.bitPattern) == pair.1.map(\.bitPattern),
                        "\(name), document of \(lengths[document]) tokens, \(layout), \(ranks) ranks")
                }
            }
        }
    }

    /// Weights, keys and values in bfloat16 are off by 2⁻⁸ at most each; over the layers such errors add up like their
    /// roots.
    @Test(arguments: names) func bfloat16IsNearFloat32OnAnyRanks(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let wide = try Encoder(checkpoint, kernels: .best)
        let narrow = try Encoder(checkpoint, element: .bfloat16, kernels: .best)
        let ids = [1, 70, 300].map { length in (0..<length).map { Int32(($0 * 7 + length) % 30) } }
        let (exact, states) = (try hiddenStates(wide, ids), try hiddenStates(narrow, ids))
        for ranks in [2, 3, 5] {
            let spread = try hiddenStates(narrow, ids, ranks: ranks, layout: Layout.allCases[ranks % 3])
            #expect(
                zip(spread.joined(), states.joined()).allSatisfy { $0.bitPattern == $1.bitPattern }, "\(ranks) ranks")
        }
        let difference = zip(exact.joined(), states.joined()).reduce(0.0) {
            $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1)
        }
        let size = exact.joined().reduce(0.0) { $0 + Double($1) * Double($1) }
        let relative = (difference / size).squareRoot()
        #expect(
            relative > 0x1p-12 && relative < 2 * 0x1p-8 * Double(wide.configuration.layerCount).squareRoot(),
            "off by \(relative)")
    }

    @Test func oldAndNewKeysOfModernBERTMeanTheSame() throws {
        let folder = golden("tiny-modernbert")
        let new = try EncoderConfiguration(JSON.load(path: folder + "/config.json"), path: "new")
        let old = try EncoderConfiguration(JSON.load(path: folder + "/config-old.json"), path: "old")
        #expect(new == old)
        let local = Mask.window(left: 8, right: 8)
        #expect(new.attention.map(\.mask) == [.full, local, local, .full, local])
        #expect(new.attention.map(\.rotaryBase) == [160_000, 10_000, 10_000, 160_000, 10_000])
    }

    @Test func albertSharesLayersByGroup() throws {
        let configuration = try EncoderConfiguration(
            JSON.load(path: golden("tiny-albert") + "/config.json"), path: "albert")
        #expect(configuration.layerSources == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3])
    }

    @Test func bucketsOfThePublishedDeBERTaAreThoseOfTransformers() throws {
        let rows = try TensorFile(path: golden("tiny-deberta-v3") + "/goldens.safetensors").readIntegers(
            "published_rows")
        let shape = try #require(try PublishedShape.named("deberta-v3-base")?.configuration().disentangled)
        #expect(rows.count == 1401)
        for (place, row) in rows.enumerated() { #expect(shape.row(place - 700) == Int(row), "distance \(place - 700)") }
    }

    @Test func tokenTypesCount() throws {
        let encoder = try Encoder(Checkpoint(folder: golden("tiny-bert")), kernels: .best)
        let ids = [Int32](5..<40)
        let first = try hiddenStates(encoder, [ids], typeIds: [ids.map { _ in 0 }])
        let second = try hiddenStates(encoder, [ids], typeIds: [ids.map { $0 < 20 ? 0 : 1 }])
        #expect(try first == hiddenStates(encoder, [ids]))
        #expect(first != second)
    }

    @Test(arguments: [
        (#"{"model_type": "gpt2"}"#, "model_type 'gpt2' is not supported; supported: albert, bert,"),
        (#"{"model_type": "bert", "is_decoder": true}"#, "'is_decoder' is true"),
        (
            #"{"model_type": "bert", "position_embedding_type": "relative_key"}"#,
            "position_embedding_type 'relative_key'"
        ),
        (
            #"{"model_type": "nomic_bert", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 8, "num_experts": 8}"#,
            "num_experts 8"
        ),
        (
            #"{"model_type": "nomic_bert", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 8, "rotary_scaling_factor": 2}"#,
            "rotary_scaling_factor 2"
        ),
        (
            #"{"model_type": "modernbert", "rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 10000}}}"#,
            "'yarn'"
        ),
        (#"{"model_type": "modernbert", "hidden_activation": "mish"}"#, "hidden_activation 'mish'"),
        (#"{"model_type": "roberta", "quantization_config": {"bits": 4}}"#, "quantization_config"),
        (
            #"{"model_type": "roberta", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 8, "vocab_size": 9, "max_position_embeddings": 9}"#,
            "'num_attention_heads' (3) does not divide 'hidden_size' (8)"
        ),
    ]) func whatIsNotSupportedIsRefusedByName(config: String, part: String) throws {
        let error = #expect(throws: FileError.self) {
            try EncoderConfiguration(JSON.parse(Array(config.utf8), path: "config.json"), path: "config.json")
        }
        #expect(error?.description.contains(part) == true, "\(error.map(String.init(describing:)) ?? "")")
    }
}

@Suite struct PublishedShapeTests {
    @Test(arguments: PublishedShape.all.map(\.name)) func shapesAreReadAndExtend(name: String) throws {
        let shape = try #require(PublishedShape.named(name))
        let published = try shape.configuration()
        #expect(published.positionCount >= 512)
        #expect(try shape.configuration(positions: 777).positionCount == 777)
        #expect(published.hiddenSize % published.headCount == 0)
    }
}
