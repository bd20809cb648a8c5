// One batch of documents through an encoder, on one rank of a job.

import Attention
import Checkpoints
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
    public let encoder: Encoder
    public let sharding: Sharding
    /// This rank's tiles in ascending order, with the rows that hold them.
    public let tiles: [LocalTile]
    /// (rows of this rank, hiddenSize), and perhaps more floats that nothing is in.
    public let hidden: AlignedBuffer

    let threads: ThreadPool
    private let groups: [Group]
    /// Whether a rank needs nothing of the others: every document is whole on one.
    private let isLocal: Bool
    private let strategy: Strategy
    private let wire: ElementKind?
    private let transport: any Transport
    private let memory: BufferPool
    /// None where a group makes its own.
    private let attention: WindowedAttention?
    /// The nodes that send messages for want of shared memory.
    public let shortages: [SharedMemoryShortage]
    /// (rows of the largest group, hiddenSize)
    private let queries: AlignedBuffer
    /// By base of rotary positions: (rows of this rank, 2, pairs).
    private let rotations: [Double: AlignedBuffer]
    private let scratch: [Scratch]
    private let progressed: @Sendable () -> Void
    private let firstNotFinite = Mutex<NotFinite?>(nil)

    /// Where hidden states came out infinite or as no numbers.
    public struct NotFinite: Sendable, Hashable, Comparable {
        /// The layer that made them, from 1; 0: the embeddings.
        public let layer: Int
        public let sequence: Int
        /// The tile, counted from the first of the sequence.
        public let tile: Int

        public static func < (one: NotFinite, other: NotFinite) -> Bool {
            (one.layer, one.sequence, one.tile) < (other.layer, other.sequence, other.tile)
        }
    }

    /// The first place of this rank's rows that is not finite: of the first layer, its first tile. Nil where all are.
    public var notFinite: NotFinite? { firstNotFinite.withLock { $0 } }

    /// A tile of this rank.
    public struct LocalTile: Sendable {
        /// Its number in the batch.
        public let number: Int
        public let sequence: Int
        /// The positions in the sequence.
        public let tokens: Range<Int>
        /// The rank's rows.
        public let firstRow: Int
        /// Its place among the rank's tiles.
        let place: Int
        public var rows: Range<Int> { firstRow..<firstRow + tokens.count }
    }

    /// Rows handled by one thread at a time: tiles and parts of tiles, cut where packing may cut them.
    struct RowBlock {
        var parts: [(tile: LocalTile, rows: Range<Int>)] = []
        var firstRow: Int
        var count: Int
    }

    /// The packed tiles of all layers, and an executor for the layers of each window.
    private struct WindowedAttention {
        let keyValues: KeyValueTiles
        let executors: [Int?: RingExecutor]

        /// - Parameter executors: one for each window of the encoder, in their order.
        init(_ encoder: Encoder, _ keyValues: KeyValueTiles, _ executors: [RingExecutor]) {
            self.keyValues = keyValues
            self.executors = Dictionary(uniqueKeysWithValues: zip(encoder.configuration.windows, executors))
        }
    }

    /// Rows that go through all layers before others do: all of the rank's, or some whole documents, few enough that their
    /// states stay in the last-level cache from layer to layer.
    private struct Group {
        /// Places among the rank's tiles.
        let tiles: Range<Int>
        let rows: Range<Int>
        let blocks: [RowBlock]

        /// Rows of a group for each thread, if documents are not longer.
        static let rowsPerThread = 2048

        init(_ all: [LocalTile], tiles: Range<Int>, threads: Int) {
            self.tiles = tiles
            rows = tiles.isEmpty ? 0..<0 : all[tiles.lowerBound].firstRow..<all[tiles.upperBound - 1].rows.upperBound
            blocks = EncoderRun.blocks(all, tiles, rows: EncoderRun.blockRows(rows: rows.count, threads: threads))
        }
    }

    /// What a thread needs to carry a block of rows through the dense layers.
    private final class Scratch {
        /// (block rows, hiddenSize or embeddingSize), twice: keys and values, or a dense layer's result.
        let first: AlignedBuffer
        let second: AlignedBuffer
        /// (block rows, hiddenSize): rows that a norm has gone over, where norms stand before.
        let normed: AlignedBuffer
        /// (block rows, width of the inner layer)
        let inner: AlignedBuffer

        init(_ configuration: EncoderConfiguration, rows: Int, memory: BufferPool) {
            let width = max(configuration.hiddenSize, configuration.embeddingSize)
            first = memory.buffer(count: rows * width)
            second = memory.buffer(count: rows * width)
            normed = memory.buffer(count: configuration.norms == .beforeSublayer ? rows * width : 0)
            inner = memory.buffer(count: rows * configuration.innerWidth)
        }
    }

    /// - Parameters:
    ///   - topology: which ranks share memory; none do by default. Collective where some do.
    ///   - memory: what runs before this one have left, if they are gone.
    public init(
        encoder: Encoder, sharding: Sharding, strategy: Strategy = .passKeyValue, topology: Topology? = nil, wire: ElementKind? = nil,
        transport: any Transport, threads: ThreadPool, memory: BufferPool = BufferPool(),
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        self.encoder = encoder
        self.sharding = sharding
        self.threads = threads
        self.progressed = progressed
        var tiles: [LocalTile] = []
        var row = 0
        for run in sharding.tiles(of: transport.rank).ranges {
            for tile in run {
                let tokens = sharding.numbering.tokens(of: tile)
                tiles.append(LocalTile(
                    number: tile, sequence: sharding.numbering.sequence(of: tile), tokens: tokens, firstRow: row, place: tiles.count))
                row += tokens.count
            }
        }
        self.tiles = tiles
        let configuration = encoder.configuration
        let width = configuration.hiddenSize
        hidden = memory.buffer(count: row * width)
        isLocal = sharding.keepsSequencesWhole && strategy.keepsWholeSequencesInPlace
        // Where ranks meet, one without rows of its own meets them too.
        groups = isLocal
            ? Self.groups(tiles, rows: Group.rowsPerThread * threads.threads, threads: threads.threads)
            : [Group(tiles, tiles: 0..<tiles.count, threads: threads.threads)]
        queries = memory.buffer(count: (groups.map { $0.rows.count }.max() ?? 0) * width)
        let blockRows = groups.flatMap(\.blocks).map(\.count).max() ?? 0
        scratch = (0..<threads.threads).map { _ in Scratch(configuration, rows: blockRows, memory: memory) }
        rotations = Self.rotations(encoder, tiles, rows: row, threads: threads)
        self.strategy = strategy
        self.wire = wire
        self.transport = transport
        self.memory = memory
        guard !isLocal else {
            attention = nil
            shortages = []
            return
        }
        let jobs = Self.jobs(encoder, sharding, wire).map { job in
            var job = job
            if let topology { job.topology = topology }
            return job
        }
        let setup = try AttentionSetup(
            jobs, strategy, transport: transport, threads: threads, kernels: encoder.kernels, memory: memory, progressed: progressed,
            operation: { Self.operation(encoder, $0) })
        attention = WindowedAttention(encoder, setup.keyValues, setup.executors)
        shortages = setup.shortages
    }

    /// An attention for each window of the layers.
    private static func jobs(_ encoder: Encoder, _ sharding: Sharding, _ wire: ElementKind?) -> [AttentionJob] {
        encoder.configuration.windows.map { window in
            var job = AttentionJob(
                shapes: sharding.numbering.lengths.map { SequenceShape(length: $0) }, queries: sharding, keys: sharding,
                mask: EncoderConfiguration.mask(window: window), heads: encoder.heads)
            job.element = encoder.element
            job.wire = wire
            return job
        }
    }

    private static func operation(_ encoder: Encoder, _ job: AttentionJob) -> TileOperation {
        .attend(heads: job.heads, element: job.element, mask: job.mask, modifiers: encoder.modifiers, kernels: encoder.kernels)
    }

    /// The attention of a group: its documents are a batch of this rank's alone where they are whole.
    private func attention(of group: Group) throws -> WindowedAttention {
        if let attention { return attention }
        let sequences = tiles[group.tiles].map(\.sequence)
        var lengths: [Int] = []
        for (index, sequence) in sequences.enumerated() where index == 0 || sequence != sequences[index - 1] {
            lengths.append(sharding.numbering.lengths[sequence])
        }
        let alone = Sharding(lengths: lengths, layout: .contiguous, rankCount: 1)
        let jobs = Self.jobs(encoder, alone, wire)
        let executors = try jobs.map { job in
            try RingExecutor(
                plan: strategy.plan(job, rank: Rank(0)), operation: Self.operation(encoder, job), transport: transport, threads: threads,
                kernels: encoder.kernels, progressed: progressed)
        }
        return WindowedAttention(
            encoder, KeyValueTiles(of: jobs[0], rank: Rank(0), kernels: encoder.kernels, memory: memory), executors)
    }

    /// The time so far in which this rank waited for messages with nothing left to attend.
    public var exposed: Duration { attention?.executors.values.reduce(.zero) { $0 + $1.exposed } ?? .zero }

    /// Runs all layers; `hidden` then holds this rank's rows of the last one. Collective.
    /// - Parameters:
    ///   - ids: the token ids of every document of the batch.
    ///   - typeIds: which of two texts each token is of, 0 or 1; all 0 where nil, and where the model has one type or none.
    ///   - layerDone: told the number of a layer that is done, and the part of all work that is, for progress.
    /// - Throws: ``TokenError`` for a token that has no row in a table of embeddings, before anything is read or sent, so on every
    ///   rank; what the transport throws.
    /// - Precondition: the documents are of the sharding's lengths, and have a type for each id.
    public func run(ids: [[Int32]], typeIds: [[Int32]]? = nil, layerDone: (_ layer: Int, _ done: Double) -> Void = { _, _ in }) throws {
        precondition(ids.map(\.count) == sharding.numbering.lengths, "documents of other lengths than were planned")
        precondition(typeIds.map { $0.map(\.count) == ids.map(\.count) } ?? true, "a type for each id")
        try encoder.configuration.check(ids: ids, typeIds: typeIds)
        let typeIds = encoder.configuration.distinguishesTypes ? typeIds : nil
        let positions = PositionRows(encoder.configuration.positions, ids: ids, sequences: Set(tiles.map(\.sequence)))
        for (number, group) in groups.enumerated() {
            let attention = try attention(of: group)
            embed(group, ids, typeIds, positions)
            for (index, layer) in encoder.layers.enumerated() {
                let pattern = encoder.configuration.attention[index]
                try run(layer, number: index + 1, pattern, group, attention)
                layerDone(index + 1, (Double(number) + Double(index + 1) / Double(encoder.layers.count)) / Double(groups.count))
            }
            guard let norm = encoder.finalNorm else { continue }
            threads.forEach(group.blocks.count) { index, _ in
                let rows = hidden.pointer + group.blocks[index].firstRow * encoder.configuration.hiddenSize
                norm.apply(rows: group.blocks[index].count, rows, into: rows, kernels: encoder.kernels)
            }
        }
    }

    /// The logits that a head gives for some of this rank's rows, by tile and in ascending order.
    /// - Parameter wanted: the rows of a tile, counted from its first token.
    /// - Returns: (number of the tile, row, outputs values).
    public func logits(_ head: TaskHead, wanted: (LocalTile) -> [Int]) -> [(tile: LocalTile, row: Int, values: [Float])] {
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
                    results[number] = head.logits(rows: 1, hidden.pointer + (tile.firstRow + row) * width, width: width)
                }
            }
        }
        return zip(rows, results).map { ($0.tile, $0.row, $1) }
    }

    private func run(
        _ layer: EncoderLayer, number: Int, _ pattern: AttentionPattern, _ group: Group, _ attention: WindowedAttention
    ) throws {
        guard let executor = attention.executors[pattern.window] else { preconditionFailure("no executor for the window of a layer") }
        project(layer, pattern, group, into: attention.keyValues)
        let dimension = encoder.configuration.headDimension
        let rows = HeadRows(queries, tokenStride: encoder.configuration.hiddenSize, headStride: dimension)
        try executor.attend(queries: rows, to: attention.keyValues, scale: encoder.configuration.scoreScale, output: rows, contents: layer.contents)
        finish(layer, number: number, group)
    }

    /// The sum of a token's embeddings, its norm and projection.
    private func embed(_ group: Group, _ ids: [[Int32]], _ typeIds: [[Int32]]?, _ positions: PositionRows) {
        let tables = encoder.embeddings
        let width = encoder.configuration.embeddingSize
        let scales = encoder.configuration.maskedTokens.map { rule in ids.map { rule.scale(of: $0) } }
        threads.forEach(group.blocks.count) { index, worker in
            let block = group.blocks[index]
            let target = tables.projection == nil ? hidden.pointer + block.firstRow * width : scratch[worker].first.pointer
            for part in block.parts {
                let sequence = part.tile.sequence
                for row in part.rows {
                    let position = part.tile.tokens.lowerBound + row
                    let id = ids[sequence][position]
                    let sum = target + (part.tile.firstRow + row - block.firstRow) * width
                    sum.update(from: tables.words.pointer + Int(id) * width, count: width)
                    if let rule = encoder.configuration.maskedTokens, let scale = scales?[sequence] {
                        let factor = id == Int32(rule.maskId) ? 0 : scale
                        for column in 0..<width { sum[column] *= factor }
                    }
                    if let types = tables.tokenTypes { Self.add(types, row: Int(typeIds?[sequence][position] ?? 0), width, to: sum) }
                    if let table = tables.positions { Self.add(table, row: positions.row(of: position, in: sequence), width, to: sum) }
                }
            }
            let rows = hidden.pointer + block.firstRow * encoder.configuration.hiddenSize
            if !tables.normIsLast { tables.norm?.apply(rows: block.count, target, into: target, kernels: encoder.kernels) }
            tables.projection?.apply(rows: block.count, target, into: rows, kernels: encoder.kernels)
            if tables.normIsLast { tables.norm?.apply(rows: block.count, rows, into: rows, kernels: encoder.kernels) }
            lookForNotFinite(block, layer: 0)
        }
    }

    private static func add(_ table: WeightBlock, row: Int, _ width: Int, to sum: UnsafeMutablePointer<Float>) {
        let values = table.pointer + row * width
        for column in 0..<width { sum[column] += values[column] }
    }

    /// Queries, and the packed keys and values that travel.
    private func project(_ layer: EncoderLayer, _ pattern: AttentionPattern, _ group: Group, into keyValues: KeyValueTiles) {
        let configuration = encoder.configuration
        let (width, dimension) = (configuration.hiddenSize, configuration.headDimension)
        let (kernels, pairs) = (encoder.kernels, configuration.rotaryDimension / 2)
        let rotation = pattern.rotaryBase.flatMap { rotations[$0] }
        threads.forEach(group.blocks.count) { index, worker in
            let block = group.blocks[index]
            let scratch = scratch[worker]
            let rows = UnsafePointer(hidden.pointer + block.firstRow * width)
            var input = rows
            if configuration.norms == .beforeSublayer, let norm = layer.attentionNorm {
                norm.apply(rows: block.count, rows, into: scratch.normed.pointer, kernels: kernels)
                input = UnsafePointer(scratch.normed.pointer)
            }
            let queries = queries.pointer + (block.firstRow - group.rows.lowerBound) * width
            let (keys, values) = (scratch.first.pointer, scratch.second.pointer)
            layer.query.apply(rows: block.count, input, into: queries, kernels: kernels)
            layer.key.apply(rows: block.count, input, into: keys, kernels: kernels)
            layer.value.apply(rows: block.count, input, into: values, kernels: kernels)
            if let rotation {
                let table = rotation.pointer + block.firstRow * 2 * pairs
                for x in [queries, keys] {
                    rotate(
                        rows: block.count, heads: configuration.headCount, headDimension: dimension, pairs: pairs, table: table, x, stride: width)
                }
            }
            for part in block.parts {
                let row = part.tile.firstRow + part.rows.lowerBound - block.firstRow
                keyValues.pack(
                    tile: isLocal ? part.tile.place - group.tiles.lowerBound : part.tile.number, rows: part.rows,
                    keys: HeadRows(scratch.first, offset: row * width, tokenStride: width, headStride: dimension),
                    values: HeadRows(scratch.second, offset: row * width, tokenStride: width, headStride: dimension))
            }
            progressed()
        }
    }

    /// Everything after attention, a block of rows at a time.
    private func finish(_ layer: EncoderLayer, number: Int, _ group: Group) {
        let configuration = encoder.configuration
        let (width, kernels) = (configuration.hiddenSize, encoder.kernels)
        threads.forEach(group.blocks.count) { index, worker in
            let block = group.blocks[index]
            let scratch = scratch[worker]
            let rows = hidden.pointer + block.firstRow * width
            let result = scratch.first.pointer
            layer.attentionOutput.product(rows: block.count, queries.pointer + (block.firstRow - group.rows.lowerBound) * width, into: result, kernels: kernels)
            switch configuration.norms {
            case .afterResidual:
                layer.attentionNorm?.apply(
                    rows: block.count, result, bias: layer.attentionOutput.bias, residual: rows, into: rows, kernels: kernels)
                feedForward(layer, rows: block.count, rows, into: result, scratch)
                layer.outputNorm.apply(rows: block.count, result, bias: layer.output.bias, residual: rows, into: rows, kernels: kernels)
            case .beforeSublayer:
                Self.addResidual(result, layer.attentionOutput.bias, rows: block.count, width, to: rows, kernels)
                layer.outputNorm.apply(rows: block.count, rows, into: scratch.normed.pointer, kernels: kernels)
                feedForward(layer, rows: block.count, scratch.normed.pointer, into: result, scratch)
                Self.addResidual(result, layer.output.bias, rows: block.count, width, to: rows, kernels)
            }
            lookForNotFinite(block, layer: number)
            progressed()
        }
    }

    /// Keeps the first tile of a block whose rows are not finite, if it is the first of all: a pass over rows that are in the
    /// cache, beside products that take a thousand times as long.
    private func lookForNotFinite(_ block: RowBlock, layer: Int) {
        let width = encoder.configuration.hiddenSize
        if areFinite(hidden.pointer + block.firstRow * width, count: block.count * width) { return }
        for part in block.parts {
            let rows = hidden.pointer + (part.tile.firstRow + part.rows.lowerBound) * width
            if areFinite(rows, count: part.rows.count * width) { continue }
            let found = NotFinite(layer: layer, sequence: part.tile.sequence, tile: part.tile.tokens.lowerBound / TileGrid.tileSize)
            firstNotFinite.withLock { $0 = min($0 ?? found, found) }
        }
    }

    /// The two dense layers, without the bias of the second.
    private func feedForward(
        _ layer: EncoderLayer, rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, _ scratch: Scratch
    ) {
        let configuration = encoder.configuration
        let (width, stride, kernels) = (configuration.intermediateSize, configuration.innerWidth, encoder.kernels)
        let inner = scratch.inner.pointer
        layer.inner.product(rows: rows, x, into: inner, kernels: kernels)
        withPointer(layer.inner.bias) { bias in
            configuration.activation.apply(rows: rows, columns: width, inner, stride: stride, bias: bias, kernels: kernels)
            guard configuration.isGated else { return }
            if let bias { kernels.functions.add_bias(rows, width, inner + width, stride, bias + width) }
            kernels.functions.gate_rows(rows, width, inner, inner + width, stride, inner, stride)
        }
        layer.output.weight.multiply(rows: rows, x: inner, xStride: stride, y: y, yStride: configuration.hiddenSize, kernels: kernels)
    }

    /// rows += result + bias.
    private static func addResidual(
        _ result: UnsafeMutablePointer<Float>, _ bias: [Float]?, rows: Int, _ width: Int, to target: UnsafeMutablePointer<Float>,
        _ kernels: KernelSet
    ) {
        if let bias { kernels.functions.add_bias(rows, width, result, width, bias) }
        for index in 0..<rows * width { target[index] += result[index] }
    }

    /// Cosines and sines of this rank's rows.
    private static func rotations(_ encoder: Encoder, _ tiles: [LocalTile], rows: Int, threads: ThreadPool) -> [Double: AlignedBuffer] {
        let width = encoder.configuration.rotaryDimension
        var rotations: [Double: AlignedBuffer] = [:]
        for base in Set(encoder.configuration.attention.compactMap(\.rotaryBase)) {
            let table = AlignedBuffer(count: rows * width)
            threads.forEach(tiles.count) { index, _ in
                encoder.rotary.table(base: base, positions: tiles[index].tokens, into: table.pointer + tiles[index].firstRow * width)
            }
            rotations[base] = table
        }
        return rotations
    }

    /// Rows a block: enough blocks for all threads, whole panels of 64, at most a tile.
    static func blockRows(rows: Int, threads: Int) -> Int {
        let share = rows / (threads * 4)
        return min(TileGrid.tileSize, max(64, share / 64 * 64))
    }

    /// - Parameter rows: of a group, if no document is longer.
    private static func groups(_ tiles: [LocalTile], rows: Int, threads: Int) -> [Group] {
        var groups: [Group] = []
        var first = 0
        while first < tiles.count {
            var end = first
            while end < tiles.count {
                let next = tiles[end..<tiles.count].firstIndex { $0.sequence != tiles[end].sequence } ?? tiles.count
                if end > first, tiles[next - 1].rows.upperBound - tiles[first].firstRow > rows { break }
                end = next
            }
            groups.append(Group(tiles, tiles: first..<end, threads: threads))
            first = end
        }
        return groups
    }

    static func blocks(_ tiles: [LocalTile], _ places: Range<Int>, rows limit: Int) -> [RowBlock] {
        var blocks: [RowBlock] = []
        for place in places {
            let tile = tiles[place]
            var next = 0
            while next < tile.tokens.count {
                let left = tile.tokens.count - next
                let room = blocks.last.map { limit - $0.count } ?? 0
                // Within a tile, cuts fall on multiples of 64 only.
                let fitting = left <= room ? left : room / 64 * 64
                if fitting > 0 {
                    blocks[blocks.count - 1].parts.append((tile, next..<next + fitting))
                    blocks[blocks.count - 1].count += fitting
                    next += fitting
                } else {
                    blocks.append(RowBlock(parts: [], firstRow: tile.firstRow + next, count: 0))
                }
            }
        }
        return blocks
    }
}
