// Decimal numbers as the reference implementation reads them, which is not always to the nearest double.

enum DecimalNumber {
    /// The double that the reference implementation (serde_json without `float_roundtrip`) makes of the shortest
    /// decimal number for `value`: its digits as an integer, rounded to a double, times or divided by a power of ten,
    /// rounded again.
    ///
    /// One in eight numbers of 16 or 17 digits comes out a neighbour of the nearest double. Scores of a unigram model
    /// are such numbers, and sums of them that tie, as of "aa a" and "a aa", are decided by their last bits.
    static func asReferenceReads(_ value: Double) -> Double {
        // "-12.5" or "1.25e-07".
        let text = value.description
        var digits: UInt64 = 0
        var exponent = 0
        var hasPoint = false
        for byte in text.utf8.prefix(while: { $0 != UInt8(ascii: "e") }) {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                digits = digits &* 10 &+ UInt64(byte - UInt8(ascii: "0"))
                if hasPoint { exponent -= 1 }
            case UInt8(ascii: "."): hasPoint = true
            default: break
            }
        }
        if let mark = text.firstIndex(of: "e") { exponent += Int(text[text.index(after: mark)...]) ?? 0 }
        let scaled = exponent < 0 ? Double(digits) / powerOfTen(-exponent) : Double(digits) * powerOfTen(exponent)
        // Beyond the powers of ten the reference implementation goes in several steps; no score is that small or large.
        guard scaled.isFinite, abs(exponent) <= 308 else { return value }
        return value < 0 ? -scaled : scaled
    }

    /// The double nearest to a power of ten up to 10³⁰⁸.
    private static func powerOfTen(_ exponent: Int) -> Double { Double("1e\(exponent)") ?? .infinity }
}
