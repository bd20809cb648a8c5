// Model folders: weights by path under any of their names, models by name, sentence-transformers settings.

import Checkpoints
import Files
import Foundation
import Testing

@Suite struct CheckpointsTests {
    private static let plain = Goldens.folder + "/tiny-bert"
    private static let prefixed = Goldens.folder + "/tiny-bert-prefixed"
    private static let sentence = Goldens.folder + "/tiny-bert-sentence"

    @Test func pathsFindWeightsWithAndWithoutPrefixAndOldNames() throws {
        let plain = try Checkpoint(folder: Self.plain)
        #expect(plain.prefix == "" && plain.config["hidden_size"]?.int == 48)
        let query = try plain["encoder"]["layer"][2]["attention"]["self"]["query"]["weight"].read(shape: [48, 48])
        #expect(query == (try plain.files[0].readFloat32("encoder.layer.2.attention.self.query.weight")))
        #expect(plain["embeddings"]["position_embeddings"]["weight"].tensor?.elementType == .float16)
        #expect(plain["encoder"]["layer"][3]["output"]["dense"]["bias"].exists == false)

        let prefixed = try Checkpoint(folder: Self.prefixed)
        #expect(prefixed.prefix == "bert.")
        let norm = prefixed["encoder"]["layer"][1]["output"]["LayerNorm"]
        #expect(
            try norm["weight"].read(shape: [32])
                == prefixed.files[0].readFloat32("bert.encoder.layer.1.output.LayerNorm.gamma"))
        #expect(
            try norm["bias"].read(shape: [32])
                == prefixed.files[0].readFloat32("bert.encoder.layer.1.output.LayerNorm.beta"))
        #expect(
            try prefixed["bert"]["pooler"]["dense"]["bias"].read(shape: [32])
                == prefixed["pooler"]["dense"]["bias"].read(shape: [32]))
        #expect(
            prefixed.parameterCount == prefixed.names.reduce(0) { $0 + (prefixed.tensor(named: $1)?.elementCount ?? 0) }
        )
    }

    @Test func slicesOfWeightsAreParts() throws {
        let weight = try Checkpoint(folder: Self.plain)["embeddings"]["word_embeddings"]["weight"]
        let whole = try weight.read(shape: [640, 48])
        var part = [Float](repeating: 0, count: 96)
        try part.withUnsafeMutableBufferPointer { try weight.read(shape: [640, 48], range: 480..<576, into: $0) }
        #expect(part == Array(whole[480..<576]))
    }

    @Test func missingAndMisshapenWeightsAreNamed() throws {
        let prefixed = try Checkpoint(folder: Self.prefixed)
        let missing = try #require(throws: FileError.self) {
            try prefixed["encoder"]["layer"][7]["attention"]["self"]["query"]["weight"].read(shape: [32, 32])
        }
        #expect(missing.kind == .malformed)
        for words in [
            "'encoder.layer.7.attention.self.query.weight'", "'bert.encoder.layer.7.",
            "similar: bert.encoder.layer.0.attention.self.query.weight", "model.safetensors",
        ] {
            #expect(missing.description.contains(words), "\(missing)")
        }
        let shape = try #require(throws: FileError.self) {
            try prefixed["pooler"]["dense"]["weight"].check(shape: [48, 48])
        }
        #expect(
            shape.description.contains("bert.pooler.dense.weight") && shape.description.contains("[48, 48]")
                && shape.description.contains("[32, 32]"))
        try prefixed["pooler"]["dense"]["weight"].check(shape: [32, 32])
    }

    /// A safetensors file with one tensor of zeros.
    private func weights(_ names: [String]) -> [UInt8] {
        let layout = SafetensorsLayout(tensors: names.map { ($0, .float32, [2]) })
        return layout.headerBytes + [UInt8](repeating: 0, count: 8 * names.count)
    }

    @Test func shardsAreOneCheckpoint() throws {
        let folder = try Scratch()
        try folder.write("config.json", "{}")
        try folder.write("one.safetensors", weights(["model.embeddings.a", "model.b"]))
        try folder.write("two.safetensors", weights(["model.c"]))
        let map =
            #"{"weight_map":{"model.embeddings.a":"one.safetensors","model.b":"one.safetensors","model.c":"two.safetensors"}}"#
        try folder.write("model.safetensors.index.json", map)
        let checkpoint = try Checkpoint(folder: folder.path)
        #expect(checkpoint.prefix == "model." && checkpoint.files.count == 2)
        #expect(checkpoint.names == ["model.b", "model.c", "model.embeddings.a"])
        #expect(try checkpoint["c"].read(shape: [2]) == [0, 0])

        for (bad, words) in [
            (map.replacing("\"model.c\"", with: "\"model.d\""), "model.d"),
            (map.replacing("two.safe", with: "../two.safe"), "'../two.safetensors' leads outside"),
            (map.replacing("two.safe", with: "three.safe"), "three.safetensors"), ("{}", "weight_map"),
        ] {
            try folder.write("model.safetensors.index.json", bad)
            let error = try #require(throws: FileError.self) { try Checkpoint(folder: folder.path) }
            #expect(error.description.contains(words), "\(error)")
        }
    }

    @Test func aFolderThatIsNoModelIsRefused() throws {
        let folder = try Scratch()
        let config = try #require(throws: FileError.self) { try Checkpoint(folder: folder.path) }
        #expect(config.kind == .missing && config.description.contains("config.json"))
        try folder.write("config.json", "{}")
        try folder.write("pytorch_model.bin", "x")
        let weights = try #require(throws: FileError.self) { try Checkpoint(folder: folder.path) }
        #expect(
            weights.kind == .missing && weights.description.contains("model.safetensors")
                && weights.description.contains("pytorch_model.bin"))
        try folder.write("config.json", "[]")
        #expect(throws: FileError.self) { try Checkpoint(folder: folder.path) }
        let nowhere = try #require(throws: FileError.self) { try Checkpoint(folder: folder.path + "/none") }
        #expect(nowhere.kind == .missing)
    }

    @Test func prefixIsThatOfTheOnlyEmbeddings() throws {
        for (names, prefix) in [
            (["embeddings.w", "bert.embeddings.w"], ""), (["roberta.embeddings.w", "classifier.weight"], "roberta."),
            (["encoder.embeddings.w", "decoder.embeddings.w"], ""), (["w"], ""),
        ] {
            let folder = try Scratch()
            try folder.write("config.json", "{}")
            try folder.write("model.safetensors", weights(names))
            #expect(try Checkpoint(folder: folder.path).prefix == prefix)
        }
    }

    @Test func namesAreFoundInTheCache() throws {
        let folder = try Scratch()
        let snapshot = "models--org--name/snapshots/abc123"
        try folder.write("hub/\(snapshot)/config.json", "{}")
        try folder.write("hub/models--org--name/refs/main", "abc123")
        let expected = folder.path + "/hub/" + snapshot
        for environment in [
            ["HF_HUB_CACHE": folder.path + "/hub"], ["HF_HOME": folder.path],
            ["HF_HUB_CACHE": "/nowhere", "HF_HOME": folder.path],
        ] {
            #expect(try Checkpoint.resolve("org/name", environment: environment) == expected)
        }
        try folder.write("home/.cache/huggingface/hub/models--bert/snapshots/1/config.json", "{}")
        #expect(
            try Checkpoint.resolve("bert", environment: ["HOME": folder.path + "/home"]).hasSuffix(
                "models--bert/snapshots/1"))
        #expect(try Checkpoint.resolve(folder.path, environment: [:]) == folder.path)

        // Of two revisions, only a reference can choose.
        try folder.write("hub/models--org--two/snapshots/1/config.json", "{}")
        try folder.write("hub/models--org--two/snapshots/2/config.json", "{}")
        #expect(throws: FileError.self) { try Checkpoint.resolve("org/two", environment: ["HF_HOME": folder.path]) }
        try folder.write("hub/models--org--two/refs/main", "2\n")
        #expect(try Checkpoint.resolve("org/two", environment: ["HF_HOME": folder.path]).hasSuffix("/2"))

        let missing = try #require(throws: FileError.self) {
            try Checkpoint.resolve("org/none", environment: ["HF_HUB_CACHE": "/x", "HF_HOME": "/y", "HOME": "/z"])
        }
        #expect(missing.kind == .missing)
        for place in [
            "org/none", "/x/models--org--none", "/y/hub/models--org--none",
            "/z/.cache/huggingface/hub/models--org--none",
        ] {
            #expect(missing.description.contains(place), "\(missing)")
        }
        let file = try folder.write("file", "")
        #expect(
            try #require(throws: FileError.self) { try Checkpoint.resolve(file, environment: [:]) }.kind == .malformed)
        #expect(throws: FileError.self) {
            try Checkpoint.resolve("../no such/folder", environment: ["HF_HOME": folder.path])
        }
    }

    @Test func sentenceSettingsAreRead() throws {
        #expect(try SentenceTransformersSettings.load(folder: Self.plain) == nil)
        let settings = try #require(try SentenceTransformersSettings.load(folder: Self.sentence))
        #expect(settings.pooling == .mean && settings.normalize && settings.includePrompt && !settings.lowercase)
        #expect(settings.prompts == ["query": "query: ", "passage": "passage: "] && settings.defaultPromptName == nil)
        #expect(settings.maximumSequenceLength == 64)
    }

    @Test(arguments: ["..", "../x", "a/../../x", "a/..", "/", "/etc/hostname", "//x", "", "x\0", "\0", "a/..\0"])
    func namesInAFolderDoNotLeadOutOfIt(_ name: String) throws {
        let error = try #require(throws: FileError.self) {
            try FileBytes.path(named: name, inFolder: "model", by: "model/index.json", "shard 3")
        }
        #expect(
            error.kind == .malformed && error.path == "model/index.json"
                && error.message.hasPrefix("shard 3: its name '\(name)' "), "\(error)")
    }

    @Test(arguments: ["x", "a/b/c", "..x", "x..", ".../x", ".", "./x", "a//b", "é ü"]) func namesInAFolderStayAsTheyAre(
        _ name: String
    ) throws {
        #expect(
            try FileBytes.path(named: name, inFolder: "/some/../model", by: "index.json", "shard 3")
                == "/some/../model/" + name)
    }

    /// A shard and a pooling that lie beside the model's folder, named from within, and by a link of the user's.
    @Test func onlyLinksLeadOutOfAModelFolder() throws {
        let folder = try Scratch()
        let model = folder.path + "/model"
        try folder.write("outside/one.safetensors", weights(["embeddings.a"]))
        try folder.write("outside/config.json", #"{"pooling_mode_cls_token":true}"#)
        try folder.write("model/config.json", "{}")
        func write(_ name: String) throws {
            try folder.write(
                "model/model.safetensors.index.json", #"{"weight_map":{"embeddings.a":"\#(name)/one.safetensors"}}"#)
            try folder.write(
                "model/modules.json",
                #"[{"path":"","type":"a.Transformer"},{"path":"\#(name)","type":"a.Pooling"}]"#)
        }
        for name in ["../outside", folder.path + "/outside", "inner/../../outside"] {
            try write(name)
            for error in [
                try #require(throws: FileError.self) { try Checkpoint(folder: model) },
                try #require(throws: FileError.self) { try SentenceTransformersSettings.load(folder: model) },
            ] {
                #expect(
                    error.exitStatus == 65 && error.description.contains("'\(name)")
                        && error.description.contains("outside the model's"), "\(error)")
            }
        }
        try FileManager.default.createSymbolicLink(atPath: model + "/linked", withDestinationPath: "../outside")
        try write("linked")
        #expect(try Checkpoint(folder: model)["embeddings"]["a"].read(shape: [2]) == [0, 0])
        #expect(try SentenceTransformersSettings.load(folder: model)?.pooling == .cls)
        // A pooling in the model's own folder would read the model's configuration as its own.
        try write("")
        #expect(
            try #require(throws: FileError.self) { try SentenceTransformersSettings.load(folder: model) }.description
                .contains("module 1, a.Pooling: its name '' is empty"))
    }

    private func settings(_ types: [String], pooling: String, prompts: String? = nil) throws
        -> SentenceTransformersSettings?
    {
        let folder = try Scratch()
        let modules = types.enumerated().map { index, type in
            #"{"idx":\#(index),"name":"\#(index)","path":"\#(index == 0 ? "" : "\(index)_\(type)")","type":"sentence_transformers.models.\#(type)"}"#
        }
        try folder.write("modules.json", "[" + modules.joined(separator: ",") + "]")
        try folder.write("1_Pooling/config.json", pooling)
        if let prompts { try folder.write("config_sentence_transformers.json", prompts) }
        return try SentenceTransformersSettings.load(folder: folder.path)
    }

    @Test(arguments: [
        (#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#, PoolingMode.cls),
        (#"{"pooling_mode_mean_tokens":true}"#, .mean),
        (#"{"pooling_mode_max_tokens":true}"#, .max),
        (#"{"pooling_mode_mean_sqrt_len_tokens":true}"#, .meanSquareRootLength),
        (#"{"pooling_mode_weightedmean_tokens":true}"#, .weightedMean),
        (#"{"pooling_mode_lasttoken":true}"#, .lastToken), ("{}", .mean),
        (#"{"pooling_mode":"lasttoken"}"#, .lastToken), (#"{"pooling_mode":["cls"]}"#, .cls),
    ])
    func poolingModesAreRead(_ config: String, _ mode: PoolingMode) throws {
        let settings = try #require(try self.settings(["Transformer", "Pooling"], pooling: config))
        #expect(settings.pooling == mode && !settings.normalize)
    }

    @Test func pipelinesThatAreNotSupportedAreRefusedByName() throws {
        for (types, pooling, words) in [
            (["Transformer", "Pooling", "Dense"], "{}", "models.Dense"), (["Pooling"], "{}", "order"),
            (["Transformer"], "{}", "Pooling"),
            (["Transformer", "Pooling", "Normalize", "Pooling"], "{}", "order"), ([], "{}", "needs"),
            (
                ["Transformer", "Pooling"], #"{"pooling_mode_cls_token":true,"pooling_mode_max_tokens":true}"#,
                "cls, max"
            ),
            (["Transformer", "Pooling"], #"{"pooling_mode":"sideways"}"#, "sideways"),
        ] {
            let error = try #require(throws: FileError.self) { try self.settings(types, pooling: pooling) }
            #expect(error.kind == .malformed && error.description.contains(words), "\(error)")
        }
        let prompts = #"{"prompts":{"query":"q: "},"default_prompt_name":"PLACE"}"#
        let read = try self.settings(
            ["Transformer", "Pooling"], pooling: "{}", prompts: prompts.replacing("PLACE", with: "query"))
        #expect(read?.defaultPromptName == "query")
        #expect(throws: FileError.self) {
            try self.settings(["Transformer", "Pooling"], pooling: "{}", prompts: prompts)
        }
    }
}
