// One attention case: made from a seed, run on any transport, held against the float64 oracle.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

/// An attention over a batch of sequences whose inputs depend on the seed alone.
public struct RingCase: Sendable, CustomStringConvertible {
    /// The sequences of the batch.
    public var sequences: [SequenceShape]
    /// The heads of all sequences.
    public var heads: HeadShape
    /// What queries see; it has to fit every sequence.
    public var mask: Mask
    /// How tiles are dealt out to ranks.
    public var layout: Layout
    /// Who computes what.
    public var strategy = Strategy.passKeyValue
    /// What the inputs depend on, beside the shapes.
    public var seed: UInt64
    /// What queries are multiplied by, to make some softmaxes sharp.
    public var sharpness: Float = 1
    /// What is done to the scores; lists have an entry for each query head.
    public var modifiers = ScoreModifiers()
    /// What is dropped of the weights.
    public var dropout: WeightDropout?
    /// What keys and values are stored in.
    public var element = ElementKind.float32
    /// What keys and values travel in; nil: in `element`.
    public var wire: ElementKind?
    /// The ranks that share memory: so many neighbours.
    public var ranksPerNode = 1

    /// A case under pass-kv in float32, without modifiers and shared memory; the other variables say otherwise.
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

    /// All that it takes to make the case again but for the sharpness.
    public var description: String {
        "\(sequences.map { "\($0.queries)×\($0.keys)" }) \(heads) \(mask) \(modifiers) \(layout) \(strategy.rawValue) \(element)\(wire.map { " over \($0)" } ?? "")\(dropout.map { " dropout \($0)" } ?? "") \(ranksPerNode) a node seed \(seed)"
    }

    /// What scores are multiplied by: 1/√d.
    public var scale: Float { 1 / Float(heads.headDimension).squareRoot() }

    /// The sequences as they are attended: a packed one falls apart into its documents.
    private var pieces: (shapes: [SequenceShape], mask: Mask) {
        let whole = sequences.count == 1 ? mask.pieces(of: sequences[0]) : (sequences, mask)
        return (shapes: whole.0, mask: whole.1)
    }

    /// The job over some ranks, of uneven speeds where the layout looks at them.
    public func problem(ranks: Int) -> AttentionProblem {
        var problem = AttentionProblem(
            shapes: pieces.shapes, mask: pieces.mask, heads: heads, layout: layout, rankCount: ranks,
            denseFlopPerToken: 100, speeds: (0..<ranks).map { 1 + Double($0 % 3) })
        problem.element = element
        problem.wire = wire
        problem.topology = Topology(hosts: (0..<ranks).map { $0 / ranksPerNode })
        return problem
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
        let planner = strategy.planner(TileDependencies(problem(ranks: ranks)))
        return (0..<ranks).map { planner.plan(Rank($0)) }
    }

    /// What a run gave: (tokens of all sequences, heads, valueDimension), (tokens, heads), and what this rank sent.
    public struct Outcome: Sendable, Equatable {
        /// (tokens of all sequences, heads, valueDimension)
        public var output: [Float]
        /// (tokens of all sequences, heads)
        public var logSumExp: [Float]
        /// Bytes that this rank sent while it attended; what gathers the outcome is not counted.
        public var bytesSent: Int
        /// Messages that this rank sent while it attended.
        public var messagesSent: Int

        /// An outcome put together from parts, for comparisons.
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
        let queries: AlignedBuffer
        let output: AlignedBuffer
        let logSumExp: AlignedBuffer
        let rowMax: AlignedBuffer
        let rowSum: AlignedBuffer
        let sent: Traffic
    }

    /// Runs this rank's part and gathers the whole on every rank.
    public func run(
        on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best,
        inputs given: (queries: [Float], keys: [Float], values: [Float])? = nil
    ) throws -> Outcome {
        let part = try attend(
            setup(on: transport, threads: threads, kernels: kernels), inputs: given ?? inputs(), on: transport)
        return try gather(part, over: transport)
    }

