// One rank of a job, as the verbs see it: transport, threads, kernels, and what was asked for.

import ArgumentParser
import Attention
import Checkpoints
import Foundation
import Logging
import Matrices
import Plans
import RingAttention
import Tiles

/// What a verb works with on one rank.
final class Session {
    let context: JobContext
    let options: RunOptions
    let threads: ThreadPool
    let kernels: KernelSet
    let log: Logger
    /// Which ranks share memory.
    let topology: Topology
    /// Which ranks share one copy of the weights: virtual ranks too, whose process has them once.
    let weightNodes: Topology
    private var warnings: Set<String> = []
    /// What the batches of a job have been planned with so far.
    var plannedSoFar = BatchPlanning()

    var transport: any Transport { context.transport }
    var watchdog: Watchdog { context.watchdog }
    var isRoot: Bool { context.isRoot }

    private init(
        _ context: JobContext, _ options: RunOptions, _ kernels: KernelSet, _ topology: Topology, weightNodes: Topology
    ) {
        self.context = context
        self.topology = topology
        self.weightNodes = weightNodes
        self.options = options
        self.kernels = kernels
        threads = ThreadPool(threads: context.threads)
        var log = Logger(label: "annulus") { _ in StandardErrorLog() }
        log.logLevel = options.quiet || !context.isRoot ? .error : .notice
        self.log = log
    }

    /// Runs `body` on every rank; returns when the job is done, throws its status where it failed.
    /// - Parameters:
    ///   - command: whose options the ranks compare before anything else.
    ///   - streams: what rank 0 reads and writes: where one of them is closed, nothing is begun.
    static func run(
        _ command: some ParsableCommand, _ options: RunOptions, needs streams: [StandardStream] = [.output],
        body: @escaping @Sendable (Session) throws -> Void
    ) throws {
        let asked = AskedOptions(command)
        let status = Job.run(options.job) { context in
            let place =
                context.size == 1 || context.options.virtualRanks != nil
                ? "" : " to rank \(context.rank.index) on \(LocalHost.name)"
            let ending = context.watchdog.ending
            MemoryRefusal.whenRefused { bytes in
                ending.end(
                    JobError(
                        .memory,
                        "the system refused \(bytes) bytes of memory\(place); raise the limits of the process (ulimit -v, ulimit -d), free "
                            + "some memory, or take fewer --threads"))
            }
            try context.compareStart(asked)
            try context.agree { if context.isRoot { for stream in streams { try stream.check() } } }
            let kernels = try chosenKernels(context)
            let hosts = Topology(hosts: try context.transport.hosts())
            let nodes = options.ranksPerNode.map { hosts.split(ranksPerNode: $0) } ?? hosts
            // Virtual ranks stand for ranks of hosts of their own, unless asked to be neighbours.
            let isApart = options.virtualRanks != nil && options.ranksPerNode == nil
            let topology = isApart ? Topology(separate: context.transport.size) : nodes
            try body(Session(context, options, kernels, topology, weightNodes: nodes))
        }
        if status != 0 { throw EndedJob(status: status) }
    }

    /// Runs `work` on every rank and agrees on its outcome. Collective.
    func agree<Value>(_ work: () throws -> Value) throws -> Value {
        defer { watchdog.progress() }
        return try context.agreeOnFiles {
            do {
                return try work()
            } catch let error as MaskSyntaxError {
                throw JobError(.usage, error.description)
            }
        }
    }

    /// The best kernel set that every rank can run, or the one that `ANNULUS_KERNEL` names: one set, so that the
    /// bits are the same wherever a unit runs. Collective.
    private static func chosenKernels(_ context: JobContext) throws -> KernelSet {
        let asked = ProcessInfo.processInfo.environment["ANNULUS_KERNEL"].flatMap { $0.isEmpty ? nil : $0 }
        let mine = KernelSet.available.map(\.name)
        let everyones = try context.transport.allGather(Array(mine.joined(separator: " ").utf8)).map {
            String(decoding: $0, as: UTF8.self).split(separator: " ").map(String.init)
        }
        let wishes = try context.transport.allGather(Array((asked ?? "").utf8))
        return try context.agree {
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

    /// One line on how the job runs.
    /// - Parameter encodes: whether it encodes documents, whose batches may be laid out each in its way.
    func logHeader(_ what: String, encodes: Bool = false) {
        let ranks =
            transport.size == 1
            ? "1 rank"
            : "\(transport.size) ranks"
                + (topology.isShared ? " on \(topology.nodeCount) node\(topology.nodeCount == 1 ? "" : "s")" : "")
        let threads = context.threads == 1 ? "1 thread" : "\(context.threads) threads"
        log.notice(
            """
            \(what): \(ranks) of \(threads), kernel \(kernels.name), \(options.dtype.rawValue), strategy \(options.strategy.name), \
            layout \(options.askedLayout?.rawValue ?? (encodes ? "by batch" : options.layout.rawValue))
            """)
        if options.dtype == .float32, options.wire == .bfloat16 {
            log.notice(
                """
                wire bfloat16: keys and values are rounded to it, which changes an attention output by at most \
                (e^2δ·(1 + 2⁻⁸) − 1)·max|v|, δ = 2⁻⁸·|scale|·‖q‖·‖k‖
                """)
        }
        if options.dtype == .bfloat16, !kernels.hasNativeBFloat16 {
            log.warning(
                "kernel \(kernels.name) has no bfloat16 instructions here: the bits are the same, but float32 would be faster"
            )
        }
    }

    /// Says once where shared memory is short.
    func warn(_ shortages: [SharedMemoryShortage]) {
        for shortage in shortages where warnings.insert(shortage.description).inserted { log.warning("\(shortage)") }
    }

    /// Says once what is wrong and does not end the job.
    func warn(_ text: String) { if warnings.insert(text).inserted { log.warning("\(text)") } }

    /// Writes lines to standard output on rank 0.
    /// - Throws: `JobError` with status 74 where the reader has gone or the disk is full.
    func printLines(_ text: String) throws {
        if isRoot { try StandardStream.write(text) }
    }
}

/// A job that has already said why it ended.
struct EndedJob: Error {
    let status: Int32
}

/// Log lines on standard error, above a progress line.
private struct StandardErrorLog: LogHandler {
    var logLevel = Logger.Level.notice
    var metadata = Logger.Metadata()

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    // swift-log's releases for Swift 6.2 and later pass an event; the earlier ones its parts.
    #if compiler(>=6.2)
    func log(event: LogEvent) { write(event.level, event.message) }
    #else
    func log(
        level: Logger.Level, message: Logger.Message, metadata: Logger.Metadata?, source: String, file: String,
        function: String, line: UInt
    ) {
        write(level, message)
    }
    #endif

    private func write(_ level: Logger.Level, _ message: Logger.Message) {
        StandardError.writeLine(level >= .warning ? "\(level): \(message)" : "\(message)")
    }
}
