// Rotary positions: queries and keys are turned by angles that grow with their position (Su et al. 2021).

import CLibrary
import Files
import Matrices

/// The angles by which a position turns the pairs of channels, for each base that a model's layers use.
struct RotaryFrequencies: Sendable {
    /// By base: the angle of one position for each pair, in float32 as transformers keeps it.
    private let frequencies: [Double: [Float]]

    init(_ configuration: EncoderConfiguration, _ root: ParameterPath) throws(FileError) {
        let pairs = configuration.rotaryDimension / 2
        var frequencies: [Double: [Float]] = [:]
        for base in Set(configuration.attention.compactMap(\.rotaryBase)) {
            frequencies[base] =
                try Self.stored(configuration, root, pairs: pairs)
                ?? (0..<pairs).map { pair in
                    // θ^(2k/d) rounded to float32, and so its inverse.
                    1 / Float(pow(base, Double(Float(2 * pair) / Float(2 * pairs))))
                }
        }
        self.frequencies = frequencies
    }

    /// Those that the checkpoint keeps, which count.
    private static func stored(_ configuration: EncoderConfiguration, _ root: ParameterPath, pairs: Int)
        throws(FileError) -> [Float]?
    {
        for name in configuration.storedFrequencies where root.source.has(name) {
            return try root[name].read(shape: [pairs])
        }
        return nil
    }

    /// The angle of one position for each pair of channels.
    func angles(base: Double) -> [Float] {
        guard let angles = frequencies[base] else { preconditionFailure("no layer has the rotary base \(base)") }
        return angles
    }

    /// Cosines and sines of some positions: (positions, 2, pairs).
    ///
    /// The angle is exact in double precision, and its functions are rounded once to float32.
    func table(base: Double, positions: Range<Int>, into table: UnsafeMutablePointer<Float>) {
        let frequencies = angles(base: base)
        let pairs = frequencies.count
        for (row, position) in positions.enumerated() {
            let target = table + row * 2 * pairs
            for pair in 0..<pairs {
                let angle = Double(frequencies[pair]) * Double(position)
                target[pair] = Float(cos(angle))
                target[pairs + pair] = Float(sin(angle))
            }
        }
    }
}

/// Turns the first `2·pairs` channels of each head of some rows, channel k with channel k + pairs (the order of
/// GPT-NeoX).
/// - Parameters:
///   - table: (rows, 2, pairs), cosines and sines.
///   - isBack: whether they are turned back: a rotation's inverse, by which gradients go.
func rotate(
    rows: Int, heads: Int, headDimension: Int, pairs: Int, table: UnsafePointer<Float>,
    _ x: UnsafeMutablePointer<Float>, stride: Int, isBack: Bool = false
) {
    let direction: Float = isBack ? -1 : 1
    for row in 0..<rows {
        let cosines = table + row * 2 * pairs
        let sines = cosines + pairs
        for head in 0..<heads {
            let first = x + row * stride + head * headDimension
            let second = first + pairs
            for pair in 0..<pairs {
                let (a, b) = (first[pair], second[pair])
                let sine = direction * sines[pair]
                first[pair] = a * cosines[pair] - b * sine
                second[pair] = b * cosines[pair] + a * sine
            }
        }
    }
}
