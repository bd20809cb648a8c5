// Colours for numbers.

/// A colour of a screen, sRGB.
package struct Colour: Sendable, Equatable {
    package let red, green, blue: UInt8

    init(_ hexadecimal: UInt32) {
        red = UInt8(truncatingIfNeeded: hexadecimal >> 16)
        green = UInt8(truncatingIfNeeded: hexadecimal >> 8)
        blue = UInt8(truncatingIfNeeded: hexadecimal)
    }

    init(red: UInt8, green: UInt8, blue: UInt8) { (self.red, self.green, self.blue) = (red, green, blue) }
}

/// Colours from little to much, from a dark violet to a light yellow, that differ alike wherever the values do.
///
/// The anchors have lightness 0.26, 0.345 … 0.94 and hue 305°, 280° … 105° in OKLCh (Ottosson, *A perceptual color space
/// for image processing*, 2020), with as much chroma as sRGB has there and no more than 0.17. Lightness alone tells the
/// order, so it is legible without seeing colour, and in print.
package enum ColourRamp {
    private static let anchors: [UInt32] = [
        0x320951, 0x302C77, 0x144F92, 0x027196, 0x03919D, 0x02B29D, 0x56D089, 0xABE469, 0xFDF156,
    ]

    /// 256 colours, straight lines between the anchors.
    package static let colours: [Colour] = (0..<256).map { step in
        let (left, rest) = (step * (anchors.count - 1)).quotientAndRemainder(dividingBy: 255)
        let (from, to) = (Colour(anchors[left]), Colour(anchors[min(left + 1, anchors.count - 1)]))
        func between(_ one: UInt8, _ other: UInt8) -> UInt8 {
            UInt8((Int(one) * (255 - rest) + Int(other) * rest + 127) / 255)
        }
        return Colour(
            red: between(from.red, to.red), green: between(from.green, to.green), blue: between(from.blue, to.blue))
    }

    /// All of them, six hexadecimal digits each.
    static var hexadecimal: String {
        colours.map { colour in
            [colour.red, colour.green, colour.blue].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }.joined()
    }
}
