// The parts that every family's layers are made of: norms, dense layers, and a block of both around attention.

import Attention
import Checkpoints
import Matrices

/// Scale and shift over a normalised row.
struct LayerNorm: Sendable {
    let weight: [Float]
    /// nil where there is none.
    let bias: [Float]?
    let epsilon: Float

    init(_ path: ParameterPath, width: Int, epsilon: Float, hasBias: Bool = true) throws(FileError) {
        weight = try path["weight"].read(shape: [width])
        bias = hasBias ? try path["bias"].read(shape: [width]) : nil
        self.epsilon = epsilon
    }

    /// y = norm(x + bias + residual) for rows of the norm's width; `y` may be `x` or `residual`.
    func apply(
        rows: Int, _ x: UnsafePointer<Float>, bias dense: [Float]? = nil, residual: UnsafePointer<Float>? = nil,
        into y: UnsafeMutablePointer<Float>, kernels: KernelSet
    ) {
        let width = weight.count
        withPointer(dense) { dense in
            withPointer(bias) { beta in
                kernels.functions.layer_norm(rows, width, x, width, dense, residual, width, weight, beta, epsilon, y, width)
            }
        }
    }
}

/// A dense layer y = x·Wᵀ + b.
struct Dense: Sendable {
    let weight: PackedMatrix
    /// nil where there is none.
    let bias: [Float]?

    /// Some rows of the parameter at `path`, out of `all`.
    struct Rows {
        let path: ParameterPath
        let range: Range<Int>
        let all: Int
    }

    /// - Parameter parts: whose rows follow one another; `bias` is theirs too.
    init(parts: [Rows], bias: [Float]?, inputs: Int, element: ElementKind, kernels: KernelSet) throws(FileError) {
        let outputs = parts.reduce(0) { $0 + $1.range.count }
        for part in parts { try part.path.check(shape: [part.all, inputs]) }
        let count = PackedMatrix.floats(inputs: inputs, outputs: outputs, element: element)
        let panels = try parts[0].path.storage.block(count) { (target: UnsafeMutablePointer<Float>) throws(FileError) in
            let rows = AlignedBuffer(count: outputs * inputs)
            var first = 0
            for part in parts {
                try part.path.source.read(
                    part.path.name, shape: [part.all, inputs], range: part.range.lowerBound * inputs..<part.range.upperBound * inputs,
                    into: rows.pointer + first * inputs)
                first += part.range.count
            }
            PackedMatrix.pack(
                UnsafeBufferPointer(start: rows.pointer, count: rows.count), inputs: inputs, outputs: outputs, element: element,
                kernels: kernels, into: target)
        }
        weight = PackedMatrix(panels: panels, inputs: inputs, outputs: outputs, element: element)
        self.bias = bias
    }

    init(
        _ path: ParameterPath, inputs: Int, outputs: Int, hasBias: Bool = true, element: ElementKind, kernels: KernelSet
    ) throws(FileError) {
        try self.init(joined: [path], inputs: inputs, outputs: outputs, hasBias: hasBias, element: element, kernels: kernels)
    }

    /// One layer whose outputs are those of several parameters, one after the other.
    init(
        joined paths: [ParameterPath], inputs: Int, outputs: Int, hasBias: Bool, element: ElementKind, kernels: KernelSet
    ) throws(FileError) {
        let each = outputs / paths.count
        var bias: [Float] = []
        for path in paths {
            // Parameters are named in the order in which checkpoints list them.
            try path["weight"].check(shape: [each, inputs])
            if hasBias { bias += try path["bias"].read(shape: [each]) }
        }
        try self.init(
            parts: paths.map { Rows(path: $0["weight"], range: 0..<each, all: each) }, bias: hasBias ? bias : nil, inputs: inputs,
            element: element, kernels: kernels)
    }

    /// Several layers out of one parameter that holds their rows one after the other.
    static func split(
        _ path: ParameterPath, into count: Int, inputs: Int, outputs: Int, hasBias: Bool, element: ElementKind, kernels: KernelSet
    ) throws(FileError) -> [Dense] {
        let weight = path["weight"]
        try weight.check(shape: [count * outputs, inputs])
        let bias = hasBias ? try path["bias"].read(shape: [count * outputs]) : nil
        var layers: [Dense] = []
        for part in 0..<count {
            let rows = part * outputs..<(part + 1) * outputs
            layers.append(try Dense(
                parts: [Rows(path: weight, range: rows, all: count * outputs)], bias: bias.map { Array($0[rows]) }, inputs: inputs,
                element: element, kernels: kernels))
        }
        return layers
    }

