// The error of bfloat16 attention beside that of PyTorch's on the same inputs (scripts/goldens/make.py bfloat16).

import Attention
import Foundation
import RingAttention
import TestSupport
import Testing
import Tiles

struct BFloat16AccuracyTests {
    struct Golden: Decodable, Sendable, CustomTestStringConvertible {
        let kind: String
        let length: Int
        let dimension: Int
        let seed: UInt64
        /// Of the exact output, which tells whether the inputs are the same.
        let rootMeanSquare: Double
        /// Root mean square of PyTorch's error.
        let error: Double

        private enum CodingKeys: String, CodingKey {
            case kind, length, dimension, seed, error
            case rootMeanSquare = "root_mean_square"
        }

        var testDescription: String { "\(kind), \(length) × \(dimension)" }

        /// (queries, keys, values), each length × dimension, exact in bfloat16.
        var inputs: (queries: [Float], keys: [Float], values: [Float]) {
            var generator = SplitMix(seed: seed)
            func random(_ factor: Float) -> [Float] {
                (0..<length * dimension).map { _ in Float(Int32(generator.next() >> 40) - 1 << 23) * 0x1p-23 * factor }
            }
            var q = random(2), k = random(2), v = random(1)
            for token in 0..<length {
                for channel in 0..<dimension {
                    let place = token * dimension + channel
                    switch kind {
                    case "large": (q[place], k[place]) = (q[place] * 64, k[place] * 64)
                    case "one-hot":
                        q[place] = token * 7 % dimension == channel ? 32 : 0
                        k[place] = token % dimension == channel ? 32 : 0
                    case "constant": (q[place], k[place], v[place]) = (0.5, 0.5, Float(channel + 1) * 0.1)
                    case "denormal":
                        q[place] = q[place] * 0x1p-60 * 0x1p-70
                        k[place] = k[place] * 0x1p-60 * 0x1p-70
                        v[place] = v[place] * 0x1p-60 * 0x1p-70
                    default: break
                    }
                }
            }
            return (q.map(Self.rounded), k.map(Self.rounded), v.map(Self.rounded))
        }

        /// To nearest even, denormal numbers too.
        private static func rounded(_ x: Float) -> Float {
            Float(bitPattern: (x.bitPattern + 0x7fff + (x.bitPattern >> 16 & 1)) & 0xffff_0000)
        }
    }

    static let goldens: [Golden] = {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "Goldens/bfloat16.json")
        return (try? JSONDecoder().decode([Golden].self, from: Data(contentsOf: file))) ?? []
    }()

    @Test func theGoldensAreThere() { #expect(Self.goldens.count == 45) }

    @Test("at most twice PyTorch's root-mean-square error", arguments: goldens)
    func error(golden: Golden) throws {
        var ringCase = RingCase(
            [SequenceShape(length: golden.length)], heads: HeadShape(heads: 1, headDimension: golden.dimension),
            mask: .full)
        ringCase.element = .bfloat16
        let (attended, inputs) = (ringCase, golden.inputs)
        let outcome = try VirtualRanks.run(count: 2, seed: 1) { try attended.run(on: $0, inputs: inputs) }[0]
        let exact = Oracle.attend(
            queries: inputs.queries, keys: inputs.keys, values: inputs.values, headDimension: golden.dimension,
            valueDimension: golden.dimension, shape: ringCase.sequences[0], mask: .full,
            scale: 1 / Double(golden.dimension).squareRoot()
        ).output
        func rootMeanSquare(_ values: [Double]) -> Double {
            (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
        }
        let size = rootMeanSquare(exact)
        #expect(abs(size - golden.rootMeanSquare) <= 1e-9 * golden.rootMeanSquare, "other inputs than the golden's")
        let error = rootMeanSquare(zip(outcome.output, exact).map { Double($0) - $1 })
        // The result is a float32, and denormal numbers count as zero.
        #expect(error <= 2 * golden.error + size * 0x1p-24 + 0x1p-126, "ratio \(error / golden.error)")
        print("\(golden.testDescription): \(error), PyTorch \(golden.error)")
    }
}
