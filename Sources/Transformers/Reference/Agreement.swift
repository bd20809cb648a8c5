// How far hidden states are from the reference, and how far they may be.

/// Float32 states beside those of ``ReferenceEncoder``.
public struct Agreement: Sendable {
    /// The largest difference from the float64 states; infinite where a state is not a number.
    public let error: Double
    /// How far the reference's own float32 pass is from them.
    public let plainError: Double
    /// The largest float64 state.
    public let scale: Double

    /// Twice what plain float32 code is off by, and two units in the last place of the largest state, by which small
    /// models, plain code being lucky, may be off.
    public var allowed: Double { 2 * plainError + 2 * Double(Float.ulpOfOne) * scale }

    /// Whether the states are as near to the reference as they have to be.
    public var holds: Bool { error <= allowed }

    /// - Precondition: the three have the same shape.
    public init(states: [[Float]], exact: [[Double]], plain: [[Float]]) {
        precondition(
            states.map(\.count) == exact.map(\.count) && plain.map(\.count) == exact.map(\.count),
            "states of another shape")
        func distance(_ found: [[Float]]) -> Double {
            var largest = 0.0
            for (found, exact) in zip(found.joined(), exact.joined()) {
                let difference = abs(Double(found) - exact)
                largest = max(largest, difference.isNaN ? .infinity : difference)
            }
            return largest
        }
        error = distance(states)
        plainError = distance(plain)
        scale = exact.joined().reduce(0) { max($0, abs($1)) }
    }
}
