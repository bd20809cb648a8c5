// The weights of a dense layer, packed once for the panel kernels, and the product that uses them.

import CKernels

/// A weight matrix W of `outputs` × `inputs`, stored as the panels of its transpose that `annulus_kernels.h` defines: block
/// after block of the terms of a chain and 64 columns, in the order in which a product goes through them.
///
/// An element of a product is a sum of chains of fused multiply-adds, each over `depthBlockBytes` of inputs in
/// ascending order (in bfloat16, by pairs), and the chains are added in that order. So a row's bits depend on that row
/// and the weights only: not on the other rows or the kernel set. Short chains make small errors: n terms in chains of
/// b are off by at most (b + n/b) roundings where one chain has n (Higham, *Accuracy and Stability of Numerical
/// Algorithms*, §3.1). x and y are float32 for either kind of element; in bfloat16 the weights are rounded once and
/// rows of x as they come.
public struct PackedMatrix: Sendable {
    /// Columns of W, the length of a row of x.
    public let inputs: Int
    /// Rows of W, the length of a row of y.
    public let outputs: Int
    /// What the weights are stored in.
    public let element: ElementKind

    /// The panels, aligned to 64 bytes.
    private let panels: WeightBlock

    /// Bytes of a column in one pass, which is one chain: 64 columns of them are 96 KiB, which stay in the second-level
    /// cache while the rows of a block run past them.
    static let depthBlockBytes = 1536
    /// Rows that run past a block of weights before the next one, a multiple of every register block's rows: few enough that
    /// they stay in the second-level cache, enough to make streaming the weights cheap.
    static let rowBlock = 96

    /// Packs `weights`, row-major [outputs][inputs], as checkpoints store them, into memory of its own.
    public init(
        weights: UnsafeBufferPointer<Float>, inputs: Int, outputs: Int, element: ElementKind = .float32,
        kernels: KernelSet
    ) {
        let panels = WeightBlock(count: Self.floats(inputs: inputs, outputs: outputs, element: element)) {
            Self.pack(weights, inputs: inputs, outputs: outputs, element: element, kernels: kernels, into: $0)
        }
        self.init(panels: panels, inputs: inputs, outputs: outputs, element: element)
    }

    /// A matrix whose panels lie in `panels`, or will.
    public init(panels: WeightBlock, inputs: Int, outputs: Int, element: ElementKind) {
        precondition(inputs > 0 && outputs > 0, "a matrix has at least one row and one column")
        precondition(panels.count == Self.floats(inputs: inputs, outputs: outputs, element: element))
        self.inputs = inputs
        self.outputs = outputs
        self.element = element
        self.panels = panels
    }

    /// The floats of a matrix's panels.
    public static func floats(inputs: Int, outputs: Int, element: ElementKind) -> Int {
        element.slots(inputs) * ((outputs + 15) / 16 * 16)
    }

    /// Writes the panels of `weights`, row-major [outputs][inputs], to zeroed memory.
    public static func pack(
        _ weights: UnsafeBufferPointer<Float>, inputs: Int, outputs: Int, element: ElementKind, kernels: KernelSet,
        into panels: UnsafeMutablePointer<Float>
    ) {
        precondition(
            weights.count >= inputs * outputs, "a matrix of \(outputs) × \(inputs) has \(weights.count) weights")
        guard let source = weights.baseAddress else { return }
        forEachBlock(inputs: inputs, outputs: outputs, element: element) { block in
            let (first, target) = (source + block.column * inputs + block.term, panels + block.place)
            let stride = 16 * element.slots(block.terms)
            switch element {
            case .float32:
                kernels.functions.pack_transposed(first, inputs, block.columns, block.terms, target, stride)
            case .bfloat16:
                kernels.bfloat16Functions.pack_transposed(first, inputs, block.columns, block.terms, target, stride)
            }
        }
    }

    /// Writes the panels of the transpose of `weights`, row-major [outputs][inputs], to zeroed memory: those of a matrix
    /// whose `inputs` are these outputs, for x·W.
    public static func packTranspose(
        _ weights: UnsafeBufferPointer<Float>, inputs: Int, outputs: Int, kernels: KernelSet,
        into panels: UnsafeMutablePointer<Float>
    ) {
        precondition(
            weights.count >= inputs * outputs, "a matrix of \(outputs) × \(inputs) has \(weights.count) weights")
        guard let source = weights.baseAddress else { return }
        forEachBlock(inputs: outputs, outputs: inputs, element: .float32) { block in
            kernels.functions.pack_columns(
                source + block.term * inputs + block.column, inputs, block.terms, block.columns, panels + block.place,
                16 * block.terms)
        }
    }

