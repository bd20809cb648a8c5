// The executor: runs a plan over a transport. Start the next exchange, attend what is here, merge,
// wait, swap.

import Attention
import Matrices
import Plans
import Tiles

/// Rows of tokens, each with heads of some width: where queries are read and outputs written.
///
/// Element (token t, head h, channel c) is at `base[t · tokenStride + h · headStride + c]`; tokens
/// are a rank's own, tile after tile in ascending order.
public struct HeadRows {
    public let base: UnsafeMutablePointer<Float>
    public let tokenStride: Int
    public let headStride: Int
    /// What owns the memory: kept alive as long as the rows are.
    private let owner: AlignedBuffer?

    /// Rows in a buffer, the first one at `offset` floats from its start.
    public init(_ buffer: AlignedBuffer, offset: Int = 0, tokenStride: Int, headStride: Int) {
        base = buffer.pointer + offset
        self.tokenStride = tokenStride
        self.headStride = headStride
        owner = buffer
    }
}

/// Exact attention of one rank's queries to the keys of all ranks, as its plan says.
///
/// Made once for a job and used for every layer: `pack` this rank's keys and values, then `attend`.
/// The bits of the output depend on the inputs and the kernel set alone: every (query row, key tile, head)
/// is a pure function of its operands, and the fixed tree says how the parts merge.
public final class RingExecutor {
    public let plan: Plan
    private let transport: any Transport
    private let threads: ThreadPool
    private let kernels: KernelSet
    private let packed: PackedTile
    private let partials: PartialPool
    private let own: [KeyValueSlab]
    private let workers: [TileKernel]
    private let queryTiles: [QueryTile]
    private let sinks: [Float]?
    private var spare: [AlignedBuffer] = []
    private let arrivingFloats: Int
    private let progressed: () -> Void
    /// The time so far in which this rank had nothing left to attend and waited for messages.
    public private(set) var exposed = Duration.zero

    /// A query tile of this rank.
    private struct QueryTile {
        let sequence: SequenceShape
        /// The tile's index in its sequence.
        let index: Int
        /// The number that the sequence's first key tile has in the batch.
        let firstKeyTile: Int
        /// The rank's own rows that it holds.
        let rows: Range<Int>
        /// The key tiles it sees, by their number in the batch.
        let visible: VisibleTiles
    }

    /// - Parameters:
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    public init(
        plan: Plan, modifiers: ScoreModifiers = ScoreModifiers(), transport: any Transport, threads: ThreadPool,
        kernels: KernelSet, progressed: @escaping @Sendable () -> Void = {}
    ) {
        let job = plan.job
        let packed = PackedTile(job.heads, job.element)
        self.plan = plan
        self.transport = transport
        self.threads = threads
        self.kernels = kernels
        self.packed = packed
        self.progressed = progressed
        partials = PartialPool(heads: job.heads, kernels: kernels)
        workers = (0..<threads.threads).map { _ in
            TileKernel(heads: job.heads, element: job.element, mask: job.mask, modifiers: modifiers, kernels: kernels)
        }
        own = plan.headGroups.map {
            KeyValueSlab(tiles: job.keys.tiles(of: plan.rank), heads: $0.count, numbering: job.keys.numbering, packed: packed)
        }
        let widest = plan.headGroups.map(\.count).max() ?? 0
        arrivingFloats = plan.steps.map { step in
            KeyValueSlab.floats(tiles: Self.arriving(step), heads: widest, numbering: job.keys.numbering, packed: packed)
        }.max() ?? 0
        var tiles: [QueryTile] = []
        var row = 0
        for run in job.queries.tiles(of: plan.rank).ranges {
            for tile in run {
                let sequence = job.queries.numbering.sequence(of: tile)
                let count = job.queries.numbering.tokens(of: tile).count
                tiles.append(QueryTile(
                    sequence: job.shapes[sequence], index: tile - job.queries.numbering.firstTile[sequence],
                    firstKeyTile: job.keys.numbering.firstTile[sequence], rows: row..<row + count,
                    visible: job.visibleTiles(queryTile: tile)))
                row += count
            }
        }
        queryTiles = tiles
        sinks = modifiers.sinks
    }

