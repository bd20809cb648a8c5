// One block of a transformer: attention and what is row-wise around it.

import Attention
import Files
import Matrices
import Tiles

/// What attention needs of each row, and what becomes of its result: the dense layers around it. Attention itself,
/// which alone meets other rows, is the executor's.
struct SelfAttention: Sendable {
    let query: Dense
    let key: Dense
    let value: Dense
    /// nil where queries and keys are used as they come from their layers.
    let queryNorm: Norm?
    let keyNorm: Norm?
    let output: Dense
    let heads: HeadShape
    /// What scores are multiplied by.
    let scale: Float
    /// The pairs of channels of a head that are turned by the position; 0: none.
    let rotaryPairs: Int
    /// What relative positions are to this layer, where attention is disentangled.
    let contents: PositionContents?

    init(
        _ path: ParameterPath, _ pattern: AttentionPattern, _ configuration: EncoderConfiguration,
        _ names: ParameterNames,
        positions: PositionEmbeddings?, _ element: ElementKind, _ kernels: KernelSet
    ) throws(FileError) {
        let (hidden, hasBias, heads) = (configuration.hiddenSize, configuration.biases.attention, pattern.heads)
        let outputs = [
            heads.queryHeads * heads.headDimension, heads.keyValueHeads * heads.headDimension,
            heads.keyValueHeads * heads.valueDimension,
        ]
        var projections: [Dense] = []
        if names.projections.count == 1 {
            projections = try Dense.split(
                path[names.projections[0]], into: outputs, inputs: hidden, hasBias: hasBias, element: element,
                kernels: kernels)
        } else {
            for (name, count) in zip(names.projections, outputs) {
                projections.append(
                    try Dense(
                        path[name], inputs: hidden, outputs: count, hasBias: hasBias, element: element, kernels: kernels
                    ))
            }
        }
        (query, key, value) = (projections[0], projections[1], projections[2])
        func norm(_ name: String, _ width: Int) throws(FileError) -> Norm? {
            switch configuration.queryKeyNorms {
            case nil: nil
            case .wholeRow: try Norm(path[name], width: width, configuration)
            case .eachHead: try Norm(path[name], width: heads.headDimension, configuration)
            }
        }
        queryNorm = try norm(names.queryNorm, outputs[0])
        keyNorm = try norm(names.keyNorm, outputs[1])
        contents = try positions?.contents(path, query: query, key: key, heads, configuration, names, element, kernels)
        output = try Dense(
            path[names.attentionOutput], inputs: heads.queryHeads * heads.valueDimension, outputs: hidden,
            hasBias: hasBias, element: element,
            kernels: kernels)
        self.heads = heads
        scale = configuration.scoreScale(heads)
        rotaryPairs = pattern.rotaryBase == nil ? 0 : configuration.rotaryDimension / 2
    }

    /// Queries, keys and values of some rows.
    /// - Parameters:
    ///   - x: (rows, hiddenSize)
    ///   - rotation: (rows, 2, rotaryPairs), cosines and sines of their positions; nil where nothing is turned.
    ///   - queries: (rows, query heads, head width); `keys`, `values`: (rows, key/value heads, their widths).
    func project(
        rows: Int, _ x: UnsafePointer<Float>, rotation: UnsafePointer<Float>?, queries: UnsafeMutablePointer<Float>,
        keys: UnsafeMutablePointer<Float>, values: UnsafeMutablePointer<Float>, kernels: KernelSet
    ) {
        query.forward(rows: rows, x, into: queries, kernels: kernels)
        key.forward(rows: rows, x, into: keys, kernels: kernels)
        value.forward(rows: rows, x, into: values, kernels: kernels)
        for (norm, y, count) in [(queryNorm, queries, heads.queryHeads), (keyNorm, keys, heads.keyValueHeads)] {
            // A norm of each head goes over that many rows.
            guard let norm else { continue }
            norm.forward(rows: rows * (count * heads.headDimension / norm.weight.count), y, into: y, kernels: kernels)
        }
        guard let rotation else { return }
        for (y, count) in [(queries, heads.queryHeads), (keys, heads.keyValueHeads)] {
            rotate(
                rows: rows, heads: count, headDimension: heads.headDimension, pairs: rotaryPairs, table: rotation, y,
                stride: count * heads.headDimension)
        }
    }
}

/// Self-attention, then the feed-forward network, each with a residual sum and a norm before or after.
struct Block: Sendable {
    let attention: SelfAttention
    /// nil where attention reads its rows as they are.
    let attentionNorm: Norm?
    let feedForward: FeedForward
    let outputNorm: Norm
    let norms: NormPlacement

    /// What a thread needs to carry a block of rows through the dense layers.
    final class Memory {
        /// (rows, the widest of what is projected to), twice: keys and values, or a dense layer's result.
        let first: AlignedBuffer
        let second: AlignedBuffer
        /// (rows, hiddenSize): rows that a norm has gone over, where norms stand before.
        let normed: AlignedBuffer
        /// (rows, outputs of the inner layer)
        let inner: AlignedBuffer

