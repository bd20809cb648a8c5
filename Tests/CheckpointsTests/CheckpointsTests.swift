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
        try folder.write("tf_model.h5", "x")
        let weights = try #require(throws: FileError.self) { try Checkpoint(folder: folder.path) }
        #expect(
            weights.kind == .missing && weights.description.contains("model.safetensors")
                && weights.description.contains("pytorch_model.bin") && weights.description.contains("tf_model.h5"))
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
        let plain = try ModelFolder(path: Self.plain)
        #expect(plain.modules == nil && plain.prompts.isEmpty && plain.kind == .vectors)
        let folder = try ModelFolder(path: Self.sentence)
        let modules = try #require(folder.modules)
        guard case .pooling(let modes, let includesPrompt) = modules[0], case .normalize(ofTokens: false) = modules[1]
        else {
            Issue.record("\(modules)")
            return
        }
        #expect(modes == [.mean] && includesPrompt && modules.count == 2 && !folder.lowercases)
        #expect(folder.prompts == ["query": "query: ", "passage": "passage: "] && folder.defaultPromptName == nil)
        #expect(folder.trainedLength?.tokens == 64 && folder.similarity == .cosine && folder.dimensions == nil)
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
                try #require(throws: FileError.self) { try ModelFolder(path: model) },
            ] {
                #expect(
                    error.exitStatus == 65 && error.description.contains("'\(name)")
                        && error.description.contains("outside the model's"), "\(error)")
            }
        }
        try FileManager.default.createSymbolicLink(atPath: model + "/linked", withDestinationPath: "../outside")
        try write("linked")
        #expect(try Checkpoint(folder: model)["embeddings"]["a"].read(shape: [2]) == [0, 0])
        #expect(try modes(of: ModelFolder(path: model)) == [.cls])
        // A pooling in the model's own folder would read the model's configuration as its own.
        try write("")
        #expect(
            try #require(throws: FileError.self) { try ModelFolder(path: model) }.description
                .contains("module 1, a.Pooling: its name '' is empty"))
    }

    /// The poolings of a folder, in order.
    private func modes(of folder: ModelFolder) throws -> [PoolingMode] {
        try #require(folder.modules).flatMap { module -> [PoolingMode] in
            if case .pooling(let modes, _) = module { modes } else { [] }
        }
    }

    /// A folder of modules, each in a folder of its own but the transformer.
    private func folder(
        _ types: [String], pooling: String = "{}", settings: String? = nil, files: [String: String] = [:]
    )
        throws -> ModelFolder
    {
        let folder = try Scratch()
        let modules = types.enumerated().map { index, type in
            #"{"idx":\#(index),"name":"\#(index)","path":"\#(index == 0 ? "" : "\(index)_\(type)")","type":"sentence_transformers.models.\#(type)"}"#
        }
        try folder.write("config.json", "{}")
        try folder.write("model.safetensors", weights(["embeddings.a"]))
        try folder.write("modules.json", "[" + modules.joined(separator: ",") + "]")
        try folder.write("1_Pooling/config.json", pooling)
        if let settings { try folder.write("config_sentence_transformers.json", settings) }
        for (name, text) in files { try folder.write(name, text) }
        return try ModelFolder(path: folder.path)
    }

    @Test(arguments: [
        (#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#, [PoolingMode.cls]),
        (#"{"pooling_mode_mean_tokens":true}"#, [.mean]),
        (#"{"pooling_mode_max_tokens":true}"#, [.max]),
        (#"{"pooling_mode_mean_sqrt_len_tokens":true}"#, [.meanSquareRootLength]),
        (#"{"pooling_mode_weightedmean_tokens":true}"#, [.weightedMean]),
        (#"{"pooling_mode_lasttoken":true}"#, [.lastToken]), ("{}", [.mean]),
        (#"{"pooling_mode":"lasttoken"}"#, [.lastToken]), (#"{"pooling_mode":["cls"]}"#, [.cls]),
        (#"{"pooling_mode":["mean","cls"]}"#, [.mean, .cls]),
        (#"{"pooling_mode_lasttoken":true,"pooling_mode_cls_token":true}"#, [.cls, .lastToken]),
    ])
    func poolingModesAreRead(_ config: String, _ expected: [PoolingMode]) throws {
        #expect(try modes(of: folder(["Transformer", "Pooling"], pooling: config)) == expected)
    }

    @Test func modulesThatAreUnknownAreKeptByName() throws {
        let folder = try folder(["Transformer", "SpladePooling", "Dropout"])
        let modules = try #require(folder.modules)
        guard case .other(let type) = modules[0], case .passive = modules[1] else {
            Issue.record("\(modules)")
            return
        }
        #expect(type == "sentence_transformers.models.SpladePooling")
    }

    @Test(arguments: [
        (["Pooling"], "{}", "no transformer"), ([], "{}", "no module"),
        (["Transformer", "Pooling"], #"{"pooling_mode":"sideways"}"#, "sideways"),
        (["StaticEmbedding"], "{}", "models.StaticEmbedding"),
    ])
    func listsThatAreNoModelAreRefused(_ types: [String], _ pooling: String, _ words: String) throws {
        let error = try #require(throws: FileError.self) { try self.folder(types, pooling: pooling) }
        #expect(error.kind == .malformed && error.description.contains(words), "\(error)")
    }

    @Test(arguments: [
        (#"{"prompts":{"query":"q: "},"default_prompt_name":"PLACE"}"#, "PLACE"),
        (#"{"prompts":{"query":3}}"#, "'query' is a number"), (#"{"similarity_fn_name":"chebyshev"}"#, "chebyshev"),
        (#"{"truncate_dim":0}"#, "truncate_dim"), (#"{"model_type":"Oracle"}"#, "Oracle"),
        (#"{"model_type":"CrossEncoder","activation_fn":"mine.Activation"}"#, "mine.Activation"),
    ])
    func settingsThatCannotBeHonouredAreRefusedByName(_ settings: String, _ words: String) throws {
        let error = try #require(throws: FileError.self) {
            try self.folder(["Transformer", "Pooling"], settings: settings)
        }
        #expect(
            error.kind == .malformed && error.description.contains(words)
                && error.path.hasSuffix("config_sentence_transformers.json"), "\(error)")
    }

    @Test func settingsAreRead() throws {
        let read = try folder(
            ["Transformer", "Pooling"],
            settings:
                #"{"prompts":{"query":"q: ","document":null},"default_prompt_name":"query","similarity_fn_name":"dot_score","truncate_dim":7}"#,
            files: ["sentence_roberta_config.json": #"{"max_seq_length":99,"do_lower_case":true}"#])
        #expect(read.prompts == ["query": "q: ", "document": ""] && read.defaultPromptName == "query")
        #expect(read.similarity == .dot && read.dimensions == 7 && read.lowercases)
        #expect(read.trainedLength?.tokens == 99)
        let lengths = try folder(
            ["Transformer", "Pooling"],
            files: [
                "sentence_bert_config.json": "{}",
                "tokenizer_config.json": #"{"model_max_length":1000000000000000019884624838656}"#,
            ])
        #expect(lengths.trainedLength == nil)
        let saved = try folder(
            ["Transformer", "Pooling"], files: ["tokenizer_config.json": #"{"model_max_length":512}"#])
        #expect(saved.trainedLength?.tokens == 512)
    }

    /// The places where the function of a cross-encoder has stood, the first of which counts.
    @Test func scoresOfCrossEncodersAreRead() throws {
        let identity = "torch.nn.modules.linear.Identity"
        let sigmoid = "torch.nn.modules.activation.Sigmoid"
        for (settings, config, expected) in [
            (#"{"model_type":"CrossEncoder","activation_fn":"\#(identity)"}"#, "{}", TorchActivation.identity),
            (#"{"model_type":"CrossEncoder"}"#, #"{"id2label":{"0":"a"}}"#, .sigmoid),
            (#"{"model_type":"CrossEncoder"}"#, #"{"num_labels":3}"#, .identity),
            ("{}", #"{"sentence_transformers":{"activation_fn":"\#(sigmoid)"}}"#, .sigmoid),
            ("{}", #"{"sbert_ce_default_activation_function":"\#(identity)"}"#, .identity),
            (
                #"{"model_type":"CrossEncoder","activation_fn":"\#(identity)"}"#,
                #"{"sbert_ce_default_activation_function":"\#(sigmoid)"}"#, .identity
            ),
        ] {
            let read = try folder(["Transformer"], settings: settings, files: ["config.json": config])
            #expect(read.kind == .crossEncoder && read.scores == expected, "\(settings) \(config)")
        }
        #expect(try folder(["Transformer"]).scores == nil)
    }

    @Test func aTransformerMayLieInAFolderOfItsOwn() throws {
        let folder = try Scratch()
        try folder.write("config.json", #"{"__version__":"0.3.8"}"#)
        try folder.write(
            "modules.json",
            #"[{"path":"0_Transformer","type":"sentence_transformers.models.Transformer"},{"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]"#
        )
        try folder.write("0_Transformer/config.json", #"{"model_type":"bert"}"#)
        try folder.write("0_Transformer/sentence_bert_config.json", #"{"max_seq_length":32}"#)
        try folder.write("0_Transformer/model.safetensors", weights(["embeddings.a"]))
        try folder.write("1_Pooling/config.json", #"{"pooling_mode_cls_token":true}"#)
        let read = try ModelFolder(path: folder.path)
        #expect(read.checkpoint.config["model_type"]?.string == "bert" && read.trainedLength?.tokens == 32)
        #expect(try modes(of: read) == [.cls])
    }
}