    /// What runs this rank's part: attention, and what keys receive of it.
    public func setup(on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best) throws
        -> AttentionSetup
    {
        let attend = problem(ranks: transport.size)
        var receive = attend
        receive.operation = .receive(heads)
        return try AttentionSetup(
            [attend, receive], strategy, transport: transport, threads: ThreadPool(threads: threads), kernels: kernels
        ) { problem in
            problem.operation == receive.operation
                ? .receive(heads: heads, element: element, mask: problem.mask, modifiers: modifiers, kernels: kernels)
                : .attend(heads: heads, element: element, mask: problem.mask, modifiers: modifiers, kernels: kernels)
        }
    }

    /// Packs this rank's part of some keys and values.
    public func pack(_ keyValues: KeyValueTiles, keys allKeys: [Float], values allValues: [Float]) {
        let (keyWidth, valueWidth) = (
            heads.keyValueHeads * heads.headDimension, heads.keyValueHeads * heads.valueDimension
        )
        for tile in keyValues.keys.tiles(of: keyValues.rank) {
            let tokens = Self.tokens(of: tile, keyValues.keys)
            let keys = Self.buffer(Array(allKeys[tokens.lowerBound * keyWidth..<tokens.upperBound * keyWidth]))
            let values = Self.buffer(Array(allValues[tokens.lowerBound * valueWidth..<tokens.upperBound * valueWidth]))
            // In two parts, as the encoder does.
            let cut = min(PackedTile.panelWidth, tokens.count)
            for rows in [0..<cut, cut..<tokens.count] where !rows.isEmpty {
                keyValues.pack(
                    tile: tile, rows: rows,
                    keys: HeadRows(
                        keys, offset: rows.lowerBound * keyWidth, tokenStride: keyWidth, headStride: heads.headDimension
                    ),
                    values: HeadRows(
                        values, offset: rows.lowerBound * valueWidth, tokenStride: valueWidth,
                        headStride: heads.valueDimension))
            }
        }
    }

    /// This rank's part of the tokens of all sequences, each so many floats.
    func mine(_ all: [Float], width: Int, _ sharding: Sharding, _ rank: Rank) -> AlignedBuffer {
        Self.buffer(
            sharding.tiles(of: rank).flatMap { tile in
                let tokens = Self.tokens(of: tile, sharding)
                return all[tokens.lowerBound * width..<tokens.upperBound * width]
            })
    }

    /// Packs and attends this rank's part of some inputs.
    public func attend(
        _ setup: AttentionSetup, inputs: (queries: [Float], keys: [Float], values: [Float]), on transport: any Transport
    ) throws -> Part {
        pack(setup.keyValues, keys: inputs.keys, values: inputs.values)
        return try attend(setup.executors[0], to: setup.keyValues, queries: inputs.queries, on: transport)
    }

    /// Attends this rank's part of some queries to what is packed.
    public func attend(
        _ executor: RingExecutor, to keyValues: KeyValueTiles, queries: [Float], on transport: any Transport
    ) throws -> Part {
        let problem = executor.plan.problem
        let (queryWidth, outputWidth) = (
            heads.queryHeads * heads.headDimension, heads.queryHeads * heads.valueDimension
        )
        let queries = mine(queries, width: queryWidth, problem.queries, transport.rank)
        let rows = problem.queries.tokenCount(of: transport.rank)
        let output = AlignedBuffer(count: rows * outputWidth)
        let statistics = (0..<3).map { _ in AlignedBuffer(count: rows * heads.queryHeads) }
        func perRow(_ buffer: AlignedBuffer) -> HeadRows {
            HeadRows(buffer, tokenStride: heads.queryHeads, headStride: 1)
        }
        let before = transport.traffic
        try executor.run(
            .attend(
                queries: HeadRows(queries, tokenStride: queryWidth, headStride: heads.headDimension), scale: scale,
                output: HeadRows(output, tokenStride: outputWidth, headStride: heads.valueDimension),
                logSumExp: perRow(statistics[0]),
                rowMax: perRow(statistics[1]), rowSum: perRow(statistics[2]), dropout: dropout),
            on: keyValues)
        return Part(
            queries: queries, output: output, logSumExp: statistics[0], rowMax: statistics[1], rowSum: statistics[2],
            sent: Self.sent(transport.traffic, since: before))
    }

