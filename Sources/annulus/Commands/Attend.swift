// `annulus attend`: raw exact attention on arrays.

import ArgumentParser
import Attention
import Checkpoints
import Files
import Foundation
import Matrices
import Pipelines
import Plans
import RingAttention
import Tiles

struct Attend: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Exact attention on the arrays of a safetensors file.",
        discussion: """
            Reads `q` [Hq, Lq, d], `k` [Hkv, Lk, d] and `v` [Hkv, Lk, dv]; Hq is a multiple of Hkv. Optional: `alibi_slopes` [Hq] \
            (slope·|i − j| is subtracted), `sinks` [Hq], `relative_bias` [Hq, 2D+1] (by the distance j − i, clamped). Any other \
            tensor is refused, since it would have no effect. Order: scale, softcap, bias, mask, sink. Writes `output` \
            [Hq, Lq, dv] and `lse` [Hq, Lq], the log-sum-exp of each row's scores. A row that sees no key gives zeros and −∞.

            With --backward the input also holds `grad_output` [Hq, Lq, dv], and the output `grad_q`, `grad_k` and `grad_v`, shaped as \
            q, k and v, and `grad_sinks` and `grad_relative_bias` where there are such tensors: the gradients of Σ grad_output∘output. \
            Rows and keys that meet nothing have zeros.
            """)

    @Option(name: [.short, .long], help: "A safetensors file with q, k and v.")
    var input: String

    @Option(name: [.short, .long], help: "The safetensors file to write.")
    var output: String

    @Flag(help: "Overwrite an output that exists.")
    var force = false

    @Option(help: ArgumentHelp(MaskInput.help))
    var mask: String = "full"

    @Option(help: "What scores are multiplied by. Default: 1/√d.")
    var scale: Float?

    @Option(help: "Scores become C·tanh(score/C).")
    var softcap: Float?

    @Flag(help: "Write gradients too, from grad_output.")
    var backward = false

    @OptionGroup var runOptions: RunOptions

    mutating func validate() throws {
        try MaskInput.check(mask)
        try ScoreInput.check(softcap: softcap)
        if let scale, !scale.isFinite { throw ValidationError("--scale takes a finite number, not \(scale)") }
        if !output.hasSuffix(".safetensors") {
            throw ValidationError("--output '\(output)' needs a name that ends in .safetensors")
        }
    }

    func run() throws {
        let command = self
        try Session.run(self, runOptions, needs: []) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let transport = session.transport
        session.monitor.progress(.reading)
        let (arrays, heads, shape) = try session.agree { try open() }
        try session.group.compareCopies(of: input) { others, first in
            JobError(
                .badInput,
                "\(input): the copy on \(others) is another than that on \(first); give all ranks the same file")
        }
        let (mask, modifiers) = try session.agreeReading {
            (try MaskInput.mask(self.mask, for: shape), try self.modifiers(arrays, heads))
        }
        let layout = layout(heads, shape, modifiers)
        let file = try ParallelFile.create(output, force: force, transport: transport, size: layout.totalBytes)
        try session.logHeader("attend \(input)")
        let (pieces, maskWithin) = mask.pieces(of: shape)
        let problem = try session.problem(pieces, maskWithin, heads)
        var footprint = Footprint()
        let width = heads.headDimension + heads.valueDimension
        footprint.bytesPerToken = Double(4 * heads.queryHeads * (width + 1))
        if backward {
            footprint.bytesPerToken += Double(4 * (heads.queryHeads * (width + 4) + heads.keyValueHeads * width))
        }
        session.monitor.progress(.planning)
        let decision = try session.decide(
            backward ? problem.differentiated(modifiers) : problem, footprint, session.settings.strategy)
        let monitor = session.monitor
        let differentiable =
            backward
            ? try DifferentiableAttention(
                problem, decision.strategy, modifiers: modifiers, transport: transport, threads: session.threads,
                kernels: session.kernels, progressed: { monitor.progress() }) : nil
        let attention =
            try differentiable?.setup
            ?? AttentionSetup(
                problem, decision.strategy, modifiers: modifiers, transport: transport, threads: session.threads,
                kernels: session.kernels, progressed: { monitor.progress() })
        session.warn(attention.shortages)
        let rows = problem.queries.tokenCount(of: transport.rank)
        let queries = AlignedBuffer(count: heads.queryHeads * rows * heads.headDimension)
        let result = AlignedBuffer(count: heads.queryHeads * rows * heads.valueDimension)
        let sums = AlignedBuffer(count: heads.queryHeads * rows)
        let outputGradients = AlignedBuffer(count: backward ? result.count : 0)
        session.monitor.progress(.reading)
        let wireError = try session.agree {
            if backward {
                try readRows(
                    "grad_output", of: arrays, problem, rank: transport.rank, width: heads.valueDimension,
                    into: outputGradients, rows: rows)
            }
            return try read(
                arrays, problem, into: attention.keyValues, queries: queries, rows: rows, rank: transport.rank)
        }
        let scale = scale ?? 1 / Float(heads.headDimension).squareRoot()
        if let wireError {
            let bound = try wireError.bound(scale: scale, session)
            session.log.notice(
                "wire bfloat16: of these inputs, no output changes by more than \(String(format: "%.3g", bound))")
        }
        session.monitor.progress(.attention)
        func headRows(_ buffer: AlignedBuffer, _ width: Int, of rows: Int) -> HeadRows {
            HeadRows(buffer, tokenStride: width, headStride: rows * width)
        }
        let (queryRows, outputRows, sumRows) = (
            headRows(queries, heads.headDimension, of: rows), headRows(result, heads.valueDimension, of: rows),
            headRows(sums, 1, of: rows)
        )
        var tensors = [
            Written(name: "output", rows: result, width: heads.valueDimension, heads: heads.queryHeads),
            Written(name: "lse", rows: sums, width: 1, heads: heads.queryHeads),
        ]
        var wholes: [(name: String, values: [Float])] = []
        if let differentiable {
            try differentiable.attend(queries: queryRows, scale: scale, output: outputRows, logSumExp: sumRows)
            let keys = problem.keys.tokenCount(of: transport.rank)
            let queryGradients = AlignedBuffer(count: queries.count)
            let keyGradients = AlignedBuffer(count: heads.keyValueHeads * keys * heads.headDimension)
            let valueGradients = AlignedBuffer(count: heads.keyValueHeads * keys * heads.valueDimension)
            let ofModifiers = try differentiable.differentiate(
                queries: queryRows, scale: scale, output: outputRows,
                outputGradient: headRows(outputGradients, heads.valueDimension, of: rows),
                into: .init(
                    queries: headRows(queryGradients, heads.headDimension, of: rows),
                    keys: headRows(keyGradients, heads.headDimension, of: keys),
                    values: headRows(valueGradients, heads.valueDimension, of: keys)))
            tensors += [
                Written(name: "grad_q", rows: queryGradients, width: heads.headDimension, heads: heads.queryHeads),
                Written(
                    name: "grad_k", rows: keyGradients, width: heads.headDimension, heads: heads.keyValueHeads,
                    isOfKeys: true),
                Written(
                    name: "grad_v", rows: valueGradients, width: heads.valueDimension, heads: heads.keyValueHeads,
                    isOfKeys: true),
            ]
            if let sinks = ofModifiers.sinks { wholes.append(("grad_sinks", sinks)) }
            if let biases = ofModifiers.relativeBias { wholes.append(("grad_relative_bias", biases)) }
        } else {
            try attention.attend(queries: queryRows, scale: scale, output: outputRows, logSumExp: sumRows)
        }
        session.done.tokens += shape.queries
        session.done.flop += problem.visibleFlop + (backward ? problem.differentiated(modifiers).visibleFlop : 0)
        session.monitor.progress(.writing)
        try write(tensors, wholes, to: file, layout, session, problem)
        try session.correct(heads, by: modifiers == ScoreModifiers() ? attention.pace : Pace())
    }

    /// What is written, in the order in which it lies in the file.
    private func layout(_ heads: HeadShape, _ shape: SequenceShape, _ modifiers: ScoreModifiers) -> SafetensorsLayout {
        var tensors: [(name: String, elementType: ElementType, shape: [Int])] = [
            ("output", .float32, [heads.queryHeads, shape.queries, heads.valueDimension]),
            ("lse", .float32, [heads.queryHeads, shape.queries]),
        ]
        if backward {
            tensors += [
                ("grad_q", .float32, [heads.queryHeads, shape.queries, heads.headDimension]),
                ("grad_k", .float32, [heads.keyValueHeads, shape.keys, heads.headDimension]),
                ("grad_v", .float32, [heads.keyValueHeads, shape.keys, heads.valueDimension]),
            ]
            if modifiers.sinks != nil { tensors.append(("grad_sinks", .float32, [heads.queryHeads])) }
            if let relative = modifiers.relativeBias {
                tensors.append(("grad_relative_bias", .float32, [heads.queryHeads, 2 * relative.reach + 1]))
            }
        }
        return SafetensorsLayout(tensors: tensors)
    }

    /// The optional tensors.
    private func modifiers(_ file: TensorFile, _ heads: HeadShape) throws -> ScoreModifiers {
        var modifiers = ScoreModifiers(softcap: softcap)
        for name in file.names where !["q", "k", "v"].contains(name) {
            switch name {
            case "grad_output" where backward: continue
            case "grad_output":
                throw FileError(
                    .malformed, path: input, "tensor 'grad_output' would have no effect; gradients need --backward")
            case "alibi_slopes": modifiers.alibiSlopes = try file.readFloat32(name, expecting: [heads.queryHeads])
            case "sinks": modifiers.sinks = try file.readFloat32(name, expecting: [heads.queryHeads])
            case "relative_bias":
                let shape = try file.tensor(name, expecting: nil).shape
                guard shape.count == 2, shape[0] == heads.queryHeads, shape[1] % 2 == 1 else {
                    throw FileError(
                        .malformed, path: input,
                        "tensor 'relative_bias' has the shape \(shape), and [\(heads.queryHeads), 2D+1] is needed")
                }
                modifiers.relativeBias = .init(table: try file.readFloat32(name), reach: shape[1] / 2)
            default:
                throw FileError(
                    .malformed, path: input,
                    "tensor '\(name)' would have no effect; known are q, k, v, alibi_slopes, sinks and relative_bias")
            }
        }
        return modifiers
    }

    /// Checks the arrays' shapes against each other.
    private func open() throws -> (TensorFile, HeadShape, SequenceShape) {
        let file = try TensorFile(path: input)
        func shape(_ name: String) throws -> [Int] {
            let shape = try file.tensor(name, expecting: nil).shape
            guard shape.count == 3 else {
                throw FileError(
                    .malformed, path: input,
                    "tensor '\(name)' has the shape \(shape), and [heads, tokens, width] is needed")
            }
            return shape
        }
        let (q, k, v) = (try shape("q"), try shape("k"), try shape("v"))
        func require(_ condition: Bool, _ message: String) throws {
            if !condition { throw FileError(.malformed, path: input, message) }
        }
        try require(q[0] > 0 && k[0] > 0 && q[2] > 0 && v[2] > 0, "heads and widths must not be 0")
        try require(q[2] == k[2], "'q' has vectors of \(q[2]) and 'k' of \(k[2]); they must be equal")
        try require(k[0] == v[0], "'k' has \(k[0]) heads and 'v' \(v[0]); they must be equal")
        try require(k[1] == v[1], "'k' has \(k[1]) tokens and 'v' \(v[1]); they must be equal")
        try require(q[0] % k[0] == 0, "'q' has \(q[0]) heads, which is no multiple of the \(k[0]) of 'k'")
        if backward { _ = try file.tensor("grad_output", expecting: [q[0], q[1], v[2]]) }
        return (
            file, HeadShape(queryHeads: q[0], keyValueHeads: k[0], headDimension: q[2], valueDimension: v[2]),
            SequenceShape(queries: q[1], keys: k[1])
        )
    }

    /// Reads this rank's rows of the arrays, and packs its keys and values.
    /// - Returns: where keys and values travel narrowed, what that may do to the outputs.
    private func read(
        _ file: TensorFile, _ problem: AttentionProblem, into keyValues: KeyValueTiles, queries: AlignedBuffer,
        rows: Int,
        rank: Rank
    ) throws -> WireError? {
        let heads = problem.heads
        var wireError = problem.narrowsWire ? WireError(heads) : nil
        func readHeads(
            _ name: String, _ count: Int, _ tokens: Range<Int>, of length: Int, _ width: Int,
            _ target: UnsafeMutablePointer<Float>, _ headStride: Int
        ) throws {
            try Self.readHeads(name, of: file, count, tokens, of: length, width, target, headStride)
        }
        let keyCount = try file.tensor("k", expecting: nil).shape[1]
        try readRows("q", of: file, problem, rank: rank, width: heads.headDimension, into: queries, rows: rows)
        wireError?.add(
            queries: HeadRows(queries, tokenStride: heads.headDimension, headStride: rows * heads.headDimension),
            rows: rows)
        let keys = AlignedBuffer(count: heads.keyValueHeads * TileGrid.tileSize * heads.headDimension)
        let values = AlignedBuffer(count: heads.keyValueHeads * TileGrid.tileSize * heads.valueDimension)
        let firstKeys = problem.shapes.map(\.firstKey)
        try withExtendedLifetime((keys, values)) {
            for tile in problem.keys.tiles(of: rank) {
                let tokens = problem.keys.tokens(of: tile, first: firstKeys)
                try readHeads(
                    "k", heads.keyValueHeads, tokens, of: keyCount, heads.headDimension, keys.pointer,
                    TileGrid.tileSize * heads.headDimension)
                try readHeads(
                    "v", heads.keyValueHeads, tokens, of: keyCount, heads.valueDimension, values.pointer,
                    TileGrid.tileSize * heads.valueDimension)
                let keyRows = HeadRows(
                    keys, tokenStride: heads.headDimension, headStride: TileGrid.tileSize * heads.headDimension)
                let valueRows = HeadRows(
                    values, tokenStride: heads.valueDimension, headStride: TileGrid.tileSize * heads.valueDimension)
                wireError?.add(keys: keyRows, values: valueRows, rows: tokens.count)
                keyValues.pack(tile: tile, rows: 0..<tokens.count, keys: keyRows, values: valueRows)
            }
        }
        return wireError
    }

    /// Reads some tokens of some heads, `headStride` floats apart.
    private static func readHeads(
        _ name: String, of file: TensorFile, _ count: Int, _ tokens: Range<Int>, of length: Int, _ width: Int,
        _ target: UnsafeMutablePointer<Float>, _ headStride: Int
    ) throws {
        for head in 0..<count {
            let first = (head * length + tokens.lowerBound) * width
            try file.readFloat32(
                name, range: first..<first + tokens.count * width,
                into: UnsafeMutableBufferPointer(start: target + head * headStride, count: tokens.count * width))
        }
    }

    /// Reads this rank's rows of an array of query rows, as (query heads, rows, width).
    private func readRows(
        _ name: String, of file: TensorFile, _ problem: AttentionProblem, rank: Rank, width: Int,
        into target: AlignedBuffer, rows: Int
    ) throws {
        let length = try file.tensor(name, expecting: nil).shape[1]
        let firstQueries = problem.shapes.map(\.firstQuery)
        var row = 0
        for tile in problem.queries.tiles(of: rank) {
            let tokens = problem.queries.tokens(of: tile, first: firstQueries)
            try Self.readHeads(
                name, of: file, problem.heads.queryHeads, tokens, of: length, width, target.pointer + row * width,
                rows * width)
            row += tokens.count
        }
    }

    /// A tensor of which a rank has its rows: (heads, rows, width).
    private struct Written {
        let name: String
        let rows: AlignedBuffer
        let width: Int
        let heads: Int
        var isOfKeys = false
    }

    /// Writes this rank's rows of some tensors; rank 0 writes those that every rank has whole.
    private func write(
        _ tensors: [Written], _ wholes: [(name: String, values: [Float])], to file: ParallelFile,
        _ layout: SafetensorsLayout, _ session: Session, _ problem: AttentionProblem
    ) throws {
        try layout.headerBytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        try withExtendedLifetime(tensors) {
            var pieces: [(offset: Int, bytes: UnsafeRawBufferPointer)] = []
            for tensor in tensors {
                let sharding = tensor.isOfKeys ? problem.keys : problem.queries
                let length = problem.shapes.reduce(0) { $0 + (tensor.isOfKeys ? $1.keys : $1.queries) }
                let first = problem.shapes.map { tensor.isOfKeys ? $0.firstKey : $0.firstQuery }
                let rows = sharding.tokenCount(of: session.transport.rank)
                var row = 0
                for tile in sharding.tiles(of: session.transport.rank) {
                    let tokens = sharding.tokens(of: tile, first: first)
                    for head in 0..<tensor.heads {
                        pieces.append(
                            (
                                layout.offset(of: tensor.name)
                                    + (head * length + tokens.lowerBound) * tensor.width * 4,
                                UnsafeRawBufferPointer(
                                    start: tensor.rows.pointer + (head * rows + row) * tensor.width,
                                    count: tokens.count * tensor.width * 4)
                            ))
                    }
                    row += tokens.count
                }
            }
            try file.write(pieces)
        }
        // Every rank takes part in every write.
        for (name, values) in wholes {
            try values.withUnsafeBytes { try file.write(session.isRoot ? [(layout.offset(of: name), $0)] : []) }
        }
        try file.commit()
    }
}
