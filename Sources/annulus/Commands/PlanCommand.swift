// `annulus plan`: what a job would cost on a described cluster, under every strategy and layout.

import ArgumentParser
import Attention
import Checkpoints
import Files
import Foundation
import Matrices
import Pipelines
import Plans
import RingAttention
import Tiles
import Transformers

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Price a job on a described cluster: time, bytes, memory and balance of every strategy and layout.",
        discussion: """
            Without --model or --shape the job is one attention, or with --backward its gradients, as `bench attention` times it; with them, an encoder on one \
            document of --length tokens, its dense layers and weights included. \
            Ranks of a node share keys and values in memory. A rank's memory includes \(Int(processBytes / 0x1p20)) MiB for its process: the \
            libraries of MPI and Swift, and what they allocate. \
            Nothing runs: the plans that ranks would follow are gone through step by step. A step takes as long as the longest \
            of a rank's work, its arrivals and its departures; a job as long as its slowest rank. Of more than 64 ranks, 8 of \
            each kind (speed, memory, tiles held) are looked at and stand for the others. The choice is the fastest that fits into the nodes' \
            memory, and of those within 1 % the one that sends least.

            \(ClusterFile.help)
            """)

    /// About what a process takes before it has a job: `python3 scripts/rank_peak.py DIR annulus bench peak` finds 25
    /// MiB for one process, and 13 to 20 a rank for two or four, which share the libraries.
    static let processBytes = 24 * 0x1p20

    @Option(help: "The cluster's description.")
    var cluster: String

    @Option(
        help: ArgumentHelp(
            "Price the cluster with these bandwidths between nodes instead, one after another: 10,100.",
            valueName: "gbit,…"))
    var gbitPerS: NumberList?

    @Option(
        help: ArgumentHelp(
            """
            Price so many nodes of the one kind that the cluster has instead, one number after another, and print the choice of each, with \
            its speed-up over the first: 1,8,64.
            """, valueName: "count,…"))
    var nodes: NumberList?

    @OptionGroup var attention: AttentionOptions

    @Option(
        name: [.short, .long], help: "An encoder: a folder with config.json, or org/name in the Hugging Face cache.")
    var model: String?

    @Option(help: "An encoder of a published shape: \(PublishedShape.list).")
    var shape: String?

    @Option(help: "Storage type of weights, keys and values: float32 or bfloat16.")
    var dtype: ElementKind = .float32

    @Option(help: "Price this strategy only. Default: all of them.")
    var strategy: Strategy?

    @Option(help: "Price this layout only. Default: all of them.")
    var layout: Layout?

    @Option(help: "table, json (one object a line) or csv.")
    var format: BenchFormat = .table

    @Option(
        help: ArgumentHelp(
            """
            Write what each rank would do when, late ranks making others wait, as a run with --trace does: of the strategy and layout that are \
            chosen, one layer of each kind, on up to \(Simulation.mostRanks) ranks.
            """, valueName: "file"))
    var trace: String?

    mutating func validate() throws {
        if trace != nil, let gbitPerS, gbitPerS.values.count > 1 {
            throw ValidationError(
                "--trace is of one cluster: give --gbit-per-s one number, not \(gbitPerS.values.count)")
        }
        if trace != nil, let nodes, nodes.values.count > 1 {
            throw ValidationError("--trace is of one cluster: give --nodes one number, not \(nodes.values.count)")
        }
        if let other = nodes?.values.first(where: { $0.rounded() != $0 || Int($0) > ClusterFile.mostRanks }) {
            throw ValidationError("--nodes takes whole numbers up to \(ClusterFile.mostRanks), not \(other)")
        }
        if trace == "" { throw ValidationError("--trace takes a file, and its name is empty") }
        let isEncoder = model != nil || shape != nil
        let defaults = (heads: 12, headDim: 64, mask: "full")
        if isEncoder,
            (attention.heads, attention.headDim, attention.mask) != defaults || attention.kvHeads != nil
                || attention.valueDim != nil || attention.queryLength != nil || attention.backward
        {
            throw ValidationError(
                "with --model or --shape, --length is the document's; heads, widths, queries and mask are the encoder's own, and no gradients are priced"
            )
        }
        if model != nil, shape != nil {
            throw ValidationError("give either --model or --shape, or neither for attention alone")
        }
        if let shape, PublishedShape.named(shape) == nil {
            throw ValidationError("--shape '\(shape)' is unknown; known: \(PublishedShape.list)")
        }
    }

    func run() throws {
        let command = self
        let status = Job.run(JobOptions()) { context in
            guard context.group.size == 1 else {
                throw JobError(.usage, "plan runs nothing; start it without mpirun")
            }
            try StandardStream.output.check()
            let transport = context.group.transport
            if let trace = command.trace { try ParallelFile.checkWritable(trace, force: true, transport: transport) }
            try StandardStream.write(command.priced(ThreadPool(threads: context.threads), transport))
        }
        if status != 0 { throw EndedJob(status: status) }
    }

    private func priced(_ threads: ThreadPool, _ transport: any Transport) throws -> String {
        let problem = try plannedJob()
        var footprint = problem.footprint
        footprint.bytesPerRank += Self.processBytes
        var rows: [BenchRow] = []
        var tables: [String] = []
        var choices: [(cluster: Cluster, bandwidth: Double?, price: Price?)] = []
        for nodeCount in nodes?.values.map({ Optional(Int($0)) }) ?? [nil] {
            let described = try ClusterFile.read(path: cluster, nodeCount: nodeCount)
            for bandwidth in gbitPerS?.values.map(Optional.some) ?? [nil] {
                let cluster = bandwidth.map { described.with(bandwidthBetweenNodes: $0 * 1e9 / 8) } ?? described
                let speeds = cluster.speeds
                let topology = cluster.topology
                let pricing = Pricing(on: cluster, footprint: footprint) { layout in
                    var planned = problem.make(layout, cluster.rankCount, speeds)
                    planned.topology = topology
                    return planned
                }
                let prices = pricing.prices(
                    strategy.map { [$0] } ?? Strategy.allCases, layout.map { [$0] } ?? Layout.allCases, threads: threads
                )
                let choice = Choice(of: prices)
                if let trace {
                    guard let price = choice?.price ?? (prices.count == 1 ? prices[0] : nil) else {
                        throw JobError(
                            .memory, "--trace: none fits into the nodes' memory; name one by --strategy and --layout")
                    }
                    let planned = problem.make(price.layout, cluster.rankCount, speeds)
                    try write(trace, planned, topology, footprint, price.strategy, cluster, threads, transport)
                }
                choices.append((cluster, bandwidth, choice?.price))
                if format != .table {
                    rows += prices.map { row($0, choice, cluster, problem, bandwidth) }
                } else if nodes == nil {
                    tables.append(table(prices, choice, cluster, problem, bandwidth))
                }
            }
        }
        if format != .table { return BenchRow.text(rows, format) }
        return nodes == nil ? tables.joined(separator: "\n") : table(choices, problem)
    }

    /// Writes what each rank would do when.
    private func write(
        _ path: String, _ planned: AttentionProblem, _ topology: Topology, _ footprint: Footprint, _ strategy: Strategy,
        _ cluster: Cluster, _ threads: ThreadPool, _ transport: any Transport
    ) throws {
        guard cluster.rankCount <= Simulation.mostRanks else {
            throw JobError(
                .usage,
                "--trace simulates up to \(Simulation.mostRanks) ranks, and the cluster has \(cluster.rankCount): describe a part of it"
            )
        }
        var planned = planned
        planned.topology = topology
        let simulation = Simulation(
            planned, footprint, strategy, on: cluster, capacity: TraceFile.capacity(ranks: cluster.rankCount),
            threads: threads)
        let lines = simulation.timelines.enumerated().map { rank, timeline in
            let node = cluster.ranks[rank].node
            let name = cluster.nodes[node].name
            return TraceFile.lines(timeline, rank: rank, place: "node \(node)" + (name.isEmpty ? "" : ", \(name)"))
        }
        try TraceFile.write(
            path, lines: lines.joined(),
            facts: [
                ("annulus", JSONText.string(Release.version)), ("ranks", "\(cluster.rankCount)"),
                ("strategy", JSONText.string(strategy.rawValue)),
                ("simulated_seconds", JSONText.number(simulation.seconds)),
            ], over: transport)
    }

    /// A job that is not run.
    private struct PlannedJob {
        let description: String
        let fields: [(name: String, value: BenchValue)]
        let footprint: Footprint
        /// Bytes on disk that a job with --resume keeps free for the document's states; nil where there are no layers.
        let stateBytes: Int?
        let make: @Sendable (_ layout: Layout, _ ranks: Int, _ speeds: [Double]) -> AttentionProblem
    }

    private func plannedJob() throws -> PlannedJob {
        let element = dtype
        if let configuration = try encoder() {
            let length = attention.length
            return PlannedJob(
                description: "\(shape ?? model ?? ""), one document of \(length) tokens",
                fields: [
                    ("plan", .text("encoder")), ("model", .text(shape ?? model ?? "")), ("length", .integer(length)),
                ],
                footprint: try configuration.footprint(element),
                stateBytes: ResumableJob.stateBytes(tokens: length, width: configuration.hiddenSize)
            ) {
                EncoderRun.problem(
                    lengths: [length], configuration: configuration, element: element, layout: $0, rankCount: $1,
                    speeds: $2)
            }
        }
        let (heads, backward) = (attention.shape, attention.backward)
        let (pieces, mask) = try attention.sequence()
        return PlannedJob(
            description:
                "\(attention.backward ? "gradients of " : "")attention over \(attention.length) tokens, \(heads.queryHeads) heads (\(heads.keyValueHeads) of keys) of \(heads.headDimension), \(attention.mask)",
            fields: [("plan", .text("attention"))] + attention.fields, footprint: attention.footprint, stateBytes: nil
        ) { layout, ranks, speeds in
            var problem = AttentionProblem(
                shapes: pieces, mask: mask, heads: heads, layout: layout, rankCount: ranks, speeds: speeds)
            problem.element = element
            return backward ? problem.differentiated() : problem
        }
    }

    /// The encoder that is asked for, its positions extended to the length as `bench encoder` does for a shape.
    private func encoder() throws -> EncoderConfiguration? {
        var configuration: EncoderConfiguration
        if let model {
            let path = try ModelFolder.transformerFolder(named: model) + "/config.json"
            configuration = try EncoderConfiguration(JSON.load(path: path), path: path)
        } else if let published = shape.flatMap(PublishedShape.named) {
            configuration = try published.configuration()
        } else {
            return nil
        }
        configuration.positionCount = max(configuration.positionCount, attention.length)
        return configuration
    }

    private func row(
        _ price: Price, _ choice: Choice?, _ cluster: Cluster, _ problem: PlannedJob, _ bandwidth: Double?
    ) -> BenchRow {
        let isChosen = choice.map { $0.price.strategy == price.strategy && $0.price.layout == price.layout } ?? false
        func whole(_ value: Double) -> BenchValue { Int(exactly: value).map { .integer($0) } ?? .number(value) }
        return BenchRow(
            fields: problem.fields + [
                ("dtype", .text(dtype.rawValue)), ("ranks", .integer(cluster.rankCount)),
                ("nodes", .integer(cluster.nodes.count)),
                ("gbit_per_s", .number(bandwidth ?? (cluster.nodes.map(\.between.bandwidth).min() ?? 0) * 8e-9)),
                ("strategy", .text(price.strategy.rawValue)), ("layout", .text(price.layout.rawValue)),
                ("seconds", .number(price.seconds)),
                ("exposed_seconds", .number(price.exposedSeconds)), ("bytes_sent", whole(price.bytes)),
                ("messages", whole(price.messages)),
                ("memory_per_rank", whole(price.memory.rounded())),
                ("memory_per_node", whole(price.nodeMemory.rounded())),
                ("memory_of_node", whole(price.nodeLimit.rounded())), ("fits", .truth(price.fits)),
                ("balance", .number(price.balance)),
            ] + (problem.stateBytes.map { [("state_bytes", .integer($0))] } ?? []) + [
                ("priced_ranks", .numbers(price.work.map { Double($0.rank.index) })),
                ("rank_gflop", .numbers(price.work.map { $0.flop * 1e-9 })),
                ("chosen", .truth(isChosen)), ("reason", .text(isChosen ? choice?.reason ?? "" : "")),
            ])
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text.padding(toLength: max(width, text.count), withPad: " ", startingAt: 0)
    }
    private static func right(_ cells: [String]) -> String {
        cells.map { String(repeating: " ", count: max(0, 11 - $0.count)) + $0 }.joined()
    }
    private static func number(_ value: Double) -> String {
        String(format: value >= 1e6 ? "%.3e" : value >= 100 ? "%.1f" : "%.4g", value)
    }

    /// The choice of each cluster, beside the first that has one.
    private func table(
        _ choices: [(cluster: Cluster, bandwidth: Double?, price: Price?)], _ problem: PlannedJob
    ) -> String {
        var text = "# \(problem.description), \(dtype.rawValue)\n" + Self.left("strategy", 15) + Self.left("layout", 12)
        text += Self.right([
            "nodes", "ranks", "Gbit/s", "seconds", "exposed s", "GB sent", "GiB/node", "speed-up", "efficiency",
        ])
        text += "\n"
        let first = choices.lazy.compactMap { choice in choice.price.map { ($0.seconds, choice.cluster.rankCount) } }
            .first
        for (cluster, bandwidth, price) in choices {
            let links = (bandwidth ?? (cluster.nodes.map(\.between.bandwidth).min() ?? 0) * 8e-9)
            let place = ["\(cluster.nodes.count)", "\(cluster.rankCount)", Self.number(links)]
            guard let price, let first else {
                text += Self.left("none fits", 27) + Self.right(place) + "\n"
                continue
            }
            let speedUp = first.0 / price.seconds
            text += Self.left(price.strategy.rawValue, 15) + Self.left(price.layout.rawValue, 12)
            text += Self.right(
                place
                    + [
                        price.seconds, price.exposedSeconds, price.bytes * 1e-9, price.nodeMemory / 0x1p30, speedUp,
                    ].map { Self.number($0) }
                    + [String(format: "%.1f%%", 100 * speedUp * Double(first.1) / Double(cluster.rankCount))])
            text += "\n"
        }
        return text
    }

    private func table(
        _ prices: [Price], _ choice: Choice?, _ cluster: Cluster, _ problem: PlannedJob, _ bandwidth: Double?
    ) -> String {
        var text =
            "# \(problem.description), \(dtype.rawValue); \(cluster.rankCount) ranks on \(cluster.nodes.count) nodes"
        text += bandwidth.map { ", \(Self.number($0)) Gbit/s between nodes" } ?? ""
        text += "\n" + Self.left("strategy", 15) + Self.left("layout", 12)
        text +=
            Self.right(["seconds", "exposed s", "GB sent", "messages", "GiB/rank", "GiB/node", "of", "balance"]) + "\n"
        for price in prices {
            text += Self.left(price.strategy.rawValue, 15) + Self.left(price.layout.rawValue, 12)
            text += Self.right([
                Self.number(price.seconds), Self.number(price.exposedSeconds), Self.number(price.bytes * 1e-9),
                Self.number(price.messages),
                Self.number(price.memory / 0x1p30), Self.number(price.nodeMemory / 0x1p30),
                Self.number(price.nodeLimit / 0x1p30),
                Self.number(price.balance),
            ])
            text += price.fits ? "" : "  does not fit"
            if let choice, choice.price.strategy == price.strategy, choice.price.layout == price.layout {
                text += "  <- chosen"
            }
            text += "\n"
        }
        if let looked = prices.map(\.work.count).min(), looked < cluster.rankCount {
            text +=
                "From the plans of \(looked) ranks or more: bytes, messages and balance of all ranks are estimates.\n"
        }
        if let bytes = problem.stateBytes {
            text +=
                "With --resume, \(Self.number(Double(bytes) / 0x1p30)) GiB of disk are kept free for saved layers.\n"
        }
        guard let choice else { return text + "None fits into the nodes' memory.\n" }
        return text
            + "Choice: \(choice.price.strategy.rawValue) with \(choice.price.layout.rawValue); \(choice.reason).\n"
    }
}

extension Strategy: ExpressibleByArgument {}

/// Positive numbers, separated by commas.
struct NumberList: ExpressibleByArgument, Sendable {
    let values: [Double]

    init?(argument: String) {
        let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Double($0) }
        values = numbers.compactMap { $0 }
        guard values.count == numbers.count, values.allSatisfy({ $0 > 0 && $0 <= 1e9 }) else { return nil }
    }
}
