// What ranks measure of themselves and of the links between them, for the planner.

import Attention
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles

/// What is measured, by every rank of a job, before a strategy is chosen.
package struct Measurements: Equatable {
    /// Floating-point operations a second of each rank's attention while all ranks compute.
    package var flops: [Double]
    /// Between two ranks of one host, and between two hosts, where the job has them.
    package var inside: Cluster.Link?
    package var between: Cluster.Link?

    /// Rounded to within a hundredth (1.00, 1.02 … 2, 2.05 … 5, 5.1 … 10): what changes from one run to the next is not
    /// to change the plan, and a prediction is not to suffer.
    package var rounded: Measurements {
        func round(_ value: Double) -> Double {
            guard value > 0, value.isFinite else { return value }
            let power = pow(10, log10(value).rounded(.down))
            let perUnit: Double = value < 2 * power ? 50 : value < 5 * power ? 20 : 10
            return (value / power * perUnit).rounded() / perUnit * power
        }
        func round(_ link: Cluster.Link?) -> Cluster.Link? {
            link.map {
                Cluster.Link(
                    latency: round($0.latency), bandwidth: round($0.bandwidth), processing: round($0.processing))
            }
        }
        return Measurements(flops: flops.map { round($0) }, inside: round(inside), between: round(between))
    }
}

extension Session {
    /// Measures what this job's ranks do now, in some tenths of a second. Collective.
    func measureRanks(_ heads: HeadShape) throws -> [Double] {
        try transport.barrier()
        return try everyone(try kernelSpeed(heads))
    }

    /// Measures what the links between this job's ranks do now, in some tenths of a second. Collective.
    /// - Parameter hosts: the host of every rank.
    func measureLinks(hosts: [String]) throws -> (inside: Cluster.Link?, between: Cluster.Link?) {
        let firsts = Dictionary(grouping: hosts.indices, by: { hosts[$0] }).values.sorted { $0[0] < $1[0] }
        let neighbours = firsts.first { $0.count > 1 }
        let inside = try neighbours.map { try measureLink(Rank($0[0]), Rank($0[1]), isInside: true) }
        let between = firsts.count > 1 ? try measureLink(Rank(firsts[0][0]), Rank(firsts[1][0]), isInside: false) : nil
        return (inside, between)
    }

    /// The attention of one rank, no messages: floating-point operations a second in the best of several rounds.
    ///
    /// A round is short, so that a neighbour's work for a moment spoils few of them, and long against the time slices of
    /// ranks that share processors, which all compute meanwhile.
    private func kernelSpeed(_ heads: HeadShape) throws -> Double {
        let (pool, kernels, element, monitor) = (threads, kernels, settings.element, monitor)
        // As many heads as keep the threads busy, and little enough for wide heads.
        let shape = HeadShape(
            queryHeads: min(pool.threads, 64), keyValueHeads: min(pool.threads, 64), headDimension: heads.headDimension,
            valueDimension: heads.valueDimension)
        let length = (heads.headDimension + heads.valueDimension) > 1024 ? 256 : 2048
        return try VirtualRanks.run(count: 1) { transport in
            var problem = AttentionProblem(
                shapes: [SequenceShape(length: length)], mask: .full, heads: shape, layout: .contiguous, rankCount: 1)
            problem.element = element
            let attention = try AttentionSetup(
                problem, .passKeyValue, transport: transport, threads: pool, kernels: kernels)
            let (width, outputWidth) = (shape.queryHeads * shape.headDimension, shape.queryHeads * shape.valueDimension)
            let rows = AlignedBuffer(count: length * width)
            let output = AlignedBuffer(count: length * outputWidth)
            // Zeros would do, but for processors that are faster on them.
            for index in 0..<rows.count { rows.pointer[index] = Float(index % 17) * 0.1 - 0.8 }
            return try withExtendedLifetime((rows, output)) {
                for tile in problem.keys.tiles(of: Rank(0)) {
                    attention.keyValues.pack(
                        tile: tile, rows: 0..<min(TileGrid.tileSize, length),
                        keys: HeadRows(rows, tokenStride: width, headStride: shape.headDimension),
                        values: HeadRows(output, tokenStride: outputWidth, headStride: shape.valueDimension))
                }
                func attend() throws {
                    try attention.attend(
                        queries: HeadRows(rows, tokenStride: width, headStride: shape.headDimension), scale: 0.1,
                        output: HeadRows(output, tokenStride: outputWidth, headStride: shape.valueDimension))
                }
                try attend()
                return try (0..<7).reduce(0.0) { best, _ in
                    let start = ContinuousClock.now
                    var (time, count) = (Duration.zero, 0.0)
                    while time < .milliseconds(40) {
                        try attend()
                        monitor.progress()
                        count += 1
                        time = .now - start
                    }
                    return max(best, problem.visibleFlop * count / time.inSeconds)
                }
            }
        }[0]
    }

