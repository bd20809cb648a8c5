// The executor: runs a tile operation over a plan and a transport. Start the next exchange, compute what is here,
// merge, wait, swap.

import Attention
import Matrices
import Plans
import Tiles

/// A tile operation on one rank's rows and the keys of all ranks, as its plan says: exact attention, or another.
///
/// Made once for a job and run as often as there are layers, on any keys and values that the job fits. The bits of the
/// results depend on the inputs and the kernel set alone: every unit (query tile, key tile, head) is a pure function of
/// its operands, and the fixed trees say how the parts merge.
public final class RingExecutor {
    /// The plan that every run follows; its job says which keys and values fit.
    public let plan: Plan
    private let transport: any Transport
    private let threads: ThreadPool
    /// Where keys and values travel in another type than they are attended in.
    private let wire: Wire?
    /// What the ranks of the node read of each other, where there are several.
    private let node: NodeArrivals?
    private let workers: [TileWorker]
    /// The memory of results, of rows and of keys; nil where the operation gives that side nothing.
    private let rowPool: ResultPool?
    private let columnPool: ResultPool?
    private let queryTiles: [Int: SideTile]
    private let keyTiles: [Int: SideTile]
    private var spare: [AlignedBuffer] = []
    private let progressed: () -> Void
    /// The time so far in which this rank had nothing left to compute and waited for messages.
    public private(set) var exposed = Duration.zero

    /// Collective where ranks share memory.
    /// - Parameters:
    ///   - plan: a rank's own; its job's topology names ranks that share memory.
    ///   - operation: what is done: that of the plan's job.
    ///   - transport: connects the rank to the others of the job.
    ///   - threads: those of the rank, all of which compute.
    ///   - kernels: those that round keys and values which travel in less than they are attended in.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    /// - Throws: ``SharedMemoryRefused`` where a node cannot have the memory; what the transport throws.
    public init(
        plan: Plan, operation: TileOperation, transport: any Transport, threads: ThreadPool, kernels: KernelSet,
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        let problem = plan.problem
        precondition(operation.shape == problem.operation, "the plan is for this operation")
        node = problem.topology.isShared ? try NodeArrivals(plan, transport) : nil
        self.plan = plan
        self.transport = transport
        self.threads = threads
        self.progressed = progressed
        wire = problem.narrowsWire ? Wire(kernels: kernels, threads: threads) : nil
        workers = (0..<threads.threads).map { _ in operation.makeWorker() }
        rowPool = operation.mergeRows.map { ResultPool(planes: operation.shape.rowResults, merge: $0) }
        columnPool = operation.mergeColumns.map { ResultPool(planes: operation.shape.columnResults, merge: $0) }
        queryTiles = Self.queryTiles(of: plan)
        keyTiles = columnPool == nil ? [:] : Self.keyTiles(of: plan)
    }