    static func sent(_ now: Traffic, since before: Traffic) -> Traffic {
        var sent = now
        sent.bytes -= before.bytes
        sent.messages -= before.messages
        return sent
    }

    // MARK: Received mass

    /// What the keys of all sequences received, (tokens, query heads), and what this rank sent for it.
    public struct Received: Sendable {
        /// (tokens of all sequences, query heads)
        public var mass: [Float]
        /// Bytes that this rank sent to find it; the attention before it is not counted.
        public var bytesSent: Int
        /// Messages that this rank sent to find it.
        public var messagesSent: Int
    }

    /// A weight for each query row and head: (tokens of all sequences, query heads).
    public func rowWeights() -> [Float] {
        var generator = SplitMix(seed: seed &+ 77)
        return (0..<sequences.reduce(0) { $0 + $1.queries } * heads.queryHeads).map { _ in generator.unit() * 2 }
    }

    /// Attends, then finds what keys receive, and gathers it on every rank.
    public func receive(on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best, rowWeights: [Float])
        throws -> Received
    {
        let setup = try setup(on: transport, threads: threads, kernels: kernels)
        let part = try attend(setup, inputs: inputs(), on: transport)
        let problem = setup.executors[1].plan.problem
        let weights = mine(rowWeights, width: heads.queryHeads, problem.queries, transport.rank)
        let mass = AlignedBuffer(count: problem.keys.tokenCount(of: transport.rank) * heads.queryHeads)
        func perToken(_ buffer: AlignedBuffer) -> HeadRows {
            HeadRows(buffer, tokenStride: heads.queryHeads, headStride: 1)
        }
        let before = transport.traffic
        try setup.executors[1].run(
            .receive(
                queries: HeadRows(
                    part.queries, tokenStride: heads.queryHeads * heads.headDimension, headStride: heads.headDimension),
                scale: scale, rowMax: perToken(part.rowMax), rowSum: perToken(part.rowSum),
                rowWeights: perToken(weights), mass: perToken(mass)),
            on: setup.keyValues)
        let sent = Self.sent(transport.traffic, since: before)
        let all = try transport.allGather(withExtendedLifetime(mass) { Array($0.bytes) })
        return Received(
            mass: Self.assemble(all, width: heads.queryHeads, problem.keys), bytesSent: sent.bytes,
            messagesSent: sent.messages)
    }

    /// Where received mass leaves the oracle's bound: a description of the first place, or nil.
    public func disagreement(_ received: Received, rowWeights: [Float]) -> String? {
        var firstKey = 0
        for (number, place) in headOracles(rowWeights).enumerated() {
            for (h, oracle) in place.enumerated() {
                var sum = 0.0
                for key in oracle.mass.indices {
                    let value = Double(received.mass[(firstKey + key) * heads.queryHeads + h])
                    if !(abs(value - oracle.mass[key]) <= oracle.bound[key]) {
                        return
                            "mass of sequence \(number), head \(h), key \(key): \(value), oracle \(oracle.mass[key]) ± \(oracle.bound[key])"
                    }
                    sum += value
                }
                // With every weight 1, the mass is that of all rows but for the sink's share.
                guard rowWeights.allSatisfy({ $0 == 1 }) else { continue }
                let expected = oracle.sinkShares.reduce(0) { $0 + (1 - $1) }
                if !(abs(sum - expected) <= oracle.bound.reduce(0, +) + 1e-9 * expected) {
                    return
                        "mass of sequence \(number), head \(h), all keys: \(sum), and the rows that see anything have \(expected)"
                }
            }
            firstKey += sequences[number].keys
        }
        return nil
    }

