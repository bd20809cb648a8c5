// How a job runs: the strategy, found from measurements or given, and the refusal of what memory cannot hold.

import Attention
import Crypto
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles

/// What the ranks have agreed on before the first message of a job.
package struct Decision {
    package let strategy: Strategy
    /// Why this one; empty where it was asked for.
    package let reason: String
    /// Seconds that the job is predicted to take; nil where nothing was measured.
    package let predictedSeconds: Double?
    /// Bytes that the fullest rank is to take for it.
    let memory: Double

    /// What can be done about most jobs that do not fit.
    package static let remedy = "spread it over more hosts, or shorten it"
}

extension Session {
    /// Chooses the strategy of a job, refuses it where a host's memory would not hold it, and makes sure that all ranks
    /// plan the same. Collective; call it before memory for the job is taken.
    ///
    /// What is measured is gathered and rounded; rank 0 prices it and tells the others.
    /// - Parameters:
    ///   - asked: the strategy; nil where it is to be chosen.
    ///   - predicts: measure and predict also where a strategy is given.
    ///   - remedy: what can be done about a job that does not fit.
    /// - Throws: `AgreedFailure` with status 71 where the job does not fit, and 78 where the ranks plan differently.
    package func decide(
        _ problem: AttentionProblem, _ footprint: Footprint, _ asked: Strategy?, predicts: Bool = false,
        remedy: String = Decision.remedy
    ) throws -> Decision {
        let hosts = try everyHost()
        let isAuto = asked == nil
        // Virtual ranks share their processors, and one rank has nobody to talk to: there is nothing to measure.
        let isMeasured = predicts || isAuto && transport.size > 1 && !group.isVirtual
        let measured = isMeasured ? try machine(problem.heads) : nil
        let cluster = cluster(hosts, measured)
        try refuseTokens(problem, footprint, cluster, remedy)
        var outcome = Message()
        if isRoot {
            // Few ranks of many are looked at, and one round of heads: a plan is not to take longer than its job.
            let pricing = Pricing(
                on: cluster, footprint: footprint, mostRanks: 8, sampledRanks: 4, everyRound: false
            ) { _ in problem }
            // A single rank does the same whatever the strategy is called.
            let candidates = asked.map { [$0] } ?? (transport.size == 1 ? [.passKeyValue] : Strategy.allCases)
            let monitor = monitor
            let prices = pricing.prices(candidates, [problem.queries.layout], progressed: { monitor.progress() })
            if let choice = Choice(of: prices) {
                outcome.write(choice.price.strategy.rawValue)
                outcome.write(transport.size == 1 ? "" : choice.reason)
                outcome.write("\(choice.price.seconds)")
                outcome.write("\(choice.price.memory)")
            } else if let least = prices.min(by: { $0.nodeMemory / $0.nodeLimit < $1.nodeMemory / $1.nodeLimit }) {
                outcome.write("")
                outcome.write(Self.refusal(least, cluster, of: prices.count, remedy))
            }
        }
        var told = Message(try transport.allGather(outcome.bytes)[0])
        let strategy = Strategy(rawValue: told.readString())
        let reason = told.readString()
        try agree { if strategy == nil { throw JobError(.memory, reason) } }
        guard let strategy else { throw JobError(.memory, reason) }
        let predicted = Double(told.readString())
        let memory = Double(told.readString()) ?? 0
        try compareInputs(problem, strategy)
        if isAuto, transport.size > 1 {
            log.notice("strategy \(strategy.rawValue)\(isMeasured ? "" : " (by nominal speeds)"): \(reason)")
        }
        return Decision(
            strategy: strategy, reason: isAuto ? reason : "", predictedSeconds: measured == nil ? nil : predicted,
            memory: memory)
    }

    /// Refuses a model whose weights a host's memory would not hold. Collective; call it before they are read.
    /// - Parameter nodes: which ranks share a copy.
    func refuseWeights(bytesPerCopy: Double, _ nodes: Topology) throws {
        let hosts = try everyHost()
        try agree {
            // Whoever shares a copy maps all of it.
            if let rank = hosts.indices.first(where: { hosts[$0].leftOfProcess < bytesPerCopy }) {
                throw JobError(
                    .memory,
                    "the weights need \(Self.gib(bytesPerCopy)) on \(hosts[rank].name), and a limit of the process (ulimit -v, ulimit -d) "
                        + "leaves \(Self.gib(hosts[rank].leftOfProcess)); raise it, or take --dtype bfloat16")
            }
            for name in Set(hosts.map(\.name)).sorted() {
                let ranks = hosts.indices.filter { hosts[$0].name == name }
                let copies = ranks.count { nodes.mates(of: Rank($0)).lowerBound == $0 }
                guard let available = ranks.map({ hosts[$0].available }).min(),
                    Double(copies) * bytesPerCopy > available
                else { continue }
                throw JobError(
                    .memory,
                    "the weights need \(Self.gib(Double(copies) * bytesPerCopy)) on \(name)"
                        + (copies == 1 ? "" : ", \(Self.gib(bytesPerCopy)) for each of \(copies) copies")
                        + ", and \(Self.gib(available)) are free; "
                        + (copies == 1
                            ? "take hosts of more memory, or --dtype bfloat16"
                            : "start fewer ranks a host, with more threads each"))
            }
        }
    }

