// What a training writes: folders that transformers and this program load, and snapshots from which it goes on.

import Checkpoints
import Files
import Foundation
import Matrices
import RingAttention
import Tiles
import Training
import Transformers

/// Writes the folders of a training. All its functions are collective.
struct TrainingFolder {
    let model: TrainedModel
    let settings: TrainingSettings
    let session: Session

    /// Files of a tokenizer, of which those that are there are copied.
    private static let tokenizerFiles = [
        "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json",
        "added_tokens.json", "sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model", "bpe.codes",
        "dict.txt",
    ]

    /// What weights are written in.
    private var type: TrainingSettings.SavedType {
        if let asked = settings.saveType { return asked }
        let checkpoint = model.start.folder?.checkpoint
        let stored = checkpoint?.names.first.flatMap { checkpoint?.tensor(named: $0)?.elementType }
        return stored == .bfloat16 ? .bfloat16 : .float32
    }

    /// Writes the model of each task: the first into the folder, the others into `task-2`, `task-3`, … below it.
    func write(to folder: String) throws {
        for number in model.tasks.indices {
            let place = number == 0 ? folder : "\(folder)/task-\(number + 1)"
            try make(place)
            try writeWeights(to: place, task: number)
            try writeSmallFiles(to: place, task: number)
        }
    }

    private func make(_ folder: String) throws {
        try session.agree {
            guard session.isRoot else { return }
            do {
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            } catch {
                throw JobError(
                    .cannotCreate, "\(folder): the folder cannot be made (\(error.localizedDescription)); name another")
            }
        }
    }

    /// The architecture of a task, and the name of a parameter in its checkpoint.
    private func architecture(_ task: TrainedTask) -> String {
        let classes = model.start.configuration.family.classes
        return switch task.kind {
        case .maskedLanguage: "\(classes)ForMaskedLM"
        case .classify, .multiLabel, .regress: "\(classes)ForSequenceClassification"
        case .entities: "\(classes)ForTokenClassification"
        case .similarity: "\(classes)Model"
        }
    }

    private func storedName(_ parameter: String, _ task: TrainedTask) -> String {
        let isOfBase = model.encoderNames.contains(parameter) || parameter.hasPrefix("pooler.")
        return task.kind != .similarity && isOfBase
            ? "\(model.start.configuration.family.prefix).\(parameter)" : parameter
    }

    /// `model.safetensors`, and another in the folder of each module behind pooling that is trained.
    private func writeWeights(to folder: String, task number: Int) throws {
        session.monitor.progress(.writing)
        let task = model.tasks[number]
        let encoder = model.parameters.filter { model.encoderNames.contains($0.name) }
        let head = task.head.filter { !model.encoderNames.contains($0.name) }
        let ofModel = encoder + (task.kind == .similarity ? [] : head)
        try writeTensors(
            ofModel.map { ($0, storedName($0.name, task)) }, to: folder + "/model.safetensors", task: number)
        guard task.kind == .similarity else { return }
        func module(_ parameter: Parameter) -> String { String(parameter.name.prefix { $0 != "." }) }
        for place in Set(head.map(module)).sorted() {
            try make("\(folder)/\(place)")
            try writeTensors(
                head.filter { module($0) == place }.map { ($0, String($0.name.dropFirst(place.count + 1))) },
                to: "\(folder)/\(place)/model.safetensors", task: number)
        }
    }

