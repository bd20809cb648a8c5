// One attention on random inputs, run as often as a benchmark asks.

import Attention
import Crypto
import Foundation
import Matrices
import Pipelines
import Plans
import RingAttention
import Tiles
import Transformers

/// Random inputs that depend on a seed and the position in the whole, so that ranks, layouts and masks do not change
/// them.
struct RandomInput {
    let seed: UInt64

    /// The random numbers of one input, apart from those of the others.
    enum Stream: UInt64 {
        case queries = 1, keys, values, relativeBias, sinks, outputGradients
    }

    /// Standard normal numbers for the rows of some positions.
    func fill(_ target: UnsafeMutablePointer<Float>, _ tokens: Range<Int>, width: Int, stream: Stream) {
        let key = seed &+ stream.rawValue &* Stride.stream
        for index in 0..<tokens.count * width {
            target[index] = CountedNormal.value(key: key, index: tokens.lowerBound * width + index)
        }
    }
}

/// A rank's part of an attention, its keys packed.
final class AttentionRun {
    private let session: Session
    private let problem: AttentionProblem
    private let attention: AttentionSetup
    private let queries: AlignedBuffer
    private let output: AlignedBuffer
    private let isPlain: Bool
    private var scale: Float { 1 / Float(problem.heads.headDimension).squareRoot() }
    /// What narrowed keys and values may change in an output at most; 0 where they are not.
    private(set) var wireBound = 0.0
    /// Where statistics of rows go; nil: none are made.
    private let statistics: RowStatistics?
    private let backward: Backward?

    /// What gradients need beside attention's own.
    private struct Backward {
        let attention: DifferentiableAttention
        let outputGradients: AlignedBuffer
        let queries: AlignedBuffer
        let keys: AlignedBuffer
        let values: AlignedBuffer
    }

