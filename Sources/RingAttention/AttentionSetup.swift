// Executors and the keys and values they read, with shared memory for the nodes that have room for it.

import Attention
import Matrices
import Plans
import Tiles

/// What a rank attends with: keys and values, and an executor for each way in which they are attended to.
public struct AttentionSetup {
    /// This rank's packed keys and values, which all executors read.
    public let keyValues: KeyValueTiles
    /// One for each operation asked for.
    public let executors: [RingExecutor]
    /// The nodes whose ranks send messages for want of shared memory.
    public let shortages: [SharedMemoryShortage]

    /// The time so far in which this rank had nothing left to compute and waited for messages.
    public var exposed: Duration { executors.reduce(.zero) { $0 + $1.exposed } }

    /// How fast the first executor's operation has been computed so far.
    public var pace: Pace { executors[0].pace }

    /// Plans some jobs over the same keys, with shared memory for those nodes of their topology that have room for it.
    /// Collective.
    /// - Parameters:
    ///   - jobs: attentions to the same keys and values, which differ in their masks, queries or operations.
    ///   - strategy: how the units of all of them come to their operands.
    ///   - transport: connects this rank to those that the jobs are dealt out to.
    ///   - threads: those of this rank, all of which compute.
    ///   - kernels: those that pack keys and values, and round what travels.
    ///   - memory: where the rank's own packed tiles are put, if it does not share them.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    ///   - operation: that of each job.
    public init(
        _ jobs: [AttentionProblem], _ strategy: Strategy, transport: any Transport, threads: ThreadPool,
        kernels: KernelSet,
        memory: BufferPool = BufferPool(), progressed: @escaping @Sendable () -> Void = {},
        operation: (AttentionProblem) -> TileOperation
    ) throws {
        precondition(
            !jobs.isEmpty && jobs.allSatisfy { $0.keys == jobs[0].keys && $0.topology == jobs[0].topology },
            "jobs over the same keys")
        let operations = jobs.map(operation)
        func plans(_ topology: Topology) -> [Plan] {
            zip(jobs, operations).map { problem, operation in
                var problem = problem
                problem.topology = topology
                problem.operation = operation.shape
                return strategy.plan(problem, rank: transport.rank)
            }
        }
        // Each attempt plans anew, and is made with the plans that its memory was counted for.
        var planned: [Plan] = []
        let (made, shortages) = try jobs[0].topology.sharing(.keyValues, over: transport) { topology in
            planned = plans(topology)
            return KeyValueTiles.floats(of: jobs[0], rank: transport.rank)
                + planned.reduce(0) { $0 + SegmentMap($1).floats }
        } make: { topology in
            if planned.first?.problem.topology != topology { planned = plans(topology) }
            let keyValues = try KeyValueTiles(
                of: planned[0].problem, sharedOver: transport, kernels: kernels, memory: memory)
            let executors = try zip(planned, operations).map { plan, operation in
                try RingExecutor(
                    plan: plan, operation: operation, transport: transport, threads: threads, kernels: kernels,
                    progressed: progressed)
            }
            return (keyValues, executors)
        }
        (keyValues, executors) = made
        self.shortages = shortages
    }

    /// Attention of one job.
    /// - Parameters:
    ///   - problem: the job; its topology names ranks that share memory where there is room for it.
    ///   - strategy: how its units come to their operands.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - transport: connects this rank to those that the job is dealt out to.
    ///   - threads: those of this rank, all of which compute.
    ///   - kernels: those that pack and attend.
    ///   - memory: where the rank's own packed tiles are put, if it does not share them.
    ///   - progressed: called now and then, on any thread of the rank, while work gets done.
    public init(
        _ problem: AttentionProblem, _ strategy: Strategy, modifiers: ScoreModifiers = ScoreModifiers(),
        transport: any Transport, threads: ThreadPool,
        kernels: KernelSet, memory: BufferPool = BufferPool(), progressed: @escaping @Sendable () -> Void = {}
    ) throws {
        try self.init(
            [problem], strategy, transport: transport, threads: threads, kernels: kernels, memory: memory,
            progressed: progressed
        ) {
            .attend(heads: $0.heads, element: $0.element, mask: $0.mask, modifiers: modifiers, kernels: kernels)
        }
    }

    /// Attends with the first executor; see ``RingExecutor/attend(queries:to:scale:output:logSumExp:contents:)``.
    public func attend(
        queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil, contents: PositionContents? = nil
    ) throws {
        try executors[0].attend(
            queries: queries, to: keyValues, scale: scale, output: output, logSumExp: logSumExp, contents: contents)
    }
}
