// Small NumPy arrays of one-byte elements.

/// The bytes of a small NumPy array of one-byte elements.
public struct NumpyArray: Sendable {
    /// Dimensions, outermost first; empty for a scalar.
    public let shape: [Int]
    /// Row-major.
    public let bytes: [UInt8]

    /// An array without elements may have the other dimensions up to this.
    private static let longestEmpty = 1 << 24

    /// Reads a `.npy` file (NEP 1) of type bool, uint8 or int8 in C order.
    public init(path: String) throws(FileError) {
        let file = try FileBytes.read(path: path)
        func refuse(_ message: String) -> FileError { FileError(.malformed, path: path, message) }
        guard file.count >= 10, Array(file[0..<6]) == [0x93] + Array("NUMPY".utf8) else {
            throw refuse("is no .npy file; save the array with numpy.save")
        }
        let wide = file[6] >= 2
        guard !wide || file.count >= 12 else { throw refuse("ends inside its header") }
        let length =
            wide
            ? (0..<4).reduce(0) { $0 | Int(file[8 + $1]) << (8 * $1) } : Int(file[8]) | Int(file[9]) << 8
        let start = wide ? 12 : 10
        guard start + length <= file.count else { throw refuse("ends inside its header") }
        let header = file[start..<start + length]
        func field(_ name: String) -> ArraySlice<UInt8>? {
            Self.find(Array("'\(name)':".utf8), in: header).map { header[$0...].drop { $0 == UInt8(ascii: " ") } }
        }
        guard let type = field("descr"), ["'|b1'", "'|u1'", "'|i1'"].contains(where: { type.starts(with: $0.utf8) })
        else {
            throw refuse("holds other elements than bool, uint8 or int8; convert it with astype(bool)")
        }
        guard field("fortran_order")?.starts(with: "False".utf8) == true else {
            throw refuse("is in Fortran order; save numpy.ascontiguousarray of it")
        }
        guard let dimensions = field("shape"), dimensions.first == UInt8(ascii: "("),
            let end = dimensions.firstIndex(of: UInt8(ascii: ")"))
        else {
            throw refuse("has no shape in its header")
        }
        let words = dimensions[..<end].dropFirst().split(separator: UInt8(ascii: ",")).map { word in
            String(decoding: word.filter { $0 != UInt8(ascii: " ") }, as: UTF8.self)
        }.filter { !$0.isEmpty }
        let sizes = words.compactMap { Int($0) }
        guard sizes.count == words.count, let count = elementCount(of: sizes),
            count > 0 || sizes.allSatisfy({ $0 <= Self.longestEmpty })
        else {
            throw refuse("has an impossible shape")
        }
        guard file.count - start - length == count else {
            throw refuse("holds \(file.count - start - length) elements, and its shape \(sizes) says \(count)")
        }
        shape = sizes
        bytes = Array(file[(start + length)...])
    }

    /// The place behind the first occurrence of some bytes.
    private static func find(_ wanted: [UInt8], in bytes: ArraySlice<UInt8>) -> Int? {
        var start = bytes.startIndex
        while start + wanted.count <= bytes.endIndex {
            if bytes[start..<start + wanted.count].elementsEqual(wanted) { return start + wanted.count }
            start += 1
        }
        return nil
    }
}
