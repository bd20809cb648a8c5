// Sums over the rows of tiles, merged on the fixed tree: the gradients of dense layers, biases and norms.

import CKernels
import Matrices
import Tiles

/// A rank's tiles as leaves of the tree over a step's tiles, and the sums over them.
///
/// A weight is summed block by block: for each block all tiles one after the other, whose parts merge while they are in
/// the cache. Nothing but the tiles decides the order of a sum: the leaf is one chain over the tile's rows, ascending.
struct TileSums {
    /// The rows of each tile that contributes, in the operands.
    let rows: [Range<Int>]
    let order: MergeOrder
    private let threads: ThreadPool
    private let kernels: KernelSet
    private let memory: BufferPool
    /// Each thread's places.
    private let scratch: [AlignedBuffer]

    /// Rows of a block of a weight, a multiple of every register block's; it has the columns of a product.
    private static let blockRows = 96
    /// Floats of a block.
    private static let blockFloats = blockRows * Int(ANNULUS_PRODUCT_COLUMNS)

    /// - Parameters:
    ///   - rows: those of each tile that contributes, ascending.
    ///   - order: how their leaves merge.
    init(rows: [Range<Int>], order: MergeOrder, threads: ThreadPool, kernels: KernelSet, memory: BufferPool) {
        (self.rows, self.order, self.threads, self.kernels, self.memory) = (rows, order, threads, kernels, memory)
        // One place more, for leaves that cannot be computed right onto another part.
        scratch = (0..<threads.threads).map { _ in memory.buffer(count: (order.places + 1) * Self.blockFloats) }
    }

    private func newParts(floats: Int) -> [GradientPart] {
        order.nodes.map { GradientPart(node: $0, values: memory.buffer(count: floats), count: floats) }
    }

    /// Goes over all tiles for one block of a sum.
    /// - Parameters:
    ///   - leaf: writes a tile's leaf, or adds it to what is there.
    ///   - finish: takes a part that is whole.
    private func sum(
        floats: Int, places: UnsafeMutablePointer<Float>,
        leaf: (_ rows: Range<Int>, _ tile: Int, _ target: UnsafeMutablePointer<Float>, _ adds: Bool) -> Void,
        finish: (_ part: Int, _ values: UnsafePointer<Float>) -> Void
    ) {
        for step in order.leaves {
            leaf(rows[step.tile], step.tile, places + step.place * Self.blockFloats, step.adds)
            for merge in step.merges {
                kernels.gradientFunctions.add_rows(
                    1, floats, places + merge.from * Self.blockFloats, 0, places + merge.into * Self.blockFloats, 0)
            }
            if let (part, place) = step.finished { finish(part, places + place * Self.blockFloats) }
        }
    }

    /// Rows in the panels that `products` reads, tile by tile.
    /// - Parameter x: (rows, width)
    func panels(_ x: UnsafePointer<Float>, stride: Int, width: Int) -> AlignedBuffer {
        let padded = (width + 15) & ~15
        let panels = memory.buffer(count: (rows.map(\.upperBound).max() ?? 0) * padded)
        threads.forEach(rows.count) { tile, _ in
            let rows = rows[tile]
            // Disjoint: each tile has its own rows.
            kernels.functions.pack_columns(
                x + rows.lowerBound * stride, stride, rows.count, width, panels.pointer + rows.lowerBound * padded,
                16 * rows.count)
        }
        return panels
    }

    /// Σ over rows of a[row]ᵀ·x[row]: (outputs, width), a weight's gradient.
    /// - Parameters:
    ///   - a: (rows, outputs), the gradient of what the weight gave.
    ///   - panels: x, (rows, width), as ``panels(_:stride:width:)`` has packed it.
    func products(
        _ a: UnsafePointer<Float>, stride: Int, outputs: Int, panels: AlignedBuffer, width: Int
    ) -> [GradientPart] {
        let parts = newParts(floats: outputs * width)
        let padded = (width + 15) & ~15
        let blocksAcross = (width + 63) / 64
        let product = kernels.gradientFunctions.transposed_panel_product
        threads.forEach((outputs + Self.blockRows - 1) / Self.blockRows * blocksAcross) { index, worker in
            let (first, column) = (index / blocksAcross * Self.blockRows, index % blocksAcross * 64)
            let (count, columns) = (min(Self.blockRows, outputs - first), min(64, width - column))
            let blockWidth = min(64, padded - column)
            // Disjoint: each index has its own block of every part, each worker its own places.
            sum(floats: count * blockWidth, places: scratch[worker].pointer) { rows, _, target, adds in
                product?(
                    a + rows.lowerBound * stride + first, stride, count,
                    panels.pointer + rows.lowerBound * padded + column * rows.count, rows.count, 16 * rows.count,
                    blockWidth, target, blockWidth, Int32(adds ? ANNULUS_ADD : ANNULUS_START))
            } finish: { part, values in
                let target = parts[part].values.pointer + first * width + column
                for row in 0..<count {
                    (target + row * width).update(from: values + row * blockWidth, count: columns)
                }
            }
        }
        return parts
    }

    /// Σ over rows of a[row]: (columns), a bias's gradient.
    /// - Parameter a: (rows, columns)
    func rowSums(_ a: UnsafePointer<Float>, stride: Int, columns: Int) -> [GradientPart] {
        leafSums(columns: columns) { rows, _, first, count, target in
            target.update(repeating: 0, count: count)
            kernels.gradientFunctions.add_rows(
                rows.count, count, a + rows.lowerBound * stride + first, stride, target, 0)
        }
    }

    /// The sum of leaves that are there already: (columns).
    /// - Parameter leaves: (tiles, columns), with floats between them.
    func sums(ofLeaves leaves: UnsafePointer<Float>, stride: Int, columns: Int) -> [GradientPart] {
        leafSums(columns: columns) { _, tile, first, count, target in
            target.update(from: leaves + tile * stride + first, count: count)
        }
    }

    private func leafSums(
        columns: Int,
        _ leaf: (_ rows: Range<Int>, _ tile: Int, _ first: Int, _ count: Int, _ target: UnsafeMutablePointer<Float>)
            -> Void
    ) -> [GradientPart] {
        let parts = newParts(floats: columns)
        let block = 128
        threads.forEach((columns + block - 1) / block) { index, worker in
            let first = index * block
            let count = min(block, columns - first)
            let places = scratch[worker].pointer
            let beside = places + order.places * Self.blockFloats
            // Disjoint: each index has its own columns of every part, each worker its own places.
            sum(floats: count, places: places) { rows, tile, target, adds in
                leaf(rows, tile, first, count, adds ? beside : target)
                if adds { kernels.gradientFunctions.add_rows(1, count, beside, 0, target, 0) }
            } finish: { part, values in
                (parts[part].values.pointer + first).update(from: values, count: count)
            }
        }
        return parts
    }
}