    /// Collective.
    /// - Parameter topKeys: how many keys of most weight each row tells, beside its other statistics; nil: no statistics are
    ///   made.
    /// - Parameter backward: whether gradients are asked for; then attention is done once.
    init(
        _ problem: AttentionProblem, _ strategy: Strategy, modifiers: ScoreModifiers = ScoreModifiers(),
        topKeys: Int? = nil, backward: Bool = false, seed: UInt64, _ session: Session
    ) throws {
        let monitor = session.monitor
        self.session = session
        self.problem = problem
        // What statistics take is no pace of attention.
        isPlain = modifiers == ScoreModifiers() && topKeys == nil
        let kernels = session.kernels
        let differentiable =
            backward
            ? try DifferentiableAttention(
                problem, strategy, modifiers: modifiers, transport: session.transport, threads: session.threads,
                kernels: kernels, progressed: { monitor.progress() }) : nil
        attention =
            try differentiable?.setup
            ?? AttentionSetup(
                [problem], strategy, transport: session.transport, threads: session.threads, kernels: kernels,
                progressed: { monitor.progress() }
            ) { problem in
                let (heads, element, mask) = (problem.heads, problem.element, problem.mask)
                guard let topKeys else {
                    return .attend(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
                }
                return .observe(
                    heads: heads, element: element, mask: mask, modifiers: modifiers, topKeys: topKeys, kernels: kernels
                )
            }
        session.warn(attention.shortages)
        let rows = problem.queries.tokenCount(of: session.transport.rank)
        let keys = problem.keys.tokenCount(of: session.transport.rank)
        let heads = problem.heads
        self.backward = differentiable.map {
            Backward(
                attention: $0, outputGradients: AlignedBuffer(count: rows * heads.queryHeads * heads.valueDimension),
                queries: AlignedBuffer(count: rows * heads.queryHeads * heads.headDimension),
                keys: AlignedBuffer(count: keys * heads.keyValueHeads * heads.headDimension),
                values: AlignedBuffer(count: keys * heads.keyValueHeads * heads.valueDimension))
        }
        statistics = topKeys.map { RowStatistics(rows: rows, heads: problem.heads.queryHeads, topKeys: $0) }
        queries = AlignedBuffer(count: max(1, rows * problem.heads.queryHeads * problem.heads.headDimension))
        output = AlignedBuffer(count: max(1, rows * problem.heads.queryHeads * problem.heads.valueDimension))
        monitor.progress(.reading)
        if let wireError = prepare(RandomInput(seed: seed)) { wireBound = try wireError.bound(scale: scale, session) }
        monitor.progress(.attention)
        try self.backward?.attention.attend(queries: queryRows, scale: scale, output: outputRows)
    }

    private var queryWidth: Int { problem.heads.queryHeads * problem.heads.headDimension }
    private var outputWidth: Int { problem.heads.queryHeads * problem.heads.valueDimension }

    /// How fast this rank has attended so far; nothing where scores are modified.
    var pace: Pace { isPlain ? attention.pace : Pace() }

    private var queryRows: HeadRows {
        HeadRows(queries, tokenStride: queryWidth, headStride: problem.heads.headDimension)
    }
    private var outputRows: HeadRows {
        HeadRows(output, tokenStride: outputWidth, headStride: problem.heads.valueDimension)
    }
    private var keyWidth: Int { problem.heads.keyValueHeads * problem.heads.headDimension }
    private var valueWidth: Int { problem.heads.keyValueHeads * problem.heads.valueDimension }

    /// Attends once; returns for how long this rank waited for messages. Collective.
    func attend() throws -> Duration {
        let before = attention.exposed
        if let statistics {
            try attention.executors[0].run(
                .observe(queries: queryRows, scale: scale, output: outputRows, statistics: statistics),
                on: attention.keyValues)
        } else {
            try attention.attend(queries: queryRows, scale: scale, output: outputRows)
        }
        return attention.exposed - before
    }

    /// Finds the gradients once, of what was attended; returns for how long this rank waited for messages. Collective.
    func differentiate() throws -> Duration {
        guard let backward else { preconditionFailure("gradients were not asked for") }
        let before = attention.exposed
        let heads = problem.heads
        _ = try backward.attention.differentiate(
            queries: queryRows, scale: scale, output: outputRows,
            outputGradient: HeadRows(
                backward.outputGradients, tokenStride: outputWidth, headStride: heads.valueDimension),
            into: .init(
                queries: HeadRows(backward.queries, tokenStride: queryWidth, headStride: heads.headDimension),
                keys: HeadRows(backward.keys, tokenStride: keyWidth, headStride: heads.headDimension),
                values: HeadRows(backward.values, tokenStride: valueWidth, headStride: heads.valueDimension)))
        return attention.exposed - before
    }

    /// SHA-256 of the output; of gradients, that of the digests of dQ, dK and dV. Empty but on rank 0. Collective.
    func digest() throws -> String {
        guard let backward else { return try digest(output, problem.queries, width: outputWidth) }
        let digests = [
            try digest(backward.queries, problem.queries, width: queryWidth),
            try digest(backward.keys, problem.keys, width: keyWidth),
            try digest(backward.values, problem.keys, width: valueWidth),
        ]
        guard session.isRoot else { return "" }
        return SHA256.hash(data: Data(digests.joined().utf8)).map { String(format: "%02x", $0) }.joined()
    }

    private func digest(_ rows: AlignedBuffer, _ sharding: Sharding, width: Int) throws -> String {
        defer { withExtendedLifetime(rows) {} }
        return try session.digest(sharding, rowBytes: width * 4) { first, count in
            UnsafeRawBufferPointer(start: rows.pointer + first * width, count: count * width * 4)
        }
    }

    /// Makes this rank's queries, and makes and packs its keys and values.
    private func prepare(_ input: RandomInput) -> WireError? {
        var wireError = problem.narrowsWire ? WireError(problem.heads) : nil
        let rank = session.transport.rank
        let firstQueries = problem.shapes.map(\.firstQuery)
        var row = 0
        for tile in problem.queries.tiles(of: rank) {
            let tokens = problem.queries.tokens(of: tile, first: firstQueries)
            input.fill(queries.pointer + row * queryWidth, tokens, width: queryWidth, stream: .queries)
            if let backward {
                input.fill(
                    backward.outputGradients.pointer + row * outputWidth, tokens, width: outputWidth,
                    stream: .outputGradients)
            }
            row += tokens.count
            session.monitor.progress()
        }
        wireError?.add(
            queries: HeadRows(queries, tokenStride: queryWidth, headStride: problem.heads.headDimension), rows: row)
        let keys = AlignedBuffer(count: TileGrid.tileSize * keyWidth)
        let values = AlignedBuffer(count: TileGrid.tileSize * valueWidth)
        let firstKeys = problem.shapes.map(\.firstKey)
        withExtendedLifetime((queries, keys, values)) {
            for tile in problem.keys.tiles(of: rank) {
                let tokens = problem.keys.tokens(of: tile, first: firstKeys)
                input.fill(keys.pointer, tokens, width: keyWidth, stream: .keys)
                input.fill(values.pointer, tokens, width: valueWidth, stream: .values)
                let keyRows = HeadRows(keys, tokenStride: keyWidth, headStride: problem.heads.headDimension)
                let valueRows = HeadRows(values, tokenStride: valueWidth, headStride: problem.heads.valueDimension)
                wireError?.add(keys: keyRows, values: valueRows, rows: tokens.count)
                attention.keyValues.pack(tile: tile, rows: 0..<tokens.count, keys: keyRows, values: valueRows)
                session.monitor.progress()
            }
        }
        return wireError
    }
}

extension RowStatistics {
    /// Statistics in memory of their own.
    fileprivate init(rows: Int, heads: Int, topKeys: Int) {
        self.init()
        func each(_ width: Int = 1) -> HeadRows {
            HeadRows(
                AlignedBuffer(count: max(1, rows * heads * width)), tokenStride: width, headStride: rows * width)
        }
        (entropy, largestScore, largestKey) = (each(), each(), each())
        (meanDistance, sinkShare) = (each(), each())
        (self.topKeys, topWeights) = (each(topKeys), each(topKeys))
    }
}
