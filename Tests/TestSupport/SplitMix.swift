// The seeded generator of the randomised tests.

/// SplitMix64 (Steele, Lea, Flood 2014): a seeded generator, so that a failure can be repeated.
public struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    /// A generator whose numbers depend on the seed alone.
    public init(seed: UInt64) { state = seed }

    /// The next 64 random bits.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A float in −1…1.
    public mutating func unit() -> Float { Float.random(in: -1...1, using: &self) }
}
