// One attention case: made from a seed, run on any transport, held against the float64 oracle.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

/// An attention over a batch of sequences whose inputs depend on the seed alone.
public struct RingCase: Sendable, CustomStringConvertible {
    public var sequences: [SequenceShape]
    public var heads: HeadShape
    public var mask: Mask
    public var layout: Layout
    public var strategy = Strategy.passKeyValue
    public var seed: UInt64
    /// What queries are multiplied by, to make some softmaxes sharp.
    public var sharpness: Float = 1
    public var modifiers = ScoreModifiers()
    public var element = ElementKind.float32
    public var wire: ElementKind?
    /// The ranks that share memory: so many neighbours.
    public var ranksPerNode = 1

    public init(
        _ sequences: [SequenceShape], heads: HeadShape, mask: Mask, layout: Layout = .contiguous, seed: UInt64 = 1,
        sharpness: Float = 1
    ) {
        self.sequences = sequences
        self.heads = heads
        self.mask = mask
        self.layout = layout
        self.seed = seed
        self.sharpness = sharpness
    }

    public var description: String {
        "\(sequences.map { "\($0.queries)×\($0.keys)" }) \(heads) \(mask) \(modifiers) \(layout) \(strategy.rawValue) \(element)\(wire.map { " over \($0)" } ?? "") \(ranksPerNode) a node seed \(seed)"
    }

    public var scale: Float { 1 / Float(heads.headDimension).squareRoot() }

    /// The sequences as they are attended: a packed one falls apart into its documents.
    private var pieces: (shapes: [SequenceShape], mask: Mask) {
        let whole = sequences.count == 1 ? mask.pieces(of: sequences[0]) : (sequences, mask)
        return (shapes: whole.0, mask: whole.1)
    }

    /// The job over some ranks, of uneven speeds where the layout looks at them.
    public func job(ranks: Int) -> AttentionJob {
        var job = AttentionJob(
            shapes: pieces.shapes, mask: pieces.mask, heads: heads, layout: layout, rankCount: ranks,
            denseFlopPerToken: 100, speeds: (0..<ranks).map { 1 + Double($0 % 3) })
        job.element = element
        job.wire = wire
        job.topology = Topology(hosts: (0..<ranks).map { $0 / ranksPerNode })
        return job
    }

    /// (tokens of all sequences, heads, dimension) for queries, keys and values.
    public func inputs() -> (queries: [Float], keys: [Float], values: [Float]) {
        var generator = SplitMix(seed: seed)
        let queryTokens = sequences.reduce(0) { $0 + $1.queries }
        let keyTokens = sequences.reduce(0) { $0 + $1.keys }
        func random(_ count: Int, _ factor: Float) -> [Float] { (0..<count).map { _ in generator.unit() * factor } }
        return (
            random(queryTokens * heads.queryHeads * heads.headDimension, 2 * sharpness),
            random(keyTokens * heads.keyValueHeads * heads.headDimension, 2),
            random(keyTokens * heads.keyValueHeads * heads.valueDimension, 1)
        )
    }

    /// The plans of all ranks.
    public func plans(ranks: Int) -> [Plan] {
        let planner = strategy.planner(Needs(job(ranks: ranks)))
        return (0..<ranks).map { planner.plan(Rank($0)) }
    }

    /// What a run gave: (tokens of all sequences, heads, valueDimension), (tokens, heads), and what this rank sent.
    public struct Outcome: Sendable, Equatable {
        public var output: [Float]
        public var logSumExp: [Float]
        public var bytesSent: Int
        public var messagesSent: Int

        public init(output: [Float] = [], logSumExp: [Float] = [], bytesSent: Int = 0, messagesSent: Int = 0) {
            self.output = output
            self.logSumExp = logSumExp
            self.bytesSent = bytesSent
            self.messagesSent = messagesSent
        }

        /// The same bits, NaNs included.
        public func sameBits(as other: Outcome) -> Bool {
            output.map(\.bitPattern) == other.output.map(\.bitPattern)
                && logSumExp.map(\.bitPattern) == other.logSumExp.map(\.bitPattern)
        }
    }

