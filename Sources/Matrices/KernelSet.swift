// The kernel sets of this machine: which instruction sets the C microkernels may use.

import CKernels

/// A set of microkernels written for one instruction set.
///
/// Every set yields the same bits, since the arithmetic is one source of fused multiply-adds in a fixed order; they
/// differ in speed alone. The functions are documented in `annulus_kernels.h`.
public struct KernelSet: Sendable, Hashable {
    /// "reference", "avx2", "avx512" or "neon".
    public let name: String
    let index: Int32

    /// The table of C functions; fetch it once, outside of inner loops.
    public var functions: annulus_kernels { annulus_kernels_available(index).pointee }

    /// The table of the bfloat16 functions, documented in `annulus_bfloat16_kernels.h`.
    public var bfloat16Functions: annulus_bfloat16_kernels { annulus_bfloat16_kernels_available(index).pointee }

    /// Whether bfloat16 products run on instructions of their own; elsewhere the same bits take longer than float32.
    public var hasNativeBFloat16: Bool { bfloat16Functions.native != 0 }

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
