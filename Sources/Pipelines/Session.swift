// One rank of a job, as pipelines see it: transport, threads, kernels, and how the job is spread.

import Attention
import Checkpoints
import Foundation
import Logging
import MPI
import Matrices
import Plans
import RingAttention
import Tiles

/// What a pipeline works with on one rank.
///
/// Functions that are collective are called by all ranks of the job in the same order, as in MPI.
public final class Session {
    package let group: RankGroup
    package let settings: Settings
    package let threads: ThreadPool
    package let kernels: KernelSet
    package let log: Logger
    /// Which ranks share memory.
    package let topology: Topology
    /// Which ranks share one copy of the weights: virtual ranks too, whose process has them once.
    let weightNodes: Topology
    private let display: (_ title: String, _ total: Int, _ unit: String) -> any ProgressDisplay
    private var warnings: Set<String> = []
    /// Digests of what was read, by what it was read for; the same on every rank.
    package internal(set) var readings: [(name: String, digest: UInt64)] = []
    /// What the batches of a job have been planned with so far.
    var plannedSoFar = BatchPlanning()
    /// What the job has done so far.
    package var done = Done()
    /// What is wrong with where its threads may run, once its header has been said; nil: nothing.
    private(set) var crowding: String?

    package var transport: any Transport { group.transport }
    package var monitor: any Monitor { group.monitor }
    /// Whether this is rank 0, the one of a job that reads standard input and writes standard output.
    public var isRoot: Bool { group.isRoot }

    /// Collective.
    /// - Parameters:
    ///   - threads: how many threads this rank may use.
    ///   - log: where notes and warnings go; rank 0 alone has some.
    ///   - display: shows how far a piece of work has come, on rank 0.
    /// - Throws: `AgreedFailure` with status 78 where the ranks have no kernels in common, or were told different ones.
    package init(
        _ group: RankGroup, settings: Settings, threads: Int, log: Logger,
        display: @escaping (_ title: String, _ total: Int, _ unit: String) -> any ProgressDisplay
    ) throws {
        self.group = group
        self.settings = settings
        self.log = log
        self.display = display
        kernels = try Self.chosenKernels(group)
        let hosts = Topology(hosts: try group.transport.hosts())
        weightNodes = settings.ranksPerNode.map { hosts.split(ranksPerNode: $0) } ?? hosts
        // Virtual ranks stand for ranks of hosts of their own, unless asked to be neighbours.
        let isApart = group.isVirtual && settings.ranksPerNode == nil
        topology = isApart ? Topology(separate: group.size) : weightNodes
        self.threads = ThreadPool(threads: threads)
    }

    /// Runs `body` in a job of its own: in this process alone, or, where `mpirun` or `srun` started it, on every rank.
    ///
    /// Every rank calls it, once; under `mpirun` it starts MPI and ends it.
    /// - Parameters:
    ///   - settings: the same on every rank.
    ///   - threads: how many threads this rank may use; nil: `OMP_NUM_THREADS`, else its share of the processors.
    ///   - body: the work of a rank, given its session; collective functions are called alike on every rank.
    /// - Returns: what `body` returns on this rank.
    /// - Throws: ``JobError``; what `body` throws. Under `mpirun` only an error that all ranks share is thrown; one
    ///   that is a rank's own ends the job with a line on standard error, since the others wait for that rank.
    public static func run<Result: Sendable>(
        _ settings: Settings = Settings(), threads: Int? = nil, _ body: @escaping @Sendable (Session) throws -> Result
    ) throws -> Result {
        let environment = ProcessInfo.processInfo.environment
        let launch = try Launch.detect(environment: environment)
        let asked = try ThreadShare.requested(option: threads, environment: environment)
        @Sendable func begin(_ transport: any Transport) throws -> Result {
            let fair = try ThreadShare.fair(transport)
            let group = RankGroup(transport, monitor: Unwatched(), isVirtual: false)
            let log = Logger(label: "annulus") { _ in SwiftLogNoOpLogHandler() }
            return try body(
                Session(group, settings: settings, threads: asked ?? fair, log: log) { _, _, _ in NoDisplay() })
        }
        guard launch.kind == .mpi else {
            do {
                return try VirtualRanks.run(count: 1, body: begin)[0]
            } catch let failure as AgreedFailure {
                throw JobError(failure)
            }
        }
        Launch.prepareEnvironment()
        return try MPIEnvironment.run(threadSupport: .multiple) { world in
            try launch.check(worldSize: world.size)
            let transport = try MPITransport(world)
            let result: Result
            do {
                result = try begin(transport)
            } catch let failure as AgreedFailure {
                try transport.close()
                throw JobError(failure)
            } catch {
                // The others wait for this rank.
                let error = JobError(error)
                FileHandle.standardError.write(
                    Data("annulus: \(error) (rank \(world.rank) on \(LocalHost.name))\n".utf8))
                MPIEnvironment.abort(status: error.status.rawValue)
            }
            try transport.close()
            return result
        }
    }

