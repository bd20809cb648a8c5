// The row-wise layers that every family is made of: norms, dense layers, the feed-forward network. A row's result needs
// that row alone.

import Attention
import Files
import Matrices

/// Scale and shift over a normalised row (Ba et al. 2016; Zhang & Sennrich 2019).
struct Norm: Sendable {
    let kind: NormKind
    /// (width)
    let weight: [Float]
    /// (width); nil where there is none.
    let bias: [Float]?
    let epsilon: Float
    /// Where the gradients of both go; nil where they are not trained.
    let weightSlot: Int?
    let biasSlot: Int?

    init(_ path: ParameterPath, width: Int, _ configuration: EncoderConfiguration, hasBias: Bool? = nil)
        throws(FileError)
    {
        kind = configuration.normKind
        weight = try path["weight"].read(shape: [width])
        bias = hasBias ?? configuration.biases.norms ? try path["bias"].read(shape: [width]) : nil
        epsilon = configuration.layerNormEpsilon
        weightSlot = path["weight"].slot(shape: [width])
        biasSlot = bias == nil ? nil : path["bias"].slot(shape: [width])
    }

    /// A layer norm with both weights.
    init(_ path: ParameterPath, width: Int, epsilon: Float) throws(FileError) {
        kind = .layer
        weight = try path["weight"].read(shape: [width])
        bias = try path["bias"].read(shape: [width])
        self.epsilon = epsilon
        weightSlot = path["weight"].slot(shape: [width])
        biasSlot = path["bias"].slot(shape: [width])
    }

    /// y = norm(x + bias + residual).
    /// - Parameters:
    ///   - x: (rows, width)
    ///   - residual: (rows, width)
    ///   - y: (rows, width); may be `x` or `residual`.
    func forward(
        rows: Int, _ x: UnsafePointer<Float>, bias dense: [Float]? = nil, residual: UnsafePointer<Float>? = nil,
        into y: UnsafeMutablePointer<Float>, kernels: KernelSet
    ) {
        let width = weight.count
        let norm = kind == .layer ? kernels.functions.layer_norm : kernels.functions.rms_norm
        withPointer(dense) { dense in
            withPointer(bias) { beta in
                norm?(rows, width, x, width, dense, residual, width, weight, beta, epsilon, y, width)
            }
        }
    }
}

/// A dense layer y = x·Wᵀ + b.
struct Dense: Sendable {
    let weight: PackedMatrix
    /// nil where there is none.
    let bias: [Float]?
    /// W, which gradients are multiplied by; nil where it is not trained.
    let transpose: PackedMatrix?
    /// Where gradients go, by parameters; empty where they are not trained.
    let slots: [Slots]

    /// Where the gradients of some outputs' weights and biases go.
    struct Slots {
        let outputs: Range<Int>
        let weight: Int
        let bias: Int?
    }

    /// Some rows of the parameter at `path`, out of `all`.
    struct Rows {
        let path: ParameterPath
        let range: Range<Int>
        let all: Int
        /// The parameter that has their biases at the same places.
        var bias: ParameterPath?

        /// The rows in row-major order.
        func read(inputs: Int, into floats: UnsafeMutablePointer<Float>) throws(FileError) {
            try path.source.read(
                path.name, shape: [all, inputs], range: range.lowerBound * inputs..<range.upperBound * inputs,
                into: floats)
        }
    }

    /// - Parameter parts: whose rows follow one another; `bias` is theirs too.
    init(parts: [Rows], bias: [Float]?, inputs: Int, element: ElementKind, kernels: KernelSet) throws(FileError) {
        let outputs = parts.reduce(0) { $0 + $1.range.count }
        for part in parts { try part.path.check(shape: [part.all, inputs]) }
        func block(
            _ count: Int, pack: (UnsafeBufferPointer<Float>, UnsafeMutablePointer<Float>) -> Void
        ) throws(FileError) -> WeightBlock {
            try parts[0].path.storage.block(count) { (target: UnsafeMutablePointer<Float>) throws(FileError) in
                let rows = AlignedBuffer(count: outputs * inputs)
                var first = 0
                for part in parts {
                    try part.read(inputs: inputs, into: rows.pointer + first * inputs)
                    first += part.range.count
                }
                pack(UnsafeBufferPointer(start: rows.pointer, count: rows.count), target)
            }
        }
        let panels = try block(PackedMatrix.floats(inputs: inputs, outputs: outputs, element: element)) {
            PackedMatrix.pack($0, inputs: inputs, outputs: outputs, element: element, kernels: kernels, into: $1)
        }
        weight = PackedMatrix(panels: panels, inputs: inputs, outputs: outputs, element: element)
        self.bias = bias
        guard parts[0].path.slots != nil else {
            (transpose, slots) = (nil, [])
            return
        }
        let transposed = try block(PackedMatrix.floats(inputs: outputs, outputs: inputs, element: .float32)) {
            PackedMatrix.packTranspose($0, inputs: inputs, outputs: outputs, kernels: kernels, into: $1)
        }
        transpose = PackedMatrix(panels: transposed, inputs: outputs, outputs: inputs, element: .float32)
        var slots: [Slots] = []
        for part in parts {
            let first = slots.last?.outputs.upperBound ?? 0
            guard let weight = part.path.slot(shape: [part.all, inputs], rows: part.range) else { continue }
            slots.append(
                Slots(
                    outputs: first..<first + part.range.count, weight: weight,
                    bias: part.bias?.slot(shape: [part.all], rows: part.range)))
        }
        self.slots = slots
    }

