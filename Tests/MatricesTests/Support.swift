// What the tests of this module share: random numbers from a printed seed, error bounds, guarded storage.

import CKernels
import Matrices

/// The rows of scores that a fused kernel's scratch holds.
let scratchRows = Int(ANNULUS_SCRATCH_ROWS)

/// SplitMix64 (Steele, Lea and Flood 2014): a small generator whose whole state is the seed a test prints.
struct RandomNumbers {
    private var state: UInt64
    let seed: UInt64

    init(seed: UInt64 = UInt64.random(in: 0..<1_000_000)) {
        self.seed = seed
        state = seed
    }

    mutating func bits() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func float(_ range: ClosedRange<Float> = -1...1) -> Float {
        range.lowerBound + (range.upperBound - range.lowerBound) * Float(bits() >> 40) * 0x1p-24
    }

    mutating func floats(_ count: Int, _ range: ClosedRange<Float> = -1...1) -> [Float] {
        (0..<count).map { _ in float(range) }
    }

    mutating func below(_ bound: Int) -> Int { Int(bits() % UInt64(bound)) }
}

/// γ_n = n·u / (1 − n·u), u = 2⁻²⁴: the relative error of n float32 roundings (Higham 2002, section 3.1).
func gamma(_ n: Int) -> Double {
    let nu = Double(n) * 0x1p-24
    return nu / (1 - nu)
}

/// The distance of `value` from `exact` in units of the last place of float32 at `exact`.
func ulps(_ value: Float, _ exact: Double) -> Double {
    if exact.isNaN { return value.isNaN ? 0 : .infinity }
    let rounded = Float(exact)
    if rounded.isInfinite || value.isInfinite || value.isNaN { return value == rounded ? 0 : .infinity }
    let magnitude = abs(exact)
    let ulp = magnitude < 0x1p-126 ? 0x1p-149 : Double(Float(magnitude).ulp)
    return abs(Double(value) - exact) / ulp
}

/// Columns of a packed matrix with its padding.
func padded(_ columns: Int) -> Int { (columns + 15) / 16 * 16 }

/// Where a term of a column stands in panels that are so far from each other.
func panelPlace(_ term: Int, _ column: Int, stride: Int) -> Int { column / 16 * stride + 16 * term + column % 16 }

/// What a write outside of a result's bounds would destroy.
let guardValue: Float = -12345.678

extension Array<Float> {
    var bitPatterns: [UInt32] { map(\.bitPattern) }
}

/// Mask words for `rows` × `columns` from a predicate; bits beyond `columns` are set, for nobody may rely on them.
func maskWords(rows: Int, columns: Int, _ visible: (Int, Int) -> Bool) -> (words: [UInt64], stride: Int) {
    let stride = (columns + 63) / 64
    var words = [UInt64](repeating: ~0, count: rows * stride)
    for row in 0..<rows {
        for column in 0..<columns where !visible(row, column) {
            words[row * stride + column / 64] &= ~(1 << UInt64(column % 64))
        }
    }
    return (words, stride)
}

/// The kernel sets whose results must have the same bits, with the reference's first; those of a softmax among `softmaxSets`.
let kernelSets = KernelSet.available

/// Functions whose softmax must have the bits of the first of their kind, a reference.
struct SoftmaxSet {
    var name: String
    /// The name of the reference whose bits are meant.
    var kind: String
    var functions: annulus_kernels
    var bfloat16Functions: annulus_bfloat16_kernels
}

/// The sets of this machine, each kind after its reference.
var softmaxSets: [SoftmaxSet] {
    var sets: [SoftmaxSet] = []
    for index in kernelSets.indices {
        let set = kernelSets[index]
        guard let reference = annulus_kernels_reference_of(Int32(index)),
            let bfloat16 = annulus_bfloat16_kernels_reference_of(Int32(index))
        else { continue }
        let kind = String(cString: reference.pointee.name)
        if !sets.contains(where: { $0.name == kind }) {
            sets.append(
                SoftmaxSet(name: kind, kind: kind, functions: reference.pointee, bfloat16Functions: bfloat16.pointee))
        }
        if set.name != kind {
            sets.append(
                SoftmaxSet(
                    name: set.name, kind: kind, functions: set.functions, bfloat16Functions: set.bfloat16Functions))
        }
        if let widened = annulus_bfloat16_kernels_widened(Int32(index)) {
            sets.append(
                SoftmaxSet(
                    name: "\(set.name) widened", kind: kind, functions: set.functions,
                    bfloat16Functions: widened.pointee))
        }
    }
    return sets
}

#if DEBUG
let isDebug = true
#else
let isDebug = false
#endif
