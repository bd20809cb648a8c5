// The backward of the row-wise layers of Layers.swift: from the gradient of what a layer gave to that of what it read,
// and the parameters' gradients as sums over tiles. A row's result needs that row alone.

import CKernels
import Matrices

extension Norm {
    /// dx of y = norm(x), and the parts of some rows in dγ and dβ.
    /// - Parameters:
    ///   - x: (rows, width), what the norm went over, bias and residual added; mean and variance are computed again.
    ///   - dy: (rows, width)
    ///   - dx: (rows, width); may be `dy` or `x`.
    ///   - sums: (2, width), dγ and dβ, to which the rows are added one after the other.
    func backward(
        rows: Int, _ x: UnsafePointer<Float>, _ dy: UnsafePointer<Float>, into dx: UnsafeMutablePointer<Float>,
        sums: UnsafeMutablePointer<Float>, kernels: KernelSet
    ) {
        let width = weight.count
        let functions = kernels.gradientFunctions
        let backward = kind == .layer ? functions.layer_norm_gradient : functions.rms_norm_gradient
        backward?(
            rows, width, x, width, weight, epsilon, dy, width, dx, width, sums, bias == nil ? nil : sums + width)
    }

    /// Floats that the sums of a tile take.
    var sumFloats: Int { 2 * weight.count }

    /// Puts dγ and dβ where they belong.
    /// - Parameters:
    ///   - leaves: (tiles, 2, width), the sums of each tile.
    ///   - offset: what is added to the layer's own numbers of slots.
    func putGradients(_ leaves: AlignedBuffer, _ sums: TileSums, in gradients: Gradients, offset: Int) {
        let width = weight.count
        for (slot, place) in [(weightSlot, 0), (biasSlot, width)] {
            guard let slot, gradients.wants(slot + offset) else { continue }
            withExtendedLifetime(leaves) {
                gradients.put(
                    sums.sums(ofLeaves: leaves.pointer + place, stride: 2 * width, columns: width), in: slot + offset)
            }
        }
    }
}

extension Dense {
    /// dx = dy·W.
    /// - Parameters:
    ///   - dy: (rows, outputs)
    ///   - dx: (rows, inputs)
    func backward(
        rows: Int, _ dy: UnsafePointer<Float>, into dx: UnsafeMutablePointer<Float>, stride: Int? = nil,
        kernels: KernelSet
    ) {
        guard let transpose else { preconditionFailure("a layer that is trained") }
        transpose.multiply(
            rows: rows, x: dy, xStride: weight.outputs, y: dx, yStride: stride ?? weight.inputs, kernels: kernels)
    }

    /// Whether anybody wants its parameters' gradients.
    func isWanted(_ gradients: Gradients, offset: Int) -> Bool {
        slots.contains { gradients.wants($0.weight + offset) || $0.bias.map { gradients.wants($0 + offset) } ?? false }
    }

    /// Puts dW = Σ dyᵀ·x and db = Σ dy where they belong.
    /// - Parameters:
    ///   - dy: (rows, outputs), of all this rank's rows.
    ///   - panels: x, (rows, inputs), as `TileSums.panels` has packed it.
    ///   - offset: what is added to the layer's own numbers of slots.
    func putGradients(
        _ dy: UnsafePointer<Float>, panels: AlignedBuffer, _ sums: TileSums, in gradients: Gradients, offset: Int
    ) {
        for part in slots {
            let (first, count, stride) = (dy + part.outputs.lowerBound, part.outputs.count, weight.outputs)
            if gradients.wants(part.weight + offset) {
                gradients.put(
                    sums.products(first, stride: stride, outputs: count, panels: panels, width: weight.inputs),
                    in: part.weight + offset)
            }
            if let bias = part.bias, gradients.wants(bias + offset) {
                gradients.put(sums.rowSums(first, stride: stride, columns: count), in: bias + offset)
            }
        }
    }
}