    /// Packs some rows of one of this rank's key tiles, all heads. Different rows may be packed by different threads.
    /// - Parameters:
    ///   - tile: the tile's number in the batch.
    ///   - rows: which of its rows; starts at a multiple of 64, ends at one or at the tile's end.
    ///   - keys, values: the first element of row `rows.lowerBound`, head 0.
    public func pack(tile: Int, rows: Range<Int>, keys: HeadRows, values: HeadRows) {
        let count = plan.job.keys.numbering.tokens(of: tile).count
        for (slab, group) in zip(own, plan.headGroups) {
            for head in group {
                packed.pack(
                    rows: rows, tileKeys: count,
                    keys: keys.base + head * keys.headStride, keyStride: keys.tokenStride,
                    values: values.base + head * values.headStride, valueStride: values.tokenStride,
                    into: slab.tile(tile, head: head - group.lowerBound), kernels: kernels)
            }
        }
    }

    /// Attends this rank's queries to all keys they see. Collective: every rank calls it.
    /// - Parameters:
    ///   - queries: this rank's query rows, unscaled. With the scale they have to stay below 2¹²² in size, for they are
    ///     multiplied by the steps of `annulus_kernels.h`, 46.2, before they meet keys.
    ///   - scale: what scores are multiplied by, 1/√d as a rule.
    ///   - output: where O/ℓ goes; may be the memory of `queries`, a head's rows being written only after their last use.
    ///   - logSumExp: where m + ln ℓ goes, if anywhere.
    /// - Throws: what the transport throws.
    public func attend(queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil) throws {
        for (group, slab) in zip(plan.headGroups, own) {
            let work = HeadGroupWork(self, group: group, queries: queries, scale: scale, output: output, logSumExp: logSumExp)
            var resident = ResidentTiles(own: slab)
            for step in plan.steps {
                let arriving = arrivingSlab(step, heads: group.count)
                var attended = ContinuousClock.now
                try transport.exchange(
                    receive: step.receives.map { Incoming(from: $0.peer, pieces: arriving.pieces(of: $0.tiles), keeping: [arriving.storage]) },
                    send: step.sends.map { resident.outgoing($0) }
                ) { poll in
                    work.attend(step.attend, resident: resident, poll: poll)
                    attended = .now
                }
                exposed += .now - attended
                spare += resident.release(step.release)
                resident.add(arriving)
            }
        }
    }

    private static func arriving(_ step: Step) -> Runs {
        step.receives.reduce(Runs()) { $0.union($1.tiles) }
    }

    private func arrivingSlab(_ step: Step, heads: Int) -> KeyValueSlab {
        let tiles = Self.arriving(step)
        let memory = tiles.isEmpty ? nil : spare.popLast() ?? AlignedBuffer(count: arrivingFloats)
        return KeyValueSlab(tiles: tiles, heads: heads, numbering: plan.job.keys.numbering, packed: packed, memory: memory)
    }

    /// The units of work of one head group, and the partials that wait for their siblings.
    private final class HeadGroupWork {
        let executor: RingExecutor
        let group: Range<Int>
        let queryHeads: Range<Int>
        let queries: HeadRows
        let scale: Float
        let output: HeadRows
        let logSumExp: HeadRows?
        /// One a unit: (query tile, query head).
        var forests: [MergeForest<PartialAttention>]