    /// What one product multiplies: some terms of at most 64 columns.
    private struct Block {
        let column: Int, columns: Int
        let term: Int, terms: Int
        /// Where its panels lie, in slots.
        let place: Int
        /// Its columns, rounded up to whole panels.
        var width: Int { (columns + 15) & ~15 }
    }

    /// The terms are the inner loop: a block of y is finished while it is in the cache.
    @inline(__always)
    private static func forEachBlock(inputs: Int, outputs: Int, element: ElementKind, _ body: (Block) -> Void) {
        let depth = depthBlockBytes / element.bytes
        var place = 0
        for column in stride(from: 0, to: outputs, by: 64) {
            for term in stride(from: 0, to: inputs, by: depth) {
                let block = Block(
                    column: column, columns: min(64, outputs - column), term: term, terms: min(depth, inputs - term),
                    place: place)
                body(block)
                place += block.width * element.slots(block.terms)
            }
        }
    }

    /// y[rows][outputs] = x[rows][inputs] · Wᵀ on the calling thread; callers hand row blocks to threads.
    ///
    /// - Parameters:
    ///   - rows: of x and of y.
    ///   - x: (rows, inputs), row-major.
    ///   - xStride: floats from a row of x to the next, at least `inputs`.
    ///   - y: takes (rows, outputs), row-major, whatever it held.
    ///   - yStride: floats from a row of y to the next, at least `outputs`. The floats beyond `outputs` are left alone.
    ///   - kernels: those that multiply; in bfloat16 they round x too.
    public func multiply(
        rows: Int, x: UnsafePointer<Float>, xStride: Int,
        y: UnsafeMutablePointer<Float>, yStride: Int, kernels: KernelSet
    ) {
        let product = PanelProduct(element: element, kernels: kernels)
        let slots = element.slots(inputs)
        let base = panels.pointer
        for firstRow in stride(from: 0, to: rows, by: Self.rowBlock) {
            let blockRows = min(Self.rowBlock, rows - firstRow)
            let source = x + firstRow * xStride
            let result = y + firstRow * yStride
            switch element {
            case .float32:
                multiplyBlock(product, rows: blockRows, a: source, aStride: xStride, panels: base, y: result, yStride)
            case .bfloat16:
                withUnsafeTemporaryAllocation(byteCount: blockRows * slots * 4, alignment: 64) { scratch in
                    let rounded = scratch.bindMemory(to: Float.self)
                    guard let a = rounded.baseAddress else { return }
                    kernels.bfloat16Functions.round_rows(source, xStride, blockRows, inputs, 1, a, slots)
                    multiplyBlock(product, rows: blockRows, a: a, aStride: slots, panels: base, y: result, yStride)
                }
            }
        }
        withExtendedLifetime(panels) {}
    }

    /// One block of rows, `a` and its stride being of the element's kind and counted in slots of four bytes.
    private func multiplyBlock(
        _ product: PanelProduct, rows: Int, a: UnsafePointer<Float>, aStride: Int, panels: UnsafePointer<Float>,
        y: UnsafeMutablePointer<Float>, _ yStride: Int
    ) {
        Self.forEachBlock(inputs: inputs, outputs: outputs, element: element) { block in
            let first = a + element.slots(block.term)
            let (weights, c, adds) = (panels + block.place, y + block.column, block.term > 0)
            if block.width == block.columns {
                product(first, aStride, rows, weights, block.terms, block.width, c, yStride, adds: adds)
            } else {
                // The padding columns of the last panel have no place in y.
                Self.multiplyPadded(
                    product, first, aStride, rows, weights, block.terms, block.width, c, yStride, block.columns, adds)
            }
        }
    }

    private static func multiplyPadded(
        _ product: PanelProduct, _ a: UnsafePointer<Float>, _ aStride: Int, _ rows: Int,
        _ panels: UnsafePointer<Float>, _ terms: Int, _ width: Int,
        _ c: UnsafeMutablePointer<Float>, _ cStride: Int, _ columns: Int, _ adds: Bool
    ) {
        withUnsafeTemporaryAllocation(byteCount: rows * width * 4, alignment: 64) { scratch in
            let padded = scratch.bindMemory(to: Float.self)
            guard let base = padded.baseAddress else { return }
            padded.initialize(repeating: 0)
            if adds {
                for row in 0..<rows { (base + row * width).update(from: c + row * cStride, count: columns) }
            }
            product(a, aStride, rows, panels, terms, width, base, width, adds: adds)
            for row in 0..<rows { (c + row * cStride).update(from: base + row * width, count: columns) }
        }
    }
}
