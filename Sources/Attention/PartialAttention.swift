// The attention of some queries to some keys, before normalisation: the value that merges.

import CAttentionKernels
import Matrices
import Synchronization
import Tiles

/// The softmax statistics and the unnormalised output of the rows of one query tile and head over some
/// of the keys: per row the largest score m, the sum ℓ = Σ exp(s − m), and O = Σ exp(s − m)·v.
///
/// Two partials over different keys merge exactly (Milakov & Gimelshein 2018; Dao et al. 2022): with
/// m = max(m₁, m₂), ℓ = ℓ₁·e^(m₁−m) + ℓ₂·e^(m₂−m) and O likewise. A row that has seen no key has
/// m = −∞, ℓ = 0, O = 0 and leaves the other side's bits as they are. It is not an output: only
/// `normalize` makes one. m counts steps of ln2/32 (`annulus_kernels.h`).
public final class PartialAttention: Mergeable {
    /// Rows in use, at most a tile.
    public let rows: Int
    let block: PartialPool.Block
    private let pool: PartialPool

    public init(rows: Int, from pool: PartialPool) {
        precondition(rows <= TileGrid.tileSize)
        self.rows = rows
        self.pool = pool
        block = pool.take()
    }

    deinit { pool.give(block) }

    /// m, one a row, in steps.
    public var rowMax: UnsafeMutablePointer<Float> { block.pointer }
    /// ℓ, one a row.
    public var rowSum: UnsafeMutablePointer<Float> { block.pointer + TileGrid.tileSize }
    /// O: rows × `outputStride`, the padding columns zero.
    public var output: UnsafeMutablePointer<Float> { block.pointer + 2 * TileGrid.tileSize }
    public var outputStride: Int { pool.outputWidth }

    public func merge(right: PartialAttention) {
        pool.kernels.functions.merge_rows(
            rows, outputStride, rowMax, rowSum, output, outputStride,
            right.rowMax, right.rowSum, right.output, outputStride)
    }

    /// Writes O/ℓ (zeros for a row that saw no key) and, where asked for, the log-sum-exp m + ln ℓ (−∞ there).
    public func normalize(
        columns: Int, into result: UnsafeMutablePointer<Float>, stride: Int,
        logSumExp: UnsafeMutablePointer<Float>?, logSumExpStride: Int
    ) {
        pool.kernels.functions.normalize_rows(
            rows, columns, rowMax, rowSum, output, outputStride, result, stride, logSumExp, logSumExpStride)
    }
}

/// Recycles the blocks of partials of one head shape, so that no unit of work allocates. Blocks may be
/// taken and given back by different threads.
public final class PartialPool: Sendable {
    /// An owned block of floats, by its address: an integer so that the free list can be shared.
    struct Block: Sendable {
        let address: UInt
        var pointer: UnsafeMutablePointer<Float> {
            // The address came from an allocation and is never zero.
            UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped
        }
    }

    let outputWidth: Int
    let kernels: KernelSet
    private let blockBytes: Int
    private let free = Mutex<[Block]>([])

    public init(heads: HeadShape, kernels: KernelSet) {
        outputWidth = heads.paddedValueDimension
        blockBytes = Self.blockBytes(heads)
        self.kernels = kernels
    }

    /// The bytes of one block, which is the memory of one partial.
    public static func blockBytes(_ heads: HeadShape) -> Int {
        TileGrid.tileSize * (heads.paddedValueDimension + 2) * MemoryLayout<Float>.stride
    }

    func take() -> Block {
        if let block = free.withLock({ $0.popLast() }) { return block }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: 64)
        return Block(address: UInt(bitPattern: memory))
    }

    func give(_ block: Block) { free.withLock { $0.append(block) } }

    deinit {
        free.withLock { blocks in
            for block in blocks { UnsafeMutableRawPointer(block.pointer).deallocate() }
        }
    }
}