extension Activation {
    /// dx = dy·f'(x) for `columns` of each row.
    /// - Parameters:
    ///   - x: what the function went over, its bias added.
    ///   - dx: may be `dy` or `x`.
    func backward(
        rows: Int, columns: Int, _ x: UnsafePointer<Float>, _ dy: UnsafePointer<Float>,
        into dx: UnsafeMutablePointer<Float>, stride: Int, kernels: KernelSet
    ) {
        let functions = kernels.gradientFunctions
        let backward =
            switch self {
            case .gelu: functions.gelu_gradient
            case .geluTanh: functions.gelu_tanh_gradient
            case .silu: functions.silu_gradient
            case .relu: functions.relu_gradient
            case .tanh: functions.tanh_gradient
            }
        backward?(rows, columns, x, stride, dy, stride, dx, stride)
    }
}

extension FeedForward {
    /// What `forward` makes on its way, kept apart: z = x·W₁ᵀ + b₁, and what goes into the second layer. The arithmetic is
    /// the forward's, to the bit.
    /// - Parameters:
    ///   - x: (rows, hiddenSize)
    ///   - z: (rows, outputs of the inner layer)
    ///   - activated: (rows, inputs of the output layer)
    ///   - memory: (rows, outputs of the inner layer): f(z) where the layer is gated.
    ///   - dropout: what the forward dropped.
    func recompute(
        rows: Int, _ x: UnsafePointer<Float>, z: UnsafeMutablePointer<Float>,
        activated: UnsafeMutablePointer<Float>, memory: UnsafeMutablePointer<Float>, dropout: LayerDropout?,
        kernels: KernelSet
    ) {
        let (width, stride) = (output.weight.inputs, inner.weight.outputs)
        inner.forward(rows: rows, x, into: z, kernels: kernels)
        let target = isGated ? memory : activated
        target.update(from: z, count: rows * stride)
        activation.forward(rows: rows, columns: width, target, stride: stride, bias: nil, kernels: kernels)
        if isGated {
            // The gate lies beside what it multiplies in rows as wide.
            kernels.functions.gate_rows(rows, width, memory, memory + width, stride, activated, width)
        }
        dropout?.apply(.feedForwardInner, activated, width: width, kernels: kernels)
    }

    /// dz from the gradient of the second layer's output: dg = dy·W₂, and dz = dg·f'(z), or with a gate
    /// (dg·b·f'(a), dg·f(a)) for (a, b) = z.
    /// - Parameters:
    ///   - dy: (rows, hiddenSize)
    ///   - z: (rows, outputs of the inner layer); becomes dz.
    ///   - activations: f(z), as `recompute` left it in its memory; overwritten. Only where gated.
    ///   - memory: (rows, outputs of the inner layer), overwritten.
    ///   - dropout: what the forward dropped.
    func backward(
        rows: Int, _ dy: UnsafePointer<Float>, z: UnsafeMutablePointer<Float>,
        activations: UnsafeMutablePointer<Float>, memory: UnsafeMutablePointer<Float>, dropout: LayerDropout?,
        kernels: KernelSet
    ) {
        let (width, stride) = (output.weight.inputs, inner.weight.outputs)
        output.backward(rows: rows, dy, into: memory, stride: stride, kernels: kernels)
        dropout?.apply(.feedForwardInner, memory, width: width, stride: stride, kernels: kernels)
        guard isGated else {
            activation.backward(
                rows: rows, columns: width, z, memory, into: z, stride: stride, kernels: kernels)
            return
        }
        let functions = kernels.functions
        // dg·b into the other half, before b gives way to dg·f(a).
        functions.gate_rows(rows, width, memory, z + width, stride, memory + width, stride)
        functions.gate_rows(rows, width, memory, activations, stride, z + width, stride)
        activation.backward(
            rows: rows, columns: width, z, memory + width, into: z, stride: stride, kernels: kernels)
    }
}
