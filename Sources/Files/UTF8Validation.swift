// Where, if anywhere, bytes stop being UTF-8.

/// Well-formedness of UTF-8 after table 3-7 of the Unicode Standard: no overlong forms, no surrogates,
/// nothing above U+10FFFF.
public enum UTF8Validation {
    /// The offset of the first byte of the first ill-formed sequence, or nil where all is well-formed.
    public static func firstInvalidByte(in bytes: some Collection<UInt8>) -> Int? {
        let found = bytes.withContiguousStorageIfAvailable { firstInvalidByte(inBuffer: $0) }
        if let found { return found }
        return Array(bytes).withUnsafeBufferPointer { firstInvalidByte(inBuffer: $0) }
    }

    private static func firstInvalidByte(inBuffer bytes: UnsafeBufferPointer<UInt8>) -> Int? {
        var index = 0
        let count = bytes.count
        while index < count {
            let lead = bytes[index]
            if lead < 0x80 {
                index += 1
                continue
            }
            // The second byte's range is what excludes overlong forms, surrogates and values above U+10FFFF.
            let length: Int
            var second: ClosedRange<UInt8> = 0x80...0xBF
            switch lead {
            case 0xC2...0xDF: length = 2
            case 0xE0: (length, second) = (3, 0xA0...0xBF)
            case 0xED: (length, second) = (3, 0x80...0x9F)
            case 0xE1...0xEF: length = 3
            case 0xF0: (length, second) = (4, 0x90...0xBF)
            case 0xF1...0xF3: length = 4
            case 0xF4: (length, second) = (4, 0x80...0x8F)
            default: return index
            }
            guard index + length <= count, second.contains(bytes[index + 1]) else { return index }
            for position in index + 2..<max(index + 2, index + length) where bytes[position] & 0xC0 != 0x80 {
                return index
            }
            index += length
        }
        return nil
    }
}
