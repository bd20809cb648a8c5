// The kernel sets of this machine: which instruction sets the C microkernels may use.

import CKernels

/// A set of microkernels written for one instruction set.
///
/// The arithmetic is one source of fused multiply-adds in a fixed order, so that sets yield the same bits and differ in
/// speed, but for the weights of a softmax: on AVX-512 they come out of a table, elsewhere out of a polynomial, and the
/// last bits of an attention differ. The functions are documented in `annulus_kernels.h`.
public struct KernelSet: Sendable, Hashable {
    /// "reference", "avx2", "avx512" or "neon".
    public let name: String
    let index: Int32

    /// The table of C functions; fetch it once, outside of inner loops.
    public var functions: annulus_kernels { annulus_kernels_available(index).pointee }

    /// The table of the bfloat16 functions, documented in `annulus_bfloat16_kernels.h`.
    public var bfloat16Functions: annulus_bfloat16_kernels { annulus_bfloat16_kernels_available(index).pointee }

    /// The table of the functions of gradients, documented in `annulus_gradient_kernels.h`.
    public var gradientFunctions: annulus_gradient_kernels { annulus_gradient_kernels_available(index).pointee }

    /// Whether two sets give the same bits in everything, weights of a softmax too.
    public func hasBits(of other: KernelSet) -> Bool {
        functions.tabled_weights == other.functions.tabled_weights
    }

    /// How a set computes products of bfloat16, always with the same bits.
    public enum BFloat16Products: Sendable {
        /// By instructions of the processor's own, faster than float32.
        case instructions
        /// By float32 multiply-adds on widened operands, about as fast as float32. On ARM, products with results below 2⁻¹²⁶ are
        /// computed once more by comparing.
        case widened
        /// By float32 multiply-adds whose results are compared one by one, far slower than float32.
        case compared
    }

    /// How this one does.
    public var bfloat16Products: BFloat16Products {
        switch Int(bfloat16Functions.products) {
        case ANNULUS_OWN_INSTRUCTIONS: .instructions
        case ANNULUS_WIDENED: .widened
        default: .compared
        }
    }

    /// The sets that this machine can run, the reference first and the fastest last.
    public static let available: [KernelSet] = {
        var sets: [KernelSet] = []
        while let table = annulus_kernels_available(Int32(sets.count)) {
            sets.append(KernelSet(name: String(cString: table.pointee.name), index: Int32(sets.count)))
        }
        return sets
    }()

    /// The set of that name, or nil where this machine cannot run it.
    public static func named(_ name: String) -> KernelSet? {
        available.first { $0.name == name }
    }

    /// The fastest set of this machine.
    public static var best: KernelSet { available[available.count - 1] }
}
