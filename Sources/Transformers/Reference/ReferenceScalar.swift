// The two kinds of numbers that the reference computes with.

import CLibrary

/// `Double`, in which the reference is exact for all purposes, and `Float`, in which it rounds as plain code does.
protocol ReferenceScalar: BinaryFloatingPoint, Sendable {
    static func exponential(_ x: Self) -> Self
    static func errorFunction(_ x: Self) -> Self
    static func hyperbolicTangent(_ x: Self) -> Self
}

extension Double: ReferenceScalar {
    static func exponential(_ x: Double) -> Double { exp(x) }
    static func errorFunction(_ x: Double) -> Double { erf(x) }
    static func hyperbolicTangent(_ x: Double) -> Double { tanh(x) }
}

extension Float: ReferenceScalar {
    static func exponential(_ x: Float) -> Float { expf(x) }
    static func errorFunction(_ x: Float) -> Float { erff(x) }
    static func hyperbolicTangent(_ x: Float) -> Float { tanhf(x) }
}

extension Activation {
    /// The function by its definition.
    func value<Scalar: ReferenceScalar>(_ x: Scalar) -> Scalar {
        switch self {
        case .gelu: x / 2 * (1 + .errorFunction(x / Scalar(2).squareRoot()))
        case .geluTanh:
            x / 2 * (1 + .hyperbolicTangent((2 / Scalar.pi).squareRoot() * (x + Scalar(0.044715) * x * x * x)))
        case .silu: x / (1 + .exponential(-x))
        case .relu: max(x, 0)
        case .tanh: .hyperbolicTangent(x)
        }
    }
}
