// Numbers for the eye: a byte each, or what whole numbers need.

import Foundation

/// A list of numbers as a page holds them.
///
/// Values: code 0 is none (NaN, infinite). On a linear scale codes 1 … 255 are `low + (code − 1)·(high − low)/254`. On a
/// logarithmic one code 1 is zero and codes 2 … 255 are `low·(high/low)^((code − 2)/253)`; what is positive and below `low`
/// has code 2. So a value is off by at most 1/508 of a linear scale, or by a factor of (high/low)^(1/506).
///
/// Whole numbers: two to four bytes each, least first; all bits set are none.
package struct QuantizedNumbers: Sendable {
    package enum Scale: String, Sendable { case linear, logarithmic, whole }

    package let scale: Scale
    package let low: Float
    package let high: Float
    /// Bytes of a number.
    package let width: Int
    package let bytes: [UInt8]

    /// On a linear scale from the least to the greatest.
    package init(linear values: [Float]) {
        let (least, most) = range(values) { $0.isFinite }
        let step = 254 / (Double(most) - Double(least))
        (scale, low, high, width) = (.linear, least, most, 1)
        bytes = values.map { value in
            if !value.isFinite { return 0 }
            return most > least ? 1 + code((Double(value) - Double(least)) * step, upTo: 254) : 1
        }
    }

    /// On a logarithmic scale from the least positive to the greatest, over at most 24 powers of two.
    package init(logarithmic values: [Float]) {
        let (least, most) = range(values) { $0.isFinite && $0 > 0 }
        let bottom = max(least, most / 16_777_216)
        let (start, end) = (binaryLogarithm(Double(bottom)), binaryLogarithm(Double(most)))
        (scale, low, high, width) = (.logarithmic, bottom, most, 1)
        bytes = values.map { value in
            if !value.isFinite { return 0 }
            if value <= 0 { return 1 }
            if end <= start { return 2 }
            return 2 + code((binaryLogarithm(Double(value)) - start) / (end - start) * 253, upTo: 253)
        }
    }

    /// Whole numbers below `limit`; negative ones are none.
    package init(whole values: [Int32], below limit: Int) {
        let width = limit < 1 << 16 ? 2 : limit < 1 << 24 ? 3 : 4
        (scale, low, high, self.width) = (.whole, 0, Float(limit), width)
        var bytes = [UInt8]()
        bytes.reserveCapacity(values.count * width)
        for value in values {
            let bits = value < 0 ? UInt32.max : UInt32(value)
            for byte in 0..<width { bytes.append(UInt8(truncatingIfNeeded: bits >> (8 * UInt32(byte)))) }
        }
        self.bytes = bytes
    }

    /// How a page reads them: a member of its facts.
    var description: String {
        #"{"scale":"\#(scale.rawValue)","low":\#(JSONText.number(low)),"high":\#(JSONText.number(high)),"width":\#(width)}"#
    }

    var base64: String { Data(bytes).base64EncodedString() }
}

/// The nearest whole number.
private func code(_ value: Double, upTo most: Double) -> UInt8 { UInt8(min(max(value.rounded(), 0), most)) }

/// The least and the greatest of those that count; 0 and 0 where none does.
private func range(_ values: [Float], where counts: (Float) -> Bool) -> (Float, Float) {
    var (least, most) = (Float.infinity, -Float.infinity)
    for value in values where counts(value) { (least, most) = (min(least, value), max(most, value)) }
    return least <= most ? (least, most) : (0, 0)
}

/// log₂ of a positive number, within 1e-12, by operations that round alike on every machine: the system's is free to
/// differ in its last bit, and a code with it.
package func binaryLogarithm(_ value: Double) -> Double {
    guard value > 0 else { return -.infinity }
    // ln s = 2·(z + z³/3 + z⁵/5 + …) with z = (s − 1)/(s + 1) ≤ 1/3.
    let z = (value.significand - 1) / (value.significand + 1)
    var (sum, power, divisor) = (0.0, z, 1.0)
    while divisor < 26 {
        sum += power / divisor
        power *= z * z
        divisor += 2
    }
    return Double(value.exponent) + 2 * sum * 1.442_695_040_888_963_4
}
