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
        let layout = SafetensorsLayout(tensors: [
            ("output", .float32, [heads.queryHeads, shape.queries, heads.valueDimension]),
            ("lse", .float32, [heads.queryHeads, shape.queries]),
        ])
        let file = try ParallelFile.create(output, force: force, transport: transport, size: layout.totalBytes)
        session.logHeader("attend \(input)")
        let (pieces, maskWithin) = mask.pieces(of: shape)
        let problem = try session.problem(pieces, maskWithin, heads)
        var footprint = Footprint()
        footprint.bytesPerToken = Double(4 * heads.queryHeads * (heads.headDimension + heads.valueDimension + 1))
        let decision = try session.decide(problem, footprint, session.settings.strategy)
        let monitor = session.monitor
        let attention = try AttentionSetup(
            problem, decision.strategy, modifiers: modifiers, transport: transport, threads: session.threads,
            kernels: session.kernels, progressed: { monitor.progress() })
        session.warn(attention.shortages)
        let rows = problem.queries.tokenCount(of: transport.rank)
        let queries = AlignedBuffer(count: heads.queryHeads * rows * heads.headDimension)
        let result = AlignedBuffer(count: heads.queryHeads * rows * heads.valueDimension)
        let sums = AlignedBuffer(count: heads.queryHeads * rows)
        let wireError = try session.agree {
            try read(arrays, problem, into: attention.keyValues, queries: queries, rows: rows, rank: transport.rank)
        }
        let scale = scale ?? 1 / Float(heads.headDimension).squareRoot()
        if let wireError {
            let bound = try wireError.bound(scale: scale, session)
            session.log.notice(
                "wire bfloat16: of these inputs, no output changes by more than \(String(format: "%.3g", bound))")
        }
        session.monitor.progress(.attention)
        try withExtendedLifetime((queries, result, sums)) {
            try attention.attend(
                queries: HeadRows(queries, tokenStride: heads.headDimension, headStride: rows * heads.headDimension),
                scale: scale,
                output: HeadRows(result, tokenStride: heads.valueDimension, headStride: rows * heads.valueDimension),
                logSumExp: HeadRows(sums, tokenStride: 1, headStride: rows))
            session.monitor.progress(.writing)
            try write(to: file, layout, session, problem, result: result, sums: sums, rows: rows)
        }
        try session.correct(heads, by: modifiers == ScoreModifiers() ? attention.pace : Pace())
    }

    /// The optional tensors.
    private func modifiers(_ file: TensorFile, _ heads: HeadShape) throws -> ScoreModifiers {
        var modifiers = ScoreModifiers(softcap: softcap)
        for name in file.names where !["q", "k", "v"].contains(name) {
            switch name {
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
            for head in 0..<count {
                let first = (head * length + tokens.lowerBound) * width
                try file.readFloat32(
                    name, range: first..<first + tokens.count * width,
                    into: UnsafeMutableBufferPointer(start: target + head * headStride, count: tokens.count * width))
            }
        }
        let (queryCount, keyCount) = (
            try file.tensor("q", expecting: nil).shape[1], try file.tensor("k", expecting: nil).shape[1]
        )
        let firstQueries = problem.shapes.map(\.firstQuery)
        var row = 0
        for tile in problem.queries.tiles(of: rank) {
            let tokens = problem.queries.tokens(of: tile, first: firstQueries)
            try readHeads(
                "q", heads.queryHeads, tokens, of: queryCount, heads.headDimension,
                queries.pointer + row * heads.headDimension,
                rows * heads.headDimension)
            row += tokens.count
        }
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

    private func write(
        to file: ParallelFile, _ layout: SafetensorsLayout, _ session: Session, _ problem: AttentionProblem,
        result: AlignedBuffer,
        sums: AlignedBuffer, rows: Int
    ) throws {
        let heads = problem.heads
        let length = problem.shapes.reduce(0) { $0 + $1.queries }
        let firstQueries = problem.shapes.map(\.firstQuery)
        try layout.headerBytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        var pieces: [(offset: Int, bytes: UnsafeRawBufferPointer)] = []
        func add(
            _ name: String, _ source: UnsafeMutablePointer<Float>, width: Int, head: Int, row: Int, tokens: Range<Int>
        ) {
            pieces.append(
                (
                    layout.offset(of: name) + (head * length + tokens.lowerBound) * width * 4,
                    UnsafeRawBufferPointer(start: source + (head * rows + row) * width, count: tokens.count * width * 4)
                ))
        }
        var row = 0
        for tile in problem.queries.tiles(of: session.transport.rank) {
            let tokens = problem.queries.tokens(of: tile, first: firstQueries)
            for head in 0..<heads.queryHeads {
                add("output", result.pointer, width: heads.valueDimension, head: head, row: row, tokens: tokens)
                add("lse", sums.pointer, width: 1, head: head, row: row, tokens: tokens)
            }
            row += tokens.count
        }
        try file.write(pieces)
        try file.commit()
    }
}
