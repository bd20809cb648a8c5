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
    private let packed: PackedTile
    private let kernels: KernelSet
    private let partials: PartialPool
    /// Where keys and values travel in another type than they are attended in.
    private let wire: Wire?
    private let own: Slab
    /// The memory that the ranks of the node share, where there are several.
    private let node: NodeOperands?
    private let workers: [TileKernel]
    private let tiles: [Int: QueryTile]
    private let sinks: [Float]?
    private var spare: [AlignedBuffer] = []
    private let progressed: () -> Void
    /// The nodes that send messages for want of shared memory.
    public private(set) var shortages: [SharedMemoryShortage] = []
    /// The time so far in which this rank had nothing left to attend and waited for messages.
    public private(set) var exposed = Duration.zero

    /// Collective where ranks share memory.
    /// - Parameters:
    ///   - plan: a rank's own; its job's topology names ranks that share memory.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - sharing: an executor of the same keys and heads whose packed tiles this one uses too: what was packed for one
    ///     is gone when the other packs. For layers that differ in what they see.
    ///   - memory: where the rank's own packed tiles are put, if it does not share them.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    public convenience init(
        plan: Plan, modifiers: ScoreModifiers = ScoreModifiers(), transport: any Transport, threads: ThreadPool,
        kernels: KernelSet, sharing other: RingExecutor? = nil, memory: BufferPool = BufferPool(),
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        let node = plan.job.topology.isShared ? try NodeOperands(plan, transport) : nil
        self.init(
            plan: plan, node: node, modifiers: modifiers, transport: transport, threads: threads, kernels: kernels, sharing: other,
            memory: memory, progressed: progressed)
    }

    private init(
        plan: Plan, node: NodeOperands?, modifiers: ScoreModifiers, transport: any Transport, threads: ThreadPool, kernels: KernelSet,
        sharing other: RingExecutor?, memory: BufferPool, progressed: @escaping @Sendable () -> Void
    ) {
        let job = plan.job
        let packed = PackedTile(job.heads, job.element)
        self.plan = plan
        self.transport = transport
        self.threads = threads
        self.kernels = kernels
        self.packed = packed
        self.progressed = progressed
        wire = job.narrowsWire ? Wire(kernels: kernels, threads: threads) : nil
        partials = PartialPool(heads: job.heads, kernels: kernels)
        workers = (0..<threads.threads).map { _ in
            TileKernel(heads: job.heads, element: job.element, mask: job.mask, modifiers: modifiers, kernels: kernels)
        }
        self.node = node
        precondition(other.map { $0.packed == packed && $0.own.tiles == job.keys.tiles(of: plan.rank) } ?? true, "shared tiles are of the same keys and heads")
        // Memory that a node shares is watched by the steps of one plan.
        let shared = node == nil && other?.node == nil ? other?.own : nil
        own = node?.own ?? shared ?? Slab(
            keyValues: job.keys.tiles(of: plan.rank), heads: 0..<job.heads.keyValueHeads, of: job, memory: memory.buffer)
        tiles = Self.queryTiles(of: plan)
        sinks = modifiers.sinks
    }

    /// Plans a job, with shared memory for those nodes of its topology that have room for it. Collective.
    public convenience init(
        _ job: AttentionJob, _ strategy: Strategy, modifiers: ScoreModifiers = ScoreModifiers(), transport: any Transport,
        threads: ThreadPool, kernels: KernelSet, sharing other: RingExecutor? = nil, memory: BufferPool = BufferPool(),
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        func planned(_ topology: Topology) -> Plan {
            var roomy = job
            roomy.topology = topology
            return strategy.plan(roomy, rank: transport.rank)
        }
        let ((plan, node), shortages) = try job.topology.sharing(.keyValues, over: transport) {
            SegmentMap(planned($0)).floats
        } make: { topology -> (Plan, NodeOperands?) in
            let plan = planned(topology)
            return (plan, topology.isShared ? try NodeOperands(plan, transport) : nil)
        }
        self.init(
            plan: plan, node: node, modifiers: modifiers, transport: transport, threads: threads, kernels: kernels, sharing: other,
            memory: memory, progressed: progressed)
        self.shortages = shortages
    }

    /// Every query tile that the plan names, and all of the rank's own.
    private static func queryTiles(of plan: Plan) -> [Int: QueryTile] {
        let job = plan.job
        var tiles: [Int: QueryTile] = [:]
        var row = 0
        for number in job.queries.tiles(of: plan.rank) {
            let tile = QueryTile(number, of: job, firstRow: row)
            tiles[number] = tile
            row += tile.rowCount
        }
        func meet(_ units: Units) {
            for number in units.queries where tiles[number] == nil {
                tiles[number] = QueryTile(number, of: job, firstRow: nil)
            }
        }
        for step in plan.steps {
            step.attend.forEach(meet)
            for payload in step.receives.flatMap(\.payloads) {
                // A rank may merge for queries that see none of its own keys.
                if case .partials(let units) = payload { meet(units) }
            }
        }
        return tiles
    }

    /// Packs some rows of one of this rank's key tiles, all heads. Different rows may be packed by different threads.
    /// - Parameters:
    ///   - tile: the tile's number in the batch.
    ///   - rows: which of its rows; starts at a multiple of 64, ends at one or at the tile's end.
    ///   - keys, values: the first element of row `rows.lowerBound`, head 0.
    public func pack(tile: Int, rows: Range<Int>, keys: HeadRows, values: HeadRows) {
        // Where a reader has failed nobody reads any more, and `attend` will throw.
        try? node?.waitForReaders()
        let count = plan.job.keys.numbering.tokens(of: tile).count
        for head in own.heads {
            func pack(_ keys: UnsafePointer<Float>, _ keyStride: Int, _ values: UnsafePointer<Float>, _ valueStride: Int) {
                packed.pack(
                    rows: rows, tileKeys: count, keys: keys, keyStride: keyStride, values: values, valueStride: valueStride,
                    into: own.tile(tile, head: head), kernels: kernels)
            }
            let (headKeys, headValues) = (keys.base + head * keys.headStride, values.base + head * values.headStride)
            let (width, valueWidth) = (packed.headDimension, packed.valueDimension)
            if let wire {
                wire.rounded(headKeys, stride: keys.tokenStride, rows: rows.count, width: width) { keys in
                    wire.rounded(headValues, stride: values.tokenStride, rows: rows.count, width: valueWidth) { pack(keys, width, $0, valueWidth) }
                }
            } else {
                pack(headKeys, keys.tokenStride, headValues, values.tokenStride)
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
    ///   - contents: what the relative positions of the modifiers are to this attention, where there are any.
    /// - Throws: what the transport throws.
    public func attend(
        queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil, contents: PositionContents? = nil
    ) throws {
        let work = Work(self, queries: queries, scale: scale, output: output, logSumExp: logSumExp, contents: contents)
        work.writeUnseeing()
        try node?.begin()
        for (number, step) in plan.steps.enumerated() {
            try node?.waitForRoom(number)
            let borrowed = node?.borrowed(number) ?? []
            // What is sent from a mate's memory must be there before the message starts.
            if !step.sends.isEmpty { exposed += try node?.wait(for: borrowed, sending: step.sends) ?? .zero }
            borrowed.forEach { work.borrow($0.slab) }
            let (arriving, leaving) = (work.room(for: step, number), work.messages(for: step.sends))
            var attended = ContinuousClock.now
            try transport.exchange(receive: arriving.messages, send: leaving.messages) { poll in
                exposed += try node?.wait(for: borrowed, poll: poll) ?? .zero
                work.attend(step.attend, poll: poll)
                attended = .now
            }
            exposed += .now - attended
            borrowed.forEach { work.giveBack($0.slab) }
            work.release(step.release, and: leaving)
            work.take(arriving)
            node?.finish(number)
        }
    }

    /// Memory of at least so many floats, used again where there is any.
    private func memory(_ floats: Int) -> AlignedBuffer {
        if let place = spare.lastIndex(where: { $0.count >= floats }) { return spare.remove(at: place) }
        // Too small for what comes: a plan's arrivals grow a few times at most.
        if !spare.isEmpty { spare.removeLast() }
        return AlignedBuffer(count: floats)
    }

    /// What arrives in a step: its messages, and what they become.
    private struct Arrivals {
        var messages: [Incoming] = []
        var keyValues: [Slab] = []
        /// What travels for keys and values where it is not they themselves, and their memory.
        var narrowed: [(buffer: AlignedBuffer, pieces: [UnsafeMutableRawBufferPointer])] = []
        var queries: [Slab] = []
        var partials: [(reduction: Reduction, parts: [(node: TreeNode, value: PartialAttention)])] = []
    }

    /// What leaves in a step: its messages, this rank's own query rows gathered for them, and narrowed keys and values.
    private struct Departures {
        var messages: [Outgoing] = []
        var gathered: [Slab] = []
        var narrowed: [AlignedBuffer] = []
    }

    /// One attention under way: what is resident, and the reductions.
    private final class Work {
        private let executor: RingExecutor
        private let job: AttentionJob
        private let queries: HeadRows
        private let scale: Float
        private let output: HeadRows
        private let logSumExp: HeadRows?
        private let contents: PositionContents?
        private var keyValues = ResidentSlabs()
        private var foreignQueries = ResidentSlabs()
        private let reductions: Reductions

        init(
            _ executor: RingExecutor, queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows?, contents: PositionContents?
        ) {
            self.executor = executor
            job = executor.plan.job
            self.queries = queries
            self.scale = scale
            self.output = output
            self.logSumExp = logSumExp
            self.contents = contents
            reductions = Reductions(tiles: executor.tiles, queryHeads: job.heads.queryHeads)
            keyValues.add(executor.own)
        }

        // MARK: Exchange

        /// A slab of a mate's, for a step.
        func borrow(_ slab: Slab) { keyValues.add(slab) }

        func giveBack(_ slab: Slab) { keyValues.remove(slab) }

        /// Memory for what arrives, as its messages name it.
        func room(for step: Step, _ number: Int) -> Arrivals {
            var arrivals = Arrivals()
            let receives = step.receives
            // One slab for all tiles of the same heads.
            func slabs(_ payloads: [(Runs, Range<Int>)], tileFloats: (Int) -> Int) -> [Slab] {
                Dictionary(grouping: payloads, by: { $0.1 }).map { heads, tiles in
                    Slab(tiles: Runs(tiles.flatMap(\.0.ranges)), heads: heads, tileFloats: tileFloats, memory: executor.memory)
                }
            }
            arrivals.keyValues = executor.node?.arriving(number) ?? step.arrivingKeyValues.map {
                Slab(keyValues: $0.tiles, heads: $0.heads, of: job, memory: executor.memory)
            }
            let payloads = receives.flatMap(\.payloads)
            arrivals.queries = slabs(payloads.compactMap { if case .queries(let tiles, let heads) = $0 { (tiles, heads) } else { nil } }) {
                job.queries.numbering.tokens(of: $0).count * job.heads.headDimension
            }
            for transfer in receives {
                var message = MessagePieces()
                for payload in transfer.payloads {
                    switch payload {
                    case .keyValues(let tiles, let heads):
                        var here = MessagePieces()
                        Self.append(tiles, heads, of: arrivals.keyValues, to: &here)
                        if executor.wire != nil {
                            let buffer = executor.memory(Wire.floats(for: here.pieces))
                            arrivals.narrowed.append((buffer, here.pieces))
                            message.append(buffer, floats: Wire.floats(for: here.pieces))
                        } else {
                            message.append(here)
                        }
                    case .queries(let tiles, let heads): Self.append(tiles, heads, of: arrivals.queries, to: &message)
                    case .partials(let units):
                        reductions.forEach(units) { tile, head in
                            let parts = tile.subtrees(in: units.keys).map {
                                (node: $0, value: PartialAttention(rows: tile.rowCount, from: executor.partials))
                            }
                            for part in parts { part.value.append(to: &message) }
                            arrivals.partials.append((reductions.reduction(of: tile, head: head), parts))
                        }
                    }
                }
                arrivals.messages.append(message.incoming(from: transfer.peer))
            }
            return arrivals
        }

        private static func append(_ tiles: Runs, _ heads: Range<Int>, of slabs: [Slab], to message: inout MessagePieces) {
            guard let slab = slabs.first(where: { $0.heads == heads }) else { return }
            for head in heads {
                for run in tiles.ranges { message.append(slab.piece(of: run, head: head), keeping: slab.storage) }
            }
        }

        /// The messages that leave.
        func messages(for sends: [Transfer]) -> Departures {
            var departures = Departures()
            for transfer in sends {
                var message = MessagePieces()
                for payload in transfer.payloads {
                    switch payload {
                    case .keyValues(let tiles, let heads):
                        var here = MessagePieces()
                        keyValues.append(tiles, heads: heads, to: &here)
                        if let wire = executor.wire {
                            let buffer = executor.memory(Wire.floats(for: here.pieces))
                            wire.narrow(here.pieces, into: buffer)
                            departures.narrowed.append(buffer)
                            message.append(buffer, floats: Wire.floats(for: here.pieces))
                        } else {
                            message.append(here)
                        }
                    case .queries(let tiles, let heads):
                        var sources = foreignQueries
                        let mine = tiles.intersection(job.queries.tiles(of: executor.plan.rank))
                        if !mine.isEmpty {
                            departures.gathered.append(gather(mine, heads))
                            sources.add(departures.gathered[departures.gathered.count - 1])
                        }
                        sources.append(tiles, heads: heads, to: &message)
                    case .partials(let units): reductions.take(units, into: &message)
                    }
                }
                departures.messages.append(message.outgoing(to: transfer.peer))
            }
            return departures
        }

        /// A copy of some of this rank's query rows, in the order in which they travel.
        private func gather(_ tiles: Runs, _ heads: Range<Int>) -> Slab {
            let width = job.heads.headDimension
            let slab = Slab(
                tiles: tiles, heads: heads, tileFloats: { job.queries.numbering.tokens(of: $0).count * width }, memory: executor.memory)
            let numbers = Array(tiles)
            executor.threads.forEach(numbers.count * heads.count) { index, _ in
                let (head, tile) = (heads.lowerBound + index / numbers.count, reductions.tile(numbers[index % numbers.count]))
                let source = ownRows(queries, tile, head)
                // Disjoint: each index writes its own tile and head.
                let target = slab.tile(tile.number, head: head)
                for row in 0..<tile.rowCount { (target + row * width).update(from: source + row * queries.tokenStride, count: width) }
            }
            return slab
        }

        /// Lets go of what no later step needs.
        func release(_ payloads: [Payload], and departures: Departures) {
            for payload in payloads {
                switch payload {
                case .keyValues(let tiles, let heads):
                    executor.spare += keyValues.release(tiles, heads: heads).filter { !$0.isBorrowed }
                case .queries(let tiles, let heads): executor.spare += foreignQueries.release(tiles, heads: heads)
                case .partials: break
                }
            }
            executor.spare += departures.gathered.map(\.storage) + departures.narrowed
        }

        /// Takes in what has arrived: operands become resident, partials merge.
        func take(_ arrivals: Arrivals) {
            for (buffer, pieces) in arrivals.narrowed {
                executor.wire?.widen(buffer, into: pieces)
                executor.spare.append(buffer)
            }
            arrivals.keyValues.forEach { keyValues.add($0) }
            arrivals.queries.forEach { foreignQueries.add($0) }
            let byReduction = Array(Dictionary(grouping: arrivals.partials, by: { ObjectIdentifier($0.reduction) }).values)
            executor.threads.forEach(byReduction.count) { index, worker in
                // Disjoint: each index has one reduction to itself, and its rows and head of the output.
                for (reduction, parts) in byReduction[index] {
                    for part in parts { reduction.forest.insert(part.value, at: part.node) }
                    finish(reduction, executor.workers[worker])
                }
                executor.progressed()
            }
        }

        // MARK: Units of work

        /// Attends some units, on all threads.
        func attend(_ units: [Units], poll: () -> Void) {
            var work: [(reduction: Reduction, keys: Runs)] = []
            for units in units {
                reductions.forEach(units) { work.append((reductions.reduction(of: $0, head: $1), units.keys)) }
            }
            if work.isEmpty { return }
            withoutActuallyEscaping(poll) { poll in
                executor.threads.forEach(work.count, poll: poll) { index, worker in
                    // Disjoint: each unit has its own reduction, and its rows and head of the output.
                    attend(work[index].reduction, to: work[index].keys, executor.workers[worker], poll: worker == 0 ? poll : {})
                }
            }
        }

        private func attend(_ reduction: Reduction, to keyTiles: Runs, _ kernel: TileKernel, poll: () -> Void) {
            let (tile, head) = (reduction.tile, reduction.head)
            if tile.firstRow != nil {
                kernel.load(
                    queries: ownRows(queries, tile, head), stride: queries.tokenStride, rows: tile.rowCount, head: head, scale: scale,
                    contents: contents)
            } else {
                kernel.load(
                    queries: foreignQueries.tile(tile.number, head: head), stride: job.heads.headDimension, rows: tile.rowCount,
                    head: head, scale: scale, contents: contents)
            }
            let keyHead = head / job.heads.groupSize
            let numbers = Array(tile.visible.any.intersection(keyTiles))
            for (place, number) in numbers.enumerated() {
                let partial = PartialAttention(rows: tile.rowCount, from: executor.partials)
                // A head's tiles come from the third-level cache, again for each query tile. Another query tile comes after the last.
                let next = keyValues.tile(numbers[place + 1 < numbers.count ? place + 1 : 0], head: keyHead)
                kernel.attend(
                    to: keyValues.tile(number, head: keyHead), queryTile: tile.index, keyTile: number - tile.firstKeyTile,
                    in: tile.sequence, isWhole: tile.visible.all.contains(number), next: next, into: partial)
                reduction.forest.insert(partial, tile: number - tile.firstKeyTile)
                executor.progressed()
                poll()
            }
            finish(reduction, kernel)
        }

        /// Writes the output of this rank's own query tile and head, once all its partials have merged.
        private func finish(_ reduction: Reduction, _ kernel: TileKernel) {
            let (tile, head) = (reduction.tile, reduction.head)
            guard tile.firstRow != nil, let whole = reduction.forest.root else { return }
            kernel.mergeSink(of: head, into: whole, pool: executor.partials)
            whole.normalize(
                columns: job.heads.valueDimension, into: ownRows(output, tile, head), stride: output.tokenStride,
                logSumExp: logSumExp.map { ownRows($0, tile, head) }, logSumExpStride: logSumExp?.tokenStride ?? 0)
            reduction.forest = MergeForest(tiles: Runs())
        }

        /// The rows that see no key at all: zeros and −∞, or the sink alone.
        func writeUnseeing() {
            for tile in executor.tiles.values where tile.firstRow != nil && tile.tree.isEmpty {
                for head in 0..<job.heads.queryHeads {
                    for row in 0..<tile.rowCount {
                        (ownRows(output, tile, head) + row * output.tokenStride).update(repeating: 0, count: job.heads.valueDimension)
                        if let logSumExp {
                            ownRows(logSumExp, tile, head)[row * logSumExp.tokenStride] = executor.sinks?[head] ?? -.infinity
                        }
                    }
                }
            }
        }

        /// The first row of one of this rank's query tiles.
        private func ownRows(_ rows: HeadRows, _ tile: QueryTile, _ head: Int) -> UnsafeMutablePointer<Float> {
            rows.base + (tile.firstRow ?? 0) * rows.tokenStride + head * rows.headStride
        }
    }
}
