// Attention and its gradients, side by side: what a rank keeps between them, and what sums up over all ranks.

import Attention
import CKernels
import Matrices
import Plans
import Tiles

/// Exact attention over ranks that can be differentiated: `attend`, then `differentiate`, as often as wanted.
///
/// Of a pass, m and ℓ of this rank's rows are kept, 8 bytes a row and head; the weights are recomputed from them.
public final class DifferentiableAttention {
    /// Packed keys and values, with the executors of both passes.
    public let setup: AttentionSetup
    /// What both passes drop of the weights, if anything; keys and values are float32 then. Not to be changed between
    /// `attend` and `differentiate`.
    public var dropout: WeightDropout?
    private let heads: HeadShape
    private let modifiers: ScoreModifiers
    private let transport: any Transport
    private let kernels: KernelSet
    private let rows: Int
    // (query heads, rows), m, ℓ, L and D.
    private let rowMax: AlignedBuffer
    private let rowSum: AlignedBuffer
    private let logSumExp: AlignedBuffer
    private let dots: AlignedBuffer

    /// The job, whose queries are those of the gradients.
    public var problem: AttentionProblem { setup.executors[0].plan.problem }

    /// This rank's packed keys and values: pack them before a pass.
    public var keyValues: KeyValueTiles { setup.keyValues }

