// Gradients with options that no golden has, against finite differences of the float64 reference.

import Attention
import Files
import Foundation
import Matrices
import Plans
import Testing
import Tiles
import Transformers

/// Parameters of which one is moved along a direction of its own.
private struct MovedParameters: ParameterSource {
    let base = OptionTests.LargeParameters()
    let moved: String
    let step: Float

    func has(_ name: String) -> Bool { base.has(name) }
    func check(_ name: String, shape: [Int]) {}

    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>) {
        base.read(name, shape: shape, range: range, into: floats)
        guard name == moved else { return }
        for (place, index) in range.enumerated() {
            floats[place] += step * CountedNormal.value(key: 77, index: index)
        }
    }
}

@Suite struct GradientOptionTests {
    static let cases = OptionTests.cases.filter { !$0.contains("deberta") }

    /// Each parameter as a whole is moved both ways; the loss changes by the product of gradient and movement, but for the
    /// square of the step, for float32's roundings of the gradient, and for a rectifier's unit that passes zero on the way: a
    /// 10⁻⁵th of them, among which are those that float32 has on the other side of zero. Such a unit bends the loss, by c at a
    /// part t of the way from −1 to 1. The loss then changes by c·(1 − |t|) more or less than its slope in the middle says, or
    /// c where the gradient has the slope beyond the bend; by as much the two halves of the way differ, t being 0 then.
    private func check(_ configuration: EncoderConfiguration, _ name: String) throws {
        let ids = [40, 3].map { length -> [Int32] in
            (0..<length).map { place in
                let id = Int32((place * 7 + length) % 48)
                // The padding token's rows do not follow the loss.
                return configuration.paddingId == Int(id) ? id + 1 : id
            }
        }
        let parameters = OptionTests.LargeParameters()
        let encoder = try Encoder(configuration, parameters: parameters, trains: true, kernels: .best)
        let found = try gradients(encoder, ids)
        let threads = ThreadPool(threads: 2)
        func loss(_ moved: String, _ step: Float) throws -> Double {
            let reference = ReferenceEncoder(
                configuration, parameters: MovedParameters(moved: moved, step: step), threads: threads)
            let states = try reference.exactStates(ids: ids, typeIds: ids.map { $0.map { _ in 0 } })
            return states.enumerated().reduce(0) { sum, entry in
                let weights = splitmixFloats(seed: UInt64(entry.offset), count: entry.element.count)
                return zip(entry.element, weights).reduce(sum) { $0 + $1.0 * Double($1.1) }
            }
        }
        let unmoved = try loss("", 0)
        var checked = 0
        for parameter in try ParameterTree(configuration).parameters {
            let gradient = try #require(found[parameter.name], "\(name): \(parameter.name)")
            let step: Float = 1e-5
            func moved(_ step: Float) throws -> [Double] {
                try MovedParameters(moved: parameter.name, step: step).read(parameter.name, shape: parameter.shape).map(
                    Double.init)
            }
            let (up, middle, down) = (try moved(step), try moved(0), try moved(-step))
            func product(_ movement: [Double]) -> Double {
                zip(gradient, movement).reduce(0) { $0 + Double($1.0) * $1.1 }
            }
            let movement = zip(up, down).map { $0 - $1 }
            let expected = product(movement)
            let (above, below) = (try loss(parameter.name, step), try loss(parameter.name, -step))
            let change = above - below
            // Floats do not move by quite the same both ways.
            let bend = above + below - 2 * unmoved - product(zip(zip(up, down), middle).map { $0.0 + $0.1 - 2 * $1 })
            func norm(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
            let size = norm(gradient.map(Double.init)) * norm(movement)
            #expect(
                abs(change - expected) <= 1e-4 * size + abs(bend) + 1e-9,
                "\(name): \(parameter.name) changes the loss by \(change), its gradient says \(expected)")
            checked += size > 0 ? 1 : 0
        }
        #expect(checked > 10, "\(name)")
    }

    @Test(arguments: cases) func gradientsAreThoseOfFiniteDifferences(text: String) throws {
        try check(OptionTests.configuration(text), text)
    }

    @Test(arguments: [NormPlacement.afterResidual, .beforeSublayer], [QueryKeyNorms.eachHead, .wholeRow])
    func soAreThoseOfLayersThatDiffer(norms: NormPlacement, queryKeyNorms: QueryKeyNorms) throws {
        var configuration = EncoderConfiguration(
            // Wider than the blocks of rows and columns that a weight's gradient is summed by.
            family: .bert, hiddenSize: 48, layerCount: 3, headCount: 4, intermediateSize: 110, vocabularySize: 50,
            positionCount: 600, layerNormEpsilon: 1e-5)
        let grouped = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 12)
        configuration.attention = [
            AttentionPattern(heads: HeadShape(heads: 4, headDimension: 12), mask: .causal, rotaryBase: 10_000),
            AttentionPattern(heads: grouped, mask: .window(left: 40, right: 3)),
            AttentionPattern(
                heads: HeadShape(queryHeads: 6, keyValueHeads: 1, headDimension: 16, valueDimension: 16), mask: .causal),
        ]
        configuration.rotaryDimension = 8
        configuration.norms = norms
        configuration.normKind = .rootMeanSquare
        configuration.queryKeyNorms = queryKeyNorms
        configuration.activation = queryKeyNorms == .eachHead ? .relu : .tanh
        configuration.hasFinalNorm = norms == .beforeSublayer
        if queryKeyNorms == .wholeRow {
            configuration.embeddingSize = 32
            configuration.normsProjectedEmbeddings = norms == .beforeSublayer
        }
        try check(configuration, "\(norms), \(queryKeyNorms)")
    }
}
