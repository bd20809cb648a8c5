// Masks and score modifiers against PyTorch's scaled_dot_product_attention and flex_attention, by goldens of
// scripts/goldens/masks.py.

import Attention
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct MaskGoldenTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Goldens")
        .path
    static let heads = HeadShape(heads: 2, headDimension: 8)

    /// (heads, tokens, width) to (tokens, heads, width).
    private func tokensFirst(_ values: [Float], tokens: Int) -> [Float] {
        var result: [Float] = []
        for token in 0..<tokens {
            for head in 0..<2 {
                let start = (head * tokens + token) * 8
                result += values[start..<start + 8]
            }
        }
        return result
    }

    private func check(
        _ file: TensorFile, _ name: String, _ mask: Mask, modifiers: ScoreModifiers = ScoreModifiers()
    ) throws {
        let queries = try file.tensor("\(name).q", expecting: nil).shape[1]
        let keys = try file.tensor("\(name).k", expecting: nil).shape[1]
        var ringCase = RingCase(
            [SequenceShape(queries: queries, keys: keys)], heads: Self.heads, mask: mask, layout: .balanced)
        ringCase.modifiers = modifiers
        let inputs = (
            tokensFirst(try file.readFloat32("\(name).q"), tokens: queries),
            tokensFirst(try file.readFloat32("\(name).k"), tokens: keys),
            tokensFirst(try file.readFloat32("\(name).v"), tokens: keys)
        )
        let expected = tokensFirst(try file.readFloat32("\(name).output"), tokens: queries)
        let made = ringCase
        let outcome = try VirtualRanks.run(count: 3, seed: 1) { try made.run(on: $0, inputs: inputs) }[0]
        // Scores of 8 products of magnitude below 4 and weights in float32: a few units in the sixth digit.
        let error = zip(outcome.output, expected).map { abs($0 - $1) }.max() ?? .infinity
        #expect(error < 5e-6, "\(name): \(mask): off by \(error)")
    }

    @Test func masksAgreeWithPyTorch() throws {
        let cases = try #require(try JSON.load(path: Self.folder + "/masks.json").array)
        let file = try TensorFile(path: Self.folder + "/masks.safetensors")
        #expect(cases.count >= 13)
        for (number, entry) in cases.enumerated() {
            let expression = try #require(entry["expression"]?.string)
            let shape = SequenceShape(
                queries: try #require(entry["queries"]?.int), keys: try #require(entry["keys"]?.int))
            let mask = try Mask(parsing: expression) { _, _ in throw CancellationError() }
            #expect(mask.incompatibility(with: shape) == nil)
            let visible = mask.pieces(of: shape)
            #expect(
                visible.pieces.reduce(0) { $0 + visible.mask.visiblePairs(in: $1) } == entry["visible"]?.int,
                "\(expression)")
            try check(file, "\(number)", mask)
        }
    }

    /// ALiBi, softcap, relative biases and sinks, each with a mask.
    @Test func modifiersAgreeWithFlexAttention() throws {
        let cases = try #require(try JSON.load(path: Self.folder + "/modified.json").array)
        let file = try TensorFile(path: Self.folder + "/masks.safetensors")
        #expect(cases.count >= 10)
        for (number, entry) in cases.enumerated() {
            let expression = try #require(entry["expression"]?.string)
            let mask = try Mask(parsing: expression) { _, size in
                let side = (290 + size - 1) / size
                return BlockMask(
                    size: size, rows: side, columns: side,
                    cells: (0..<side * side).map { ($0 / side + 2 * ($0 % side)) % 3 > 0 })
            }
            func list(_ name: String) throws -> [Float]? {
                file.names.contains("modified.\(number).\(name)")
                    ? try file.readFloat32("modified.\(number).\(name)") : nil
            }
            var modifiers = ScoreModifiers(
                softcap: entry["softcap"]?.double.map { Float($0) }, alibiSlopes: try list("alibi_slopes"),
                sinks: try list("sinks"))
            if let table = try list("relative_bias") {
                modifiers.relativeBias = .init(table: table, reach: (table.count / 2 - 1) / 2)
            }
            #expect(modifiers != ScoreModifiers())
            try check(file, "modified.\(number)", mask, modifiers: modifiers)
        }
    }
}
