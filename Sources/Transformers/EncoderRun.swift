// One batch of documents through an encoder, on one rank of a job.

import Attention
import Files
import Matrices
import Plans
import RingAttention
import Synchronization
import Tiles

/// The execution of an encoder over one batch, on one rank: it holds the hidden states of the tiles that
/// the sharding gives to this rank, and meets the other ranks in every layer's attention only.
///
/// Everything outside attention works row by row, so neither the split into blocks of rows nor the
/// company of other documents changes a bit.
public final class EncoderRun {
    /// The model that is run; other runs may share it.
    public let encoder: Encoder
    /// Which rank holds which tiles of the batch's documents.
    public let sharding: Sharding
    /// (rows of this rank, hiddenSize), and perhaps more floats that nothing is in.
    public let hidden: AlignedBuffer
    /// The nodes that send messages for want of shared memory.
    public let shortages: [SharedMemoryShortage]

    let threads: ThreadPool
    let layout: RowLayout
    /// Whether a rank needs nothing of the others: every document is whole on one.
    private let isLocal: Bool
    private let strategy: Strategy
    private let wire: ElementKind?
    let transport: any Transport
    let memory: BufferPool
    /// None where a group makes its own.
    let attention: LayerAttention?
    /// (rows of the largest group, widest queries)
    let queries: AlignedBuffer
    /// (rows of the largest group, widest attention): the memory of the queries, which attention is through with, where
    /// each head's values are as wide as its queries.
    private let attended: AlignedBuffer
    /// By base of rotary positions: (rows of this rank, 2, pairs).
    let rotations: [Double: AlignedBuffer]
    private let blockMemory: [Block.Memory]
    /// Of groups that made an attention of their own.
    private var pacesOfGroups: [HeadShape: Pace] = [:]
    let progressed: @Sendable () -> Void
    /// What is observed of the layers, if anything is.
    let observation: RunObservation?
    /// What is kept for the way back, where the run is a training's.
    let tape: RunTape?
    private let firstNotFinite = Mutex<NotFinite?>(nil)

    /// Where hidden states came out infinite or as no numbers.
    public struct NotFinite: Sendable, Hashable, Comparable {
        /// The layer that made them, from 1; 0: the embeddings.
        public let layer: Int
        /// The document's place in the batch.
        public let sequence: Int
        /// The tile, counted from the first of the sequence.
        public let tile: Int

        /// By layer, then by document, then by tile.
        public static func < (one: NotFinite, other: NotFinite) -> Bool {
            (one.layer, one.sequence, one.tile) < (other.layer, other.sequence, other.tile)
        }
    }

    /// The first place of this rank's rows that is not finite: of the first layer, its first tile. Nil where all are.
    public var notFinite: NotFinite? { firstNotFinite.withLock { $0 } }

    /// Whether all ranks go through the layers together, so that they may meet between two of them.
    public var isInStep: Bool { !isLocal || transport.size == 1 && layout.groups.count <= 1 }

    /// This rank's tiles in ascending order, with the rows that hold them.
    public var tiles: [LocalTile] { layout.tiles }