    /// What one rank computed: its own rows.
    public struct Part {
        let output: AlignedBuffer
        let logSumExp: AlignedBuffer
        let sent: Traffic
    }

    /// Runs this rank's part and gathers the whole on every rank.
    public func run(
        on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best,
        inputs given: (queries: [Float], keys: [Float], values: [Float])? = nil
    ) throws -> Outcome {
        let part = try attend(executor(on: transport, threads: threads, kernels: kernels), inputs: given ?? inputs(), on: transport)
        return try gather(part, over: transport)
    }

    /// What runs this rank's part.
    public func executor(on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best) throws -> RingExecutor {
        try RingExecutor(
            plan: strategy.plan(job(ranks: transport.size), rank: transport.rank), modifiers: modifiers, transport: transport,
            threads: ThreadPool(threads: threads), kernels: kernels)
    }

    /// Packs and attends this rank's part of some inputs.
    public func attend(
        _ executor: RingExecutor, inputs: (queries: [Float], keys: [Float], values: [Float]), on transport: any Transport
    ) throws -> Part {
        let job = executor.plan.job
        let (allQueries, allKeys, allValues) = inputs
        let queryWidth = heads.queryHeads * heads.headDimension
        let keyWidth = heads.keyValueHeads * heads.headDimension
        let valueWidth = heads.keyValueHeads * heads.valueDimension
        let outputWidth = heads.queryHeads * heads.valueDimension
        for run in job.keys.tiles(of: transport.rank).ranges {
            for tile in run {
                let tokens = Self.tokens(of: tile, job.keys)
                let keys = Self.buffer(Array(allKeys[tokens.lowerBound * keyWidth..<tokens.upperBound * keyWidth]))
                let values = Self.buffer(Array(allValues[tokens.lowerBound * valueWidth..<tokens.upperBound * valueWidth]))
                // In two parts, as the encoder does.
                let cut = min(64, tokens.count)
                for rows in [0..<cut, cut..<tokens.count] where !rows.isEmpty {
                    withExtendedLifetime((keys, values)) {
                        executor.pack(
                            tile: tile, rows: rows,
                            keys: HeadRows(keys, offset: rows.lowerBound * keyWidth, tokenStride: keyWidth, headStride: heads.headDimension),
                            values: HeadRows(values, offset: rows.lowerBound * valueWidth, tokenStride: valueWidth,
                                headStride: heads.valueDimension))
                    }
                }
            }
        }
        let mine = job.queries.tiles(of: transport.rank).ranges.flatMap { $0.map { Self.tokens(of: $0, job.queries) } }
        let queries = Self.buffer(mine.flatMap { allQueries[$0.lowerBound * queryWidth..<$0.upperBound * queryWidth] })
        let rows = mine.reduce(0) { $0 + $1.count }
        let output = AlignedBuffer(count: rows * outputWidth)
        let logSumExp = AlignedBuffer(count: rows * heads.queryHeads)
        let before = transport.traffic
        try withExtendedLifetime((queries, output, logSumExp)) {
            try executor.attend(
                queries: HeadRows(queries, tokenStride: queryWidth, headStride: heads.headDimension), scale: scale,
                output: HeadRows(output, tokenStride: outputWidth, headStride: heads.valueDimension),
                logSumExp: HeadRows(logSumExp, tokenStride: heads.queryHeads, headStride: 1))
        }
        var sent = transport.traffic
        sent.bytes -= before.bytes
        sent.messages -= before.messages
        return Part(output: output, logSumExp: logSumExp, sent: sent)
    }

    /// The whole of what all ranks computed. Collective.
    public func gather(_ part: Part, over transport: any Transport) throws -> Outcome {
        let job = job(ranks: transport.size)
        let outputs = try transport.allGather(withExtendedLifetime(part.output) { Array($0.bytes) })
        let sums = try transport.allGather(withExtendedLifetime(part.logSumExp) { Array($0.bytes) })
        return Outcome(
            output: Self.assemble(outputs, width: heads.queryHeads * heads.valueDimension, job.queries),
            logSumExp: Self.assemble(sums, width: heads.queryHeads, job.queries), bytesSent: part.sent.bytes,
            messagesSent: part.sent.messages)
    }