        init(_ configuration: EncoderConfiguration, rows: Int, memory: BufferPool) {
            let width = configuration.widestProjection
            first = memory.buffer(count: rows * width)
            second = memory.buffer(count: rows * width)
            normed = memory.buffer(count: configuration.norms == .beforeSublayer ? rows * configuration.hiddenSize : 0)
            inner = memory.buffer(count: rows * configuration.innerWidth)
        }
    }

    init(
        _ path: ParameterPath, _ pattern: AttentionPattern, _ configuration: EncoderConfiguration,
        _ names: ParameterNames, isFirst: Bool,
        positions: PositionEmbeddings?, _ element: ElementKind, _ kernels: KernelSet
    ) throws(FileError) {
        let width = configuration.hiddenSize
        attention = try SelfAttention(path, pattern, configuration, names, positions: positions, element, kernels)
        attentionNorm =
            isFirst && configuration.skipsFirstNorm
            ? nil : try Norm(path[names.attentionNorm], width: width, configuration)
        feedForward = try FeedForward(path, configuration, names, element, kernels)
        outputNorm = try Norm(path[names.outputNorm], width: width, configuration)
        norms = configuration.norms
    }

    /// The way to attention: queries of some rows, and their keys and values in `memory.first` and `memory.second`.
    /// - Parameters:
    ///   - x: (rows, hiddenSize), only read.
    ///   - rotation, queries: see ``SelfAttention/project(rows:_:rotation:queries:keys:values:kernels:)``.
    func project(
        rows: Int, _ x: UnsafePointer<Float>, rotation: UnsafePointer<Float>?, queries: UnsafeMutablePointer<Float>,
        _ memory: Memory,
        kernels: KernelSet
    ) {
        var input = x
        if norms == .beforeSublayer, let attentionNorm {
            attentionNorm.forward(rows: rows, x, into: memory.normed.pointer, kernels: kernels)
            input = UnsafePointer(memory.normed.pointer)
        }
        attention.project(
            rows: rows, input, rotation: rotation, queries: queries, keys: memory.first.pointer,
            values: memory.second.pointer, kernels: kernels)
    }

    /// The way from attention: x becomes the block's result.
    /// - Parameters:
    ///   - attended: (rows, query heads, value width), attention's result.
    ///   - x: (rows, hiddenSize), the block's input; overwritten.
    ///   - dropout: what is dropped of these rows, if anything.
    func finish(
        rows: Int, attended: UnsafePointer<Float>, _ x: UnsafeMutablePointer<Float>, _ memory: Memory,
        dropout: LayerDropout? = nil, kernels: KernelSet
    ) {
        let result = memory.first.pointer
        attention.output.product(rows: rows, attended, into: result, kernels: kernels)
        /// What is still to be added to a product: nothing where the bias had to come before dropout.
        func dropped(_ layer: Dense, _ site: DrawSite) -> [Float]? {
            guard let dropout else { return layer.bias }
            layer.finish(result, rows: rows, dropout, site, kernels: kernels)
            return nil
        }
        switch norms {
        case .afterResidual:
            let bias = dropped(attention.output, .attentionOutput)
            attentionNorm?.forward(rows: rows, result, bias: bias, residual: x, into: x, kernels: kernels)
            feedForward.forward(
                rows: rows, x, into: result, memory: memory.inner.pointer, dropout: dropout, kernels: kernels)
            let outputBias = dropped(feedForward.output, .feedForwardOutput)
            outputNorm.forward(rows: rows, result, bias: outputBias, residual: x, into: x, kernels: kernels)
        case .beforeSublayer:
            attention.output.finish(result, rows: rows, dropout, .attentionOutput, kernels: kernels)
            for index in 0..<rows * attention.output.weight.outputs { x[index] += result[index] }
            outputNorm.forward(rows: rows, x, into: memory.normed.pointer, kernels: kernels)
            feedForward.forward(
                rows: rows, memory.normed.pointer, into: result, memory: memory.inner.pointer, dropout: dropout,
                kernels: kernels)
            feedForward.output.finish(result, rows: rows, dropout, .feedForwardOutput, kernels: kernels)
            for index in 0..<rows * feedForward.output.weight.outputs { x[index] += result[index] }
        }
    }
}

extension Dense {
    /// Adds the bias to a product, and drops some of it.
    /// - Parameter product: (rows, outputs), that of this layer; overwritten.
    func finish(
        _ product: UnsafeMutablePointer<Float>, rows: Int, _ dropout: LayerDropout?, _ site: DrawSite,
        kernels: KernelSet
    ) {
        let width = weight.outputs
        if let bias { kernels.functions.add_bias(rows, width, product, width, bias) }
        dropout?.apply(site, product, width: width, kernels: kernels)
    }
}