    /// y = x·Wᵀ, without the bias.
    func product(rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, kernels: KernelSet) {
        weight.multiply(rows: rows, x: x, xStride: weight.inputs, y: y, yStride: weight.outputs, kernels: kernels)
    }

    /// y = x·Wᵀ + b.
    func apply(rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, kernels: KernelSet) {
        product(rows: rows, x, into: y, kernels: kernels)
        if let bias { kernels.functions.add_bias(rows, weight.outputs, y, weight.outputs, bias) }
    }
}

extension Activation {
    /// x = f(x + bias) in place, for `columns` of each row.
    func apply(rows: Int, columns: Int, _ x: UnsafeMutablePointer<Float>, stride: Int, bias: UnsafePointer<Float>?, kernels: KernelSet) {
        let functions = kernels.functions
        switch self {
        case .gelu: functions.gelu_bias(rows, columns, x, stride, bias)
        case .geluTanh: functions.gelu_tanh_bias(rows, columns, x, stride, bias)
        case .silu: functions.silu_bias(rows, columns, x, stride, bias)
        case .relu: functions.relu_bias(rows, columns, x, stride, bias)
        case .tanh: functions.tanh_bias(rows, columns, x, stride, bias)
        }
    }
}

/// Calls `body` with a pointer to the elements, or nil.
func withPointer<Result>(_ values: [Float]?, _ body: (UnsafePointer<Float>?) -> Result) -> Result {
    guard let values else { return body(nil) }
    return values.withUnsafeBufferPointer { body($0.baseAddress) }
}

/// The weights of one block: self-attention, then two dense layers, each with a residual sum and a norm before or after.
struct EncoderLayer: Sendable {
    let query: Dense
    let key: Dense
    let value: Dense
    let attentionOutput: Dense
    /// nil where attention reads its rows as they are.
    let attentionNorm: LayerNorm?
    /// Twice as wide where it is gated: the activated half, then the one that multiplies it.
    let inner: Dense
    let output: Dense
    let outputNorm: LayerNorm
    /// What relative positions are to this layer, where attention is disentangled.
    let contents: PositionContents?

    init(
        _ path: ParameterPath, _ configuration: EncoderConfiguration, _ names: ParameterNames, isFirst: Bool,
        positions: PositionEmbeddings?, _ element: ElementKind, _ kernels: KernelSet
    ) throws(FileError) {
        let hidden = configuration.hiddenSize
        let biases = configuration.biases
        func norm(_ name: String) throws(FileError) -> LayerNorm {
            try LayerNorm(path[name], width: hidden, epsilon: configuration.layerNormEpsilon, hasBias: biases.norms)
        }
        var projections: [Dense] = []
        if names.projections.count == 1 {
            projections = try Dense.split(
                path[names.projections[0]], into: 3, inputs: hidden, outputs: hidden, hasBias: biases.attention, element: element, kernels: kernels)
        } else {
            for name in names.projections {
                projections.append(try Dense(
                    path[name], inputs: hidden, outputs: hidden, hasBias: biases.attention, element: element, kernels: kernels))
            }
        }
        (query, key, value) = (projections[0], projections[1], projections[2])
        contents = try positions?.contents(path, query: query, key: key, configuration, element, kernels)
        attentionOutput = try Dense(
            path[names.attentionOutput], inputs: hidden, outputs: hidden, hasBias: biases.attention, element: element, kernels: kernels)
        attentionNorm = isFirst && configuration.skipsFirstNorm ? nil : try norm(names.attentionNorm)
        inner = try Dense(
            joined: names.inner.map { path[$0] }, inputs: hidden,
            outputs: configuration.intermediateSize * (configuration.isGated ? 2 : 1), hasBias: biases.inner,
            element: element, kernels: kernels)
        output = try Dense(
            path[names.output], inputs: configuration.intermediateSize, outputs: hidden, hasBias: biases.output, element: element,
            kernels: kernels)
        outputNorm = try norm(names.outputNorm)
    }
}
