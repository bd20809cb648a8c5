// The backward of a block: from the gradient of its result to that of its input, around attention's own.
//
// What the forward pass keeps of a block is its input x, attention's result O, and m and ℓ of its rows. The rest is made
// again on the way back, with the forward's bits.

import Attention
import Matrices
import Tiles

/// What one rank's way back through a block is written into; all blocks use it one after the other. Of all this rank's
/// rows, unless it says otherwise.
final class BackwardMemory {
    /// (rows, hiddenSize): what the feed-forward network read.
    let networkInput: AlignedBuffer
    /// (rows, inner width): z, and then dz.
    let inner: AlignedBuffer
    /// (rows, intermediateSize): what the second dense layer read.
    let activated: AlignedBuffer
    /// (rows, hiddenSize): the gradients of what the two output layers gave, dropout undone.
    let networkGradient: AlignedBuffer
    let projectedGradient: AlignedBuffer
    /// (rows, heads, value width): dO.
    let attendedGradient: AlignedBuffer
    /// (heads, rows): D = Σ dO∘O.
    let outputDots: AlignedBuffer
    /// (rows, heads, width): dQ, dK, dV.
    let queryGradient: AlignedBuffer
    let keyGradient: AlignedBuffer
    let valueGradient: AlignedBuffer
    /// (rows, hiddenSize): what attention's projections read, where a norm stands before them.
    let normed: AlignedBuffer
    /// By tile the sums of dγ and dβ.
    let attentionNorm: AlignedBuffer
    let outputNorm: AlignedBuffer
    let queryNorm: AlignedBuffer
    let keyNorm: AlignedBuffer
    /// Each thread's own.
    let scratch: [Scratch]

    /// Rows of one block.
    struct Scratch {
        /// (rows, the widest of hidden states, queries and keys)
        let first, second, third: AlignedBuffer
        /// (rows, inner width)
        let wide, wider: AlignedBuffer
    }

    /// - Parameters:
    ///   - rows: of this rank.
    ///   - tiles: of this rank.
    ///   - blockRows: the most of one block.
    init(
        _ configuration: EncoderConfiguration, rows: Int, tiles: Int, blockRows: Int, threads: Int, memory: BufferPool
    ) {
        let hidden = configuration.hiddenSize
        let heads = configuration.attention.map(\.heads)
        func most(_ width: (HeadShape) -> Int) -> Int { heads.map(width).max() ?? 0 }
        func each(_ width: Int) -> AlignedBuffer { memory.buffer(count: rows * width) }
        networkInput = each(hidden)
        inner = each(configuration.innerWidth)
        activated = each(configuration.intermediateSize)
        networkGradient = each(hidden)
        projectedGradient = each(hidden)
        attendedGradient = each(configuration.widestAttended)
        outputDots = each(most { $0.queryHeads })
        queryGradient = each(configuration.widestQueries)
        keyGradient = each(most { $0.keyValueHeads * $0.headDimension })
        valueGradient = each(most { $0.keyValueHeads * $0.valueDimension })
        normed = each(configuration.norms == .beforeSublayer ? hidden : 0)
        func sums(_ width: Int) -> AlignedBuffer { memory.buffer(count: tiles * 2 * width) }
        (attentionNorm, outputNorm) = (sums(hidden), sums(hidden))
        let hasNorms = configuration.queryKeyNorms != nil
        queryNorm = sums(hasNorms ? configuration.widestQueries : 0)
        keyNorm = sums(hasNorms ? most { $0.keyValueHeads * $0.headDimension } : 0)
        let widest = max(configuration.widestProjection, configuration.widestQueries, configuration.widestAttended)
        scratch = (0..<threads).map { _ in
            func part(_ width: Int) -> AlignedBuffer { memory.buffer(count: blockRows * width) }
            return Scratch(
                first: part(widest), second: part(widest), third: part(widest), wide: part(configuration.innerWidth),
                wider: part(configuration.innerWidth))
        }
    }
}

/// Some whole tiles of this rank, and what its way back through a block needs to know of them.
struct BackwardBlock {
    let rows: RowBlock
    let memory: BackwardMemory
    let scratch: BackwardMemory.Scratch
    let dropout: LayerDropout?
    let kernels: KernelSet

    var count: Int { rows.count }

    /// The part of a buffer of all rows that is this block's.
    func part(_ buffer: AlignedBuffer, width: Int) -> UnsafeMutablePointer<Float> {
        buffer.pointer + rows.firstRow * width
    }