    /// Where a gathered result leaves the oracle's bound: a description of the first place, or nil.
    public func disagreement(_ outcome: Outcome) -> String? {
        let (queries, keys, values) = inputs()
        func head(_ all: [Float], _ tokens: Range<Int>, _ head: Int, of heads: Int, width: Int) -> [Float] {
            tokens.flatMap { all[($0 * heads + head) * width..<($0 * heads + head + 1) * width] }
        }
        var firstQuery = 0
        var firstKey = 0
        for (number, shape) in sequences.enumerated() {
            for h in 0..<heads.queryHeads {
                let keyHead = h / heads.groupSize
                let oracle = Oracle.attend(
                    queries: head(queries, firstQuery..<firstQuery + shape.queries, h, of: heads.queryHeads, width: heads.headDimension),
                    keys: head(keys, firstKey..<firstKey + shape.keys, keyHead, of: heads.keyValueHeads, width: heads.headDimension),
                    values: head(values, firstKey..<firstKey + shape.keys, keyHead, of: heads.keyValueHeads, width: heads.valueDimension),
                    headDimension: heads.headDimension, valueDimension: heads.valueDimension, shape: shape, mask: mask,
                    scale: Double(scale), modifiers: modifiers, head: h, element: element, wire: wire)
                for row in 0..<shape.queries {
                    let place = (firstQuery + row) * heads.queryHeads + h
                    let sum = Double(outcome.logSumExp[place])
                    let exact = oracle.logSumExp[row]
                    if !(sum == exact || abs(sum - exact) <= oracle.logSumExpBound[row]) {
                        return "log-sum-exp of sequence \(number), head \(h), row \(row): \(sum), oracle \(exact) ± \(oracle.logSumExpBound[row])"
                    }
                    for column in 0..<heads.valueDimension {
                        let value = Double(outcome.output[place * heads.valueDimension + column])
                        let element = row * heads.valueDimension + column
                        if !(abs(value - oracle.output[element]) <= oracle.outputBound[element]) {
                            return "output of sequence \(number), head \(h), row \(row), channel \(column): \(value), "
                                + "oracle \(oracle.output[element]) ± \(oracle.outputBound[element])"
                        }
                    }
                }
            }
            firstQuery += shape.queries
            firstKey += shape.keys
        }
        return nil
    }

    /// The places of a tile's tokens among the tokens of all sequences.
    private static func tokens(of tile: Int, _ sharding: Sharding) -> Range<Int> {
        let sequence = sharding.numbering.sequence(of: tile)
        let before = sharding.numbering.lengths[..<sequence].reduce(0, +)
        let tokens = sharding.numbering.tokens(of: tile)
        return before + tokens.lowerBound..<before + tokens.upperBound
    }

    private static func buffer(_ values: [Float]) -> AlignedBuffer {
        let buffer = AlignedBuffer(count: values.count)
        withExtendedLifetime(buffer) { $0.pointer.update(from: values, count: values.count) }
        return buffer
    }

    /// Puts every rank's rows where they belong.
    private static func assemble(_ parts: [[UInt8]], width: Int, _ sharding: Sharding) -> [Float] {
        var result = Array(repeating: Float.nan, count: sharding.numbering.lengths.reduce(0, +) * width)
        for (rank, bytes) in parts.enumerated() {
            let floats = bytes.withUnsafeBytes { raw in (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) } }
            var row = 0
            for run in sharding.tiles(of: Rank(rank)).ranges {
                for tile in run {
                    let tokens = tokens(of: tile, sharding)
                    result.replaceSubrange(
                        tokens.lowerBound * width..<tokens.upperBound * width,
                        with: floats[row * width..<(row + tokens.count) * width])
                    row += tokens.count
                }
            }
        }
        return result
    }
}
