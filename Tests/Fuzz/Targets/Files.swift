// Files of a model: JSON, safetensors, npy, settings, configurations.

import Attention
import Checkpoints
import Files
import Matrices
import Plans
import Transformers

func fuzzJSON(_ bytes: [UInt8]) {
    guard let value = try? JSON.parse(bytes, path: "input") else { return }
    let printed = text(value)
    guard let again = try? JSON.parse(Array(printed.utf8), path: "printed") else {
        preconditionFailure("what was printed is no JSON: \(printed)")
    }
    check(again == value, "printed and read again it differs: \(printed)")
    // What others ask of a value.
    _ = (value.int, value.double, value.string, value[0], value["a"], value.kindName)
}

private func text(_ value: JSON) -> String {
    switch value {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .number(let value): "\(value)"
    case .string(let value): JSON.quoted(value)
    case .array(let values): "[" + values.map(text).joined(separator: ",") + "]"
    case .object(let object):
        "{" + object.members.map { JSON.quoted($0.key) + ":" + text($0.value) }.joined(separator: ",") + "}"
    }
}

func fuzzSafetensors(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    folder.write("input.safetensors", bytes)
    guard let file = try? TensorFile(path: folder.path + "/input.safetensors") else { return }
    check(file.names.count == file.tensors.count, "names and tensors differ")
    var end = bytes.count - file.tensors.values.reduce(0) { $0 + $1.byteRange.count }
    for name in file.names {
        guard let tensor = file.tensors[name] else { preconditionFailure("no tensor \(name)") }
        check(tensor.byteRange.lowerBound == end, "\(name) begins at \(tensor.byteRange.lowerBound), not \(end)")
        end = tensor.byteRange.upperBound
        check(end <= bytes.count, "\(name) ends beyond the file")
        check(
            tensor.elementType.byteCount(elements: tensor.elementCount) == tensor.byteRange.count,
            "\(name) has other bytes than elements")
        if let values = try? file.readFloat32(name) {
            check(values.count == tensor.elementCount, "\(name) was read in part")
        }
        _ = try? file.readIntegers(name)
        _ = try? file.tensor(name + "?", expecting: [1])
    }
    check(end == bytes.count, "the tensors do not cover the file")
}

func fuzzTorch(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    folder.write("pytorch_model.bin", bytes)
    guard let file = try? TensorFile(path: folder.path + "/pytorch_model.bin") else { return }
    check(Set(file.names) == Set(file.tensors.keys), "names and tensors differ")
    for name in file.names {
        guard let tensor = file.tensors[name] else { preconditionFailure("no tensor \(name)") }
        check(
            tensor.byteRange.lowerBound >= 0 && tensor.byteRange.upperBound <= bytes.count,
            "\(name) lies beyond the file")
        check(
            tensor.elementType.byteCount(elements: tensor.elementCount).map { $0 <= bytes.count } ?? false,
            "\(name) has more elements than the file has room for")
        if let values = try? file.readFloat32(name) {
            check(values.count == tensor.elementCount, "\(name) was read in part")
        }
        _ = try? file.readIntegers(name)
    }
}

func fuzzNumpy(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    folder.write("input.npy", bytes)
    guard let array = try? NumpyArray(path: folder.path + "/input.npy") else { return }
    check(array.shape.reduce(1, *) == array.bytes.count, "the shape \(array.shape) of \(array.bytes.count) elements")
    guard array.shape.count == 2 else { return }
    _ = BlockMask(size: 16, rows: array.shape[0], columns: array.shape[1], cells: array.bytes.map { $0 != 0 })
}

func fuzzSettings(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    for (name, part) in zip(
        ["modules.json", "1_Pooling/config.json", "config_sentence_transformers.json", "sentence_bert_config.json"],
        parts(bytes, 4))
    where !part.isEmpty {
        folder.write(name, part)
    }
    folder.write("config.json", Array("{}".utf8))
    folder.write("model.safetensors", Array("\u{2}\0\0\0\0\0\0\0{}".utf8))
    _ = try? ModelFolder(path: folder.path)
}

func fuzzCheckpoint(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    let parts = parts(bytes, 3)
    folder.write("config.json", parts[0])
    folder.write("model.safetensors.index.json", parts[1])
    folder.write("a.safetensors", parts[2])
    guard let checkpoint = try? Checkpoint(folder: folder.path) else { return }
    check(
        checkpoint.files.allSatisfy { $0.path == folder.path + "/a.safetensors" },
        "a shard outside of the folder was opened")
    _ = checkpoint.parameterCount
    for name in checkpoint.names {
        let path = checkpoint[String(name.dropFirst(checkpoint.prefix.count))]
        check(checkpoint.tensor(named: name) != nil, "\(name) has no tensor")
        if let shape = path.tensor?.shape { _ = try? path.read(shape: shape) }
        _ = try? path.read(shape: [1])
        _ = try? path["weight"][3].check(shape: [2, 2])
    }
}

func fuzzConfiguration(_ bytes: [UInt8]) {
    guard let json = try? JSON.parse(bytes, path: "config.json") else { return }
    if let labels = try? LabelSet(json, path: "config.json") {
        _ = labels.loss(labels.names.map { _ in 0.5 }, .index(0))
    }
    guard let configuration = try? EncoderConfiguration(json, path: "config.json") else { return }
    check(configuration.layerCount == configuration.attention.count, "layers and their attentions differ")
    check(
        configuration.headDimension * configuration.headCount == configuration.hiddenSize, "heads do not fill the width"
    )
    check(configuration.rotaryDimension <= configuration.headDimension, "more is turned than there is")
    _ = configuration.denseFlopPerToken
    // What costs memory is asked of small models alone.
    guard configuration.layerCount <= 8, configuration.hiddenSize <= 256, configuration.intermediateSize <= 1024,
        configuration.vocabularySize <= 4096, configuration.positionCount <= 4096
    else { return }
    guard let parameters = try? ParameterTree(configuration).parameters,
        let bytes = try? configuration.weightBytes(.bfloat16)
    else {
        return
    }
    check(bytes > 0 && !parameters.isEmpty, "a model without parameters")
    _ = EncoderRun.flop(lengths: [1, 300], configuration: configuration)
    for layout in [nil, .balanced] as [Layout?] {
        _ = EncoderRun.problem(
            lengths: [1, 300], configuration: configuration, element: .float32, layout: layout, rankCount: 3)
    }
}