    /// A file of some parameters of a task by the names that it has for them: each rank writes what it owns of the trained
    /// ones, rank 0 all others.
    private func writeTensors(_ parameters: [(parameter: Parameter, stored: String)], to path: String, task number: Int)
        throws
    {
        let type = type
        let layout = SafetensorsLayout(
            tensors: parameters.map { ($0.stored, type == .float32 ? .float32 : .bfloat16, $0.parameter.shape) },
            metadata: ["format": "pt"])
        let file = try ParallelFile.create(
            path, force: true, transport: session.transport, size: layout.totalBytes)
        try layout.headerBytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        let source = model.start.parameters(encoder: model.encoderNames)
        let mine = model.blocks.floats(
            of: model.blocks.blocks(of: session.transport.rank, of: session.transport.size))
        for (parameter, stored) in parameters {
            let name = TaskParameters.name(parameter.name, task: number, encoder: model.encoderNames)
            var (first, values): (Int, [Float]) = (0, [])
            if let entry = model.blocks.entry(name) {
                let part = entry.range.clamped(to: mine)
                first = part.lowerBound - entry.range.lowerBound
                values = Array(UnsafeBufferPointer(start: model.masters.floats + part.lowerBound, count: part.count))
            } else {
                values = try session.agree {
                    session.isRoot ? try source.read(parameter.name, shape: parameter.shape) : []
                }
            }
            let offset = layout.offset(of: stored)
            if type == .float32 {
                try values.withUnsafeBytes { try file.write($0.isEmpty ? [] : [(offset + 4 * first, $0)]) }
            } else {
                let rounded = values.map(Self.bfloat16)
                try rounded.withUnsafeBytes { try file.write($0.isEmpty ? [] : [(offset + 2 * first, $0)]) }
            }
        }
        try file.commit()
    }

    /// The bits of the nearest bfloat16, of two equally near ones the even one; a NaN stays one.
    private static func bfloat16(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
        return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
    }

    /// `config.json`, the tokenizer's files, and what sentence-transformers needs beside a model of vectors.
    private func writeSmallFiles(to folder: String, task number: Int) throws {
        let task = model.tasks[number]
        try session.agree {
            guard session.isRoot else { return }
            var config = task.config.setting("architectures", .array([.string(architecture(task))]))
            for key in ["torch_dtype", "dtype"] where config[key] != nil {
                config = config.setting(key, .string(type.rawValue))
            }
            try ParallelFile.replace(folder + "/config.json", with: Array((JSONText.indented(config) + "\n").utf8))
            for name in Self.tokenizerFiles where FileBytes.exists(model.start.tokenizerFolder + "/" + name) {
                try copy(name, from: model.start.tokenizerFolder, to: folder)
            }
            if task.kind == .similarity { try writeModules(to: folder, task) }
        }
    }

    private func copy(_ name: String, from source: String, to folder: String) throws {
        try ParallelFile.replace(folder + "/" + name, with: try FileBytes.read(path: source + "/" + name))
    }

    /// What follows the transformer in a model of vectors: as in the folder that the training began with, the mean of the
    /// tokens' states where it has nothing.
    private func writeModules(to folder: String, _ task: TrainedTask) throws {
        func put(_ name: String, _ text: String) throws {
            try ParallelFile.replace(folder + "/" + name, with: Array(text.utf8))
        }
        let start = model.start.folder?.path ?? ""
        // The settings of the transformer may lie in a folder of its own.
        let settings = FileBytes.names(inFolder: model.start.tokenizerFolder).filter {
            $0.hasPrefix("sentence_") && $0.hasSuffix("_config.json")
        }
        for name in settings { try copy(name, from: model.start.tokenizerFolder, to: folder) }
        let own = "config_sentence_transformers.json"
        if FileBytes.exists(start + "/" + own) { try copy(own, from: start, to: folder) }
        if model.start.folder?.modules != nil {
            var modules = try JSON.load(path: start + "/modules.json").array ?? []
            // The transformer is the first, and what is trained of it lies in the folder itself.
            if let transformer = modules.first { modules[0] = transformer.setting("path", .string("")) }
            try put("modules.json", JSONText.indented(.array(modules)) + "\n")
            for module in modules {
                guard let path = module["path"]?.string, !path.isEmpty, FileBytes.isFolder(start + "/" + path) else {
                    continue
                }
                try FileManager.default.createDirectory(
                    atPath: folder + "/" + path, withIntermediateDirectories: true)
                let isTrained = task.head.contains { $0.name.hasPrefix(path + ".") }
                for name in FileBytes.names(inFolder: start + "/" + path).sorted()
                where !(isTrained && ["model.safetensors", "pytorch_model.bin"].contains(name)) {
                    try copy(name, from: start + "/" + path, to: folder + "/" + path)
                }
            }
            return
        }
        try FileManager.default.createDirectory(atPath: folder + "/1_Pooling", withIntermediateDirectories: true)
        try put(
            "modules.json",
            """
            [
              {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
              {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
              {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
            ]

            """)
        try put(
            "1_Pooling/config.json",
            """
            {
              "word_embedding_dimension": \(model.start.configuration.hiddenSize),
              "pooling_mode_cls_token": false,
              "pooling_mode_mean_tokens": true,
              "pooling_mode_max_tokens": false,
              "pooling_mode_mean_sqrt_len_tokens": false
            }

            """)
        try FileManager.default.createDirectory(atPath: folder + "/2_Normalize", withIntermediateDirectories: true)
    }