    /// A norm's backward, tile by tile, for each of whose tiles there is a leaf in `sums`.
    /// - Parameters:
    ///   - x, dy, dx: (rows of the block, rows of the norm a row, width)
    ///   - perRow: how many rows of the norm a row has.
    func backward(
        _ norm: Norm, _ x: UnsafePointer<Float>, _ dy: UnsafePointer<Float>, into dx: UnsafeMutablePointer<Float>,
        perRow: Int = 1, sums: AlignedBuffer
    ) {
        let width = norm.weight.count * perRow
        var first = 0
        for part in rows.parts {
            let leaf = sums.pointer + part.tile.place * norm.sumFloats
            leaf.update(repeating: 0, count: norm.sumFloats)
            norm.backward(
                rows: part.rows.count * perRow, x + first * width, dy + first * width, into: dx + first * width,
                sums: leaf, kernels: kernels)
            first += part.rows.count
        }
    }

    /// y += x, all rows of the block.
    func add(_ x: UnsafePointer<Float>, to y: UnsafeMutablePointer<Float>, width: Int) {
        kernels.gradientFunctions.add_rows(1, count * width, x, 0, y, 0)
    }
}

extension Block {
    /// The way back to attention: from the gradient of the block's result to dO.
    ///
    /// Norms after: u = x + O·Woᵀ + bo, h = norm(u), w = h + network(h), y = norm(w).
    /// Norms before: u = x + O·Woᵀ + bo, y = u + network(norm(u)).
    /// Writes what the weights' gradients need: `networkInput`, `activated`, `inner` (dz), the gradients of both output
    /// layers' results, and leaves of both norms.
    /// - Parameters:
    ///   - x: (rows, hiddenSize), the block's input.
    ///   - attended: (rows, query heads, value width), O.
    ///   - gradient: (rows, hiddenSize): dy; becomes du, the part of dx that the residual carries.
    func finishBackward(
        _ at: BackwardBlock, x: UnsafePointer<Float>, attended: UnsafePointer<Float>,
        gradient: UnsafeMutablePointer<Float>
    ) {
        let (rows, kernels, memory) = (at.count, at.kernels, at.memory)
        let hidden = outputNorm.weight.count
        let (u, w, moved) = (at.scratch.first.pointer, at.scratch.second.pointer, at.scratch.third.pointer)
        let (wide, wider) = (at.scratch.wide.pointer, at.scratch.wider.pointer)
        let networkInput = at.part(memory.networkInput, width: hidden)
        let z = at.part(memory.inner, width: feedForward.inner.weight.outputs)
        let activated = at.part(memory.activated, width: feedForward.output.weight.inputs)
        let networkGradient = at.part(memory.networkGradient, width: hidden)
        let projectedGradient = at.part(memory.projectedGradient, width: hidden)

        // Forward again.
        attention.output.product(rows: rows, attended, into: u, kernels: kernels)
        attention.output.finish(u, rows: rows, at.dropout, .attentionOutput, kernels: kernels)
        at.add(x, to: u, width: hidden)
        switch norms {
        case .afterResidual: attentionNorm?.forward(rows: rows, u, into: networkInput, kernels: kernels)
        case .beforeSublayer: outputNorm.forward(rows: rows, u, into: networkInput, kernels: kernels)
        }
        feedForward.recompute(
            rows: rows, networkInput, z: z, activated: activated, memory: wide, dropout: at.dropout, kernels: kernels)

        // Back through the network.
        if norms == .afterResidual {
            feedForward.output.product(rows: rows, activated, into: w, kernels: kernels)
            feedForward.output.finish(w, rows: rows, at.dropout, .feedForwardOutput, kernels: kernels)
            at.add(networkInput, to: w, width: hidden)
            at.backward(outputNorm, w, gradient, into: gradient, sums: memory.outputNorm)
        }
        networkGradient.update(from: gradient, count: rows * hidden)
        at.dropout?.apply(.feedForwardOutput, networkGradient, width: hidden, kernels: kernels)
        feedForward.backward(
            rows: rows, networkGradient, z: z, activations: wide, memory: wider, dropout: at.dropout,
            kernels: kernels)
        feedForward.inner.backward(rows: rows, z, into: moved, kernels: kernels)
        switch norms {
        case .afterResidual:
            at.add(moved, to: gradient, width: hidden)
            if let attentionNorm { at.backward(attentionNorm, u, gradient, into: gradient, sums: memory.attentionNorm) }
        case .beforeSublayer:
            at.backward(outputNorm, u, moved, into: moved, sums: memory.outputNorm)
            at.add(moved, to: gradient, width: hidden)
        }

        // Back to attention's result.
        projectedGradient.update(from: gradient, count: rows * hidden)
        at.dropout?.apply(.attentionOutput, projectedGradient, width: hidden, kernels: kernels)
        let width = attention.output.weight.inputs
        attention.output.backward(
            rows: rows, projectedGradient, into: at.part(memory.attendedGradient, width: width), kernels: kernels)
    }

