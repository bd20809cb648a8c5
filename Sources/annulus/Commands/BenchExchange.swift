// `annulus bench exchange`: latency and bandwidth between ranks, as jobs see them.

import ArgumentParser
import Foundation
import Pipelines
import Plans
import RingAttention
import Tiles

struct BenchExchange: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exchange", abstract: "Time messages between ranks: latency and bandwidth by size.",
        discussion: """
            Messages go through the transport that attention uses, its bookkeeping included, from memory that is touched once. \
            Patterns, one row for each and each size: \
            latency, rank 0 and another send a message to and fro, and half a round trip counts; \
            bandwidth, rank 0 sends to another, which answers with one byte after --window messages; \
            both, the two send to each other at once; \
            ring, every rank sends to the next at once, as K/V tiles travel. \
            The other rank is the last one, which is the farthest under most mappings. MB are 10^6 bytes. The names and the \
            sizes follow the OSU micro-benchmarks (osu_latency, osu_bw, osu_bibw).

            With --strategies, one attention is run under every strategy instead (--strategy: under that one): what it sends, \
            how long it takes, how long a rank waits for messages with nothing to compute, and the time that is predicted.
            """)

    @OptionGroup var bench: BenchOptions

    @Option(help: "Smallest and largest message in bytes; sizes double from one to the next.")
    var bytes: SizeRange = SizeRange(smallest: 1, largest: 4 << 20)

    @Option(help: "Messages between answers in the bandwidth pattern.")
    var window: Int = 16

    @Flag(help: "Run an attention, that of --length to --mask, under every strategy.")
    var strategies = false

    @OptionGroup var attention: AttentionOptions

    mutating func validate() throws {
        if attention.backward { throw ValidationError("--backward is for bench attention and plan") }
        if !(1...4096).contains(window) { throw ValidationError("--window takes 1 to 4096, not \(window)") }
    }

    func run() throws {
        let command = self
        try Session.run(self, bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        try session.agree {
            if session.transport.size < 2 {
                throw JobError(
                    .usage, "bench exchange needs two ranks; run it under mpirun -np 2, or with --virtual-ranks 2")
            }
        }
        if strategies {
            let rows = try exposedTimes(session)
            return try session.agree {
                try session.printLines(
                    bench.format == .table ? exposedTable(rows, session) : BenchRow.text(rows, bench.format))
            }
        }
        var rows: [BenchRow] = []
        for size in bytes.sizes {
            for pattern in Pattern.allCases { rows.append(try measure(pattern, bytes: size, session)) }
        }
        try session.agree {
            try session.printLines(bench.format == .table ? table(rows, session) : BenchRow.text(rows, bench.format))
        }
    }

    /// One attention under each strategy.
    private func exposedTimes(_ session: Session) throws -> [BenchRow] {
        let problem = try attention.problem(session)
        try session.logHeader("bench exchange")
        return try (session.settings.strategy.map { [$0] } ?? Strategy.allCases).map { strategy in
            let decision = try session.decide(problem, attention.footprint, strategy, predicts: true)
            let run = try AttentionRun(problem, strategy, seed: bench.seed, session)
            let messages = session.transport.traffic.messages
            let measurement = try session.measure(repetitions: bench.repetitions, work: run.attend)
            try session.correct(problem.heads, by: run.pace)
            let sent =
                try session.sum(Double(session.transport.traffic.messages - messages)) / Double(bench.repetitions + 1)
            return BenchRow(
                fields: [("bench", .text("exchange"))] + attention.fields + [
                    ("strategy", .text(strategy.rawValue)), ("layout", .text(session.settings.layout.rawValue)),
                    ("messages", .number(sent)), ("predicted_seconds", .number(decision.predictedSeconds ?? .nan)),
                ] + measurement.fields(session: session, flop: problem.visibleFlop, sha256: try run.digest()))
        }
    }

    private func exposedTable(_ rows: [BenchRow], _ session: Session) -> String {
        func cell(_ text: String) -> String { String(repeating: " ", count: max(0, 14 - text.count)) + text }
        let names = ["strategy", "bytes_sent", "messages", "seconds", "exposed_seconds", "predicted_seconds"]
        let head = ["strategy", "bytes", "messages", "seconds", "exposed", "predicted"]
        return "# \(session.transport.size) ranks, \(attention.length) tokens, \(attention.mask)\n"
            + head.map(cell).joined() + "\n"
            + rows.map { row in
                names.map { name in cell(row.fields.first { $0.name == name }?.value.plain ?? "") }.joined() + "\n"
            }.joined()
    }

    private enum Pattern: String, CaseIterable {
        case latency, bandwidth, both, ring
    }

    private func measure(_ pattern: Pattern, bytes: Int, _ session: Session) throws -> BenchRow {
        let transport = session.transport
        let exchange = Exchange(transport, bytes: bytes)
        // Enough rounds for a clock, few enough for large messages.
        let rounds = max(2, min(500, (8 << 20) / (bytes * (pattern == .bandwidth ? window : 1))))
        var seconds: [Double] = []
        for repetition in 0...bench.repetitions {
            try transport.barrier()
            let start = ContinuousClock.now
            for _ in 0..<rounds {
                switch pattern {
                case .latency: try exchange.pingPong()
                case .bandwidth: try exchange.stream(messages: window)
                case .both: try exchange.swap()
                case .ring: try exchange.ring()
                }
            }
            let slowest = try session.maximum((ContinuousClock.now - start).inSeconds)
            session.monitor.progress()
            if repetition > 0 { seconds.append(slowest / Double(rounds)) }
        }
        let round = Pipelines.median(seconds)
        // What one rank sends in a round.
        let sent = bytes * (pattern == .bandwidth ? window : 1)
        let oneWay = pattern == .latency ? round / 2 : pattern == .bandwidth ? round / Double(window) : round
        return BenchRow(fields: [
            ("bench", .text("exchange")), ("pattern", .text(pattern.rawValue)), ("bytes", .integer(bytes)),
            ("ranks", .integer(transport.size)), ("microseconds", .number(oneWay * 1e6)),
            ("mb_per_second", .number((pattern == .latency ? 2 : 1) * Double(sent) / round * 1e-6)),
            ("seconds_all", .numbers(seconds)),
        ])
    }

    /// A line a size, as the OSU tables have it.
    private func table(_ rows: [BenchRow], _ session: Session) -> String {
        func number(_ row: BenchRow, _ name: String) -> Double {
            if case .number(let value)? = row.fields.first(where: { $0.name == name })?.value { value } else { 0 }
        }
        var text = "# \(session.transport.size) ranks; latency in µs, the others in MB/s of one rank\n"
        func cell(_ value: String) -> String { String(repeating: " ", count: max(0, 12 - value.count)) + value }
        text += (["bytes"] + Pattern.allCases.map(\.rawValue)).map(cell).joined() + "\n"
        for (size, start) in zip(bytes.sizes, stride(from: 0, to: rows.count, by: Pattern.allCases.count)) {
            let values = zip(Pattern.allCases, rows[start...]).map { pattern, row in
                pattern == .latency
                    ? String(format: "%.2f", number(row, "microseconds"))
                    : String(format: "%.1f", number(row, "mb_per_second"))
            }
            text += ([String(size)] + values).map(cell).joined() + "\n"
        }
        return text
    }
}

