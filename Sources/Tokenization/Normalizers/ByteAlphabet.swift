// Bytes as printable scalars, the alphabet of byte-level vocabularies.

/// The alphabet of GPT-2: bytes that are printable in Latin-1 stand for themselves, the others for U+0100 and on.
enum ByteAlphabet {
    static let scalars: [UInt32] = {
        var next: UInt32 = 0x100
        return (UInt32(0)..<256).map { byte in
            if 0x21...0x7E ~= byte || 0xA1...0xAC ~= byte || 0xAE...0xFF ~= byte { return byte }
            defer { next += 1 }
            return next
        }
    }()

    /// Turns every byte of the text in UTF-8 into its scalar; the bytes of a scalar share its origin.
    static func spell(_ text: inout NormalizedText) {
        var result = NormalizedText()
        result.reserve(text.count + text.count / 8)
        append(0..<text.count, of: text, to: &result)
        text = result
    }

    static func append(_ range: Range<Int>, of text: NormalizedText, to result: inout NormalizedText) {
        for index in range {
            let scalar = text.scalars[index]
            let origin = text.origins[index]
            func append(_ byte: UInt32) { result.append(scalars[Int(byte)], origin: origin) }
            if scalar < 0x80 {
                append(scalar)
                continue
            }
            let length = UTF8Length.of(scalar)
            append(scalar >> UInt32(6 * (length - 1)) | (length == 2 ? 0xC0 : length == 3 ? 0xE0 : 0xF0))
            for rest in (0..<length - 1).reversed() { append(scalar >> UInt32(6 * rest) & 0x3F | 0x80) }
        }
    }
}
