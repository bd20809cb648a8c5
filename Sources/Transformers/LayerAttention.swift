// What the layers of an encoder attend with.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

/// An executor for each kind of attention among the layers, and packed keys and values for each shape of heads, which
/// all layers of that shape use one after another.
struct LayerAttention {
    private let executors: [AttentionKind: RingExecutor]
    private let keyValues: [HeadShape: KeyValueTiles]
    /// Those of layers that are observed, by kind, then by the operation's name.
    private var observers: [AttentionKind: [String: RingExecutor]] = [:]

    /// The time so far in which this rank waited for messages with nothing left to attend.
    var exposed: Duration { executors.values.reduce(.zero) { $0 + $1.exposed } }

    /// How fast attention has been computed so far, by its heads.
    var paces: [HeadShape: Pace] {
        executors.reduce(into: [:]) { $0[$1.key.heads, default: Pace()] += $1.value.pace }
    }

    /// What a layer of some kind attends with.
    func layer(_ kind: AttentionKind) -> (executor: RingExecutor, keyValues: KeyValueTiles) {
        guard let executor = executors[kind], let keyValues = keyValues[kind.heads] else {
            preconditionFailure("no executor for a layer's attention")
        }
        return (executor, keyValues)
    }

    /// Lets go of the memory that attention uses again, for what follows it.
    func releaseMemory() { executors.values.forEach { $0.releaseMemory() } }

    /// What a layer of some kind is observed with, besides its attention.
    func observer(_ kind: AttentionKind, _ shape: OperationShape) -> RingExecutor {
        guard let executor = observers[kind]?[shape.name] else {
            preconditionFailure("no executor for \(shape.name) of a layer")
        }
        return executor
    }

    /// Over all ranks. Collective.
    /// - Parameters:
    ///   - topology: which ranks share memory; none do where nil.
    ///   - observed: the operations that the layers of a kind are observed with.
    static func make(
        _ encoder: Encoder, _ sharding: Sharding, _ strategy: Strategy, topology: Topology?, wire: ElementKind?,
        transport: any Transport,
        threads: ThreadPool, memory: BufferPool, progressed: @escaping @Sendable () -> Void,
        observed: (AttentionKind) -> [TileOperation] = { _ in [] }
    ) throws -> (attention: LayerAttention, shortages: [SharedMemoryShortage]) {
        var executors: [AttentionKind: RingExecutor] = [:]
        var observers: [AttentionKind: [String: RingExecutor]] = [:]
        var keyValues: [HeadShape: KeyValueTiles] = [:]
        var shortages: [SharedMemoryShortage] = []
        for (heads, kinds) in byHeads(encoder) {
            // Attention first, then what its layers are observed with.
            var jobs: [(kind: AttentionKind, problem: AttentionProblem, operation: TileOperation)] = []
            for kind in kinds {
                var problem = problem(encoder, sharding, kind, wire)
                if let topology { problem.topology = topology }
                for operation in [operation(encoder, problem)] + observed(kind) {
                    problem.operation = operation.shape
                    jobs.append((kind, problem, operation))
                }
            }
            let setup = try AttentionSetup(
                jobs.map(\.problem), strategy, transport: transport, threads: threads, kernels: encoder.kernels,
                memory: memory, progressed: progressed,
                operation: { problem in
                    guard
                        let job = jobs.first(where: {
                            $0.problem.operation == problem.operation && $0.problem.mask == problem.mask
                        })
                    else { preconditionFailure("a job that was not asked for") }
                    return job.operation
                })
            for (job, executor) in zip(jobs, setup.executors) {
                if executors[job.kind] == nil {
                    executors[job.kind] = executor
                } else {
                    observers[job.kind, default: [:]][job.operation.shape.name] = executor
                }
            }
            keyValues[heads] = setup.keyValues
            shortages += setup.shortages
        }
        var made = LayerAttention(executors: executors, keyValues: keyValues)
        made.observers = observers
        return (made, shortages)
    }

    private init(executors: [AttentionKind: RingExecutor], keyValues: [HeadShape: KeyValueTiles]) {
        self.executors = executors
        self.keyValues = keyValues
    }

    /// Of documents that are a batch of this rank's alone.
    init(
        _ encoder: Encoder, _ sharding: Sharding, _ strategy: Strategy, wire: ElementKind?, transport: any Transport,
        threads: ThreadPool,
        memory: BufferPool, progressed: @escaping @Sendable () -> Void
    ) throws {
        var executors: [AttentionKind: RingExecutor] = [:]
        var keyValues: [HeadShape: KeyValueTiles] = [:]
        for (heads, kinds) in Self.byHeads(encoder) {
            for kind in kinds {
                let problem = Self.problem(encoder, sharding, kind, wire)
                executors[kind] = try RingExecutor(
                    plan: strategy.plan(problem, rank: Rank(0)), operation: Self.operation(encoder, problem),
                    transport: transport, threads: threads,
                    kernels: encoder.kernels, progressed: progressed)
                keyValues[heads] =
                    keyValues[heads]
                    ?? KeyValueTiles(of: problem, rank: Rank(0), kernels: encoder.kernels, memory: memory)
            }
        }
        self.init(executors: executors, keyValues: keyValues)
    }

    /// The kinds of attention by their heads, in the order in which the layers come.
    private static func byHeads(_ encoder: Encoder) -> [(heads: HeadShape, kinds: [AttentionKind])] {
        encoder.configuration.kinds.reduce(into: []) { groups, kind in
            if let place = groups.firstIndex(where: { $0.heads == kind.heads }) {
                groups[place].kinds.append(kind)
            } else {
                groups.append((kind.heads, [kind]))
            }
        }
    }

    private static func problem(_ encoder: Encoder, _ sharding: Sharding, _ kind: AttentionKind, _ wire: ElementKind?)
        -> AttentionProblem
    {
        var problem = AttentionProblem(
            shapes: sharding.numbering.lengths.map { SequenceShape(length: $0) }, queries: sharding, keys: sharding,
            mask: kind.mask,
            heads: kind.heads)
        problem.element = encoder.element
        problem.wire = wire
        return problem
    }

    /// The backward of a kind of attention.
    static func differentiate(_ encoder: Encoder, _ kind: AttentionKind) -> TileOperation {
        .differentiate(
            heads: kind.heads, element: encoder.element, mask: kind.mask, modifiers: encoder.modifiers,
            kernels: encoder.kernels)
    }

    private static func operation(_ encoder: Encoder, _ problem: AttentionProblem) -> TileOperation {
        .attend(
            heads: problem.heads, element: problem.element, mask: problem.mask, modifiers: encoder.modifiers,
            kernels: encoder.kernels)
    }
}
