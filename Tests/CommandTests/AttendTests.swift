// `attend` on files: shapes are checked, values are the oracle's, bytes are the same on any ranks.

import Attention
import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct AttendTests {
    /// Writes q, k and v from a seed and returns them.
    private func write(_ heads: HeadShape, _ shape: SequenceShape, to path: String, seed: UInt64) throws -> [String: [Float]] {
        var generator = SplitMix(seed: seed)
        let shapes: [(name: String, elementType: ElementType, shape: [Int])] = [
            ("q", .float32, [heads.queryHeads, shape.queries, heads.headDimension]),
            ("k", .float32, [heads.keyValueHeads, shape.keys, heads.headDimension]),
            ("v", .float32, [heads.keyValueHeads, shape.keys, heads.valueDimension]),
        ]
        var data = Data(SafetensorsLayout(tensors: shapes).headerBytes)
        var arrays: [String: [Float]] = [:]
        for tensor in shapes {
            let values = (0..<tensor.shape.reduce(1, *)).map { _ in 2 * generator.unit() }
            arrays[tensor.name] = values
            values.withUnsafeBytes { data.append(contentsOf: $0) }
        }
        try data.write(to: URL(fileURLWithPath: path))
        return arrays
    }

    @Test(arguments: [Mask.full, .causal]) func attendIsWithinTheBoundOfTheOracle(mask: Mask) throws {
        let folder = try TemporaryFolder()
        let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 24, valueDimension: 40)
        for shape in [SequenceShape(queries: 300, keys: 520), SequenceShape(queries: 260, keys: 100)] {
            let arrays = try write(heads, shape, to: folder.path("in.safetensors"), seed: 11)
            var first: Data?
            for spread: Spread in [.alone, .mpirun(3), .virtual(7)] {
                let run = try CommandRun.annulus(
                    ["attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors"), "--force", "--mask", "\(mask)", "--scale", "0.3"],
                    spread)
                try #require(run.status == 0, "\(run.errors)")
                let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path("out.safetensors")))
                first = first ?? bytes
                #expect(bytes == first, "\(spread)")
            }
            let file = try SafetensorsFile(path: folder.path("out.safetensors"))
            let output = try file.readFloat32("output", expecting: [4, shape.queries, 40])
            let sums = try file.readFloat32("lse", expecting: [4, shape.queries])
            for head in 0..<4 {
                func part(_ name: String, _ head: Int, _ rows: Int, _ width: Int) -> [Float] {
                    Array(arrays[name]![head * rows * width..<(head + 1) * rows * width])
                }
                let oracle = Oracle.attend(
                    queries: part("q", head, shape.queries, 24), keys: part("k", head / 2, shape.keys, 24),
                    values: part("v", head / 2, shape.keys, 40), headDimension: 24, valueDimension: 40, shape: shape, mask: mask,
                    scale: Double(Float(0.3)))
                for (place, exact) in oracle.output.enumerated() {
                    let value = Double(output[head * shape.queries * 40 + place])
                    if abs(value - exact) > oracle.outputBound[place] { Issue.record("head \(head), element \(place): \(value), \(exact)") }
                }
                for (row, exact) in oracle.logSumExp.enumerated() {
                    let value = Double(sums[head * shape.queries + row])
                    if !(value == exact || abs(value - exact) <= oracle.logSumExpBound[row]) {
                        Issue.record("head \(head), row \(row): \(value), \(exact)")
                    }
                }
            }
        }
    }

    @Test func shapesThatDoNotFitAreRefused() throws {
        let folder = try TemporaryFolder()
        let path = folder.path("in.safetensors")
        func refusal(_ q: [Int], _ k: [Int], _ v: [Int]) throws -> CommandRun {
            let layout = SafetensorsLayout(tensors: [("q", .float32, q), ("k", .float32, k), ("v", .float32, v)])
            var data = Data(layout.headerBytes)
            data.append(Data(count: layout.totalBytes - data.count))
            try data.write(to: URL(fileURLWithPath: path))
            return try CommandRun.annulus(["attend", "-i", path, "-o", folder.path("out.safetensors")], .virtual(2))
        }
        for (q, k, v, named) in [
            ([2, 3, 4], [2, 3, 5], [2, 3, 4], "'k' of 5"), ([2, 3, 4], [2, 3, 4], [1, 3, 4], "'v' 1"),
            ([2, 3, 4], [2, 3, 4], [2, 2, 4], "'v' 2"), ([3, 3, 4], [2, 3, 4], [2, 3, 4], "multiple"),
            ([3, 4], [2, 3, 4], [2, 3, 4], "[3, 4]"), ([2, 3, 0], [2, 3, 0], [2, 3, 4], "must not be 0"),
        ] {
            let run = try refusal(q, k, v)
            #expect(run.status == 65 && run.errorLines.count == 1 && run.errors.contains(named), "\(run.errors)")
            #expect(folder.names == ["in.safetensors"])
        }
    }
}