    /// Runs `work` on every rank and agrees on its outcome. Collective.
    package func agree<Value>(_ work: () throws -> Value) throws -> Value {
        defer { monitor.progress() }
        return try group.agree(work)
    }

    /// Shows how far a piece of work has come.
    func display(_ title: String, total: Int, unit: String) -> any ProgressDisplay { display(title, total, unit) }

    /// The best kernel set that every rank can run, or the one that `ANNULUS_KERNEL` names: one set, so that the
    /// bits are the same wherever a unit runs. Collective.
    private static func chosenKernels(_ group: RankGroup) throws -> KernelSet {
        let asked = ProcessInfo.processInfo.environment["ANNULUS_KERNEL"].flatMap { $0.isEmpty ? nil : $0 }
        let mine = KernelSet.available.map(\.name)
        let everyones = try group.transport.allGather(Array(mine.joined(separator: " ").utf8)).map {
            String(decoding: $0, as: UTF8.self).split(separator: " ").map(String.init)
        }
        let wishes = try group.transport.allGather(Array((asked ?? "").utf8))
        return try group.agree {
            guard wishes.allSatisfy({ $0 == wishes[0] }) else {
                throw JobError(.environment, "ANNULUS_KERNEL differs between ranks; export the same value everywhere")
            }
            let common = mine.filter { name in everyones.allSatisfy { $0.contains(name) } }
            if let asked {
                guard let set = KernelSet.named(asked), common.contains(asked) else {
                    throw JobError(
                        .environment,
                        "ANNULUS_KERNEL is '\(asked)', and every rank can run: \(common.joined(separator: ", "))")
                }
                return set
            }
            guard let best = common.last.flatMap(KernelSet.named) else {
                throw JobError(.environment, "the ranks have no kernel set in common; run one build on all of them")
            }
            return best
        }
    }

    /// Says how the job runs, and where its ranks may run. Collective.
    /// - Parameter encodes: whether it encodes documents, whose batches may be laid out each in its way.
    package func logHeader(_ what: String, encodes: Bool = false) throws {
        let mine = Binding.current(threads: self.threads.threads)
        let bindings = try transport.allGather(mine.message.bytes).compactMap { Binding($0) }
        let ranks =
            transport.size == 1
            ? "1 rank"
            : "\(transport.size) ranks"
                + (topology.isShared ? " on \(topology.nodeCount) node\(topology.nodeCount == 1 ? "" : "s")" : "")
        let count = threads.threads
        let threads = count == 1 ? "1 thread" : "\(count) threads"
        log.notice(
            """
            \(what): \(ranks) of \(threads), kernel \(kernels.name), \(settings.element.rawValue), strategy \(settings.strategyName), \
            layout \(settings.askedLayout?.rawValue ?? (encodes ? "by batch" : settings.layout.rawValue))
            """)
        log.notice("binding: \(Binding.text(bindings))")
        crowding = Binding.crowding(bindings)
        if let crowding { log.notice("binding: \(crowding)") }
        if settings.element == .float32, settings.wire == .bfloat16 {
            log.notice(
                """
                wire bfloat16: keys and values are rounded to it, which changes an attention output by at most \
                (e^2δ·(1 + 2⁻⁸) − 1)·max|v|, δ = 2⁻⁸·|scale|·‖q‖·‖k‖
                """)
        }
        if settings.element == .bfloat16, kernels.bfloat16Products == .compared {
            log.warning(
                "kernel \(kernels.name) has no bfloat16 instructions here: the bits are the same, but float32 would be faster"
            )
        }
    }

    /// Says once where shared memory is short.
    package func warn(_ shortages: [SharedMemoryShortage]) {
        for shortage in shortages where warnings.insert(shortage.description).inserted { log.warning("\(shortage)") }
    }

    /// Says once what is wrong and does not end the job.
    package func warn(_ text: String) { warn(once: text, text) }

    /// Says of the first of several things of one kind what is wrong.
    func warn(once kind: String, _ text: String) { if warnings.insert(kind).inserted { log.warning("\(text)") } }
}