    /// Plans both passes. Collective.
    /// - Parameters:
    ///   - problem: the attention; its topology names ranks that share memory where there is room for it.
    ///   - strategy: how the units of both passes come to their operands.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - transport: connects this rank to those that the job is dealt out to.
    ///   - threads: those of this rank, all of which compute.
    ///   - kernels: those that pack, attend and differentiate.
    ///   - memory: where the rank's own packed tiles are put, if it does not share them.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    /// - Precondition: the modifiers have no relative positions, whose gradients are not computed.
    public init(
        _ problem: AttentionProblem, _ strategy: Strategy, modifiers: ScoreModifiers = ScoreModifiers(),
        transport: any Transport, threads: ThreadPool, kernels: KernelSet, memory: BufferPool = BufferPool(),
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        setup = try AttentionSetup(
            [problem, problem.differentiated(modifiers)], strategy, transport: transport, threads: threads,
            kernels: kernels, memory: memory, progressed: progressed
        ) {
            let (heads, element, mask) = ($0.heads, $0.element, $0.mask)
            return $0.operation == problem.operation
                ? .attend(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
                : .differentiate(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        }
        self.modifiers = modifiers
        self.transport = transport
        self.kernels = kernels
        heads = problem.heads
        rows = problem.queries.tokenCount(of: transport.rank)
        func perRow(_ count: Int) -> AlignedBuffer { AlignedBuffer(count: count * problem.heads.queryHeads) }
        (rowMax, rowSum, logSumExp, dots) = (perRow(rows), perRow(rows), perRow(rows), perRow(rows))
    }

    private func perRow(_ buffer: AlignedBuffer) -> HeadRows { HeadRows(buffer, tokenStride: 1, headStride: rows) }

    /// Attends this rank's queries to all keys they see. Collective.
    /// - Parameters:
    ///   - queries: this rank's query rows, unscaled; they are read again by `differentiate`.
    ///   - scale: what scores are multiplied by, 1/√d as a rule.
    ///   - output: where O/ℓ goes.
    ///   - logSumExp: where m + ln ℓ goes, if anywhere.
    public func attend(
        queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil
    ) throws {
        try setup.executors[0].run(
            .attend(
                queries: queries, scale: scale, output: output, logSumExp: perRow(self.logSumExp),
                rowMax: perRow(rowMax), rowSum: perRow(rowSum), dropout: dropout),
            on: setup.keyValues)
        guard let logSumExp else { return }
        for head in 0..<heads.queryHeads {
            for row in 0..<rows { logSumExp.row(row, head).pointee = self.logSumExp[head * rows + row] }
        }
    }

    /// Where the gradients of this rank's rows and keys go.
    public struct Gradients {
        /// dQ: a row a query and head.
        public var queries: HeadRows
        /// dK: a row a key and key/value head.
        public var keys: HeadRows
        /// dV, likewise.
        public var values: HeadRows

        /// Gradients of queries, keys and values.
        public init(queries: HeadRows, keys: HeadRows, values: HeadRows) {
            self.queries = queries
            self.keys = keys
            self.values = values
        }
    }

    /// The gradients of what modifies scores, the same on every rank; nil where there is no such thing.
    public struct ModifierGradients: Sendable, Equatable {
        /// One a query head.
        public var sinks: [Float]?
        /// As the table: (heads, 2·reach + 1).
        public var relativeBias: [Float]?
    }

    /// The gradients of the attention that went before, given that of its output. Collective.
    /// - Parameters:
    ///   - queries: the queries that were attended.
    ///   - scale: the scale they were attended with.
    ///   - output: what attention gave.
    ///   - outputGradient: its gradient.
    ///   - gradients: where those of queries, keys and values go.
    /// - Returns: those of the modifiers, summed over all ranks.
    public func differentiate(
        queries: HeadRows, scale: Float, output: HeadRows, outputGradient: HeadRows, into gradients: Gradients
    ) throws -> ModifierGradients {
        HeadRows.dots(
            outputGradient, output, rows: rows, heads: heads.queryHeads, width: heads.valueDimension,
            into: perRow(dots), kernels: kernels)
        let (mine, count) = (
            problem.queries.tiles(of: transport.rank), problem.queries.numbering.tileCount
        )
        let width = modifiers.relativeBias.map { 2 * $0.reach + 1 } ?? 0
        let biases = AlignedBuffer(count: mine.count * heads.queryHeads * width)
        try setup.executors[1].run(
            .differentiate(
                queries: queries, scale: scale, outputGradient: outputGradient, rowMax: perRow(rowMax),
                rowSum: perRow(rowSum), outputDots: perRow(dots), queryGradient: gradients.queries,
                keyGradient: gradients.keys, valueGradient: gradients.values,
                biasGradients: width > 0
                    ? HeadRows(biases, tokenStride: heads.queryHeads * width, headStride: width) : nil,
                dropout: dropout),
            on: setup.keyValues)
        var result = ModifierGradients()
        if let sinks = modifiers.sinks {
            let parts = sinkParts(sinks, mine)
            result.sinks = try transport.sum(over: mine, of: count, floats: sinks.count) { parts[$0] }
        }
        if width > 0 {
            let floats = heads.queryHeads * width
            result.relativeBias = try transport.sum(over: mine, of: count, floats: floats) { place in
                (0..<floats).map { biases[place * floats + $0] }
            }
        }
        return result
    }

    /// −Σ over the rows of a tile of exp(sink − L)·D, for each of this rank's tiles and each head.
    private func sinkParts(_ sinks: [Float], _ tiles: Runs) -> [[Float]] {
        let shares = AlignedBuffer(count: TileGrid.tileSize)
        let sum = AlignedBuffer(count: 1)
        var row = 0
        return tiles.map { tile in
            let tokens = problem.queries.numbering.tokens(of: tile).count
            defer { row += tokens }
            return sinks.enumerated().map { head, sink in
                for offset in 0..<tokens { shares[offset] = sink - logSumExp[head * rows + row + offset] }
                kernels.functions.exp(shares.pointer, shares.pointer, tokens)
                kernels.gradientFunctions.dot_rows(
                    1, tokens, shares.pointer, 0, dots.pointer + head * rows + row, 0, sum.pointer, 1)
                return -sum[0]
            }
        }
    }
}

extension AttentionProblem {
    /// The job of this attention's gradients.
    public func differentiated(_ modifiers: ScoreModifiers = ScoreModifiers()) -> AttentionProblem {
        var problem = self
        problem.operation = .differentiate(heads, modifiers)
        return problem
    }
}
