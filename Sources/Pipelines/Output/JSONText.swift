// JSON written by hand: one object a line, floats in their shortest exact form.

import Files

package enum JSONText {
    /// A quoted, escaped string.
    package static func string(_ text: String) -> String { JSON.quoted(text) }

    /// A list of floats, each the shortest decimal that reads back to the same bits; NaN and Infinity as Python's json
    /// writes them.
    package static func floats(_ values: some Sequence<Float>) -> String {
        "[" + values.map(number).joined(separator: ", ") + "]"
    }

    package static func number(_ value: Float) -> String {
        if value.isFinite { return value.description }
        return value.isNaN ? "NaN" : value < 0 ? "-Infinity" : "Infinity"
    }

    package static func number(_ value: Double) -> String {
        if value.isFinite { return value.description }
        return value.isNaN ? "NaN" : value < 0 ? "-Infinity" : "Infinity"
    }
}
