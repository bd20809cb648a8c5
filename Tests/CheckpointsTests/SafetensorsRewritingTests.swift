// A file written anew is the file but for the values that are replaced, and these are rounded to the nearest.

import Foundation
import Testing

import Files

@Suite struct SafetensorsRewritingTests {
    private static let referencePath = Goldens.folder + "/formats/reference.safetensors"
    private static let floats: Set<String> = ["double", "float", "scalar", "empty", "brain", "half"]

    /// The bytes that `rewrite` gives; `values` returns nil for a tensor that stays.
    private func rewritten(_ file: TensorFile, _ values: (String) throws(FileError) -> [Float]?) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xA5, count: file.byteCount)
        try file.rewrite { (name, range, target) throws(FileError) in
            guard let all = try values(name) else { return false }
            for (place, index) in range.enumerated() { target[place] = all[index] }
            return true
        } write: { (offset, piece) throws(FileError) in
            for (place, byte) in piece.enumerated() { bytes[offset + place] = byte }
        }
        return bytes
    }

    @Test func whatIsNotReplacedIsCopied() throws {
        let file = try TensorFile(path: Self.referencePath)
        let original = Array(try Data(contentsOf: URL(fileURLWithPath: Self.referencePath)))
        #expect(try rewritten(file) { _ in nil } == original)
        // Values that every type holds exactly come back as they were.
        let same = try rewritten(file) { (name) throws(FileError) in
            Self.floats.contains(name) && name != "double" ? try file.readFloat32(name) : nil
        }
        #expect(same == original)
    }

    /// A header as another writer might have made it: blanks, an order of its own, metadata in the middle, padding.
    @Test func theHeadersTextStays() throws {
        let header = """
            { "b" : {"dtype":"BF16","shape":[2] ,"data_offsets":[4,8]},"__metadata__":{"by":"ärger"} ,
            "a":{"shape":[1],"data_offsets":[0,4],"dtype":"F32"}, "n":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}   \t
            """
        let text = Array(header.utf8)
        let length = (0..<8).map { UInt8(truncatingIfNeeded: text.count >> (8 * $0)) }
        let data: [UInt8] = [0, 0, 128, 63, 128, 63, 0, 64] + [1, 2, 3, 4, 5, 6, 7, 8]
        let scratch = try Scratch()
        let file = try TensorFile(path: scratch.write("x.safetensors", length + text + data))
        let bytes = try rewritten(file) { $0 == "b" ? [-1, 0.5] : nil }
        #expect(bytes == length + text + [0, 0, 128, 63, 128, 191, 0, 63] + [1, 2, 3, 4, 5, 6, 7, 8])
        // Numbers that are no floating-point ones take no new values.
        #expect(throws: FileError.self) { try rewritten(file) { $0 == "n" ? [1] : nil } }
    }

    /// More elements than are held at once.
    @Test func longTensorsGoInPieces() throws {
        let count = (1 << 17) * 2 + 3
        let layout = SafetensorsLayout(tensors: [("a", .float32, [count]), ("b", .bfloat16, [count])])
        let scratch = try Scratch()
        var bytes = layout.headerBytes
        bytes += [UInt8](repeating: 7, count: layout.totalBytes - bytes.count)
        let file = try TensorFile(path: scratch.write("x.safetensors", bytes))
        let values = (0..<count).map { Float($0 % 251) }
        let made = try rewritten(file) { $0 == "b" ? values : nil }
        let other = try TensorFile(path: scratch.write("y.safetensors", made))
        #expect(try other.readFloat32("b") == values)
        #expect(made.prefix(layout.offset(of: "b")) == bytes.prefix(layout.offset(of: "b")))
    }

    @Test func everyHalfComesBack() {
        for bits in UInt16.min...UInt16.max {
            let value = float32(fromFloat16: bits)
            #expect(float16(rounding: value) == (value.isNaN ? bits | 0x200 : bits))
            let brain = Float(bitPattern: UInt32(bits) << 16)
            #expect(bfloat16(rounding: brain) == (brain.isNaN ? bits | 0x40 : bits))
        }
    }

    /// Of two neighbours the nearer one is taken, and of equally near ones the even one.
    @Test func valuesAreRoundedToTheNearest() {
        func check(
            _ largest: UInt16, _ decode: (UInt16) -> Float, _ encode: (Float) -> UInt16, steps: Int, _ name: String
        ) {
            for low in stride(from: UInt16(0), to: largest, by: steps) {
                let (a, b) = (Double(decode(low)), Double(decode(low + 1)))
                // What follows the largest number would be twice as far as its own distance.
                let middle = b.isInfinite ? a + (a - Double(decode(low - 1))) / 2 : (a + b) / 2
                let even = low % 2 == 0 ? low : low + 1
                #expect(encode(Float(middle)) == even, "\(name), between \(a) and \(b)")
                #expect(encode(Float(middle).nextDown) == low, "\(name), below the middle of \(a) and \(b)")
                #expect(encode(Float(middle).nextUp) == low + 1, "\(name), above the middle of \(a) and \(b)")
                #expect(encode(-Float(middle).nextUp) == 0x8000 | (low + 1))
            }
        }
        check(0x7C00, float32(fromFloat16:), float16(rounding:), steps: 1, "half")
        check(0x7F80, { Float(bitPattern: UInt32($0) << 16) }, bfloat16(rounding:), steps: 7, "bfloat16")
        #expect(float16(rounding: .greatestFiniteMagnitude) == 0x7C00)
        #expect(float16(rounding: 0x1p-26) == 0 && float16(rounding: -0x1p-26) == 0x8000)
    }
}
