// What ranks tell each other beside the data of the work: numbers and texts, one behind another.

/// Values written one behind another into bytes, and read back in the same order.
package struct Message {
    package private(set) var bytes: [UInt8] = []
    private var next = 0

    package init() {}
    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    package var isAtEnd: Bool { next == bytes.count }

    package mutating func write(_ value: Int) { withUnsafeBytes(of: Int64(value).littleEndian) { bytes += $0 } }
    package mutating func write(_ text: String) {
        write(text.utf8.count)
        bytes += text.utf8
    }
    package mutating func write(_ ids: [Int32]) {
        write(ids.count)
        ids.withUnsafeBytes { bytes += $0 }
    }
    package mutating func write(_ values: [Float]) {
        write(values.count)
        values.withUnsafeBytes { bytes += $0 }
    }

    mutating func readInt() -> Int {
        let value = bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: next, as: Int64.self) }
        next += 8
        return Int(Int64(littleEndian: value))
    }
    package mutating func readString() -> String {
        let count = readInt()
        next += count
        return String(decoding: bytes[next - count..<next], as: UTF8.self)
    }
    mutating func readIds() -> [Int32] { readArray() }
    mutating func readFloats() -> [Float] { readArray() }

    private mutating func readArray<Element: BitwiseCopyable>() -> [Element] {
        let count = readInt()
        let start = next
        next += count * MemoryLayout<Element>.size
        return bytes.withUnsafeBytes { raw in
            (0..<count).map {
                raw.loadUnaligned(fromByteOffset: start + $0 * MemoryLayout<Element>.size, as: Element.self)
            }
        }
    }
}