    // MARK: - Snapshots

    /// The optimizer's state in a file: for every trained parameter its master, and the two means of its gradients.
    private func stateLayout() -> SafetensorsLayout {
        SafetensorsLayout(
            tensors: model.blocks.entries.flatMap { entry in
                ["master", "mean", "square"].map {
                    (name: "\($0).\(entry.parameter.name)", elementType: .float32, shape: entry.parameter.shape)
                }
            }, metadata: ["format": "pt"])
    }

    /// Where a rank's part of each parameter's state is in the file, and in memory.
    private func statePieces(_ shard: OptimizerShard, _ layout: SafetensorsLayout) -> [(
        offset: Int, bytes: UnsafeMutableRawBufferPointer
    )] {
        var pieces: [(offset: Int, bytes: UnsafeMutableRawBufferPointer)] = []
        let mine = shard.floats
        for place in model.blocks.entries.indices {
            let entry = model.blocks.entries[place]
            let part = entry.range.clamped(to: mine)
            if part.isEmpty { continue }
            let inside = part.lowerBound - mine.lowerBound
            for (name, floats) in [
                ("master", model.masters.floats + part.lowerBound), ("mean", shard.mean.pointer + inside),
                ("square", shard.square.pointer + inside),
            ] {
                pieces.append(
                    (
                        layout.offset(of: "\(name).\(entry.parameter.name)")
                            + 4 * (part.lowerBound - entry.range.lowerBound),
                        UnsafeMutableRawBufferPointer(start: floats, count: 4 * part.count)
                    ))
            }
        }
        return pieces
    }

    /// Writes a snapshot: a folder as ``write(to:)`` makes it, the optimizer's state, and last the state of the training,
    /// without which it is none.
    func writeSnapshot(_ state: TrainingState, _ shard: OptimizerShard, to folder: String) throws {
        try write(to: folder)
        let layout = stateLayout()
        let file = try ParallelFile.create(
            folder + "/optimizer.safetensors", force: true, transport: session.transport, size: layout.totalBytes)
        try layout.headerBytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        try file.write(statePieces(shard, layout).map { ($0.offset, UnsafeRawBufferPointer($0.bytes)) })
        try file.commit()
        try session.agree {
            if session.isRoot {
                try ParallelFile.replace(folder + "/" + TrainingState.fileName, with: Array(state.text.utf8))
            }
        }
    }

    /// Reads a snapshot into the masters and the optimizer's state.
    func readSnapshot(_ folder: String, _ state: TrainingState, _ shard: OptimizerShard) throws {
        let layout = stateLayout()
        try session.agree {
            let path = folder + "/optimizer.safetensors"
            let file = try ReadableFile(path: path)
            guard file.byteCount == layout.totalBytes else {
                throw FileError(.malformed, path: path, "is not the state of this training; begin anew with --force")
            }
            for piece in statePieces(shard, layout) { try file.read(at: piece.offset, into: piece.bytes) }
        }
        shard.steps = state.step
        try model.masters.share(over: session.transport)
    }
}

extension JSONText {
    /// A document over several lines, as Python's `json.dumps(…, indent=2)` has it.
    static func indented(_ json: JSON, _ indent: String = "") -> String {
        switch json {
        case .null: return "null"
        case .bool(let flag): return flag ? "true" : "false"
        case .integer(let number): return String(number)
        case .number(let value): return number(value)
        case .string(let text): return string(text)
        case .array(let elements):
            if elements.isEmpty { return "[]" }
            let inner = indent + "  "
            return "[\n" + elements.map { inner + indented($0, inner) }.joined(separator: ",\n") + "\n\(indent)]"
        case .object(let object):
            if object.members.isEmpty { return "{}" }
            let inner = indent + "  "
            return "{\n"
                + object.members.map { "\(inner)\(string($0.key)): \(indented($0.value, inner))" }.joined(
                    separator: ",\n") + "\n\(indent)}"
        }
    }
}
