// One batch of documents through an encoder, on one rank of a job.

import Attention
import Matrices
import Plans
import RingAttention
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
    /// (rows of this rank, hiddenSize)
    public let hidden: AlignedBuffer

    private let threads: ThreadPool
    private let executor: RingExecutor
    private let blocks: [RowBlock]
    private let queries: AlignedBuffer
    private let scratch: [Scratch]
    private let progressed: @Sendable () -> Void

    /// A tile of this rank.
    public struct LocalTile: Sendable {
        /// Its number in the batch.
        public let number: Int
        public let sequence: Int
        /// The positions in the sequence.
        public let tokens: Range<Int>
        /// The rank's rows.
        public let firstRow: Int
        public var rows: Range<Int> { firstRow..<firstRow + tokens.count }
    }

    /// Rows handled by one thread at a time: parts of tiles, cut where packing may cut them.
    private struct RowBlock {
        var parts: [(tile: LocalTile, rows: Range<Int>)] = []
        var firstRow: Int
        var count: Int
    }

    /// What a thread needs to carry a block of rows through the dense layers.
    private final class Scratch {
        /// (block rows, hiddenSize), twice: keys and values, or a dense layer's result.
        let first: AlignedBuffer
        let second: AlignedBuffer
        /// (block rows, intermediateSize)
        let inner: AlignedBuffer

        init(_ configuration: EncoderConfiguration, rows: Int) {
            first = AlignedBuffer(count: rows * configuration.hiddenSize)
            second = AlignedBuffer(count: rows * configuration.hiddenSize)
            inner = AlignedBuffer(count: rows * configuration.intermediateSize)
        }
    }

    /// - Parameter topology: which ranks share memory; none do by default. Collective where some do.
    public init(
        encoder: Encoder, sharding: Sharding, strategy: Strategy = .passKeyValue, topology: Topology? = nil, wire: ElementKind? = nil,
        transport: any Transport, threads: ThreadPool, progressed: @escaping @Sendable () -> Void = {}
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
                    number: tile, sequence: sharding.numbering.sequence(of: tile), tokens: tokens, firstRow: row))
                row += tokens.count
            }
        }
        self.tiles = tiles
        let width = encoder.configuration.hiddenSize
        hidden = AlignedBuffer(count: max(1, row * width))
        queries = AlignedBuffer(count: max(1, row * width))
        let blockRows = Self.blockRows(rows: row, threads: threads.threads)
        blocks = Self.blocks(tiles, rows: blockRows)
        scratch = (0..<threads.threads).map { _ in Scratch(encoder.configuration, rows: blockRows) }
        var job = AttentionJob(
            shapes: sharding.numbering.lengths.map { SequenceShape(length: $0) }, queries: sharding, keys: sharding, mask: .full,
            heads: encoder.heads)
        job.element = encoder.element
        if let topology { job.topology = topology }
        job.wire = wire
        executor = try RingExecutor(
            job, strategy, transport: transport, threads: threads, kernels: encoder.kernels, progressed: progressed)
    }

    /// The nodes that send messages for want of shared memory.
    public var shortages: [SharedMemoryShortage] { executor.shortages }

    /// The time so far in which this rank waited for messages with nothing left to attend.
    public var exposed: Duration { executor.exposed }

    /// The attention of each layer over a batch of documents.
    /// - Parameter speeds: the ranks' relative speeds, for `balanced`.
    public static func job(
        lengths: [Int], configuration: EncoderConfiguration, element: ElementKind, layout: Layout, rankCount: Int,
        speeds: [Double]? = nil
    ) -> AttentionJob {
        // One token's dense layers in one block cost this; attention's cost is of one block too.
        var job = AttentionJob(
            shapes: lengths.map { SequenceShape(length: $0) }, mask: .full, heads: configuration.heads, layout: layout,
            rankCount: rankCount, denseFlopPerToken: configuration.denseFlopPerToken, speeds: speeds)
        job.element = element
        return job
    }

    /// Floating-point operations of a batch, all ranks together: dense layers and attention.
    public static func flop(lengths: [Int], configuration: EncoderConfiguration) -> Double {
        let hidden = Double(configuration.hiddenSize)
        let dense = configuration.denseFlopPerToken
        return lengths.reduce(0.0) { sum, length in
            let n = Double(length)
            return sum + n * (dense + 4 * n * hidden)
        } * Double(configuration.layerCount)
    }

    /// Runs all layers; `hidden` then holds this rank's rows of the last one. Collective.
    /// - Parameters:
    ///   - ids: the token ids of every document of the batch.
    ///   - layerDone: told the number of layers done, for progress.
    /// - Throws: what the transport throws.
    public func run(ids: [[Int32]], layerDone: (Int) -> Void = { _ in }) throws {
        embed(ids)
        for (index, layer) in encoder.layers.enumerated() {
            try run(layer)
            layerDone(index + 1)
        }
    }

    private func run(_ layer: EncoderLayer) throws {
        project(layer)
        let dimension = encoder.configuration.headDimension
        let rows = HeadRows(queries, tokenStride: encoder.configuration.hiddenSize, headStride: dimension)
        try executor.attend(queries: rows, scale: 1 / Float(dimension).squareRoot(), output: rows)
        finish(layer)
    }

    /// Words + token type 0 + positions, normalised.
    private func embed(_ ids: [[Int32]]) {
        let tables = encoder.embeddings
        let width = encoder.configuration.hiddenSize
        threads.forEach(tiles.count) { index, _ in
            let tile = tiles[index]
            for (row, position) in zip(tile.rows, tile.tokens) {
                let word = Int(ids[tile.sequence][position]) * width
                let target = hidden.pointer + row * width
                for column in 0..<width {
                    target[column] = tables.words[word + column] + tables.tokenTypes[column]
                        + tables.positions[position * width + column]
                }
            }
            let start = hidden.pointer + tile.firstRow * width
            normalize(tables.norm, rows: tile.tokens.count, start, bias: nil, residual: nil, into: start)
        }
    }

    /// Queries, and the packed keys and values that travel.
    private func project(_ layer: EncoderLayer) {
        let width = encoder.configuration.hiddenSize
        let dimension = encoder.configuration.headDimension
        threads.forEach(blocks.count) { index, worker in
            let block = blocks[index]
            let input = hidden.pointer + block.firstRow * width
            let keys = scratch[worker].first.pointer
            let values = scratch[worker].second.pointer
            multiply(layer.query, rows: block.count, input, into: queries.pointer + block.firstRow * width)
            multiply(layer.key, rows: block.count, input, into: keys)
            multiply(layer.value, rows: block.count, input, into: values)
            for part in block.parts {
                let row = part.tile.firstRow + part.rows.lowerBound - block.firstRow
                executor.pack(
                    tile: part.tile.number, rows: part.rows,
                    keys: HeadRows(scratch[worker].first, offset: row * width, tokenStride: width, headStride: dimension),
                    values: HeadRows(scratch[worker].second, offset: row * width, tokenStride: width, headStride: dimension))
            }
            progressed()
        }
    }

    /// Everything after attention, a block of rows at a time.
    private func finish(_ layer: EncoderLayer) {
        let width = encoder.configuration.hiddenSize
        let inner = encoder.configuration.intermediateSize
        let functions = encoder.kernels.functions
        let activate = encoder.configuration.activation == .gelu ? functions.gelu_bias : functions.gelu_tanh_bias
        threads.forEach(blocks.count) { index, worker in
            let block = blocks[index]
            let rows = hidden.pointer + block.firstRow * width
            let result = scratch[worker].first.pointer
            let wide = scratch[worker].inner.pointer
            layer.attentionOutput.weight.multiply(
                rows: block.count, x: queries.pointer + block.firstRow * width, xStride: width,
                y: result, yStride: width, kernels: encoder.kernels)
            normalize(layer.attentionNorm, rows: block.count, result, bias: layer.attentionOutput.bias, residual: rows, into: rows)
            layer.intermediate.weight.multiply(
                rows: block.count, x: rows, xStride: width, y: wide, yStride: inner, kernels: encoder.kernels)
            layer.intermediate.bias.withUnsafeBufferPointer { activate?(block.count, inner, wide, inner, $0.baseAddress) }
            layer.output.weight.multiply(
                rows: block.count, x: wide, xStride: inner, y: result, yStride: width, kernels: encoder.kernels)
            normalize(layer.outputNorm, rows: block.count, result, bias: layer.output.bias, residual: rows, into: rows)
            progressed()
        }
    }

    /// y = x·Wᵀ + b for rows of hidden width.
    private func multiply(
        _ dense: Dense, rows: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>
    ) {
        let width = encoder.configuration.hiddenSize
        dense.weight.multiply(rows: rows, x: x, xStride: width, y: y, yStride: width, kernels: encoder.kernels)
        dense.bias.withUnsafeBufferPointer { encoder.kernels.functions.add_bias(rows, width, y, width, $0.baseAddress) }
    }

    private func normalize(
        _ norm: LayerNorm, rows: Int, _ x: UnsafePointer<Float>, bias: [Float]?, residual: UnsafePointer<Float>?,
        into y: UnsafeMutablePointer<Float>
    ) {
        let width = encoder.configuration.hiddenSize
        func call(_ bias: UnsafePointer<Float>?) {
            encoder.kernels.functions.layer_norm(
                rows, width, x, width, bias, residual, width, norm.weight, norm.bias, norm.epsilon, y, width)
        }
        if let bias { bias.withUnsafeBufferPointer { call($0.baseAddress) } } else { call(nil) }
    }

    /// Rows a block: enough blocks for all threads, whole panels of 64, at most a tile.
    private static func blockRows(rows: Int, threads: Int) -> Int {
        let share = rows / (threads * 4)
        return min(TileGrid.tileSize, max(64, share / 64 * 64))
    }

    private static func blocks(_ tiles: [LocalTile], rows limit: Int) -> [RowBlock] {
        var blocks: [RowBlock] = []
        for tile in tiles {
            var next = 0
            while next < tile.tokens.count {
                // Within a tile, cuts fall on multiples of 64 only.
                let end = min(tile.tokens.count, next + limit)
                if let last = blocks.last, next == 0, end == tile.tokens.count, last.count + end <= limit {
                    blocks[blocks.count - 1].parts.append((tile, 0..<end))
                    blocks[blocks.count - 1].count += end
                } else {
                    blocks.append(RowBlock(parts: [(tile, next..<end)], firstRow: tile.firstRow + next, count: end - next))
                }
                next = end
            }
        }
        return blocks
    }
}
