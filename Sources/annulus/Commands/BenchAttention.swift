// `annulus bench attention`: the ring's attention on random inputs.

import ArgumentParser
import Attention
import Encoders
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles

struct BenchAttention: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attention", abstract: "Time exact attention over all ranks, keys packed beforehand.")

    @OptionGroup var bench: BenchOptions

    @Option(help: "Tokens of the sequence.")
    var length: Int = 8192

    @Option(help: "Query heads.")
    var heads: Int = 12

    @Option(help: "Key/value heads; default: as many as query heads.")
    var kvHeads: Int?

    @Option(help: "Width of a head.")
    var headDim: Int = 64

    @Option(help: ArgumentHelp(MaskInput.help))
    var mask: String = "full"

    mutating func validate() throws {
        try MaskInput.check(mask)
        for (name, value) in [("--length", length), ("--heads", heads), ("--kv-heads", kvHeads ?? 1), ("--head-dim", headDim)]
        where value < 1 {
            throw ValidationError("\(name) takes a positive number, not \(value)")
        }
        if heads % (kvHeads ?? heads) != 0 { throw ValidationError("--heads \(heads) is no multiple of --kv-heads \(kvHeads ?? heads)") }
    }

    func run() throws {
        let command = self
        try Session.run(bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let transport = session.transport
        let shape = HeadShape(queryHeads: heads, keyValueHeads: kvHeads ?? heads, headDimension: headDim, valueDimension: headDim)
        let whole = SequenceShape(length: length)
        let (pieces, maskWithin) = try session.agree { try MaskInput.mask(mask, for: whole) }.pieces(of: whole)
        var job = AttentionJob(
            shapes: pieces, mask: maskWithin, heads: shape, layout: session.options.layout, rankCount: transport.size,
            speeds: try session.relativeSpeeds())
        job.element = session.options.dtype
        let sharding = job.queries
        // Inputs depend on the position in the whole, so the mask does not change them.
        let firstTokens = pieces.map(\.firstKey)
        let watchdog = session.watchdog
        let executor = RingExecutor(
            plan: session.options.strategy.chosen.plan(job, rank: transport.rank), transport: transport, threads: session.threads,
            kernels: session.kernels, progressed: { watchdog.progress() })
        let queryWidth = heads * headDim
        let keyWidth = shape.keyValueHeads * headDim
        let rows = sharding.tokenCount(of: transport.rank)
        let queries = AlignedBuffer(count: max(1, rows * queryWidth))
        let output = AlignedBuffer(count: max(1, rows * queryWidth))
        let keys = AlignedBuffer(count: TileGrid.tileSize * keyWidth)
        let values = AlignedBuffer(count: TileGrid.tileSize * keyWidth)
        let seed = bench.seed
        func fill(_ target: UnsafeMutablePointer<Float>, _ tokens: Range<Int>, width: Int, stream: UInt64) {
            for index in 0..<tokens.count * width {
                target[index] = CountedNormal.value(key: seed &+ stream &* 0xD1B5_4A32_D192_ED03, index: tokens.lowerBound * width + index)
            }
        }
        session.watchdog.progress(.reading)
        let measurement = try withExtendedLifetime((queries, output, keys, values)) {
            var row = 0
            for tile in sharding.tiles(of: transport.rank).ranges.joined() {
                let first = firstTokens[sharding.numbering.sequence(of: tile)]
                let within = sharding.numbering.tokens(of: tile)
                let tokens = first + within.lowerBound..<first + within.upperBound
                fill(queries.pointer + row * queryWidth, tokens, width: queryWidth, stream: 1)
                fill(keys.pointer, tokens, width: keyWidth, stream: 2)
                fill(values.pointer, tokens, width: keyWidth, stream: 3)
                executor.pack(
                    tile: tile, rows: 0..<tokens.count,
                    keys: HeadRows(keys, tokenStride: keyWidth, headStride: headDim),
                    values: HeadRows(values, tokenStride: keyWidth, headStride: headDim))
                row += tokens.count
                watchdog.progress()
            }
            watchdog.progress(.attention)
            return try session.measure(repetitions: bench.repetitions) {
                let before = executor.exposed
                try executor.attend(
                    queries: HeadRows(queries, tokenStride: queryWidth, headStride: headDim),
                    scale: 1 / Float(headDim).squareRoot(),
                    output: HeadRows(output, tokenStride: queryWidth, headStride: headDim))
                return executor.exposed - before
            }
        }
        let sha256 = try session.digest(sharding, rowBytes: queryWidth * 4) { first, count in
            UnsafeRawBufferPointer(start: output.pointer + first * queryWidth, count: count * queryWidth * 4)
        }
        withExtendedLifetime(output) {}
        let row = BenchRow(fields: [
            ("bench", .text("attention")), ("length", .integer(length)), ("heads", .integer(heads)),
            ("kv_heads", .integer(shape.keyValueHeads)), ("head_dim", .integer(headDim)), ("mask", .text(mask)),
            ("dtype", .text(session.options.dtype.rawValue)), ("strategy", .text(session.options.strategy.chosen.rawValue)), ("layout", .text(session.options.layout.rawValue)),
            ("rank_tokens", .numbers((0..<transport.size).map { Double(sharding.tokenCount(of: Rank($0))) })),
        ] + measurement.fields(session: session, flop: job.visibleFlop, sha256: sha256))
        try session.agree { try session.printLines(row.text(bench.format)) }
    }
}
