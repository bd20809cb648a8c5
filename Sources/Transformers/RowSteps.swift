// Steps that go over rows, each row by itself: the heads of tasks, and what follows pooling.

import Checkpoints
import Matrices

/// Layers one after the other over rows that are not many: states of some tokens, or vectors.
struct RowSteps: Sendable {
    enum Step: Sendable {
        case dense(Dense)
        case activation(Activation)
        /// Drops values while a head is trained, and leaves them otherwise; which of the head's dropouts it is.
        case dropout(Int)
        /// 1 / (1 + e^(−x)) of each value.
        case logistic
        case norm(Norm)
        /// Divides a row by its Euclidean norm.
        case normalize
        /// Adds what went into the steps of `inside`, as it is or through a dense layer.
        case residual(inside: [Step], through: Dense?)
    }

    let steps: [Step]
    /// Values of a row that comes in.
    let inputs: Int
    /// Values of a row that comes out.
    let outputs: Int
    private let kernels: KernelSet

    init(_ steps: [Step], inputs: Int, kernels: KernelSet) {
        self.steps = steps
        self.inputs = inputs
        self.kernels = kernels
        outputs = Self.outputs(of: steps, inputs: inputs)
    }

    private static func outputs(of steps: [Step], inputs: Int) -> Int {
        steps.reduce(inputs) { width, step in
            switch step {
            case .dense(let dense): dense.weight.outputs
            case .residual(let inside, _): outputs(of: inside, inputs: width)
            case .activation, .dropout, .logistic, .norm, .normalize: width
            }
        }
    }

    /// What comes out of some rows: (rows, outputs).
    /// - Parameter x: (rows, inputs)
    func forward(rows: Int, _ x: UnsafePointer<Float>) -> [Float] {
        var values = Array(UnsafeBufferPointer(start: x, count: rows * inputs))
        forward(steps, rows: rows, &values, width: inputs)
        return values
    }

    private func forward(_ steps: [Step], rows: Int, _ values: inout [Float], width: Int) {
        var width = width
        for step in steps {
            switch step {
            case .dense(let dense):
                values = product(dense, rows: rows, values)
                width = dense.weight.outputs
            case .activation(let activation):
                values.withUnsafeMutableBufferPointer { values in
                    guard let x = values.baseAddress else { return }
                    activation.forward(rows: rows, columns: width, x, stride: width, bias: nil, kernels: kernels)
                }
            case .dropout: break
            case .logistic: values = values.map(Transformers.logistic)
            case .norm(let norm):
                values.withUnsafeMutableBufferPointer { values in
                    guard let x = values.baseAddress else { return }
                    norm.forward(rows: rows, x, into: x, kernels: kernels)
                }
            case .normalize:
                for row in 0..<rows {
                    let range = row * width..<(row + 1) * width
                    values.replaceSubrange(range, with: normalized(Array(values[range])))
                }
            case .residual(let inside, let through):
                let added = through.map { product($0, rows: rows, values) } ?? values
                forward(inside, rows: rows, &values, width: width)
                width = Self.outputs(of: inside, inputs: width)
                for index in values.indices { values[index] += added[index] }
            }
        }
    }

    private func product(_ dense: Dense, rows: Int, _ x: [Float]) -> [Float] {
        [Float](unsafeUninitializedCapacity: rows * dense.weight.outputs) { y, count in
            x.withUnsafeBufferPointer { x in
                guard let x = x.baseAddress, let y = y.baseAddress else { return }
                dense.forward(rows: rows, x, into: y, kernels: kernels)
            }
            count = rows * dense.weight.outputs
        }
    }
}
