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
    let transport: any Transport
    let threads: ThreadPool
    /// Where keys and values travel in another type than they are attended in.
    let wire: Wire?
    /// What the ranks of the node read of each other, where there are several.
    let node: NodeArrivals?
    let workers: [any TileWorker]
    let clocks: [UnitClock]
    /// The memory of results, of rows and of keys; nil where the operation gives that side nothing.
    let rowPool: ResultPool?
    let columnPool: ResultPool?
    let queryTiles: [Int: SideTile]
    let keyTiles: [Int: SideTile]
    var spare: [AlignedBuffer] = []
    let progressed: () -> Void
    /// The time so far in which this rank had nothing left to compute and waited for messages.
    public private(set) var exposed = Duration.zero
    /// How fast units of many whole tiles have been computed so far, of an operation that goes by rows.
    public var pace: Pace { clocks.reduce(Pace()) { $0 + $1.pace } }

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
        clocks = workers.map { _ in UnitClock() }
        rowPool = operation.mergeRows.map {
            ResultPool(planes: operation.shape.rowResults, tileFloats: operation.shape.tileResults, merge: $0)
        }
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
        for (place, number) in problem.queries.tiles(of: plan.rank).enumerated() {
            let tile = SideTile.query(number, of: problem, firstRow: row, place: place)
            tiles[number] = tile
            row += tile.count
        }
        plan.forEachUnits { units in
            for number in units.queries where tiles[number] == nil {
                tiles[number] = .query(number, of: problem, firstRow: nil, place: nil)
            }
        }
        return tiles
    }

    /// Every key tile that the plan names, and all of the rank's own.
    private static func keyTiles(of plan: Plan) -> [Int: SideTile] {
        var tiles: [Int: SideTile] = [:]
        var key = 0
        for (place, number) in plan.problem.keys.tiles(of: plan.rank).enumerated() {
            let tile = SideTile.key(number, of: plan, firstKey: key, place: place)
            tiles[number] = tile
            key += tile.count
        }
        plan.forEachUnits { units in
            for number in units.keys where tiles[number] == nil {
                tiles[number] = .key(number, of: plan, firstKey: nil, place: nil)
            }
        }
        return tiles
    }

    /// Attends this rank's queries to all keys they see. Collective: every rank calls it.
    ///
    /// More of the arguments is said at `TileCall.attend(queries:scale:output:logSumExp:rowMax:rowSum:contents:dropout:)`.
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
        let work = RingCall(self, call, keyValues)
        work.finishUnmet()
        keyValues.begin()
        try node?.begin()
        for (number, step) in plan.steps.enumerated() {
            var times = StepTimes()
            try node?.waitForRoom(number)
            let readings = node?.readings(number) ?? []
            // What is sent from a mate's memory must be there before the message starts.
            if !step.sends.isEmpty {
                exposed += try node?.wait(for: readings, of: keyValues, sending: step.sends) ?? .zero
            }
            times.begun = .now
            let borrowed = work.borrow(readings)
            let (arriving, leaving) = (work.room(for: step, number), work.messages(for: step.sends))
            try transport.exchange(receive: arriving.messages, send: leaving.messages) { poll in
                times.posted = .now
                exposed += try node?.wait(for: readings, of: keyValues, poll: poll) ?? .zero
                times.ready = .now
                work.compute(step.attend, poll: poll)
                times.computed = .now
            }
            times.arrived = .now
            exposed += times.arrived - times.computed
            work.giveBack(borrowed)
            work.release(step.release, and: leaving)
            work.take(arriving)
            node?.finish(number)
            transport.timeline?.add(times, number, step, plan)
        }
        keyValues.end()
    }

    /// Lets go of the memory that runs use again, for others that run in turn with this one.
    public func releaseMemory() {
        spare = []
        rowPool?.drain()
        columnPool?.drain()
    }

    /// Memory of at least so many floats, used again where there is any.
    func memory(_ floats: Int) -> AlignedBuffer {
        if let place = spare.lastIndex(where: { $0.count >= floats }) { return spare.remove(at: place) }
        // Too small for what comes: a plan's arrivals grow a few times at most.
        if !spare.isEmpty { spare.removeLast() }
        return AlignedBuffer(count: floats)
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
