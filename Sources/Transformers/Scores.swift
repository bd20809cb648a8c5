// Logits as probabilities, in double precision and rounded once.

import CLibrary
import Checkpoints

/// e^x / Σ e^x of a row.
public func softmax(_ logits: [Float]) -> [Float] {
    let total = logSumExp(logits)
    return logits.map { Float(exp(Double($0) - total)) }
}

/// 1 / (1 + e^(−x)).
public func logistic(_ x: Float) -> Float { Float(1 / (1 + exp(-Double(x)))) }

/// ln Σ e^x of a row.
func logSumExp(_ logits: [Float]) -> Double {
    let top = logits.max().map(Double.init) ?? 0
    return top + log(logits.reduce(0.0) { $0 + exp(Double($1) - top) })
}

extension TorchActivation {
    /// The function of each of some logits, or of all together; in double precision, rounded once.
    func applied(to logits: [Float]) -> [Float] {
        switch self {
        case .identity: logits
        case .sigmoid: logits.map(logistic)
        case .softmax: Transformers.softmax(logits)
        case .tanh: logits.map { Float(CLibrary.tanh(Double($0))) }
        case .relu: logits.map { max($0, 0) }
        case .gelu: logits.map { Float(Double($0) / 2 * (1 + erf(Double($0) / 2.0.squareRoot()))) }
        case .silu: logits.map { Float(Double($0) / (1 + exp(-Double($0)))) }
        }
    }
}
