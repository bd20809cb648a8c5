// The header of a NumPy array file, so that many writers can fill one `.npy`.

/// Headers of the `.npy` format, version 1.0 (NumPy enhancement proposal 1).
public enum NumpyHeader {
    /// The bytes before the data of a little-endian float32 array in C order.
    ///
    /// The same bytes as `numpy.save` writes: padded with spaces so that the data starts at a multiple of 64,
    /// after a reserve that lets the outermost dimension grow to 21 digits in place.
    ///
    /// - Parameter shape: dimensions, outermost first, at most 32 of them.
    public static func float32(shape: [Int]) -> [UInt8] {
        let dimensions = shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? "," : "")
        var dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(dimensions)), }"
        if let outermost = shape.first {
            dictionary += String(repeating: " ", count: max(0, 21 - String(outermost).count))
        }
        let preamble = 10  // magic 6, version 2, length 2
        let used = preamble + dictionary.utf8.count + 1
        // A header that is aligned already gets 64 more: so does NumPy.
        dictionary += String(repeating: " ", count: 64 - used % 64) + "\n"
        let length = dictionary.utf8.count
        return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)] + Array(dictionary.utf8)
    }
}
