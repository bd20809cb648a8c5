// `attend --backward` on files: gradients are the oracle's, bytes are the same on any ranks, and what it lacks is refused.

import Attention
import Files
import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct AttendGradientTests {
    private struct Tensor {
        var name: String
        var shape: [Int]
        var values: [Float]
    }

    private static let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 12, valueDimension: 18)

    /// q, k, v and grad_output of a shape, from a seed.
    private func tensors(_ shape: SequenceShape, seed: UInt64 = 3) -> [Tensor] {
        var generator = SplitMix(seed: seed)
        func tensor(_ name: String, _ shape: [Int]) -> Tensor {
            Tensor(name: name, shape: shape, values: (0..<shape.reduce(1, *)).map { _ in 2 * generator.unit() })
        }
        return [
            tensor("q", [4, shape.queries, 12]), tensor("k", [2, shape.keys, 12]), tensor("v", [2, shape.keys, 18]),
            tensor("grad_output", [4, shape.queries, 18]),
        ]
    }

    private func write(_ tensors: [Tensor], to path: String) throws {
        var data = Data(SafetensorsLayout(tensors: tensors.map { ($0.name, .float32, $0.shape) }).headerBytes)
        for tensor in tensors { tensor.values.withUnsafeBytes { data.append(contentsOf: $0) } }
        try data.write(to: URL(fileURLWithPath: path))
    }

    private func attend(_ folder: TemporaryFolder, _ spread: Spread, _ arguments: [String]) throws -> CommandRun {
        try CommandRun.annulus(
            ["attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors"), "--force"]
                + arguments, spread)
    }

    @Test func gradientsAreTheOraclesOnAnyRanks() throws {
        let folder = try TemporaryFolder()
        var modifiers = ScoreModifiers(softcap: 2, alibiSlopes: [0.1, 0, 0.02, 0.3], sinks: [0, -1, 2, 0.5])
        modifiers.relativeBias = .init(table: (0..<4 * 7).map { Float($0 % 5) * 0.3 }, reach: 3)
        for (shape, expression) in [
            (SequenceShape(length: 400), "documents(150,0,250) & causal"),
            (SequenceShape(queries: 300, keys: 520), "causal & window(300,0)"),
        ] {
            var given = tensors(shape)
            given.append(Tensor(name: "alibi_slopes", shape: [4], values: modifiers.alibiSlopes!))
            given.append(Tensor(name: "sinks", shape: [4], values: modifiers.sinks!))
            given.append(Tensor(name: "relative_bias", shape: [4, 7], values: modifiers.relativeBias!.table))
            let options = ["--mask", expression, "--softcap", "2", "--scale", "0.3"]
            try write(given.filter { $0.name != "grad_output" }, to: folder.path("in.safetensors"))
            try #require(try attend(folder, .alone, options).status == 0)
            let forward = try TensorFile(path: folder.path("out.safetensors"))
            let outputShape = [4, shape.queries, 18]
            let alone = (
                try forward.readFloat32("output", expecting: outputShape),
                try forward.readFloat32("lse", expecting: [4, shape.queries])
            )
            try write(given, to: folder.path("in.safetensors"))
            var first: Data?
            let ways: [(spread: Spread, order: String, strategy: String)] = [
                (.alone, "contiguous", "auto"), (.mpirun(3), "balanced", "pass-kv"), (.virtual(5), "zigzag", "pass-q"),
                (.virtual(3), "contiguous", "all-gather"), (.mpirun(2), "zigzag", "head-exchange"),
                (.virtual(4), "balanced", "hybrid"), (.virtual(6), "contiguous", "tree"),
            ]
            for (spread, order, strategy) in ways {
                let run = try attend(
                    folder, spread, options + ["--backward", "--layout", order, "--strategy", strategy])
                try #require(run.status == 0, "\(run.errors)")
                let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path("out.safetensors")))
                first = first ?? bytes
                #expect(bytes == first, "\(expression), \(spread), \(strategy)")
            }
            let file = try TensorFile(path: folder.path("out.safetensors"))
            #expect(try file.readFloat32("output", expecting: outputShape) == alone.0)
            #expect(try file.readFloat32("lse", expecting: [4, shape.queries]) == alone.1)
            let mask = try Mask(parsing: expression) { _, _ in throw CancellationError() }
            let oracles = (0..<4).map { head in
                func part(_ place: Int, _ head: Int) -> [Float] {
                    let count = given[place].values.count / given[place].shape[0]
                    return Array(given[place].values[head * count..<(head + 1) * count])
                }
                return Oracle.differentiate(
                    queries: part(0, head), keys: part(1, head / 2), values: part(2, head / 2),
                    outputGradients: part(3, head), headDimension: 12, valueDimension: 18, shape: shape, mask: mask,
                    scale: Double(Float(0.3)), modifiers: modifiers, head: head)
            }
            func check(_ name: String, _ shape: [Int], _ oracles: [Oracle.Gradient]) throws {
                let values = try file.readFloat32(name, expecting: shape)
                let (exact, bounds) = (oracles.flatMap(\.exact), oracles.flatMap(\.bound))
                try #require(values.count == exact.count)
                let wrong = values.indices.first { !(abs(Double(values[$0]) - exact[$0]) <= bounds[$0]) }
                #expect(wrong == nil, "\(name), \(expression)")
            }
            func shared(_ part: (Oracle.Gradients) -> Oracle.Gradient) -> [Oracle.Gradient] {
                [.sum([part(oracles[0]), part(oracles[1])]), .sum([part(oracles[2]), part(oracles[3])])]
            }
            try check("grad_q", [4, shape.queries, 12], oracles.map(\.queries))
            try check("grad_k", [2, shape.keys, 12], shared { $0.keys })
            try check("grad_v", [2, shape.keys, 18], shared { $0.values })
            try check("grad_sinks", [4], oracles.map(\.sink))
            try check("grad_relative_bias", [4, 7], oracles.map(\.relativeBias))
            #expect(
                Set(file.names) == ["output", "lse", "grad_q", "grad_k", "grad_v", "grad_sinks", "grad_relative_bias"])
        }
    }

    /// Nothing visible, nobody who asks, nobody who answers: zeros.
    @Test(arguments: [
        (SequenceShape(length: 300), "!full"), (SequenceShape(queries: 0, keys: 300), "full"),
        (SequenceShape(queries: 300, keys: 0), "causal"), (SequenceShape(length: 0), "full"),
    ]) func nothingToAttendHasZeros(shape: SequenceShape, mask: String) throws {
        let folder = try TemporaryFolder()
        try write(tensors(shape), to: folder.path("in.safetensors"))
        for spread: Spread in [.alone, .virtual(3), .mpirun(2)] {
            let run = try attend(folder, spread, ["--backward", "--mask", mask, "--threads", "1"])
            try #require(run.status == 0 && run.errorLines.isEmpty, "\(spread): \(run.errors)")
            let file = try TensorFile(path: folder.path("out.safetensors"))
            for (name, shape) in [
                ("grad_q", [4, shape.queries, 12]), ("grad_k", [2, shape.keys, 12]), ("grad_v", [2, shape.keys, 18]),
            ] {
                #expect(try file.readFloat32(name, expecting: shape).allSatisfy { $0 == 0 }, "\(name), \(spread)")
            }
        }
    }

    @Test(arguments: [1, 3]) func whatGradientsLackIsRefused(ranks: Int) throws {
        let folder = try TemporaryFolder()
        let whole = tensors(SequenceShape(queries: 20, keys: 30))
        var narrow = whole
        narrow[3] = Tensor(name: "grad_output", shape: [4, 20, 12], values: whole[0].values)
        for (given, arguments, named) in [
            (whole, [], "--backward"), (Array(whole[..<3]), ["--backward"], "grad_output"),
            (narrow, ["--backward"], "grad_output"),
        ] {
            try write(given, to: folder.path("in.safetensors"))
            let run = try attend(folder, ranks == 1 ? .alone : .mpirun(ranks), arguments)
            #expect(run.status == 65 && run.errorLines.count == 1 && run.errors.contains(named), "\(run.errors)")
            #expect(folder.names == ["in.safetensors"])
        }
    }
}