/// Sizes from one to another, doubling.
struct SizeRange: ExpressibleByArgument, Sendable {
    let smallest: Int
    let largest: Int

    init(smallest: Int, largest: Int) {
        self.smallest = smallest
        self.largest = largest
    }

    /// `N` or `N:M`.
    init?(argument: String) {
        let parts = argument.split(separator: ":", omittingEmptySubsequences: false).map { Int($0) }
        guard let first = parts.first ?? nil, let last = parts.last ?? nil, parts.count <= 2, 1 <= first, first <= last,
            last <= 1 << 30
        else { return nil }
        self.init(smallest: first, largest: last)
    }

    var defaultValueDescription: String { "\(smallest):\(largest)" }

    var sizes: [Int] { Array(sequence(first: smallest) { $0 * 2 > largest ? nil : $0 * 2 }) }
}

/// One rank's side of the patterns.
private final class Exchange {
    private let transport: any Transport
    private let outgoing: UnsafeMutableRawBufferPointer
    private let arriving: UnsafeMutableRawBufferPointer
    private let partner: Rank?

    init(_ transport: any Transport, bytes: Int) {
        self.transport = transport
        outgoing = .allocate(byteCount: bytes, alignment: 64)
        arriving = .allocate(byteCount: bytes, alignment: 64)
        outgoing.initializeMemory(as: UInt8.self, repeating: 1)
        arriving.initializeMemory(as: UInt8.self, repeating: 0)
        let last = transport.size - 1
        partner = transport.rank.index == 0 ? Rank(last) : transport.rank.index == last ? Rank(0) : nil
    }

    deinit {
        outgoing.deallocate()
        arriving.deallocate()
    }

    private var isFirst: Bool { transport.rank.index == 0 }

    private func send(to rank: Rank, bytes: Int? = nil) throws {
        try transport.exchange(receive: [], send: [Outgoing(to: rank, pieces: [part(outgoing, bytes)])])
    }

    private func receive(from rank: Rank, bytes: Int? = nil) throws {
        let piece = UnsafeMutableRawBufferPointer(rebasing: arriving[0..<(bytes ?? arriving.count)])
        try transport.exchange(receive: [Incoming(from: rank, pieces: [piece])], send: [])
    }

    private func part(_ buffer: UnsafeMutableRawBufferPointer, _ bytes: Int?) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: buffer[0..<(bytes ?? buffer.count)])
    }

    func pingPong() throws {
        guard let partner else { return }
        if isFirst {
            try send(to: partner)
            try receive(from: partner)
        } else {
            try receive(from: partner)
            try send(to: partner)
        }
    }

    func stream(messages: Int) throws {
        guard let partner else { return }
        for _ in 0..<messages {
            if isFirst { try send(to: partner) } else { try receive(from: partner) }
        }
        if isFirst { try receive(from: partner, bytes: 1) } else { try send(to: partner, bytes: 1) }
    }

    func swap() throws {
        guard let partner else { return }
        try transport.exchange(
            receive: [Incoming(from: partner, pieces: [arriving])],
            send: [Outgoing(to: partner, pieces: [part(outgoing, nil)])])
    }

    func ring() throws {
        let count = transport.size
        try transport.exchange(
            receive: [Incoming(from: transport.rank.advanced(by: -1, count: count), pieces: [arriving])],
            send: [Outgoing(to: transport.rank.advanced(by: 1, count: count), pieces: [part(outgoing, nil)])])
    }
}