    /// The way back from attention: dQ, dK and dV become those of what the dense layers gave, and dx is finished.
    /// - Parameters:
    ///   - x: (rows, hiddenSize), the block's input.
    ///   - rotation: (rows, 2, rotaryPairs), as the forward had it.
    ///   - gradient: (rows, hiddenSize): du; becomes dx.
    func projectBackward(
        _ at: BackwardBlock, x: UnsafePointer<Float>, rotation: UnsafePointer<Float>?,
        gradient: UnsafeMutablePointer<Float>
    ) {
        let (rows, kernels, memory) = (at.count, at.kernels, at.memory)
        let hidden = outputNorm.weight.count
        var input = x
        if norms == .beforeSublayer, let attentionNorm {
            let normed = at.part(memory.normed, width: hidden)
            attentionNorm.forward(rows: rows, x, into: normed, kernels: kernels)
            input = UnsafePointer(normed)
        }
        attention.projectBackward(at, input, rotation: rotation)
        let (sum, more) = (at.scratch.first.pointer, at.scratch.second.pointer)
        attention.query.backward(
            rows: rows, at.part(memory.queryGradient, width: attention.query.weight.outputs), into: sum,
            kernels: kernels)
        for (layer, buffer) in [(attention.key, memory.keyGradient), (attention.value, memory.valueGradient)] {
            layer.backward(
                rows: rows, at.part(buffer, width: layer.weight.outputs), into: more, kernels: kernels)
            at.add(more, to: sum, width: hidden)
        }
        if norms == .beforeSublayer, let attentionNorm {
            at.backward(attentionNorm, x, sum, into: sum, sums: memory.attentionNorm)
        }
        at.add(sum, to: gradient, width: hidden)
    }

    /// Puts the gradients of the block's parameters where they belong, but for those of the projections to attention.
    /// - Parameter offset: what is added to the block's own numbers of slots.
    func putGradients(
        _ memory: BackwardMemory, attended: AlignedBuffer, _ sums: TileSums, in gradients: Gradients, offset: Int
    ) {
        for (layer, dy, x) in [
            (feedForward.output, memory.networkGradient, memory.activated),
            (feedForward.inner, memory.inner, memory.networkInput),
            (attention.output, memory.projectedGradient, attended),
        ] where layer.isWanted(gradients, offset: offset) {
            let width = layer.weight.inputs
            let panels = sums.panels(x.pointer, stride: width, width: width)
            layer.putGradients(dy.pointer, panels: panels, sums, in: gradients, offset: offset)
        }
        outputNorm.putGradients(memory.outputNorm, sums, in: gradients, offset: offset)
    }

    /// Puts those of the projections and of the norm that goes with attention.
    /// - Parameter x: (rows, hiddenSize), the block's input.
    func putProjectionGradients(
        _ memory: BackwardMemory, x: AlignedBuffer, _ sums: TileSums, in gradients: Gradients, offset: Int
    ) {
        let projections = [
            (attention.query, memory.queryGradient), (attention.key, memory.keyGradient),
            (attention.value, memory.valueGradient),
        ]
        if projections.contains(where: { $0.0.isWanted(gradients, offset: offset) }) {
            let input = norms == .beforeSublayer && attentionNorm != nil ? memory.normed : x
            let hidden = outputNorm.weight.count
            let panels = sums.panels(input.pointer, stride: hidden, width: hidden)
            for (layer, dy) in projections {
                layer.putGradients(dy.pointer, panels: panels, sums, in: gradients, offset: offset)
            }
        }
        attentionNorm?.putGradients(memory.attentionNorm, sums, in: gradients, offset: offset)
        attention.queryNorm?.putGradients(memory.queryNorm, sums, in: gradients, offset: offset)
        attention.keyNorm?.putGradients(memory.keyNorm, sums, in: gradients, offset: offset)
    }
}

extension SelfAttention {
    /// The backward of what `project` does to queries and keys behind their dense layers: the rotation, then the norms.
    /// - Parameter x: (rows, hiddenSize), what the dense layers read.
    fileprivate func projectBackward(_ at: BackwardBlock, _ x: UnsafePointer<Float>, rotation: UnsafePointer<Float>?) {
        let memory = at.memory
        for (layer, norm, buffer, count, sums) in [
            (query, queryNorm, memory.queryGradient, heads.queryHeads, memory.queryNorm),
            (key, keyNorm, memory.keyGradient, heads.keyValueHeads, memory.keyNorm),
        ] {
            let width = count * heads.headDimension
            let gradient = at.part(buffer, width: width)
            if let rotation {
                rotate(
                    rows: at.count, heads: count, headDimension: heads.headDimension, pairs: rotaryPairs,
                    table: rotation, gradient, stride: width, isBack: true)
            }
            guard let norm else { continue }
            let x0 = at.scratch.first.pointer
            layer.forward(rows: at.count, x, into: x0, kernels: at.kernels)
            at.backward(norm, x0, gradient, into: gradient, perRow: width / norm.weight.count, sums: sums)
        }
    }
}
