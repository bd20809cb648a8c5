// The size of the gradients' errors over ranks: a table, flat.

import Attention
import Foundation
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct GradientErrorTests {
    /// Root mean squares of errors, relative to that of what is exact.
    private func error(_ found: [Float], _ exact: [Double]) -> Double {
        var (squares, size) = (0.0, 0.0)
        for (value, truth) in zip(found, exact) {
            squares += (Double(value) - truth) * (Double(value) - truth)
            size += truth * truth
        }
        return (squares / size).squareRoot()
    }

    /// (tokens, heads, width) of what each head has.
    private func tokensFirst(_ heads: [[Double]], tokens: Int) -> [Double] {
        let width = heads[0].count / tokens
        var result: [Double] = []
        for token in 0..<tokens {
            for head in heads { result += head[token * width..<(token + 1) * width] }
        }
        return result
    }

    @Test func errorsOverRanks() throws {
        let length = 1500
        let ringCase = RingCase(
            [SequenceShape(length: length)],
            heads: HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 64, valueDimension: 64),
            mask: .causal,
            layout: .zigzag)
        let inputs = ringCase.gradientInputs()
        let oracles = ringCase.gradientOracles(inputs)[0]
        func shared(_ part: (Oracle.Gradients) -> Oracle.Gradient) -> [[Double]] {
            [
                Oracle.Gradient.sum([part(oracles[0]), part(oracles[1])]).exact,
                Oracle.Gradient.sum([part(oracles[2]), part(oracles[3])]).exact,
            ]
        }
        let exact = [
            tokensFirst(oracles.map(\.queries.exact), tokens: length),
            tokensFirst(shared { $0.keys }, tokens: length),
            tokensFirst(shared { $0.values }, tokens: length),
        ]
        var first: [Double]?
        print("| ranks | dQ | dK | dV |\n| --- | --- | --- | --- |")
        for ranks in [1, 2, 3, 4, 5, 8, 16] {
            let found = try VirtualRanks.run(count: ranks, seed: 1) {
                try ringCase.differentiate(on: $0, inputs: inputs)
            }[0]
            let errors = zip([found.queries, found.keys, found.values], exact).map { error($0, $1) }
            print(
                "| \(ranks) | " + errors.map { String(format: "%.3e", $0) }.joined(separator: " | ") + " |")
            first = first ?? errors
            #expect(errors == first, "\(ranks) ranks")
            // A sum of n float32 terms of random signs and roundings is off by some √n·2⁻²⁵ of its size; here n is 1,500.
            #expect(errors.allSatisfy { $0 < 1500.0.squareRoot() * 0x1p-24 }, "\(errors)")
        }
    }
}
