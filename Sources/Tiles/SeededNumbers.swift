// Numbers that depend on a seed and a place alone, so that ranks, threads and layouts do not change them.

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014), which spreads every bit over all others.
@inlinable
package func mixed(_ bits: UInt64) -> UInt64 {
    var z = bits
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
}

/// Constants that keep streams of numbers apart: seeds, or streams of one seed, are multiplied by them.
package enum Stride {
    /// 2⁶⁴ over the golden ratio: SplitMix64's step from one number to the next.
    package static let number: UInt64 = 0x9E37_79B9_7F4A_7C15
    package static let stream: UInt64 = 0xD1B5_4A32_D192_ED03
}

/// A small random generator whose whole state is its seed (Steele, Lea and Flood 2014).
package struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    package init(state: UInt64) { self.state = state }

    package mutating func next() -> UInt64 {
        state &+= Stride.number
        return mixed(state)
    }
}

/// Normal-like numbers by their index: the sum of four uniform ones, scaled to unit variance. Computed in
/// float32 from integers, so they are the same on every machine.
public enum CountedNormal {
    /// The number at `index` of the sequence that `key` names: mean 0, variance 1, at most 2√3 in size.
    public static func value(key: UInt64, index: Int) -> Float {
        let z = mixed(key &+ UInt64(truncatingIfNeeded: index) &* Stride.number)
        var sum: Int32 = 0
        for shift in [0, 16, 32, 48] as [UInt64] { sum += Int32((z >> shift) & 0xFFFF) }
        // Four uniforms in 0…65535 have mean 131070 and variance 4·65536²/12.
        return Float(sum - 131_070) * (1.732_050_8 / 65_536)
    }
}
