// The tree of parameters: a checkpoint that is saved again has every tensor, and new values where the tree has them.

import Checkpoints
import Files
import Foundation
import Testing
import Transformers

/// A checkpoint with other values.
private struct Negated: ParameterSource {
    let checkpoint: Checkpoint

    func has(_ name: String) -> Bool { checkpoint.has(name) }
    func check(_ name: String, shape: [Int]) throws(FileError) { try checkpoint.check(name, shape: shape) }
    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        try checkpoint.read(name, shape: shape, range: range, into: floats)
        for index in range.indices { floats[index - range.lowerBound].negate() }
    }
}

@Suite struct ParameterTreeTests {
    /// Saves into a folder and returns what lies there.
    private func saved(_ values: any ParameterSource, as checkpoint: Checkpoint) throws -> [String: Data] {
        let configuration = try EncoderConfiguration(checkpoint.config, path: checkpoint.folder)
        var files: [String: Data] = [:]
        try ParameterTree(configuration).save(values, as: checkpoint) { (file, offset, bytes) throws(FileError) in
            files[file, default: Data()].append(contentsOf: bytes)
            // From the start to the end, without gaps.
            #expect(files[file]?.count == offset + bytes.count)
        }
        return files
    }

    @Test(arguments: [
        "tiny-bert", "tiny-bert-prefixed", "tiny-roberta", "tiny-distilbert", "tiny-albert", "tiny-deberta-v3",
        "tiny-modernbert", "tiny-nomic-bert", "tiny-jina-bert", "tiny-mpnet", "tiny-esm", "heads-electra", "tasks-bert",
    ])
    func aCheckpointComesBack(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let same = try saved(checkpoint, as: checkpoint)
        for file in checkpoint.files {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: file.path))
            #expect(same[URL(fileURLWithPath: file.path).lastPathComponent] == bytes)
        }
        let other = try saved(Negated(checkpoint: checkpoint), as: checkpoint)
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for (file, bytes) in other { try bytes.write(to: folder.appendingPathComponent(file)) }
        try FileManager.default.copyItem(
            atPath: checkpoint.folder + "/config.json", toPath: folder.appendingPathComponent("config.json").path)
        let negated = try Checkpoint(folder: folder.path)
        let configuration = try EncoderConfiguration(checkpoint.config, path: name)
        let parameters = Set(try ParameterTree(configuration).parameters.map { checkpoint[$0.name].storedName })
        #expect(negated.names == checkpoint.names)
        for (file, original) in zip(negated.files, checkpoint.files) {
            #expect(file.names == original.names)
            for tensor in file.names {
                #expect(file.tensors[tensor] == original.tensors[tensor])
                guard original.tensors[tensor].map({ "\($0.elementType)".hasPrefix("float") }) ?? false else {
                    continue
                }
                let values = try original.readFloat32(tensor)
                let expected = parameters.contains(tensor) ? values.map { -$0 } : values
                #expect(try file.readFloat32(tensor) == expected, "\(tensor)")
            }
        }
    }

    /// Two shards, the second of them in bfloat16, with a tensor that no layer reads.
    @Test func shardsAndTypesStay() throws {
        let whole = try Checkpoint(folder: golden("tiny-bert"))
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(
            atPath: whole.folder + "/config.json", toPath: folder.appendingPathComponent("config.json").path)
        var map: [String] = []
        for shard in 0..<2 {
            let names = whole.names.enumerated().filter { $0.offset % 2 == shard }.map(\.element)
            let type = shard == 0 ? ElementType.float32 : .bfloat16
            let layout = SafetensorsLayout(
                tensors: names.map { ($0, type, whole.tensor(named: $0)?.shape ?? []) } + [
                    ("spare.\(shard)", .uint8, [3])
                ],
                metadata: ["format": "pt"])
            var bytes = Data(layout.headerBytes)
            for name in names {
                let values = try whole.files[0].readFloat32(name)
                for value in values {
                    let bits = value.bitPattern
                    bytes.append(
                        contentsOf: shard == 0
                            ? withUnsafeBytes(of: bits.littleEndian, Array.init)
                            : withUnsafeBytes(of: UInt16(bits >> 16).littleEndian, Array.init))
                }
                map.append("\"\(name)\": \"model-\(shard).safetensors\"")
            }
            bytes.append(contentsOf: [1, 2, 3])
            map.append("\"spare.\(shard)\": \"model-\(shard).safetensors\"")
            try bytes.write(to: folder.appendingPathComponent("model-\(shard).safetensors"))
        }
        try "{\"metadata\": {}, \"weight_map\": {\(map.joined(separator: ", "))}}".write(
            to: folder.appendingPathComponent("model.safetensors.index.json"), atomically: true, encoding: .utf8)
        let checkpoint = try Checkpoint(folder: folder.path)
        let files = try saved(checkpoint, as: checkpoint)
        #expect(files.count == 2)
        for (name, bytes) in files { #expect(try bytes == Data(contentsOf: folder.appendingPathComponent(name))) }
    }
}