    /// The link between two ranks: the time in which they swap a small message, the rate at which they swap large
    /// ones, and by how much these delay what both compute, each in the best of several rounds. The other ranks wait.
    /// Collective.
    /// - Parameter isInside: whether the two share a host, where processors copy whatever is sent.
    private func measureLink(_ first: Rank, _ second: Rank, isInside: Bool) throws -> Cluster.Link {
        try transport.barrier()
        var link = Cluster.Link(latency: 0, bandwidth: 0)
        if transport.rank == first || transport.rank == second {
            let peer = transport.rank == first ? second : first
            let largest = 1 << 22
            let (outgoing, arriving) = (AlignedBuffer(count: largest / 4), AlignedBuffer(count: largest / 4))
            func swap(_ bytes: Int, computing: (_ poll: () -> Void) -> Void = { _ in }) throws {
                try transport.exchange(
                    receive: [
                        Incoming(
                            from: peer, pieces: [UnsafeMutableRawBufferPointer(rebasing: arriving.bytes[..<bytes])])
                    ],
                    send: [Outgoing(to: peer, pieces: [UnsafeRawBufferPointer(rebasing: outgoing.bytes[..<bytes])])],
                    while: computing)
            }
            func seconds(_ bytes: Int, times: Int) throws -> Double {
                let start = ContinuousClock.now
                for _ in 0..<times {
                    try swap(bytes)
                    monitor.progress()
                }
                return (ContinuousClock.now - start).inSeconds / Double(times)
            }
            _ = try seconds(64, times: 10)
            link.latency = try (0..<5).map { _ in try seconds(64, times: 20) }.min() ?? 0
            // Long enough that a connection comes to its speed, but a slow link not for long; both sides go by what the
            // first one saw.
            outgoing.pointer[0] = Float(try seconds(1 << 16, times: 1))
            try swap(64)
            let quick = Double((transport.rank == first ? outgoing : arriving).pointer[0])
            let bytes = quick > 0.02 ? 1 << 16 : largest
            let times = max(2, min(8, Int(0.05 / max(1e-6, quick * Double(bytes >> 16)))))
            _ = try seconds(bytes, times: 1)
            let best = try (0..<3).map { _ in try seconds(bytes, times: times) }.min() ?? 0
            link.bandwidth = Double(bytes) / max(1e-9, best - link.latency)
            // Both ways at once, in the time of one.
            let whole = 0.5 / link.bandwidth
            if isInside {
                link.processing = whole
            } else {
                // As much as takes some hundredths of a second.
                let bytes = min(largest, max(1, Int(0.04 / max(1e-6, quick))) << 16)
                let load = Load(threads, kernels)
                let rounds = Int(1.5 * Double(bytes) / link.bandwidth / load.seconds) + 1
                // What it takes alone, and beside a swap of which it outlasts the transfer.
                var (alone, beside) = (Double.infinity, Double.infinity)
                for _ in 0..<4 {
                    alone = min(alone, Load.time { load.run(rounds, poll: {}) })
                    beside = min(beside, try Load.time { try swap(bytes) { load.run(rounds, poll: $0) } })
                    monitor.progress()
                }
                // An adapter takes next to nothing.
                link.processing = min(whole, max(1e-12, (beside - alone) / Double(2 * bytes)))
            }
        }
        let numbers = (link.latency, link.bandwidth, link.processing)
        let both = try transport.allGather(withUnsafeBytes(of: numbers) { Array($0) })
        return both[first.index].withUnsafeBytes {
            Cluster.Link(
                latency: $0.loadUnaligned(as: Double.self),
                bandwidth: $0.loadUnaligned(fromByteOffset: 8, as: Double.self),
                processing: $0.loadUnaligned(fromByteOffset: 16, as: Double.self))
        }
    }
}

/// Multiply-adds on all threads of a rank, in rounds as short as units of attention.
private struct Load {
    private let threads: ThreadPool
    private let kernels: KernelSet
    private let iterations: Int
    /// Of a round, about.
    let seconds: Double

    init(_ threads: ThreadPool, _ kernels: KernelSet) {
        (self.threads, self.kernels) = (threads, kernels)
        var iterations = 16
        func seconds() -> Double {
            // The best of three: what disturbs one would make a round look long.
            (0..<3).map { _ in Self.time { Self.round(threads, kernels, iterations) } }.min() ?? 0
        }
        while seconds() < 1e-4 { iterations *= 2 }
        self.iterations = iterations
        self.seconds = seconds()
    }

    func run(_ rounds: Int, poll: () -> Void) {
        for _ in 0..<rounds {
            Self.round(threads, kernels, iterations)
            poll()
        }
    }

    private static func round(_ threads: ThreadPool, _ kernels: KernelSet, _ iterations: Int) {
        threads.forEach(threads.threads) { _, _ in
            var sink: Float = 0.5
            _ = kernels.functions.peak(iterations, &sink)
        }
    }

    static func time(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return (ContinuousClock.now - start).inSeconds
    }
}