    init(
        _ path: ParameterPath, inputs: Int, outputs: Int, hasBias: Bool = true, element: ElementKind, kernels: KernelSet
    ) throws(FileError) {
        try self.init(
            joined: [path], inputs: inputs, outputs: outputs, hasBias: hasBias, element: element, kernels: kernels)
    }

    /// One layer whose outputs are those of several parameters, one after the other.
    init(
        joined paths: [ParameterPath], inputs: Int, outputs: Int, hasBias: Bool, element: ElementKind,
        kernels: KernelSet
    ) throws(FileError) {
        let each = outputs / paths.count
        var bias: [Float] = []
        for path in paths {
            // Parameters are named in the order in which checkpoints list them.
            try path["weight"].check(shape: [each, inputs])
            if hasBias { bias += try path["bias"].read(shape: [each]) }
        }
        try self.init(
            parts: paths.map {
                Rows(path: $0["weight"], range: 0..<each, all: each, bias: hasBias ? $0["bias"] : nil)
            }, bias: hasBias ? bias : nil, inputs: inputs, element: element, kernels: kernels)
    }

    /// Several layers of so many outputs each out of one parameter that holds their rows one after the other.
    static func split(
        _ path: ParameterPath, into outputs: [Int], inputs: Int, hasBias: Bool, element: ElementKind, kernels: KernelSet
    ) throws(FileError) -> [Dense] {
        let weight = path["weight"]
        let all = outputs.reduce(0, +)
        try weight.check(shape: [all, inputs])
        let bias = hasBias ? try path["bias"].read(shape: [all]) : nil
        var layers: [Dense] = []
        var first = 0
        for count in outputs {
            let rows = first..<first + count
            layers.append(
                try Dense(
                    parts: [Rows(path: weight, range: rows, all: all, bias: hasBias ? path["bias"] : nil)],
                    bias: bias.map { Array($0[rows]) }, inputs: inputs, element: element, kernels: kernels))
            first += count
        }
        return layers
    }

    /// y = x·Wᵀ, without the bias.
    /// - Parameters:
    ///   - x: (rows, inputs)
    ///   - y: (rows, outputs)
    func product(rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, kernels: KernelSet) {
        weight.multiply(rows: rows, x: x, xStride: weight.inputs, y: y, yStride: weight.outputs, kernels: kernels)
    }

    /// y = x·Wᵀ + b.
    /// - Parameters:
    ///   - x: (rows, inputs)
    ///   - y: (rows, outputs)
    func forward(rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, kernels: KernelSet) {
        product(rows: rows, x, into: y, kernels: kernels)
        if let bias { kernels.functions.add_bias(rows, weight.outputs, y, weight.outputs, bias) }
    }
}

extension Activation {
    /// x = f(x + bias) in place, for `columns` of each row.
    func forward(
        rows: Int, columns: Int, _ x: UnsafeMutablePointer<Float>, stride: Int, bias: UnsafePointer<Float>?,
        kernels: KernelSet
    ) {
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

/// The two dense layers of a block, and the non-linearity between them.
struct FeedForward: Sendable {
    /// Twice as wide where it is gated: the activated half, then the one that multiplies it (Shazeer 2020).
    let inner: Dense
    let output: Dense
    let activation: Activation
    let isGated: Bool

    init(
        _ path: ParameterPath, _ configuration: EncoderConfiguration, _ names: ParameterNames, _ element: ElementKind,
        _ kernels: KernelSet
    ) throws(FileError) {
        inner = try Dense(
            joined: names.inner.map { path[$0] }, inputs: configuration.hiddenSize, outputs: configuration.innerWidth,
            hasBias: configuration.biases.inner, element: element, kernels: kernels)
        output = try Dense(
            path[names.output], inputs: configuration.intermediateSize, outputs: configuration.hiddenSize,
            hasBias: configuration.biases.output,
            element: element, kernels: kernels)
        activation = configuration.activation
        isGated = configuration.isGated
    }

    /// y = f(x·W₁ᵀ + b₁)·W₂ᵀ, or with a gate f(a)·b in its place, (a, b) = x·W₁ᵀ + b₁. The bias of the second layer is
    /// left to what follows, which adds it together with the residual.
    /// - Parameters:
    ///   - x: (rows, hiddenSize)
    ///   - y: (rows, hiddenSize)
    ///   - memory: (rows, outputs of the inner layer), overwritten.
    ///   - dropout: what is dropped of these rows, if anything; of what the second layer gives, whoever adds its bias drops.
    func forward(
        rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, memory: UnsafeMutablePointer<Float>,
        dropout: LayerDropout? = nil, kernels: KernelSet
    ) {
        let (width, stride) = (output.weight.inputs, inner.weight.outputs)
        inner.product(rows: rows, x, into: memory, kernels: kernels)
        withPointer(inner.bias) { bias in
            activation.forward(rows: rows, columns: width, memory, stride: stride, bias: bias, kernels: kernels)
            guard isGated else { return }
            if let bias { kernels.functions.add_bias(rows, width, memory + width, stride, bias + width) }
            kernels.functions.gate_rows(rows, width, memory, memory + width, stride, memory, stride)
        }
        dropout?.apply(.feedForwardInner, memory, width: width, stride: stride, kernels: kernels)
        output.weight.multiply(
            rows: rows, x: memory, xStride: stride, y: y, yStride: output.weight.outputs, kernels: kernels)
    }
}
