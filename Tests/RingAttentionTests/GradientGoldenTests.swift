// Gradients under masks and modifiers against PyTorch's automatic differentiation in float64, by goldens of
// scripts/goldens/gradients.py.

import Attention
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct GradientGoldenTests {
    private static let heads = 2
    private static let width = 8

    /// (heads, tokens, width) to (tokens, heads, width).
    private func tokensFirst(_ values: [Float], tokens: Int) -> [Float] {
        var result: [Float] = []
        for token in 0..<tokens {
            for head in 0..<Self.heads {
                let start = (head * tokens + token) * Self.width
                result += values[start..<start + Self.width]
            }
        }
        return result
    }

    @Test func gradientsAgreeWithPyTorch() throws {
        let given = try TensorFile(path: MaskGoldenTests.folder + "/masks.safetensors")
        let goldens = try TensorFile(path: MaskGoldenTests.folder + "/gradients.safetensors")
        let masks = try #require(try JSON.load(path: MaskGoldenTests.folder + "/masks.json").array)
        let modified = try #require(try JSON.load(path: MaskGoldenTests.folder + "/modified.json").array)
        let names = Set(goldens.names.map { $0[..<($0.range(of: ".grad_")?.lowerBound ?? $0.endIndex)] }).sorted()
        #expect(names.count >= 8)
        for name in names.map(String.init) {
            let isModified = name.hasPrefix("modified.")
            let number = try #require(Int(isModified ? name.dropFirst("modified.".count) : name[...]))
            let entry = isModified ? modified[number] : masks[number]
            let mask = try Mask(parsing: try #require(entry["expression"]?.string)) { _, _ in throw CancellationError()
            }
            let queries = try given.tensor("\(name).q", expecting: nil).shape[1]
            let keys = try given.tensor("\(name).k", expecting: nil).shape[1]
            var ringCase = RingCase(
                [SequenceShape(queries: queries, keys: keys)],
                heads: HeadShape(heads: Self.heads, headDimension: Self.width), mask: mask, layout: .balanced)
            func list(_ modifier: String) throws -> [Float]? {
                given.names.contains("\(name).\(modifier)") ? try given.readFloat32("\(name).\(modifier)") : nil
            }
            ringCase.modifiers = ScoreModifiers(
                softcap: entry["softcap"]?.double.map { Float($0) }, alibiSlopes: try list("alibi_slopes"),
                sinks: try list("sinks"))
            if let table = try list("relative_bias") {
                ringCase.modifiers.relativeBias = .init(table: table, reach: (table.count / Self.heads - 1) / 2)
            }
            let inputs: RingCase.GradientInputs = (
                tokensFirst(try given.readFloat32("\(name).q"), tokens: queries),
                tokensFirst(try given.readFloat32("\(name).k"), tokens: keys),
                tokensFirst(try given.readFloat32("\(name).v"), tokens: keys),
                tokensFirst(try goldens.readFloat32("\(name).grad_output"), tokens: queries)
            )
            let made = ringCase
            let gradients = try VirtualRanks.run(count: 3, seed: 1) { try made.differentiate(on: $0, inputs: inputs) }[
                0]
            if let disagreement = ringCase.disagreement(gradients, inputs: inputs) {
                Issue.record("\(name): \(disagreement)")
            }
            let oracles = ringCase.gradientOracles(inputs, exactScale: 1 / Double(Self.width).squareRoot())[0]
            func check(_ golden: String, _ part: (Oracle.Gradients) -> Oracle.Gradient) throws {
                let expected = try goldens.readFloat32("\(name).\(golden)")
                let exact = oracles.flatMap { part($0).exact }
                #expect(exact.count == expected.count, "\(name).\(golden)")
                // The golden is rounded to float32; both sides sum up to some thousand numbers of size 1 in float64.
                let wrong = exact.indices.first {
                    abs(exact[$0] - Double(expected[$0])) > 0x1p-24 * abs(exact[$0]) + 1e-11
                }
                #expect(wrong == nil, "\(name).\(golden)")
            }
            try check("grad_q") { $0.queries }
            try check("grad_k") { $0.keys }
            try check("grad_v") { $0.values }
            if ringCase.modifiers.sinks != nil { try check("grad_sinks") { $0.sink } }
            if ringCase.modifiers.relativeBias != nil { try check("grad_relative_bias") { $0.relativeBias } }
        }
    }
}