    /// What the oracle says that keys receive, of each sequence and head.
    private func headOracles(_ rowWeights: [Float]) -> [[Oracle.Received]] {
        let (queries, keys, _) = inputs()
        var (firstQuery, firstKey) = (0, 0)
        return sequences.map { shape in
            defer {
                firstQuery += shape.queries
                firstKey += shape.keys
            }
            let (rows, columns) = (firstQuery..<firstQuery + shape.queries, firstKey..<firstKey + shape.keys)
            return (0..<heads.queryHeads).map { head in
                Oracle.receive(
                    queries: Self.head(queries, rows, head, of: heads.queryHeads, width: heads.headDimension),
                    keys: Self.head(
                        keys, columns, head / heads.groupSize, of: heads.keyValueHeads, width: heads.headDimension),
                    rowWeights: Self.head(rowWeights, rows, head, of: heads.queryHeads, width: 1),
                    headDimension: heads.headDimension, shape: shape, mask: mask, scale: Double(scale),
                    modifiers: modifiers, head: head,
                    element: element, wire: wire)
            }
        }
    }

    static func head(_ all: [Float], _ tokens: Range<Int>, _ head: Int, of heads: Int, width: Int) -> [Float] {
        tokens.flatMap { all[($0 * heads + head) * width..<($0 * heads + head + 1) * width] }
    }

    // MARK: Attention

    /// The whole of what all ranks computed. Collective.
    public func gather(_ part: Part, over transport: any Transport) throws -> Outcome {
        let problem = problem(ranks: transport.size)
        let outputs = try transport.allGather(withExtendedLifetime(part.output) { Array($0.bytes) })
        let sums = try transport.allGather(withExtendedLifetime(part.logSumExp) { Array($0.bytes) })
        return Outcome(
            output: Self.assemble(outputs, width: heads.queryHeads * heads.valueDimension, problem.queries),
            logSumExp: Self.assemble(sums, width: heads.queryHeads, problem.queries), bytesSent: part.sent.bytes,
            messagesSent: part.sent.messages)
    }

    /// Where a gathered result leaves the oracle's bound: a description of the first place, or nil.
    public func disagreement(_ outcome: Outcome) -> String? {
        let (queries, keys, values) = inputs()
        let head = Self.head
        var firstQuery = 0
        var firstKey = 0
        for (number, shape) in sequences.enumerated() {
            for h in 0..<heads.queryHeads {
                let keyHead = h / heads.groupSize
                let oracle = Oracle.attend(
                    queries: head(
                        queries, firstQuery..<firstQuery + shape.queries, h, heads.queryHeads, heads.headDimension),
                    keys: head(
                        keys, firstKey..<firstKey + shape.keys, keyHead, heads.keyValueHeads, heads.headDimension),
                    values: head(
                        values, firstKey..<firstKey + shape.keys, keyHead, heads.keyValueHeads, heads.valueDimension),
                    headDimension: heads.headDimension, valueDimension: heads.valueDimension, shape: shape, mask: mask,
                    scale: Double(scale), modifiers: modifiers, head: h, element: element, wire: wire,
                    dropout: dropout, sequence: number)
                for row in 0..<shape.queries {
                    let place = (firstQuery + row) * heads.queryHeads + h
                    let sum = Double(outcome.logSumExp[place])
                    let exact = oracle.logSumExp[row]
                    if !(sum == exact || abs(sum - exact) <= oracle.logSumExpBound[row]) {
                        return
                            "log-sum-exp of sequence \(number), head \(h), row \(row): \(sum), oracle \(exact) ± \(oracle.logSumExpBound[row])"
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

    static func buffer(_ values: [Float]) -> AlignedBuffer {
        let buffer = AlignedBuffer(count: values.count)
        withExtendedLifetime(buffer) { $0.pointer.update(from: values, count: values.count) }
        return buffer
    }

    /// Puts every rank's rows where they belong.
    static func assemble(_ parts: [[UInt8]], width: Int, _ sharding: Sharding) -> [Float] {
        var result = Array(repeating: Float.nan, count: sharding.numbering.lengths.reduce(0, +) * width)
        for (rank, bytes) in parts.enumerated() {
            let floats = bytes.withUnsafeBytes { raw in
                (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) }
            }
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
