// The weights of a dense layer, packed once for the panel kernels, and the product that uses them.

import CAttentionKernels

/// A weight matrix W of `outputs` × `inputs`, stored as the panels of its transpose that `annulus_kernels.h` defines.
///
/// Each element of a product is one chain of fused multiply-adds over the inputs in ascending order, so a row's bits
/// depend on that row and the weights only: not on the other rows, the blocking, or the kernel set.
public struct PackedMatrix: Sendable {
    /// Columns of W, the length of a row of x.
    public let inputs: Int
    /// Rows of W, the length of a row of y.
    public let outputs: Int

    /// The panels, preceded by what it takes to align them to 64 bytes.
    private let storage: [Float]
    private let offset: Int

    /// Terms of one pass over a panel: 64 columns of them are 96 KiB, which stays in the second-level cache while
    /// the rows of a block run past it.
    static let depthBlock = 384
    /// Rows that run past a panel before the next one, a multiple of every register block's rows: few enough that
    /// they stay in the second-level cache, enough to make streaming the weights cheap.
    static let rowBlock = 96

    /// Packs `weights`, row-major [outputs][inputs], as checkpoints store them.
    public init(weights: UnsafeBufferPointer<Float>, inputs: Int, outputs: Int, kernels: KernelSet) {
        precondition(inputs > 0 && outputs > 0, "a matrix has at least one row and one column")
        precondition(weights.count >= inputs * outputs, "a matrix of \(outputs) × \(inputs) has \(weights.count) weights")
        self.inputs = inputs
        self.outputs = outputs
        let size = inputs * ((outputs + 15) / 16 * 16)
        var start = 0
        storage = [Float](unsafeUninitializedCapacity: size + 16) { buffer, count in
            guard let base = buffer.baseAddress, let source = weights.baseAddress else { return }
            let misaligned = Int(bitPattern: base) & 63
            start = misaligned == 0 ? 0 : (64 - misaligned) / 4
            buffer.initialize(repeating: 0)
            kernels.functions.pack_transposed(source, inputs, outputs, inputs, base + start)
            count = size + 16
        }
        offset = start
    }

    /// y[rows][outputs] = x[rows][inputs] · Wᵀ on the calling thread; callers hand row blocks to threads.
    ///
    /// - Parameters:
    ///   - xStride: floats from a row of x to the next, at least `inputs`.
    ///   - yStride: floats from a row of y to the next, at least `outputs`. The floats beyond `outputs` are left alone.
    public func multiply(
        rows: Int, x: UnsafePointer<Float>, xStride: Int,
        y: UnsafeMutablePointer<Float>, yStride: Int, kernels: KernelSet
    ) {
        let functions = kernels.functions
        storage.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            let panels = base + offset
            for firstRow in stride(from: 0, to: rows, by: Self.rowBlock) {
                let blockRows = min(Self.rowBlock, rows - firstRow)
                // The terms are the inner loop: a block of y is finished while it is in the cache.
                for column in stride(from: 0, to: outputs, by: 64) {
                    let columns = min(64, outputs - column)
                    let width = (columns + 15) & ~15
                    let c = y + firstRow * yStride + column
                    for firstTerm in stride(from: 0, to: inputs, by: Self.depthBlock) {
                        let terms = min(Self.depthBlock, inputs - firstTerm)
                        let a = x + firstRow * xStride + firstTerm
                        let panel = panels + column * inputs + firstTerm * width
                        if width == columns {
                            functions.panel_product(
                                a, xStride, blockRows, panel, terms, width, c, yStride, firstTerm > 0 ? 1 : 0)
                        } else {
                            // The padding columns of the last panel have no place in y.
                            Self.multiplyPadded(
                                functions, a, xStride, blockRows, panel, terms, width, c, yStride, columns, firstTerm > 0)
                        }
                    }
                }
            }
        }
    }

    private static func multiplyPadded(
        _ functions: annulus_kernels, _ a: UnsafePointer<Float>, _ aStride: Int, _ rows: Int,
        _ panel: UnsafePointer<Float>, _ terms: Int, _ width: Int,
        _ c: UnsafeMutablePointer<Float>, _ cStride: Int, _ columns: Int, _ accumulate: Bool
    ) {
        withUnsafeTemporaryAllocation(byteCount: rows * width * 4, alignment: 64) { scratch in
            let padded = scratch.bindMemory(to: Float.self)
            guard let base = padded.baseAddress else { return }
            padded.initialize(repeating: 0)
            if accumulate {
                for row in 0..<rows { (base + row * width).update(from: c + row * cStride, count: columns) }
            }
            functions.panel_product(a, aStride, rows, panel, terms, width, base, width, accumulate ? 1 : 0)
            for row in 0..<rows { (c + row * cStride).update(from: base + row * width, count: columns) }
        }
    }
}