    /// - Parameters:
    ///   - encoder: the model that is run.
    ///   - sharding: which rank holds which tiles of the batch's documents.
    ///   - strategy: how the units of attention come to their operands.
    ///   - topology: which ranks share memory; none do by default. Collective where some do.
    ///   - wire: what keys and values travel in, if not in what they are stored in.
    ///   - transport: connects this rank to the others of the sharding.
    ///   - threads: those of this rank, all of which compute.
    ///   - memory: what runs before this one have left, if they are gone.
    ///   - observing: what of the layers' attention is observed; nil: nothing. Observed ranks go through the layers
    ///     together.
    ///   - training: that gradients go back through the run, and what is dropped on the way; nil: none do. Ranks go through
    ///     the layers together then.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    public init(
        encoder: Encoder, sharding: Sharding, strategy: Strategy = .passKeyValue, topology: Topology? = nil,
        wire: ElementKind? = nil,
        transport: any Transport, threads: ThreadPool, memory: BufferPool = BufferPool(),
        observing: AttentionObservation? = nil, training: TrainingPass? = nil,
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        precondition(observing == nil || training == nil, "a run is observed or trained")
        self.encoder = encoder
        self.sharding = sharding
        self.threads = threads
        self.progressed = progressed
        self.strategy = strategy
        self.wire = wire
        self.transport = transport
        self.memory = memory
        isLocal =
            observing == nil && training == nil && sharding.keepsSequencesWhole && strategy.keepsWholeSequencesInPlace
        let layout = RowLayout(sharding, rank: transport.rank, isLocal: isLocal, threads: threads.threads)
        self.layout = layout
        let configuration = encoder.configuration
        hidden = memory.buffer(count: layout.rowCount * configuration.hiddenSize)
        let mostRows = layout.groups.map { $0.rows.count }.max() ?? 0
        queries = memory.buffer(count: mostRows * configuration.widestQueries)
        // A second pass over the keys needs the queries again.
        let areAsWide =
            observing == nil && configuration.kinds.allSatisfy { $0.heads.headDimension == $0.heads.valueDimension }
        attended = areAsWide ? queries : memory.buffer(count: mostRows * configuration.widestAttended)
        blockMemory = (0..<threads.threads).map { _ in
            Block.Memory(configuration, rows: layout.mostBlockRows, memory: memory)
        }
        rotations = Self.rotations(encoder, layout, threads: threads)
        let observation = observing.map { RunObservation($0, encoder, sharding, layout) }
        self.observation = observation
        tape = training.map { RunTape($0, configuration, layout, threads: threads.threads, memory: memory) }
        let isTrained = training != nil
        guard !isLocal else {
            attention = nil
            shortages = []
            return
        }
        let made = try LayerAttention.make(
            encoder, sharding, strategy, topology: topology, wire: wire, transport: transport, threads: threads,
            memory: memory,
            progressed: progressed,
            observed: { kind in
                isTrained ? [LayerAttention.differentiate(encoder, kind)] : observation?.operations(kind) ?? []
            })
        attention = made.attention
        shortages = made.shortages
    }

    /// The attention of a group: its documents are a batch of this rank's alone where they are whole.
    private func attention(of group: RowGroup) throws -> LayerAttention {
        if let attention { return attention }
        let sequences = tiles[group.tiles].map(\.sequence)
        var lengths: [Int] = []
        for (index, sequence) in sequences.enumerated() where index == 0 || sequence != sequences[index - 1] {
            lengths.append(sharding.numbering.lengths[sequence])
        }
        return try LayerAttention(
            encoder, Sharding(lengths: lengths, layout: .contiguous, rankCount: 1), strategy, wire: wire,
            transport: transport, threads: threads,
            memory: memory, progressed: progressed)
    }

    /// The time so far in which this rank waited for messages with nothing left to attend.
    public var exposed: Duration { attention?.exposed ?? .zero }

    /// How fast attention of a head's widths has been computed so far; nothing of a model that modifies its scores.
    public func pace(_ heads: HeadShape) -> Pace {
        guard encoder.modifiers == ScoreModifiers() else { return Pace() }
        let widths = (heads.headDimension, heads.valueDimension)
        return (attention?.paces ?? pacesOfGroups).reduce(Pace()) { sum, entry in
            (entry.key.headDimension, entry.key.valueDimension) == widths ? sum + entry.value : sum
        }
    }

    /// Runs all layers; `hidden` then holds this rank's rows of the last one. Collective.
    /// - Parameters:
    ///   - first: how many layers are done: `hidden` holds the rows of this rank behind the last of them.
    ///   - ids: the token ids of every document of the batch.
    ///   - typeIds: which of two texts each token is of, 0 or 1; all 0 where nil, and where the model has one type or
    ///     none.
    ///   - layerDone: told the number of a layer that is done, whose rows `hidden` holds now, and the part of all work
    ///     that is done. What it throws ends the run.
    ///   - observed: given each observed layer once its attention is done, and before the next one begins; what it is
    ///     given holds until it returns. Collective functions may be called in it.
    /// - Throws: ``TokenError`` for a token that has no row in a table of embeddings, before anything is read or sent,
    ///   so on every rank; what the transport throws.
    /// - Precondition: the documents are of the sharding's lengths, and have a type for each id.
    public func run(
        ids: [[Int32]], typeIds: [[Int32]]? = nil, from first: Int = 0,
        layerDone: (_ layer: Int, _ done: Double) throws -> Void = { _, _ in },
        observed: (ObservedLayer) throws -> Void = { _ in }
    ) throws {
        precondition((0...encoder.layers.count).contains(first), "layers that the model does not have")
        precondition(ids.map(\.count) == sharding.numbering.lengths, "documents of other lengths than were planned")
        precondition(typeIds.map { $0.map(\.count) == ids.map(\.count) } ?? true, "a type for each id")
        try encoder.configuration.check(ids: ids, typeIds: typeIds)
        precondition(first == 0 || tape == nil, "a training goes through all layers")
        let tokens = TokenBatch(
            encoder.configuration, ids: ids, typeIds: typeIds, sequences: Set(tiles.map(\.sequence)))
        tape?.begin(tokens)
        for (number, group) in layout.groups.enumerated() {
            let attention = try attention(of: group)
            if first == 0 { transport.timeline.span(.dense, "embeddings") { embed(group, tokens) } }
            for (index, block) in encoder.layers.enumerated().dropFirst(first) {
                try forward(
                    block, number: index + 1, encoder.configuration.attention[index], group, attention, observed)
                let part = Double(number) + Double(index + 1) / Double(encoder.layers.count)
                try layerDone(index + 1, part / Double(layout.groups.count))
            }
            if isLocal { pacesOfGroups.merge(attention.paces, uniquingKeysWith: +) }
            tape?.keep(hidden, before: encoder.layers.count)
            guard let norm = encoder.finalNorm else { continue }
            forEachBlock(of: group) { block, rows, _ in
                norm.forward(rows: block.count, rows, into: rows, kernels: encoder.kernels)
            }
        }
    }

    /// The logits that a head gives for some of this rank's rows, tile by tile, in the order in which they are wanted.
    /// - Parameters:
    ///   - head: the head of a task, over states of this encoder.
    ///   - wanted: the rows of a tile, counted from its first token.
    /// - Returns: for each row its tile, the row as it was wanted, and a logit for each of the head's outputs.
    public func logits(_ head: TaskHead, wanted: (LocalTile) -> [Int]) -> [(tile: LocalTile, row: Int, values: [Float])]
    {
        let width = encoder.configuration.hiddenSize
        var rows: [(tile: LocalTile, row: Int)] = []
        for tile in tiles { rows += wanted(tile).map { (tile, $0) } }
        var results = Array(repeating: [Float](), count: rows.count)
        let step = 16
        results.withUnsafeMutableBufferPointer { results in
            threads.forEach((rows.count + step - 1) / step) { index, _ in
                for number in index * step..<min(rows.count, (index + 1) * step) {
                    let (tile, row) = rows[number]
                    // Disjoint: each index has its own rows of the result.
                    results[number] = head.logits(rows: 1, hidden.pointer + (tile.firstRow + row) * width)
                }
            }
        }
        return zip(rows, results).map { ($0.tile, $0.row, $1) }
    }

    /// Calls `body` for each block of rows of a group, on all threads.
    /// - Parameter body: is given the block's hidden states and the thread's memory.
    private func forEachBlock(
        of group: RowGroup,
        _ body: (_ block: RowBlock, _ rows: UnsafeMutablePointer<Float>, _ memory: Block.Memory) -> Void
    ) {
        threads.forEach(group.blocks.count) { index, worker in
            let block = group.blocks[index]
            // Disjoint: each index has its own rows, each worker its own memory.
            body(block, hidden.pointer + block.firstRow * encoder.configuration.hiddenSize, blockMemory[worker])
        }
    }

    /// The queries of a group's rows, and its keys and values, packed.
    func project(
        _ block: Block, _ pattern: AttentionPattern, _ group: RowGroup, _ attention: LayerAttention,
        from states: AlignedBuffer
    ) {
        let (heads, kernels) = (pattern.heads, encoder.kernels)
        let queryWidth = heads.queryHeads * heads.headDimension
        let (keyWidth, valueWidth) = (
            heads.keyValueHeads * heads.headDimension, heads.keyValueHeads * heads.valueDimension
        )
        let rotation = pattern.rotaryBase.flatMap { rotations[$0] }
        let keyValues = attention.layer(pattern.kind).keyValues
        threads.forEach(group.blocks.count) { index, worker in
            let (part, memory) = (group.blocks[index], blockMemory[worker])
            let first = part.firstRow - group.rows.lowerBound
            // Disjoint: each index has its own rows and keys, each worker its own memory.
            block.project(
                rows: part.count, states.pointer + part.firstRow * encoder.configuration.hiddenSize,
                rotation: rotation.map { $0.pointer + part.firstRow * 2 * block.attention.rotaryPairs },
                queries: queries.pointer + first * queryWidth, memory, kernels: kernels)
            for piece in part.parts {
                let row = piece.tile.firstRow + piece.rows.lowerBound - part.firstRow
                keyValues.pack(
                    tile: isLocal ? piece.tile.place - group.tiles.lowerBound : piece.tile.number, rows: piece.rows,
                    keys: HeadRows(
                        memory.first, offset: row * keyWidth, tokenStride: keyWidth, headStride: heads.headDimension),
                    values: HeadRows(
                        memory.second, offset: row * valueWidth, tokenStride: valueWidth,
                        headStride: heads.valueDimension))
            }
            progressed()
        }
    }

    /// The attention rollout of a token of every document that has it, by the states that were kept (Abnar & Zuidema
    /// 2020): from the last layer to the first, r ← r·(I + A)/2, A being the mean of the heads' weights, and r at first 1
    /// for that token. Exact: a second pass over the keys of each layer, whose weights are those of the rows' r. Collective;
    /// after `run`, where the observation asks for rollouts.
    /// - Parameters:
    ///   - position: the token's place in its document; no row of a document that has none such is looked at.
    ///   - progressed: told how many layers are done.
    /// - Returns: what each of this rank's rows has of it.
    public func rollout(from position: Int, progressed: (_ layers: Int) -> Void = { _ in }) throws -> [Float] {
        guard let observation, let attention, let group = layout.groups.first else { return [] }
        var shares = [Float](repeating: 0, count: layout.rowCount)
        for tile in tiles where tile.tokens.contains(position) {
            shares[tile.firstRow + position - tile.tokens.lowerBound] = 1
        }
        for (index, block) in encoder.layers.enumerated().reversed() {
            let pattern = encoder.configuration.attention[index]
            project(block, pattern, group, attention, from: observation.states(before: index))
            let width = pattern.heads.queryHeads * pattern.heads.headDimension
            try observation.rollBack(
                &shares, layer: index, block.attention, pattern.kind, attention,
                queries: HeadRows(queries, tokenStride: width, headStride: pattern.heads.headDimension))
            progressed(encoder.layers.count - index)
        }
        return shares
    }

    /// One block of the encoder over the rows of a group: to attention, through it, and from it.
    private func forward(
        _ block: Block, number: Int, _ pattern: AttentionPattern, _ group: RowGroup, _ attention: LayerAttention,
        _ observed: (ObservedLayer) throws -> Void
    ) throws {
        let (heads, kernels) = (pattern.heads, encoder.kernels)
        observation?.keep(hidden, before: number - 1)
        tape?.keep(hidden, before: number - 1)
        let attended = tape?.attended[number - 1] ?? self.attended
        let (queryWidth, attendedWidth) = (
            heads.queryHeads * heads.headDimension, heads.queryHeads * heads.valueDimension
        )
        transport.timeline.span(.dense, "project", number: number) {
            project(block, pattern, group, attention, from: hidden)
        }
        let (executor, keyValues) = attention.layer(pattern.kind)
        let (from, to) = (
            HeadRows(queries, tokenStride: queryWidth, headStride: heads.headDimension),
            HeadRows(attended, tokenStride: attendedWidth, headStride: heads.valueDimension)
        )
        if let observation {
            let layer = try observation.attend(
                layer: number - 1, block.attention, pattern.kind, attention, queries: from, output: to,
                transport: transport, threads: threads)
            if let layer { try observed(layer) }
        } else if let tape {
            try executor.run(
                .attend(
                    queries: from, scale: block.attention.scale, output: to,
                    rowMax: tape.perRow(tape.rowMax[number - 1]), rowSum: tape.perRow(tape.rowSum[number - 1]),
                    dropout: tape.pass.dropout?.weights(layer: number - 1)),
                on: keyValues)
        } else {
            try executor.attend(
                queries: from, to: keyValues, scale: block.attention.scale, output: to,
                contents: block.attention.contents)
        }
        transport.timeline.span(.dense, "finish", number: number) {
            forEachBlock(of: group) { part, rows, memory in
                let first = part.firstRow - group.rows.lowerBound
                block.finish(
                    rows: part.count, attended: attended.pointer + first * attendedWidth, rows, memory,
                    dropout: tape?.dropout(number - 1, part), kernels: kernels)
                lookForNotFinite(part, layer: number)
                progressed()
            }
        }
    }

    /// The sum of a token's embeddings, its norm and projection.
    private func embed(_ group: RowGroup, _ tokens: TokenBatch) {
        let (tables, kernels) = (encoder.embeddings, encoder.kernels)
        let (width, hiddenSize) = (encoder.configuration.embeddingSize, encoder.configuration.hiddenSize)
        forEachBlock(of: group) { block, rows, memory in
            let target = tables.projection == nil ? rows : memory.first.pointer
            let dropout = tape?.dropout(0, block)
            tables.sum(block, of: tokens, width: width, into: target)
            if !tables.normIsLast {
                tables.norm?.forward(rows: block.count, target, into: target, kernels: kernels)
                dropout?.apply(.embeddings, target, width: width, kernels: kernels)
            }
            tables.projection?.forward(rows: block.count, target, into: rows, kernels: kernels)
            if tables.normIsLast {
                tables.norm?.forward(rows: block.count, rows, into: rows, kernels: kernels)
                dropout?.apply(.embeddings, rows, width: hiddenSize, kernels: kernels)
            }
            lookForNotFinite(block, layer: 0)
        }
    }

    /// Keeps the first tile of a block whose rows are not finite, if it is the first of all: a pass over rows that are
    /// in the cache, beside products that take a thousand times as long.
    private func lookForNotFinite(_ block: RowBlock, layer: Int) {
        let width = encoder.configuration.hiddenSize
        if areFinite(hidden.pointer + block.firstRow * width, count: block.count * width) { return }
        for part in block.parts {
            let rows = hidden.pointer + (part.tile.firstRow + part.rows.lowerBound) * width
            if areFinite(rows, count: part.rows.count * width) { continue }
            let found = NotFinite(
                layer: layer, sequence: part.tile.sequence, tile: part.tile.tokens.lowerBound / TileGrid.tileSize)
            firstNotFinite.withLock { $0 = min($0 ?? found, found) }
        }
    }

    /// Cosines and sines of this rank's rows.
    private static func rotations(_ encoder: Encoder, _ layout: RowLayout, threads: ThreadPool) -> [Double:
        AlignedBuffer]
    {
        let width = encoder.configuration.rotaryDimension
        var rotations: [Double: AlignedBuffer] = [:]
        for base in Set(encoder.configuration.attention.compactMap(\.rotaryBase)) {
            let table = AlignedBuffer(count: layout.rowCount * width)
            threads.forEach(layout.tiles.count) { index, _ in
                let tile = layout.tiles[index]
                encoder.rotary.table(base: base, positions: tile.tokens, into: table.pointer + tile.firstRow * width)
            }
            rotations[base] = table
        }
        return rotations
    }
}
