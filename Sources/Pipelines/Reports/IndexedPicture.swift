// A picture of at most 256 colours, and its PNG.

/// A picture whose pixels are places in a palette.
///
/// Colours 0 … 253 are ``ColourRamp``'s, from little to much; 254 is paper, 255 ink.
package struct IndexedPicture: Sendable {
    static let shades = 254
    static let paper: UInt8 = 254
    static let ink: UInt8 = 255

    package let width: Int
    package let height: Int
    /// Row by row from the top.
    package private(set) var pixels: [UInt8]

    /// An empty sheet.
    package init(width: Int, height: Int) {
        (self.width, self.height) = (width, height)
        pixels = [UInt8](repeating: Self.paper, count: width * height)
    }

    package static let palette: [Colour] =
        (0..<shades).map { ColourRamp.colours[($0 * 255 + (shades - 1) / 2) / (shades - 1)] }
        + [Colour(0xFFFFFF), Colour(0x1D1E22)]

    /// Fills a rectangle; what lies outside the picture is left out.
    package mutating func fill(_ columns: Range<Int>, _ rows: Range<Int>, _ colour: UInt8) {
        let columns = columns.clamped(to: 0..<width)
        for row in rows.clamped(to: 0..<height) {
            for column in columns { pixels[row * width + column] = colour }
        }
    }

    /// Where a line of text is anchored.
    enum Anchor { case left, middle, right }

    /// Pixels of a letter's dot, of a letter with its gap, and of its height.
    static let dot = 2
    static let letterWidth = 6 * dot
    static let letterHeight = 7 * dot

    /// Writes a line; letters that the alphabet lacks are blank.
    mutating func write(_ text: String, x: Int, top: Int, _ anchor: Anchor = .left) {
        let letters = Array(text.unicodeScalars)
        let length = letters.count * Self.letterWidth - Self.dot
        var left = anchor == .left ? x : anchor == .right ? x - length : x - length / 2
        for letter in letters {
            for (row, bits) in DotAlphabet.rows(letter).enumerated() {
                for column in 0..<5 where bits & 16 >> UInt8(column) != 0 {
                    let (from, above) = (left + column * Self.dot, top + row * Self.dot)
                    fill(from..<from + Self.dot, above..<above + Self.dot, Self.ink)
                }
            }
            left += Self.letterWidth
        }
    }

    /// The PNG file (ISO/IEC 15948): indexed colour, 8 bits, no filter.
    package var png: [UInt8] {
        var file: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
        func big(_ value: Int) -> [UInt8] { [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) } }
        func chunk(_ name: String, _ contents: [UInt8]) {
            let checked = Array(name.utf8) + contents
            file += big(contents.count) + checked + big(Int(Self.crc32(checked)))
        }
        chunk("IHDR", big(width) + big(height) + [8, 3, 0, 0, 0])
        chunk("PLTE", Self.palette.flatMap { [$0.red, $0.green, $0.blue] })
        var lines: [UInt8] = []
        lines.reserveCapacity((width + 1) * height)
        for row in 0..<height { lines += [0] + pixels[row * width..<(row + 1) * width] }
        chunk("IDAT", Deflate.zlib(lines))
        chunk("IEND", [])
        return file
    }

    /// CRC-32 (ISO 3309), as PNG has it.
    package static func crc32(_ bytes: [UInt8]) -> UInt32 {
        var crc = UInt32.max
        for byte in bytes { crc = table[Int((crc ^ UInt32(byte)) & 255)] ^ crc >> 8 }
        return ~crc
    }

    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? 0xEDB8_8320 ^ value >> 1 : value >> 1 }
    }
}
