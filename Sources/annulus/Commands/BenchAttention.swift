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
        commandName: "attention", abstract: "Time exact attention over all ranks, keys packed beforehand.",
        discussion: """
            Self-attention over --length tokens, or cross-attention of --query-length queries to --length keys. Inputs and tables \
            of biases are random, the same for any number of ranks; ALiBi's slopes are 2^(-8h/H) for h = 1 to H (Press et al. 2022).
            """)

    @OptionGroup var bench: BenchOptions

    @OptionGroup var attention: AttentionOptions

    @Option(help: "Scores become C·tanh(score/C).")
    var softcap: Float?

    @Flag(help: "Subtract ALiBi's slope·|i − j|.")
    var alibi = false

    @Option(help: "Add a bias by the distance j − i, clamped to this one.")
    var relativeBias: Int?

    @Flag(help: "Give each head an attention sink.")
    var sinks = false

    mutating func validate() throws {
        try ScoreInput.check(softcap: softcap)
        if let relativeBias, !(0...1 << 24).contains(relativeBias) {
            throw ValidationError("--relative-bias takes a distance of 0 to \(1 << 24), not \(relativeBias)")
        }
    }

    func run() throws {
        let command = self
        try Session.run(bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let transport = session.transport
        let shape = attention.shape
        let (heads, headDim) = (attention.heads, attention.headDim)
        let (pieces, maskWithin) = try session.agree { try attention.sequence() }
        var job = AttentionJob(
            shapes: pieces, mask: maskWithin, heads: shape, layout: session.options.layout, rankCount: transport.size,
            speeds: try session.relativeSpeeds())
        job.element = session.options.dtype
        job.topology = session.topology
        let sharding = job.queries
        var surroundings = Surroundings()
        surroundings.bytesPerToken = attention.bytesPerToken
        let decision = try session.decide(job, surroundings, predicts: true)
        let watchdog = session.watchdog
        let executor = try RingExecutor(
            job, decision.strategy, modifiers: modifiers, transport: transport, threads: session.threads,
            kernels: session.kernels, progressed: { watchdog.progress() })
        session.warn(executor.shortages)
        let queryWidth = heads * headDim
        let outputWidth = heads * shape.valueDimension
        let rows = sharding.tokenCount(of: transport.rank)
        let queries = AlignedBuffer(count: max(1, rows * queryWidth))
        let output = AlignedBuffer(count: max(1, rows * outputWidth))
        session.watchdog.progress(.reading)
        let measurement = try withExtendedLifetime((queries, output)) {
            // Inputs depend on the position in the whole, so the mask does not change them.
            let firstQueries = pieces.map(\.firstQuery)
            var row = 0
            for tile in sharding.tiles(of: transport.rank).ranges.joined() {
                let tokens = sharding.tokens(of: tile, first: firstQueries)
                fill(queries.pointer + row * queryWidth, tokens, width: queryWidth, stream: .queries)
                row += tokens.count
                watchdog.progress()
            }
            pack(job, into: executor, rank: transport.rank, watchdog: watchdog)
            watchdog.progress(.attention)
            return try session.measure(repetitions: bench.repetitions) {
                let before = executor.exposed
                try executor.attend(
                    queries: HeadRows(queries, tokenStride: queryWidth, headStride: headDim),
                    scale: 1 / Float(headDim).squareRoot(),
                    output: HeadRows(output, tokenStride: outputWidth, headStride: shape.valueDimension))
                return executor.exposed - before
            }
        }
        let sha256 = try session.digest(sharding, rowBytes: outputWidth * 4) { first, count in
            UnsafeRawBufferPointer(start: output.pointer + first * outputWidth, count: count * outputWidth * 4)
        }
        withExtendedLifetime(output) {}
        let row = BenchRow(fields: [
            ("bench", .text("attention")),
        ] + attention.fields + [
            ("modifiers", .text(modifierNames)),
            ("dtype", .text(session.options.dtype.rawValue)), ("strategy", .text(decision.strategy.rawValue)),
            ("layout", .text(session.options.layout.rawValue)),
            ("rank_tokens", .numbers((0..<transport.size).map { Double(sharding.tokenCount(of: Rank($0))) })),
            ("predicted_seconds", .number(decision.predictedSeconds ?? .nan)),
        ] + measurement.fields(session: session, flop: job.visibleFlop, sha256: sha256))
        try session.agree { try session.printLines(row.text(bench.format)) }
    }

    /// Makes and packs this rank's keys and values.
    private func pack(_ job: AttentionJob, into executor: RingExecutor, rank: Rank, watchdog: Watchdog) {
        let keyWidth = job.heads.keyValueHeads * job.heads.headDimension
        let valueWidth = job.heads.keyValueHeads * job.heads.valueDimension
        let keys = AlignedBuffer(count: TileGrid.tileSize * keyWidth)
        let values = AlignedBuffer(count: TileGrid.tileSize * valueWidth)
        let firstKeys = job.shapes.map(\.firstKey)
        withExtendedLifetime((keys, values)) {
            for tile in job.keys.tiles(of: rank).ranges.joined() {
                let tokens = job.keys.tokens(of: tile, first: firstKeys)
                fill(keys.pointer, tokens, width: keyWidth, stream: .keys)
                fill(values.pointer, tokens, width: valueWidth, stream: .values)
                executor.pack(
                    tile: tile, rows: 0..<tokens.count,
                    keys: HeadRows(keys, tokenStride: keyWidth, headStride: job.heads.headDimension),
                    values: HeadRows(values, tokenStride: valueWidth, headStride: job.heads.valueDimension))
                watchdog.progress()
            }
        }
    }

    /// The random numbers of one input, apart from those of the others.
    private enum Stream: UInt64 {
        case queries = 1, keys, values, relativeBias, sinks
    }

    /// Standard normal numbers for the rows of some positions.
    private func fill(_ target: UnsafeMutablePointer<Float>, _ tokens: Range<Int>, width: Int, stream: Stream) {
        let key = bench.seed &+ stream.rawValue &* 0xD1B5_4A32_D192_ED03
        for index in 0..<tokens.count * width {
            target[index] = CountedNormal.value(key: key, index: tokens.lowerBound * width + index)
        }
    }

    /// What is asked for beside the mask.
    private var modifiers: ScoreModifiers {
        let heads = attention.heads
        func random(_ count: Int, _ stream: Stream) -> [Float] {
            Array(unsafeUninitializedCapacity: count) { buffer, filled in
                fill(buffer.baseAddress!, 0..<count, width: 1, stream: stream)
                filled = count
            }
        }
        return ScoreModifiers(
            softcap: softcap, alibiSlopes: alibi ? (1...heads).map { exp2(-8 * Float($0) / Float(heads)) } : nil,
            relativeBias: relativeBias.map { .init(table: random(heads * (2 * $0 + 1), .relativeBias), reach: $0) },
            sinks: sinks ? random(heads, .sinks) : nil)
    }

    private var modifierNames: String {
        let names = [
            softcap.map { "softcap(\($0))" }, alibi ? "alibi" : nil, relativeBias.map { "relative-bias(\($0))" }, sinks ? "sinks" : nil,
        ].compactMap { $0 }
        return names.isEmpty ? "none" : names.joined(separator: " ")
    }
}
