// Safetensors files are read and laid out as the reference implementation does, and damaged ones are refused.

import Files
import Foundation
import Testing

@Suite struct SafetensorsTests {
    private static let referencePath = Goldens.folder + "/formats/reference.safetensors"
    /// What `scripts/goldens/make.py formats` put into the file, exact in every type there.
    private static let values: [Double] = [0, -0.0, 1, -1.5, 65504, 0x1p-14, 0x1p-24, .infinity, -.infinity, 3.140625]

    private func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }

    @Test func everyTypeReadsAsItsValues() throws {
        let file = try TensorFile(path: Self.referencePath)
        #expect(file.metadata == ["format": "pt", "quote": "a\"b\\c\n"])
        #expect(Set(file.names) == ["double", "long", "float", "int", "scalar", "empty", "brain", "half", "byte"])
        let exact = Self.values.map(Float.init)
        #expect(bits(try file.readFloat32("half", expecting: [2, 5])) == bits(exact))
        #expect(bits(try file.readFloat32("float", expecting: [3, 4])) == bits(exact + [0.1, 0x1p-149]))
        #expect(bits(try file.readFloat32("double", expecting: [13])) == bits(exact + [0.1, .infinity, -0.0]))
        // bfloat16 keeps 8 bits: the values that need more are rounded to even.
        #expect(
            bits(try file.readFloat32("brain"))
                == bits([0, -0.0, 1, -1.5, 65536, 0x1p-14, 0x1p-24, .infinity, -.infinity, 3.140625]))
        #expect(try file.readFloat32("scalar", expecting: []) == [2.5])
        #expect(try file.readFloat32("empty", expecting: [0, 3]) == [])
        #expect(try file.readIntegers("int", expecting: [3]) == [Int(Int32.max), Int(Int32.min), 0])
        #expect(try file.readIntegers("long", expecting: [2, 3]) == [0, -1, 1 << 40, .max, .min, 7])
    }

    @Test func slicesAreParts() throws {
        let file = try TensorFile(path: Self.referencePath)
        for name in ["half", "float", "double", "brain"] {
            let whole = try file.readFloat32(name)
            for start in 0...whole.count {
                for end in start...whole.count {
                    let buffer = UnsafeMutableBufferPointer<Float>.allocate(capacity: end - start + 1)
                    defer { buffer.deallocate() }
                    buffer.initialize(repeating: 42)
                    try file.readFloat32(name, range: start..<end, into: buffer)
                    #expect(bits(Array(buffer)) == bits(Array(whole[start..<end]) + [42]), "\(name) \(start)..<\(end)")
                }
            }
        }
    }

    @Test func longTensorsAreReadInPieces() throws {
        let folder = try Scratch()
        let count = 1_200_001  // more than one piece of 2¹⁹ bfloat16
        let layout = SafetensorsLayout(tensors: [("t", .bfloat16, [count])])
        let data = (0..<count).flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8) & 0x3F] }
        let file = try TensorFile(path: try folder.write("long.safetensors", layout.headerBytes + data))
        let read = try file.readFloat32("t")
        #expect(read.indices.allSatisfy { read[$0].bitPattern == (UInt32($0) & 0x3FFF) << 16 })
    }

    #if !(os(macOS) && arch(x86_64))
    @Test func everyHalfConvertsAsTheHardwareDoes() throws {
        let folder = try Scratch()
        let layout = SafetensorsLayout(tensors: [("t", .float16, [65536])])
        let data = (0..<65536).flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }
        let read = try TensorFile(path: try folder.write("half.safetensors", layout.headerBytes + data))
            .readFloat32("t")
        for pattern in 0..<65536 {
            let expected = Float(Float16(bitPattern: UInt16(pattern)))
            #expect(
                expected.isNaN ? read[pattern].isNaN : read[pattern].bitPattern == expected.bitPattern,
                "pattern \(pattern)")
        }
    }
    #endif

    @Test func layoutWritesTheReferencesHeader() throws {
        let reference = try FileBytes.read(path: Self.referencePath)
        let file = try TensorFile(path: Self.referencePath)
        let tensors = file.names.compactMap { name in file.tensors[name].map { (name, $0.elementType, $0.shape) } }
        let layout = SafetensorsLayout(tensors: tensors, metadata: file.metadata)
        // The reference writes metadata in the order of a hash table, which differs from run to run: byte for byte but
        // that.
        let expected = Array(reference[..<layout.headerBytes.count])
        #expect(Array(layout.headerBytes[..<8]) == Array(expected[..<8]))
        let tensorsStart = try #require(
            expected.indices.dropFirst().first {
                expected[$0 - 1] == UInt8(ascii: "}") && expected[$0] == UInt8(ascii: ",")
            })
        #expect(Array(layout.headerBytes[tensorsStart...]) == Array(expected[tensorsStart...]))
        let (mine, theirs) = (
            try JSON.parse(Array(layout.headerBytes[8...]), path: "mine"),
            try JSON.parse(Array(expected[8...]), path: "theirs")
        )
        for key in file.metadata.keys {
            #expect(mine["__metadata__"]?[key] == theirs["__metadata__"]?[key] && mine["__metadata__"]?[key] != nil)
        }
        #expect(layout.headerBytes.count % 8 == 0)
        #expect(layout.totalBytes == reference.count)
        for (name, tensor) in file.tensors {
            #expect(layout.byteRange(of: name) == tensor.byteRange)
            #expect(layout.offset(of: name) == tensor.byteRange.lowerBound)
        }
    }

    @Test func layoutOfNothingIsAnEmptyFile() throws {
        let folder = try Scratch()
        let layout = SafetensorsLayout(tensors: [])
        let file = try TensorFile(path: try folder.write("none.safetensors", layout.headerBytes))
        #expect(file.tensors.isEmpty && layout.totalBytes == layout.headerBytes.count)
    }

    @Test func layoutKeepsTheOrderGivenAndEscapesNames() throws {
        let folder = try Scratch()
        let names = ["10", "2", "a\"\\\u{1}é"]
        let layout = SafetensorsLayout(tensors: names.map { ($0, .float32, [1]) })
        let file = try TensorFile(
            path: try folder.write("order.safetensors", layout.headerBytes + [UInt8](repeating: 0, count: 12)))
        #expect(file.names == names)
    }

    @Test func numpyHeadersAreNumpys() throws {
        let golden = try #require(try JSON.load(path: Goldens.folder + "/formats/numpy.json").object)
        #expect(golden.count >= 8)
        for member in golden.members {
            let header = NumpyHeader.float32(shape: member.key.split(separator: ",").compactMap { Int($0) })
            #expect(
                header.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == member.value.string,
                "shape (\(member.key))")
            #expect(header.count % 64 == 0)
        }
    }

    /// The bytes of a file with that header and as many zero bytes of data.
    private func file(_ header: String, data: Int) -> [UInt8] {
        let bytes = Array(header.utf8)
        return (0..<8).map { UInt8(truncatingIfNeeded: bytes.count >> (8 * $0)) } + bytes
            + [UInt8](repeating: 0, count: data)
    }

    @Test(arguments: [
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4, "truncated"),
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 12, "belong to no tensor"),
        (#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8, "needs 12 bytes"),
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "impossible"),
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#, 8, "impossible"),
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, 8, "data_offsets"),
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, 8, "data_offsets"),
        (#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}"#, 8, "impossible"),
        (#"{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8, "dimension"),
        (#"{"w":{"dtype":"F32","shape":[0.5],"data_offsets":[0,8]}}"#, 8, "dimension"),
        (#"{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#, 8, "too large"),
        (#"{"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}"#, 8, "too large"),
        (#"{"w":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8, "F99"),
        (#"{"w":{"shape":[2],"data_offsets":[0,8]}}"#, 8, "no dtype"),
        (#"{"w":{"dtype":"F32","data_offsets":[0,8]}}"#, 8, "no shape"),
        (#"{"w":7}"#, 8, "no dtype"),
        (
            #"{"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12, "overlap"
        ),
        (
            #"{"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#,
            16, "gap"
        ),
        (#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8, "gap"),
        (
            #"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8, "twice"
        ),
        (#"{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1, "not whole bytes"),
    ])
    func badHeadersAreRefusedByTensor(_ header: String, _ data: Int, _ words: String) throws {
        let folder = try Scratch()
        let path = try folder.write("bad.safetensors", file(header, data: data))
        let error = try #require(throws: FileError.self) { try TensorFile(path: path) }
        #expect(error.kind == .malformed)
        #expect(error.description.hasPrefix(path) && error.description.contains(words), "\(error)")
        #expect(words == "belong to no tensor" || error.description.contains("w"), "\(error)")
        #expect(!error.description.contains("\n"))
    }

    @Test(arguments: [
        (Array("".utf8), "too few"), (Array("1234567".utf8), "too few"),
        ([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "does not fit"),
        ([3, 0, 0, 0, 0, 0, 0, 0, 0x7B, 0x7D], "does not fit"),
        (Array("version https://git-lfs.github.com/spec/v1\noid sha256:0\n".utf8), "git lfs pull"),
        ([2, 0, 0, 0, 0, 0, 0, 0, 0x5B, 0x5D], "does not begin with {"),
        ([5, 0, 0, 0, 0, 0, 0, 0, 0x7B, 0x22, 0x80, 0x22, 0x7D], "byte 2"),
    ])
    func whatIsNotSafetensorsIsRefused(_ bytes: [UInt8], _ words: String) throws {
        let folder = try Scratch()
        let path = try folder.write("bad.safetensors", bytes)
        let error = try #require(throws: FileError.self) { try TensorFile(path: path) }
        #expect(error.kind == .malformed && error.description.contains(words), "\(error)")
    }

    @Test func everyTruncationIsRefused() throws {
        let folder = try Scratch()
        let whole = try FileBytes.read(path: Self.referencePath)
        let path = try folder.write("cut.safetensors", whole)
        let handle = try #require(FileHandle(forWritingAtPath: path))
        for count in stride(from: whole.count - 1, through: 0, by: -1) {
            try handle.truncate(atOffset: UInt64(count))
            let error = try #require(throws: FileError.self, "\(count) bytes") { try TensorFile(path: path) }
            #expect(error.kind == .malformed)
        }
        try handle.close()
    }

    @Test func damagedHeadersNeverBringTheReaderDown() throws {
        let folder = try Scratch()
        var generator = SeededGenerator(state: UInt64.random(in: 0...UInt64.max))
        let seed = generator.state
        let whole = try FileBytes.read(path: Self.referencePath)
        let header = 8 + Int(whole[0]) + Int(whole[1]) << 8
        for _ in 0..<600 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0..<header, using: &generator)
                bytes[place] =
                    Bool.random(using: &generator)
                    ? UInt8.random(in: 0...255, using: &generator) : UInt8.random(in: 0x30...0x39, using: &generator)
            }
            guard let file = try? TensorFile(path: try folder.write("damaged.safetensors", bytes)) else {
                continue
            }
            for (name, tensor) in file.tensors {
                #expect(tensor.byteRange.upperBound <= bytes.count, "seed \(seed)")
                _ = try? file.readFloat32(name)
                _ = try? file.readIntegers(name)
            }
        }
    }

    @Test func askingForTheWrongThingNamesIt() throws {
        let file = try TensorFile(path: Self.referencePath)
        let shape = try #require(throws: FileError.self) { try file.readFloat32("half", expecting: [5, 2]) }
        #expect(
            shape.description.contains("'half'") && shape.description.contains("[5, 2]")
                && shape.description.contains("[2, 5]"))
        let type = try #require(throws: FileError.self) { try file.readFloat32("byte") }
        #expect(type.description.contains("'byte'") && type.description.contains("U8"))
        let integers = try #require(throws: FileError.self) { try file.readIntegers("half") }
        #expect(integers.description.contains("F16"))
        let missing = try #require(throws: FileError.self) { try file.readFloat32("nowhere") }
        #expect(missing.description.contains("'nowhere'"))
    }

    @Test func filesThatCannotBeReadAreToldApart() throws {
        let folder = try Scratch()
        let missing = try #require(throws: FileError.self) { try FileBytes.read(path: folder.path + "/nothing") }
        #expect(missing.kind == .missing && missing.exitStatus == 66)
        let isFolder = try #require(throws: FileError.self) { try FileBytes.read(path: folder.path) }
        #expect(isFolder.kind == .malformed && isFolder.description.contains("folder"))
        let path = try folder.write("locked", "x")
        try FileManager.default.setAttributes([.posixPermissions: 0], ofItemAtPath: path)
        if !FileManager.default.isReadableFile(atPath: path) {  // root reads everything
            let locked = try #require(throws: FileError.self) { try FileBytes.read(path: path) }
            #expect(locked.description.contains("permissions"))
        }
        let random = [UInt8]((0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        #expect(try FileBytes.read(path: try folder.write("bytes", random)) == random)
        #expect(try FileBytes.read(path: try folder.write("empty", [])) == [])
    }

    @Test func messagesStayOnOneLine() {
        let error = FileError(.malformed, path: "a\nb", "tensor 'x\u{1B}[31m\r\u{2028}'")
        #expect(error.description == "a\\u{a}b: tensor 'x\\u{1b}[31m\\u{d}\\u{2028}'")
    }
}
