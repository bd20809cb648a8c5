// The oracle's gradients against finite differences of its attention, in double precision.

import Attention
import Matrices
import TestSupport
import Testing
import Tiles

@Suite struct OracleGradientTests {
    /// dO∘O summed up.
    private struct Loss {
        let shape: SequenceShape
        let mask: Mask
        let width: Int
        let outputGradients: [Float]

        func callAsFunction(_ q: [Float], _ k: [Float], _ v: [Float], _ modifiers: ScoreModifiers) -> Double {
            let output = Oracle.attend(
                queries: q, keys: k, values: v, headDimension: width, valueDimension: width, shape: shape, mask: mask,
                scale: 0.5, modifiers: modifiers
            ).output
            return zip(output, outputGradients).reduce(0) { $0 + $1.0 * Double($1.1) }
        }
    }

    /// Differences over 2h and over h, of which the error of fourth order remains: (4·D(h) − D(2h))/3.
    private func slope(at x: Float, _ loss: (Float) -> Double) -> Double {
        let h = Float(0x1p-8)
        func difference(_ h: Float) -> Double { (loss(x + h) - loss(x - h)) / (Double(x + h) - Double(x - h)) }
        return (4 * difference(h) - difference(2 * h)) / 3
    }

    @Test(arguments: 0..<12) func finiteDifferences(seed: UInt64) {
        var generator = SplitMix(seed: seed)
        let (rows, count, width) = (7, 9, 4)
        func random(_ count: Int) -> [Float] { (0..<count).map { _ in 2 * generator.unit() } }
        let (q, k, v) = (random(rows * width), random(count * width), random(count * width))
        let loss = Loss(
            shape: SequenceShape(queries: rows, keys: count),
            mask: [Mask.full, .causal, .window(left: 2, right: 1)][Int(seed % 3)], width: width,
            outputGradients: random(rows * width))
        var modifiers = ScoreModifiers()
        if seed % 2 == 1 { modifiers.softcap = 1.5 }
        if seed % 4 > 1 { modifiers.relativeBias = .init(table: random(5), reach: 2) }
        if seed > 5 { modifiers.sinks = [0.5] }
        if seed > 8 { modifiers.alibiSlopes = [0.25] }
        let gradients = Oracle.differentiate(
            queries: q, keys: k, values: v, outputGradients: loss.outputGradients, headDimension: width,
            valueDimension: width, shape: loss.shape, mask: loss.mask, scale: 0.5, modifiers: modifiers)
        func expect(_ gradient: Oracle.Gradient, _ name: String, of x: [Float], _ loss: ([Float]) -> Double) {
            #expect(gradient.exact.count == x.count)
            for place in x.indices {
                let difference = slope(at: x[place]) { value in
                    var moved = x
                    moved[place] = value
                    return loss(moved)
                }
                // The fourth order's error, of functions whose fifth derivatives are a few hundred: 2⁻³² · 4 · 10³.
                #expect(
                    abs(difference - gradient.exact[place]) <= 1e-6,
                    "\(name) \(place): \(difference), \(gradient.exact[place])")
            }
        }
        expect(gradients.queries, "dQ", of: q) { loss($0, k, v, modifiers) }
        expect(gradients.keys, "dK", of: k) { loss(q, $0, v, modifiers) }
        expect(gradients.values, "dV", of: v) { loss(q, k, $0, modifiers) }
        if let relative = modifiers.relativeBias {
            expect(gradients.relativeBias, "bias", of: relative.table) {
                var moved = modifiers
                moved.relativeBias = .init(table: $0, reach: 2)
                return loss(q, k, v, moved)
            }
        }
        if let sinks = modifiers.sinks {
            expect(gradients.sink, "sink", of: sinks) {
                var moved = modifiers
                moved.sinks = $0
                return loss(q, k, v, moved)
            }
        }
    }
}
