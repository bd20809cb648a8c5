// `attend` on files: shapes are checked, values are the oracle's, bytes are the same on any ranks.

import Attention
import Files
import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct AttendTests {
    /// Writes q, k and v from a seed and returns them.
    private func write(_ heads: HeadShape, _ shape: SequenceShape, to path: String, seed: UInt64) throws -> [String:
        [Float]]
    {
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
                    [
                        "attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors"), "--force",
                        "--mask", "\(mask)", "--scale", "0.3",
                    ],
                    spread)
                try #require(run.status == 0, "\(run.errors)")
                let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path("out.safetensors")))
                first = first ?? bytes
                #expect(bytes == first, "\(spread)")
            }
            let file = try TensorFile(path: folder.path("out.safetensors"))
            let output = try file.readFloat32("output", expecting: [4, shape.queries, 40])
            let sums = try file.readFloat32("lse", expecting: [4, shape.queries])
            for head in 0..<4 {
                func part(_ name: String, _ head: Int, _ rows: Int, _ width: Int) -> [Float] {
                    Array(arrays[name]![head * rows * width..<(head + 1) * rows * width])
                }
                let oracle = Oracle.attend(
                    queries: part("q", head, shape.queries, 24), keys: part("k", head / 2, shape.keys, 24),
                    values: part("v", head / 2, shape.keys, 40), headDimension: 24, valueDimension: 40, shape: shape,
                    mask: mask,
                    scale: Double(Float(0.3)))
                for (place, exact) in oracle.output.enumerated() {
                    let value = Double(output[head * shape.queries * 40 + place])
                    if abs(value - exact) > oracle.outputBound[place] {
                        Issue.record("head \(head), element \(place): \(value), \(exact)")
                    }
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

    /// Nothing visible, nobody who asks, nobody who answers: zeros and −∞ on any ranks, whatever the strategy would be.
    @Test(arguments: [
        (SequenceShape(length: 300), "!full"), (SequenceShape(queries: 0, keys: 300), "full"),
        (SequenceShape(queries: 300, keys: 0), "causal"),
        (SequenceShape(length: 0), "full"), (SequenceShape(queries: 700, keys: 40), "!window(-1,-1)"),
    ]) func nothingToAttendIsZerosAndMinusInfinity(shape: SequenceShape, mask: String) throws {
        let folder = try TemporaryFolder()
        let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 8, valueDimension: 12)
        _ = try write(heads, shape, to: folder.path("in.safetensors"), seed: 5)
        let spreads: [Spread] = [.alone, .virtual(2), .virtual(3), .mpirun(2), .mpirun(3)]
        for (spread, layout) in spreads.map({ ($0, "contiguous") }) + [
            (.virtual(3), "zigzag"), (.virtual(3), "balanced"),
        ] {
            let run = try CommandRun.annulus(
                [
                    "attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors"), "--force",
                    "--mask", mask, "--layout", layout, "--threads", "1",
                ],
                spread)
            try #require(run.status == 0 && run.errorLines.isEmpty, "\(spread): \(run.errors)")
            let file = try TensorFile(path: folder.path("out.safetensors"))
            #expect(
                try file.readFloat32("output", expecting: [4, shape.queries, 12]).allSatisfy { $0 == 0 }, "\(spread)")
            #expect(
                try file.readFloat32("lse", expecting: [4, shape.queries]).allSatisfy { $0 == -.infinity }, "\(spread)")
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

    /// Writes tensors of zeros of the given shapes.
    private func writeZeros(_ shapes: [(String, [Int])], to path: String) throws {
        let layout = SafetensorsLayout(tensors: shapes.map { ($0.0, ElementType.float32, $0.1) })
        var data = Data(layout.headerBytes)
        data.append(Data(count: layout.totalBytes - data.count))
        try data.write(to: URL(fileURLWithPath: path))
    }

    /// A `.npy` file of version 1.
    private func writeNumpy(_ type: String, _ shape: String, _ bytes: [UInt8], to path: String) throws {
        var header = "{'descr': '\(type)', 'fortran_order': False, 'shape': \(shape), }"
        header += String(repeating: " ", count: 63 - (10 + header.utf8.count) % 64) + "\n"
        try Data([0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(header.utf8.count), 0] + Array(header.utf8) + bytes)
            .write(to: URL(fileURLWithPath: path))
    }

    /// What cannot be done is refused on every rank before the first message, in one line that says why.
    @Test(arguments: [1, 3]) func whatCannotBeDoneIsRefused(ranks: Int) throws {
        let folder = try TemporaryFolder()
        try writeNumpy("|b1", "(2, 2)", [1, 0, 1, 1], to: folder.path("blocks.npy"))
        try writeNumpy("<f4", "(1, 1)", [0, 0, 0, 0], to: folder.path("floats.npy"))
        try writeNumpy("|u1", "(4,)", [1, 0, 1, 1], to: folder.path("flat.npy"))
        try Data("no array".utf8).write(to: URL(fileURLWithPath: folder.path("text.npy")))
        let both = [("q", [4, 30, 8]), ("k", [2, 30, 8]), ("v", [2, 30, 8])]
        let cross = [("q", [4, 20, 8]), ("k", [2, 30, 8]), ("v", [2, 30, 8])]
        let cases: [(tensors: [(String, [Int])], arguments: [String], status: Int32, named: String)] = [
            (both, ["--mask", "documents(10,10)"], 64, "sum to 20"),
            (cross, ["--mask", "documents(10,10)"], 64, "two lists"),
            (cross, ["--mask", "documents(10,10;10,10)"], 64, "30 keys"),
            (both, ["--mask", "documents(10,20;30)"], 64, "2 documents of queries"),
            (cross, ["--mask", "global(1)"], 64, "self-attention"),
            (both, ["--mask", "causal | global(30)"], 64, "token 30"),
            (both, ["--mask", "blocks(\(folder.path("blocks.npy")),10)"], 64, "need 3 × 3"),
            (both, ["--mask", "blocks(\(folder.path("absent.npy")),10)"], 66, "absent.npy"),
            (both, ["--mask", "blocks(\(folder.path("floats.npy")),30)"], 65, "bool"),
            (both, ["--mask", "blocks(\(folder.path("flat.npy")),30)"], 65, "two dimensions"),
            (both, ["--mask", "blocks(\(folder.path("text.npy")),30)"], 65, "no .npy"),
            (both, ["--mask", "sliding(3)"], 64, "'sliding'"),
            (both, ["--mask", "window(3,-7)"], 64, "at least -1"),
            (both, ["--softcap", "0"], 64, "--softcap"),
            (both, ["--scale", "nan"], 64, "--scale"),
            (both, ["--strategy", "pass-kw"], 64, "pass-kw"),
            (both, ["--wire", "float32", "--dtype", "bfloat16"], 64, "bfloat16"),
            (both + [("sinks", [3])], [], 65, "sinks"),
            (both + [("alibi_slopes", [4, 1])], [], 65, "alibi_slopes"),
            (both + [("relative_bias", [4, 8])], [], 65, "relative_bias"),
            (both + [("attention_mask", [30])], [], 65, "attention_mask"),
        ]
        for refused in cases {
            try writeZeros(refused.tensors, to: folder.path("in.safetensors"))
            let before = folder.names
            let run = try CommandRun.annulus(
                ["attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors")]
                    + refused.arguments,
                ranks == 1 ? .alone : .mpirun(ranks))
            #expect(run.status == refused.status, "\(refused.arguments): \(run.errors)")
            #expect(run.errorLines.count == 1 && run.errors.contains(refused.named), "\(refused.named): \(run.errors)")
            #expect(folder.names == before, "\(refused.arguments)")
        }
    }

    /// The bound of a narrowed wire is that of the inputs, the same from any ranks, and holds.
    @Test func theBoundOfTheWireIsPrinted() throws {
        let folder = try TemporaryFolder()
        let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 24, valueDimension: 40)
        let shape = SequenceShape(queries: 300, keys: 520)
        let arrays = try write(heads, shape, to: folder.path("in.safetensors"), seed: 12)
        func norms(_ name: String, _ head: Int, _ rows: Int) -> [Double] {
            stride(from: head * rows * 24, to: (head + 1) * rows * 24, by: 24).map { first in
                arrays[name]![first..<first + 24].reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
            }
        }
        let bound = (0..<4).map { head in
            let values = arrays["v"]![head / 2 * 520 * 40..<(head / 2 + 1) * 520 * 40].map { Double(abs($0)) }
            let magnitude = Double(Float(0.3)) * norms("q", head, 300).max()! * norms("k", head / 2, 520).max()!
            return Oracle.bfloat16WireBound(scoreMagnitude: magnitude) * values.max()!
        }.max()!
        func output(_ spread: Spread, _ arguments: [String]) throws -> (values: [Float], run: CommandRun) {
            let run = try CommandRun.annulus(
                [
                    "attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors"), "--force",
                    "--scale", "0.3",
                ] + arguments, spread)
            try #require(run.status == 0, "\(run.errors)")
            return (
                try TensorFile(path: folder.path("out.safetensors")).readFloat32(
                    "output", expecting: [4, 300, 40]), run
            )
        }
        let exact = try output(.alone, []).values
        for spread: Spread in [.alone, .mpirun(3), .virtual(7)] {
            let (values, run) = try output(spread, ["--wire", "bfloat16"])
            #expect(
                run.errors.contains("no output changes by more than \(String(format: "%.3g", bound))\n"),
                "\(run.errors)")
            let change = zip(exact, values).map { Double(abs($0 - $1)) }.max()!
            #expect(change > 1e-5 && change <= bound, "\(change), \(bound)")
        }
    }

    @Test func aFaultInAMaskGetsACaret() throws {
        let run = try CommandRun.annulus(
            ["attend", "-i", "in.safetensors", "-o", "out.safetensors", "--mask", "causal & sliding(3)"], .mpirun(2))
        let lines = run.errors.split(separator: "\n").map(String.init)
        let first = try #require(lines.firstIndex { $0.hasPrefix("annulus:") })
        #expect(Array(lines[(first + 1)...(first + 2)]) == ["  causal & sliding(3)", "           ^"], "\(run.errors)")
    }

    /// Masks and modifiers through the file and the command line, against the oracle, the same bytes on any ranks.
    @Test func masksAndModifiersReachTheKernel() throws {
        let folder = try TemporaryFolder()
        let shape = SequenceShape(length: 400)
        var modifiers = ScoreModifiers(softcap: 2, alibiSlopes: [0.1, 0, 0.02, 0.3], sinks: [0, -1, 2, 0.5])
        modifiers.relativeBias = .init(table: (0..<4 * 7).map { Float($0 % 5) * 0.3 }, reach: 3)
        var generator = SplitMix(seed: 3)
        let tensors: [(name: String, shape: [Int], values: [Float])] = [
            ("q", [4, 400, 12], (0..<4 * 400 * 12).map { _ in 2 * generator.unit() }),
            ("k", [2, 400, 12], (0..<2 * 400 * 12).map { _ in 2 * generator.unit() }),
            ("v", [2, 400, 16], (0..<2 * 400 * 16).map { _ in generator.unit() }),
            ("alibi_slopes", [4], modifiers.alibiSlopes!), ("sinks", [4], modifiers.sinks!),
            ("relative_bias", [4, 7], modifiers.relativeBias!.table),
        ]
        let layout = SafetensorsLayout(tensors: tensors.map { ($0.name, .float32, $0.shape) })
        var data = Data(layout.headerBytes)
        for tensor in tensors { tensor.values.withUnsafeBytes { data.append(contentsOf: $0) } }
        try data.write(to: URL(fileURLWithPath: folder.path("in.safetensors")))
        for expression in ["causal & window(100,0)", "documents(150,0,250) & causal", "!prefix(300) or global(7)"] {
            var first: Data?
            let ways: [(spread: Spread, order: String, strategy: String)] = [
                (.alone, "contiguous", "auto"), (.mpirun(3), "balanced", "pass-kv"), (.virtual(5), "zigzag", "pass-q"),
                (.virtual(3), "contiguous", "all-gather"), (.mpirun(2), "zigzag", "head-exchange"),
                (.virtual(4), "balanced", "hybrid"),
                (.virtual(6), "contiguous", "tree"),
            ]
            for (spread, order, strategy) in ways {
                let run = try CommandRun.annulus(
                    [
                        "attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors"), "--force",
                        "--mask", expression,
                        "--softcap", "2", "--layout", order, "--strategy", strategy,
                    ], spread)
                try #require(run.status == 0, "\(run.errors)")
                let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path("out.safetensors")))
                first = first ?? bytes
                #expect(bytes == first, "\(expression), \(spread), \(strategy)")
            }
            let mask = try Mask(parsing: expression) { _, _ in throw CancellationError() }
            let output = try TensorFile(path: folder.path("out.safetensors")).readFloat32(
                "output", expecting: [4, 400, 16])
            for head in 0..<4 {
                func part(_ place: Int, _ head: Int, _ width: Int) -> [Float] {
                    Array(tensors[place].values[head * 400 * width..<(head + 1) * 400 * width])
                }
                let oracle = Oracle.attend(
                    queries: part(0, head, 12), keys: part(1, head / 2, 12), values: part(2, head / 2, 16),
                    headDimension: 12,
                    valueDimension: 16, shape: shape, mask: mask, scale: Double(1 / Float(12).squareRoot()),
                    modifiers: modifiers, head: head)
                let wrong = oracle.output.indices.first {
                    abs(Double(output[head * 400 * 16 + $0]) - oracle.output[$0]) > oracle.outputBound[$0]
                }
                #expect(wrong == nil, "\(expression), head \(head)")
            }
        }
    }
}