    /// Attention with the job's mask.
    /// - Parameters:
    ///   - plan: a rank's own; its job's topology names ranks that share memory.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - transport: connects the rank to the others of the job.
    ///   - threads: those of the rank, all of which compute.
    ///   - kernels: those that attend, and round what travels.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    public convenience init(
        plan: Plan, modifiers: ScoreModifiers = ScoreModifiers(), transport: any Transport, threads: ThreadPool,
        kernels: KernelSet,
        progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        let operation = TileOperation.attend(
            heads: plan.problem.heads, element: plan.problem.element, mask: plan.problem.mask, modifiers: modifiers,
            kernels: kernels)
        try self.init(
            plan: plan, operation: operation, transport: transport, threads: threads, kernels: kernels,
            progressed: progressed)
    }

    /// Every query tile that the plan names, and all of the rank's own.
    private static func queryTiles(of plan: Plan) -> [Int: SideTile] {
        let problem = plan.problem
        var tiles: [Int: SideTile] = [:]
        var row = 0
        for number in problem.queries.tiles(of: plan.rank) {
            let tile = SideTile.query(number, of: problem, firstRow: row)
            tiles[number] = tile
            row += tile.count
        }
        plan.forEachUnits { units in
            for number in units.queries where tiles[number] == nil {
                tiles[number] = .query(number, of: problem, firstRow: nil)
            }
        }
        return tiles
    }

    /// Every key tile that the plan names, and all of the rank's own.
    private static func keyTiles(of plan: Plan) -> [Int: SideTile] {
        var tiles: [Int: SideTile] = [:]
        var key = 0
        for number in plan.problem.keys.tiles(of: plan.rank) {
            let tile = SideTile.key(number, of: plan, firstKey: key)
            tiles[number] = tile
            key += tile.count
        }
        plan.forEachUnits { units in
            for number in units.keys where tiles[number] == nil {
                tiles[number] = .key(number, of: plan, firstKey: nil)
            }
        }
        return tiles
    }

    /// Attends this rank's queries to all keys they see. Collective: every rank calls it.
    ///
    /// More of the arguments is said at `TileCall.attend(queries:scale:output:logSumExp:rowMax:rowSum:contents:)`.
    /// - Parameters:
    ///   - queries: this rank's query rows, unscaled.
    ///   - keyValues: what they attend to, packed.
    ///   - scale: what scores are multiplied by, 1/√d as a rule.
    ///   - output: where O/ℓ goes; may be the memory of `queries`.
    ///   - logSumExp: where m + ln ℓ goes, if anywhere.
    ///   - contents: what the relative positions of the modifiers are to this attention, where there are any.
    /// - Throws: what the transport throws.
    public func attend(
        queries: HeadRows, to keyValues: KeyValueTiles, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil,
        contents: PositionContents? = nil
    ) throws {
        try run(
            .attend(queries: queries, scale: scale, output: output, logSumExp: logSumExp, contents: contents),
            on: keyValues)
    }

    /// Runs the operation. Collective: every rank calls it.
    /// - Parameters:
    ///   - call: where this rank's row operands are, and where its results go.
    ///   - keyValues: what this rank's rows meet: the job's keys, packed.
    /// - Throws: what the transport throws.
    public func run(_ call: TileCall, on keyValues: KeyValueTiles) throws {
        precondition(keyValues.serve(plan.problem), "the plan is for these keys and values")
        let work = Work(self, call, keyValues)
        work.finishUnmet()
        keyValues.begin()
        try node?.begin()
        for (number, step) in plan.steps.enumerated() {
            try node?.waitForRoom(number)
            let readings = node?.readings(number) ?? []
            // What is sent from a mate's memory must be there before the message starts.
            if !step.sends.isEmpty {
                exposed += try node?.wait(for: readings, of: keyValues, sending: step.sends) ?? .zero
            }
            let borrowed = work.borrow(readings)
            let (arriving, leaving) = (work.room(for: step, number), work.messages(for: step.sends))
            var computed = ContinuousClock.now
            try transport.exchange(receive: arriving.messages, send: leaving.messages) { poll in
                exposed += try node?.wait(for: readings, of: keyValues, poll: poll) ?? .zero
                work.compute(step.attend, poll: poll)
                computed = .now
            }
            exposed += .now - computed
            work.giveBack(borrowed)
            work.release(step.release, and: leaving)
            work.take(arriving)
            node?.finish(number)
        }
        keyValues.end()
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
        var columns: [TileStore] = []
        /// What travels for keys and values where it is not they themselves, and their memory.
        var narrowed: [(buffer: AlignedBuffer, pieces: [UnsafeMutableRawBufferPointer])] = []
        var rows: [TileStore] = []
        var rowResults: [Arrived] = []
        var columnResults: [Arrived] = []

        typealias Arrived = (reduction: Reduction, parts: [(node: TreeNode, value: PartialResult)])
    }

    /// What leaves in a step: its messages, this rank's own rows gathered for them, and narrowed keys and values.
    private struct Departures {
        var messages: [Outgoing] = []
        var gathered: [TileStore] = []
        var narrowed: [AlignedBuffer] = []
    }

    /// One call under way: what is resident, and the reductions.
    private final class Work {
        private let executor: RingExecutor
        private let problem: AttentionProblem
        private let call: TileCall
        private let keyValues: KeyValueTiles
        private var columns = ResidentTiles()
        private var foreignRows = ResidentTiles()
        private let rowResults: SideResults?
        private let columnResults: SideResults?
        /// The first floats of a packed tile that travel; nil: all.
        private let sentFloats: ((_ tile: Int) -> Int)?

        init(_ executor: RingExecutor, _ call: TileCall, _ keyValues: KeyValueTiles) {
            let problem = executor.plan.problem
            self.executor = executor
            self.problem = problem
            self.call = call
            self.keyValues = keyValues
            rowResults = executor.rowPool.map {
                SideResults(tiles: executor.queryTiles, heads: problem.heads.queryHeads, pool: $0)
            }
            columnResults = executor.columnPool.map {
                SideResults(tiles: executor.keyTiles, heads: problem.heads.queryHeads, pool: $0)
            }
            let packed = PackedTile(problem.heads, problem.element)
            sentFloats =
                problem.operation.columns == .keysAndValues
                ? nil
                : { packed.floats(of: problem.operation.columns, capacity: problem.keys.numbering.capacity(of: $0)) }
            columns.add(keyValues.own)
        }

        // MARK: Exchange

        /// Mates' tiles, for a step.
        func borrow(_ readings: [NodeArrivals.Reading]) -> [TileStore] {
            let stores = readings.map { reading in
                switch reading {
                case .own(let mate): keyValues.tiles(of: mate)
                case .arrived(let store, _, _): store
                }
            }
            stores.forEach { columns.add($0) }
            return stores
        }

        func giveBack(_ stores: [TileStore]) { stores.forEach { columns.remove($0) } }

        /// Memory for what arrives, as its messages name it.
        func room(for step: Step, _ number: Int) -> Arrivals {
            var arrivals = Arrivals()
            arrivals.columns =
                executor.node?.arriving(number)
                ?? step.arrivingColumns.map {
                    TileStore(
                        packed: $0.tiles, problem.operation.columns, heads: $0.heads, of: problem,
                        memory: executor.memory)
                }
            arrivals.rows = rowStores(step.receives.flatMap(\.payloads))
            for transfer in step.receives {
                var message = MessagePieces()
                for payload in transfer.payloads {
                    switch payload {
                    case .columns(let tiles, let heads):
                        var here = MessagePieces()
                        Self.append(tiles, heads, of: arrivals.columns, to: &here)
                        if executor.wire != nil {
                            let buffer = executor.memory(Wire.floats(for: here.pieces))
                            arrivals.narrowed.append((buffer, here.pieces))
                            message.append(buffer, floats: Wire.floats(for: here.pieces))
                        } else {
                            message.append(here)
                        }
                    case .rows(let tiles, let heads): Self.append(tiles, heads, of: arrivals.rows, to: &message)
                    case .rowResults(let units):
                        arrivals.rowResults += results(
                            units.queries, units.heads, meeting: units.keys, of: rowResults, into: &message)
                    case .columnResults(let units):
                        let heads = problem.columnResultHeads(of: units.heads)
                        arrivals.columnResults += results(
                            units.keys, heads, meeting: units.queries, of: columnResults, into: &message)
                    }
                }
                arrivals.messages.append(message.incoming(from: transfer.peer))
            }
            return arrivals
        }

        /// One store for all arriving rows of the same heads.
        private func rowStores(_ payloads: [Payload]) -> [TileStore] {
            var byHeads: [Range<Int>: [Range<Int>]] = [:]
            for case .rows(let tiles, let heads) in payloads { byHeads[heads, default: []] += tiles.ranges }
            return byHeads.map { heads, ranges in rowStore(Runs(ranges), heads) }
        }

        private func rowStore(_ tiles: Runs, _ heads: Range<Int>) -> TileStore {
            let floats = problem.operation.rowOperandFloats
            return TileStore(
                tiles: tiles, heads: heads, tileFloats: { problem.queries.numbering.tokens(of: $0).count * floats },
                memory: executor.memory)
        }

        /// Memory for arriving results of one side.
        private func results(
            _ tiles: Runs, _ heads: Range<Int>, meeting others: Runs, of side: SideResults?,
            into message: inout MessagePieces
        ) -> [Arrivals.Arrived] {
            guard let side else { preconditionFailure("the operation has such results") }
            var arrived: [Arrivals.Arrived] = []
            side.forEach(tiles, heads, meeting: others) { tile, head in
                let parts = tile.subtrees(in: others).map {
                    (node: $0, value: PartialResult(rows: tile.count, from: side.pool))
                }
                for part in parts { part.value.append(to: &message) }
                arrived.append((side.reduction(of: tile, head: head), parts))
            }
            return arrived
        }

        private static func append(
            _ tiles: Runs, _ heads: Range<Int>, of stores: [TileStore], to message: inout MessagePieces
        ) {
            guard let store = stores.first(where: { $0.heads == heads }) else { return }
            for head in heads {
                for run in tiles.ranges { store.append(run, head: head, to: &message) }
            }
        }

        /// The messages that leave.
        func messages(for sends: [Transfer]) -> Departures {
            var departures = Departures()
            for transfer in sends {
                var message = MessagePieces()
                for payload in transfer.payloads {
                    switch payload {
                    case .columns(let tiles, let heads):
                        var here = MessagePieces()
                        columns.append(tiles, heads: heads, floats: sentFloats, to: &here)
                        if let wire = executor.wire {
                            let buffer = executor.memory(Wire.floats(for: here.pieces))
                            wire.narrow(here.pieces, into: buffer)
                            departures.narrowed.append(buffer)
                            message.append(buffer, floats: Wire.floats(for: here.pieces))
                        } else {
                            message.append(here)
                        }
                    case .rows(let tiles, let heads):
                        var sources = foreignRows
                        let mine = tiles.intersection(problem.queries.tiles(of: executor.plan.rank))
                        if !mine.isEmpty {
                            departures.gathered.append(gather(mine, heads))
                            sources.add(departures.gathered[departures.gathered.count - 1])
                        }
                        sources.append(tiles, heads: heads, to: &message)
                    case .rowResults(let units):
                        rowResults?.take(units.queries, units.heads, meeting: units.keys, into: &message)
                    case .columnResults(let units):
                        columnResults?.take(
                            units.keys, problem.columnResultHeads(of: units.heads), meeting: units.queries,
                            into: &message)
                    }
                }
                departures.messages.append(message.outgoing(to: transfer.peer))
            }
            return departures
        }

        /// A copy of what some of this rank's rows bring, in the order in which it travels: plane by plane.
        private func gather(_ tiles: Runs, _ heads: Range<Int>) -> TileStore {
            let store = rowStore(tiles, heads)
            let numbers = Array(tiles)
            executor.threads.forEach(numbers.count * heads.count) { index, _ in
                let (head, tile) = (heads.lowerBound + index / numbers.count, queryTile(numbers[index % numbers.count]))
                let rows = rows(of: tile, head: head)
                // Disjoint: each index writes its own tile and head.
                var target = store.tile(tile.number, head: head)
                for (plane, width) in zip(rows.planes, problem.operation.rowOperands) {
                    for row in 0..<tile.count {
                        (target + row * width).update(from: plane.rows + row * plane.stride, count: width)
                    }
                    target += tile.count * width
                }
            }
            return store
        }

        /// What the rows of a query tile bring, wherever it lies.
        private func rows(of tile: SideTile, head: Int) -> TileRows {
            if let own = tile.own {
                return TileRows(
                    count: tile.count, head: head,
                    planes: call.rowOperands.map { rows in
                        (
                            UnsafePointer(rows.base + own.lowerBound * rows.tokenStride + head * rows.headStride),
                            rows.tokenStride
                        )
                    })
            }
            var next = foreignRows.tile(tile.number, head: head)
            return TileRows(
                count: tile.count, head: head,
                planes: problem.operation.rowOperands.map { width in
                    defer { next += tile.count * width }
                    return (next, width)
                })
        }

        private func queryTile(_ number: Int) -> SideTile {
            guard let tile = executor.queryTiles[number] else {
                preconditionFailure("query tile \(number) is not in the plan")
            }
            return tile
        }

        /// Lets go of what no later step needs.
        func release(_ payloads: [Payload], and departures: Departures) {
            for payload in payloads {
                switch payload {
                case .columns(let tiles, let heads):
                    executor.spare += columns.release(tiles, heads: heads).filter { !$0.isBorrowed }
                case .rows(let tiles, let heads): executor.spare += foreignRows.release(tiles, heads: heads)
                case .rowResults, .columnResults: break
                }
            }
            executor.spare += departures.gathered.map(\.storage) + departures.narrowed
        }

        /// Takes in what has arrived: operands become resident, results merge.
        func take(_ arrivals: Arrivals) {
            for (buffer, pieces) in arrivals.narrowed {
                executor.wire?.widen(buffer, into: pieces)
                executor.spare.append(buffer)
            }
            arrivals.columns.forEach { columns.add($0) }
            arrivals.rows.forEach { foreignRows.add($0) }
            merge(arrivals.rowResults) { [call] reduction, whole, worker in
                worker.finishRows(whole, first: reduction.tile.own?.lowerBound ?? 0, head: reduction.head, of: call)
            }
            merge(arrivals.columnResults) { [call] reduction, whole, worker in
                worker.finishColumns(whole, first: reduction.tile.own?.lowerBound ?? 0, head: reduction.head, of: call)
            }
        }

        private func merge(_ arrived: [Arrivals.Arrived], finish: (Reduction, PartialResult, TileWorker) -> Void) {
            let byReduction = Array(Dictionary(grouping: arrived, by: { ObjectIdentifier($0.reduction) }).values)
            withoutActuallyEscaping(finish) { finish in
                executor.threads.forEach(byReduction.count) { index, worker in
                    // Disjoint: each index has one reduction to itself, and its tile and head of the results.
                    for (reduction, parts) in byReduction[index] {
                        for part in parts {
                            reduction.insert(part.value, at: part.node) {
                                finish(reduction, $0, executor.workers[worker])
                            }
                        }
                    }
                    executor.progressed()
                }
            }
        }

        // MARK: Units of work

        /// Computes some units, on all threads.
        func compute(_ units: [Units], poll: () -> Void) {
            if columnResults == nil { computeByRows(units, poll: poll) } else { computeByColumns(units, poll: poll) }
        }

        /// Each query tile and head goes over the key tiles.
        private func computeByRows(_ units: [Units], poll: () -> Void) {
            guard let rowResults else { return }
            var work: [(reduction: Reduction, keys: Runs)] = []
            for units in units {
                rowResults.forEach(units.queries, units.heads, meeting: units.keys) {
                    work.append((rowResults.reduction(of: $0, head: $1), units.keys))
                }
            }
            if work.isEmpty { return }
            withoutActuallyEscaping(poll) { poll in
                executor.threads.forEach(work.count, poll: poll) { index, worker in
                    // Disjoint: each index has its own reduction, and its rows and head of the results.
                    compute(
                        work[index].reduction, with: work[index].keys, executor.workers[worker],
                        poll: worker == 0 ? poll : {})
                }
            }
        }

        private func compute(_ reduction: Reduction, with keyTiles: Runs, _ worker: TileWorker, poll: () -> Void) {
            guard let pool = executor.rowPool else { return }
            let (tile, head) = (reduction.tile, reduction.head)
            worker.load(rows(of: tile, head: head), of: call)
            let keyHead = head / problem.heads.groupSize
            let numbers = Array(tile.meets.any.intersection(keyTiles))
            for (place, number) in numbers.enumerated() {
                let result = PartialResult(rows: tile.count, from: pool)
                // A head's tiles come from the third-level cache, again for each query tile. Another query tile comes
                // after the last.
                let next = columns.tile(numbers[place + 1 < numbers.count ? place + 1 : 0], head: keyHead)
                worker.run(pair(tile, number, keyHead: keyHead, next: next), rows: result, columns: nil, adds: false)
                insert(result, of: reduction, at: number - tile.firstOther, worker)
                executor.progressed()
                poll()
            }
        }

        private func pair(_ tile: SideTile, _ keyTile: Int, keyHead: Int, next: UnsafePointer<Float>? = nil) -> TilePair
        {
            TilePair(
                queryTile: tile.index, keyTile: keyTile - tile.firstOther, in: tile.sequence,
                isWhole: tile.meets.all.contains(keyTile),
                columns: columns.tile(keyTile, head: keyHead), capacity: problem.keys.numbering.capacity(of: keyTile),
                next: next)
        }

        private func insert(_ result: PartialResult, of reduction: Reduction, at keyTile: Int, _ worker: TileWorker) {
            reduction.insert(result, at: TreeNode(tile: keyTile)) {
                worker.finishRows($0, first: reduction.tile.own?.lowerBound ?? 0, head: reduction.head, of: call)
            }
        }

        /// What a thread computes by columns: a key tile, a head of its results, and query tiles, with the reductions
        /// of their rows.
        private struct ColumnWork {
            let reduction: Reduction
            let queryHeads: Range<Int>
            let queries: [SideTile]
            /// For each query head, those of each query tile; none where rows get nothing.
            let rows: [[Reduction]]
        }

        /// Each key tile and head goes over the query tiles, so that what keys get stays with one thread.
        private func computeByColumns(_ units: [Units], poll: () -> Void) {
            guard let columnResults else { return }
            var work: [ColumnWork] = []
            for units in units {
                columnResults.forEach(units.keys, problem.columnResultHeads(of: units.heads), meeting: units.queries) {
                    tile, head in
                    let size = problem.heads.groupSize
                    let queryHeads =
                        problem.operation.columnResultHeads == .query
                        ? head..<head + 1 : head * size..<(head + 1) * size
                    let queries = tile.meets.any.intersection(units.queries).map { queryTile($0) }
                    let rows = rowResults.map { results in
                        queryHeads.map { head in queries.map { results.reduction(of: $0, head: head) } }
                    }
                    work.append(
                        ColumnWork(
                            reduction: columnResults.reduction(of: tile, head: head), queryHeads: queryHeads,
                            queries: queries, rows: rows ?? []))
                }
            }
            if work.isEmpty { return }
            withoutActuallyEscaping(poll) { poll in
                executor.threads.forEach(work.count, poll: poll) { index, worker in
                    // Reductions take one thread at a time; each index has its own key tile and head of the results.
                    compute(work[index], executor.workers[worker], poll: worker == 0 ? poll : {})
                }
            }
        }

        private func compute(_ work: ColumnWork, _ worker: TileWorker, poll: () -> Void) {
            guard let pool = executor.columnPool else { return }
            let (tile, keyHead) = (work.reduction.tile, work.queryHeads.lowerBound / problem.heads.groupSize)
            for (place, query) in work.queries.enumerated() {
                let result = PartialResult(rows: tile.count, from: pool)
                for (offset, head) in work.queryHeads.enumerated() {
                    worker.load(rows(of: query, head: head), of: call)
                    let rowResult = executor.rowPool.map { PartialResult(rows: query.count, from: $0) }
                    worker.run(
                        pair(query, tile.number, keyHead: keyHead), rows: rowResult, columns: result, adds: offset > 0)
                    if let rowResult { insert(rowResult, of: work.rows[offset][place], at: tile.index, worker) }
                }
                work.reduction.insert(result, at: TreeNode(tile: query.index)) {
                    worker.finishColumns($0, first: tile.own?.lowerBound ?? 0, head: work.reduction.head, of: call)
                }
                executor.progressed()
                poll()
            }
        }

        /// The results of this rank's rows that see no key, and of its keys that no row sees.
        func finishUnmet() {
            guard let worker = executor.workers.first else { return }
            if rowResults != nil {
                for tile in executor.queryTiles.values where tile.tree.isEmpty {
                    guard let rows = tile.own else { continue }
                    for head in 0..<problem.heads.queryHeads { worker.finishUnseeing(rows: rows, head: head, of: call) }
                }
            }
            if columnResults != nil {
                for tile in executor.keyTiles.values where tile.tree.isEmpty {
                    guard let keys = tile.own else { continue }
                    for head in problem.columnResultHeads(of: 0..<problem.heads.queryHeads) {
                        worker.finishUnseen(keys: keys, head: head, of: call)
                    }
                }
            }
        }
    }
}

extension Plan {
    /// Calls `body` with all units that the plan computes or gets results of.
    fileprivate func forEachUnits(_ body: (Units) -> Void) {
        for step in steps {
            step.attend.forEach(body)
            for payload in step.receives.flatMap(\.payloads) {
                // A rank may merge for tiles that meet none of its own.
                switch payload {
                case .rowResults(let units), .columnResults(let units): body(units)
                case .columns, .rows: break
                }
            }
        }
    }
}