        init(
            _ executor: RingExecutor, group: Range<Int>, queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows?
        ) {
            self.executor = executor
            self.group = group
            let size = executor.plan.job.heads.groupSize
            queryHeads = group.lowerBound * size..<group.upperBound * size
            self.queries = queries
            self.scale = scale
            self.output = output
            self.logSumExp = logSumExp
            forests = []
            forests.reserveCapacity(executor.queryTiles.count * queryHeads.count)
            for tile in executor.queryTiles {
                let forest = MergeForest<PartialAttention>(tiles: tile.visible.any.shifted(by: -tile.firstKeyTile))
                for head in queryHeads {
                    forests.append(forest)
                    if tile.visible.any.isEmpty { writeEmpty(tile, head: head) }
                }
            }
        }

        /// Attends the given key tiles from every query tile and head, on all threads.
        func attend(_ keyTiles: Runs, resident: ResidentTiles, poll: () -> Void) {
            if keyTiles.isEmpty { return }
            let heads = queryHeads.count
            withoutActuallyEscaping(poll) { poll in
                forests.withUnsafeMutableBufferPointer { forests in
                    // Head after head: the keys of one stay in the cache while every query tile goes over them.
                    let tiles = executor.queryTiles.count
                    executor.threads.forEach(forests.count, poll: poll) { unit, worker in
                        let (head, tile) = (unit / tiles, unit % tiles)
                        // Disjoint: each unit touches its own forest and its own rows and head of the output.
                        unitOfWork(
                            executor.queryTiles[tile], head: queryHeads.lowerBound + head, keyTiles, &forests[tile * heads + head],
                            resident, executor.workers[worker], worker == 0 ? poll : {})
                    }
                }
            }
        }

        private func unitOfWork(
            _ queryTile: QueryTile, head: Int, _ keyTiles: Runs, _ forest: inout MergeForest<PartialAttention>,
            _ resident: ResidentTiles, _ kernel: TileKernel, _ poll: () -> Void
        ) {
            let seen = queryTile.visible.any.intersection(keyTiles)
            if seen.isEmpty { return }
            let job = executor.plan.job
            kernel.load(
                queries: queries.base + queryTile.rows.lowerBound * queries.tokenStride + head * queries.headStride,
                stride: queries.tokenStride, rows: queryTile.rows.count, head: head, scale: scale)
            let keyHead = head / job.heads.groupSize - group.lowerBound
            for run in seen.ranges {
                for tile in run {
                    let partial = PartialAttention(rows: queryTile.rows.count, from: executor.partials)
                    let packed = resident.tile(tile, head: keyHead)
                    let index = tile - queryTile.firstKeyTile
                    kernel.attend(
                        to: packed, queryTile: queryTile.index, keyTile: index, in: queryTile.sequence,
                        isWhole: queryTile.visible.all.contains(tile), into: partial)
                    forest.insert(partial, tile: index)
                    executor.progressed()
                    poll()
                }
            }
            if let whole = forest.root {
                kernel.mergeSink(into: whole, pool: executor.partials)
                whole.normalize(
                    columns: job.heads.valueDimension, into: outputRow(queryTile, head), stride: output.tokenStride,
                    logSumExp: logSumExpRow(queryTile, head), logSumExpStride: logSumExp?.tokenStride ?? 0)
                forest = MergeForest(tiles: Runs())
            }
        }

        /// A query tile that sees no key at all: zeros and −∞, or the sink alone.
        private func writeEmpty(_ tile: QueryTile, head: Int) {
            for row in 0..<tile.rows.count {
                (outputRow(tile, head) + row * output.tokenStride)
                    .update(repeating: 0, count: executor.plan.job.heads.valueDimension)
                if let logSumExp { logSumExpRow(tile, head)?[row * logSumExp.tokenStride] = executor.sinks?[head] ?? -.infinity }
            }
        }

        private func outputRow(_ tile: QueryTile, _ head: Int) -> UnsafeMutablePointer<Float> {
            output.base + tile.rows.lowerBound * output.tokenStride + head * output.headStride
        }

        private func logSumExpRow(_ tile: QueryTile, _ head: Int) -> UnsafeMutablePointer<Float>? {
            logSumExp.map { $0.base + tile.rows.lowerBound * $0.tokenStride + head * $0.headStride }
        }
    }
}
