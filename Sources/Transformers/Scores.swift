// Logits as probabilities, in double precision and rounded once.

import CLibrary

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