    /// Refuses what no strategy could hold, the ranks' own tokens alone being too much: no plan is made for it.
    /// Collective.
    private func refuseTokens(
        _ problem: AttentionProblem, _ footprint: Footprint, _ cluster: Cluster, _ remedy: String
    ) throws {
        var held = Array(repeating: 0.0, count: cluster.nodes.count)
        for (rank, place) in cluster.ranks.enumerated() {
            held[place.node] += footprint.bytesHeld(of: problem, by: Rank(rank))
        }
        try agree {
            for (bytes, node) in zip(held, cluster.nodes) where bytes > node.memory {
                throw JobError(
                    .memory,
                    "the ranks on \(node.name) need \(Self.gib(bytes)) for themselves alone, and \(Self.gib(node.memory)) are free; "
                        + remedy)
            }
        }
    }

    /// A rank's host and the bytes that are free there.
    private struct Host {
        let name: String
        /// To all ranks there.
        var available: Double
        /// To this rank alone.
        let leftOfProcess: Double
    }

    private func everyHost() throws -> [Host] {
        let available = try agree { try MemoryOfHost.available() ?? .infinity }
        var mine = Message()
        mine.write(LocalHost.name)
        mine.write("\(available)")
        mine.write("\(MemoryOfHost.leftOfProcess ?? .infinity)")
        var hosts = try transport.allGather(mine.bytes).map {
            var told = Message($0)
            return Host(
                name: told.readString(), available: Double(told.readString()) ?? .infinity,
                leftOfProcess: Double(told.readString()) ?? .infinity)
        }
        // What the processes of a host may take is no more than each of them may; virtual ranks are one.
        for ranks in Dictionary(grouping: hosts.indices, by: { hosts[$0].name }).values {
            let least = ranks.map { hosts[$0].leftOfProcess }.min() ?? .infinity
            let together = least * Double(!group.isVirtual ? ranks.count : 1)
            for rank in ranks { hosts[rank].available = min(hosts[rank].available, together) }
        }
        return hosts
    }

    /// The hosts as nodes; without measurements, of nominal speeds: they only weigh memory then, and virtual ranks.
    private func cluster(_ hosts: [Host], _ measured: Measurements?) -> Cluster {
        let names = hosts.map(\.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        let nominal = Cluster.Link(latency: 5e-6, bandwidth: 4e9)
        let nodes = names.map { name in
            Cluster.Node(
                name: name, memory: max(1, hosts.filter { $0.name == name }.map(\.available).min() ?? .infinity),
                inside: measured?.inside ?? nominal, between: measured?.between ?? nominal)
        }
        return Cluster(
            nodes: nodes,
            ranks: hosts.enumerated().map { rank, host in
                Cluster.Place(node: names.firstIndex(of: host.name) ?? 0, flops: measured?.flops[rank] ?? 1e11)
            })
    }

    /// Compares what the plans of all ranks follow from. Collective.
    private func compareInputs(_ problem: AttentionProblem, _ strategy: Strategy) throws {
        if transport.size == 1 { return }
        let mine = Array(PlanInputs.digest(problem, strategy, kernel: kernels.name))
        let all = try transport.allGather(mine)
        try agree {
            guard let other = all.firstIndex(where: { $0 != all[0] }) else { return }
            throw JobError(
                .environment,
                "ranks 0 and \(other) would plan differently; run one build of annulus with the same options and files on all"
            )
        }
    }

    private static func refusal(_ price: Price, _ cluster: Cluster, of tried: Int, _ remedy: String) -> String {
        let ranks = cluster.ranks.count { $0.node == price.fullestNode }
        return
            "the job needs \(gib(price.nodeMemory)) on \(cluster.nodes[price.fullestNode].name) (\(ranks) \(ranks == 1 ? "rank" : "ranks"), "
            + "\(price.strategy.rawValue)\(tried > 1 ? ", which needs least" : "")), and \(gib(price.nodeLimit)) are free; "
            + "\(remedy)\(tried > 1 ? "" : ", or leave --strategy to auto")"
    }

    private static func gib(_ bytes: Double) -> String {
        String(format: bytes < 0x1p30 ? "%.3g GiB" : "%.1f GiB", bytes / 0x1p30)
    }
}

/// What the plans of a job follow from.
enum PlanInputs {
    /// The SHA-256 of it, the same on two ranks only if they plan alike.
    package static func digest(_ problem: AttentionProblem, _ strategy: Strategy, kernel: String) -> SHA256.Digest {
        var hash = SHA256()
        func add(_ numbers: [Int]) { numbers.withUnsafeBytes { hash.update(bufferPointer: $0) } }
        func add(_ runs: Runs) { add([runs.ranges.count] + runs.ranges.flatMap { [$0.lowerBound, $0.upperBound] }) }
        let heads = problem.heads
        hash.update(
            data: Data(
                "\(Release.version) \(kernel) \(strategy.rawValue) \(problem.element.rawValue) \(problem.narrowsWire) \(problem.mask) \(problem.operation)"
                    .utf8))
        add([
            TileGrid.tileSize, heads.queryHeads, heads.keyValueHeads, heads.headDimension, heads.valueDimension,
            problem.rankCount, problem.shapes.count,
        ])
        for shape in problem.shapes {
            add([shape.queries, shape.keys, shape.firstQuery, shape.firstKey, shape.offset])
        }
        for rank in (0..<problem.rankCount).map({ Rank($0) }) {
            add(problem.queries.tiles(of: rank))
            add(problem.keys.tiles(of: rank))
            add(Runs(problem.topology.mates(of: rank)))
        }
        for tile in 0..<problem.queries.numbering.tileCount { add(problem.visibleTiles(queryTile: tile).any) }
        return hash.finalize()
    }
}
