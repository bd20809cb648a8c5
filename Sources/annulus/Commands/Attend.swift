// `annulus attend`: raw exact attention on arrays.

import ArgumentParser
import Attention
import Checkpoints
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles

struct Attend: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Exact attention on the arrays of a safetensors file.",
        discussion: """
            Reads `q` [Hq, Lq, d], `k` [Hkv, Lk, d] and `v` [Hkv, Lk, dv]; Hq is a multiple of Hkv. Writes `output` \
            [Hq, Lq, dv] and `lse` [Hq, Lq], the log-sum-exp of each row's scores. A row that sees no key gives zeros and −∞. \
            Masks: full, causal (bottom-right aligned: query row r stands at r + Lk − Lq).
            """)

    @Option(name: [.short, .long], help: "A safetensors file with q, k and v.")
    var input: String

    @Option(name: [.short, .long], help: "The safetensors file to write.")
    var output: String

    @Flag(help: "Overwrite an output that exists.")
    var force = false

    @Option(help: "Which keys a query sees: full or causal.")
    var mask: MaskExpression = MaskExpression(mask: .full)

    @Option(help: "What scores are multiplied by. Default: 1/√d.")
    var scale: Float?

    @OptionGroup var spread: RunOptions

    mutating func validate() throws {
        if let scale, !scale.isFinite { throw ValidationError("--scale takes a finite number, not \(scale)") }
        if !output.hasSuffix(".safetensors") { throw ValidationError("--output '\(output)' needs a name that ends in .safetensors") }
    }

    func run() throws {
        let command = self
        try Session.run(spread) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let transport = session.transport
        session.watchdog.progress(.reading)
        let (file, heads, shape) = try session.agree { try open() }
        try ParallelFile.checkWritable(output, force: force, transport: transport)
        session.logHeader("attend \(input)")
        let job = AttentionJob(
            queries: Sharding(lengths: [shape.queries], layout: session.options.layout, rankCount: transport.size),
            keys: Sharding(lengths: [shape.keys], layout: session.options.layout, rankCount: transport.size),
            mask: mask.mask, heads: heads)
        let watchdog = session.watchdog
        let executor = RingExecutor(
            plan: .passKeyValue(job, rank: transport.rank), transport: transport, threads: session.threads,
            kernels: session.kernels, progressed: { watchdog.progress() })
        let rows = job.queries.tokenCount(of: transport.rank)
        let queries = AlignedBuffer(count: heads.queryHeads * rows * heads.headDimension)
        let result = AlignedBuffer(count: heads.queryHeads * rows * heads.valueDimension)
        let sums = AlignedBuffer(count: heads.queryHeads * rows)
        try session.agree { try read(file, job, into: executor, queries: queries, rows: rows, rank: transport.rank) }
        session.watchdog.progress(.attention)
        try withExtendedLifetime((queries, result, sums)) {
            try executor.attend(
                queries: HeadRows(queries, tokenStride: heads.headDimension, headStride: rows * heads.headDimension),
                scale: scale ?? 1 / Float(heads.headDimension).squareRoot(),
                output: HeadRows(result, tokenStride: heads.valueDimension, headStride: rows * heads.valueDimension),
                logSumExp: HeadRows(sums, tokenStride: 1, headStride: rows))
            session.watchdog.progress(.writing)
            try write(session, job, result: result, sums: sums, rows: rows)
        }
    }

    /// Checks the arrays' shapes against each other.
    private func open() throws -> (SafetensorsFile, HeadShape, SequenceShape) {
        let file = try SafetensorsFile(path: input)
        func shape(_ name: String) throws -> [Int] {
            let shape = try file.tensor(name, expecting: nil).shape
            guard shape.count == 3 else {
                throw FileError(.malformed, path: input, "tensor '\(name)' has the shape \(shape), and [heads, tokens, width] is needed")
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
            SequenceShape(queries: q[1], keys: k[1]))
    }

    /// Reads this rank's rows of the arrays, and packs its keys and values.
    private func read(
        _ file: SafetensorsFile, _ job: AttentionJob, into executor: RingExecutor, queries: AlignedBuffer, rows: Int, rank: Rank
    ) throws {
        let heads = job.heads
        func readHeads(_ name: String, _ count: Int, _ tokens: Range<Int>, of length: Int, _ width: Int, _ target: UnsafeMutablePointer<Float>, _ headStride: Int) throws {
            for head in 0..<count {
                let first = (head * length + tokens.lowerBound) * width
                try file.readFloat32(
                    name, range: first..<first + tokens.count * width,
                    into: UnsafeMutableBufferPointer(start: target + head * headStride, count: tokens.count * width))
            }
        }
        var row = 0
        for run in job.queries.tiles(of: rank).ranges {
            let tokens = Self.tokens(of: run, length: job.queries.numbering.lengths[0])
            try readHeads(
                "q", heads.queryHeads, tokens, of: job.queries.numbering.lengths[0], heads.headDimension,
                queries.pointer + row * heads.headDimension, rows * heads.headDimension)
            row += tokens.count
        }
        let length = job.keys.numbering.lengths[0]
        let keys = AlignedBuffer(count: heads.keyValueHeads * TileGrid.tileSize * heads.headDimension)
        let values = AlignedBuffer(count: heads.keyValueHeads * TileGrid.tileSize * heads.valueDimension)
        try withExtendedLifetime((keys, values)) {
            for tile in job.keys.tiles(of: rank).ranges.joined() {
                let tokens = TileGrid.tokens(of: tile, length: length)
                try readHeads("k", heads.keyValueHeads, tokens, of: length, heads.headDimension, keys.pointer, TileGrid.tileSize * heads.headDimension)
                try readHeads("v", heads.keyValueHeads, tokens, of: length, heads.valueDimension, values.pointer, TileGrid.tileSize * heads.valueDimension)
                executor.pack(
                    tile: tile, rows: 0..<tokens.count,
                    keys: HeadRows(keys, tokenStride: heads.headDimension, headStride: TileGrid.tileSize * heads.headDimension),
                    values: HeadRows(values, tokenStride: heads.valueDimension, headStride: TileGrid.tileSize * heads.valueDimension))
            }
        }
    }

    private func write(_ session: Session, _ job: AttentionJob, result: AlignedBuffer, sums: AlignedBuffer, rows: Int) throws {
        let heads = job.heads
        let length = job.queries.numbering.lengths[0]
        let layout = SafetensorsLayout(tensors: [
            ("output", .float32, [heads.queryHeads, length, heads.valueDimension]), ("lse", .float32, [heads.queryHeads, length]),
        ])
        let file = try ParallelFile.create(output, force: force, transport: session.transport)
        try layout.headerBytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        var pieces: [(offset: Int, bytes: UnsafeRawBufferPointer)] = []
        func add(_ name: String, _ source: UnsafeMutablePointer<Float>, width: Int, head: Int, row: Int, tokens: Range<Int>) {
            pieces.append((
                layout.offset(of: name) + (head * length + tokens.lowerBound) * width * 4,
                UnsafeRawBufferPointer(start: source + (head * rows + row) * width, count: tokens.count * width * 4)))
        }
        var row = 0
        for run in job.queries.tiles(of: session.transport.rank).ranges {
            let tokens = Self.tokens(of: run, length: length)
            for head in 0..<heads.queryHeads {
                add("output", result.pointer, width: heads.valueDimension, head: head, row: row, tokens: tokens)
                add("lse", sums.pointer, width: 1, head: head, row: row, tokens: tokens)
            }
            row += tokens.count
        }
        try file.write(pieces)
        try file.commit()
    }

    private static func tokens(of tiles: Range<Int>, length: Int) -> Range<Int> {
        tiles.lowerBound * TileGrid.tileSize..<min(tiles.upperBound * TileGrid.tileSize, length)
    }
}

/// A mask on the command line.
struct MaskExpression: ExpressibleByArgument {
    let mask: Mask

    init(mask: Mask) { self.mask = mask }

    init?(argument: String) {
        switch argument {
        case "full": mask = .full
        case "causal": mask = .causal
        default: return nil
        }
    }

    var defaultValueDescription: String { "\(mask)" }
}
