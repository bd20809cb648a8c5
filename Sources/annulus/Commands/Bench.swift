// `annulus bench`: what the machine can do, and what the kernels make of it.

import ArgumentParser
import Crypto
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the machine's peak, dense layers, attention, encoders and messages.",
        discussion: """
            Every figure of merit is a ratio within one run: gflops counts visible work of the whole job, peak_gflops is what \
            the same threads reach with nothing but fused multiply-adds just before. Inputs depend on the seed and the global \
            position alone, and sha256 is that of the output, so it is the same on any number of ranks.
            """,
        subcommands: [
            BenchPeak.self, BenchGemm.self, BenchAttention.self, BenchMerge.self, BenchEncoder.self, BenchExchange.self,
        ])
}

/// What all benchmarks take.
struct BenchOptions: ParsableArguments {
    @OptionGroup var run: RunOptions

    @Option(help: "Counted repetitions, after one that is not counted.")
    var repetitions: Int = 5

    @Option(help: "table, json (one object a line) or csv.")
    var format: BenchFormat = .table

    @Option(help: "Seed of the inputs.")
    var seed: UInt64 = 0

    mutating func validate() throws {
        if repetitions < 1 { throw ValidationError("--repetitions takes a positive number, not \(repetitions)") }
    }
}

enum BenchFormat: String, ExpressibleByArgument, CaseIterable {
    case table, json, csv
}

/// One value of a row.
enum BenchValue {
    case text(String), integer(Int), number(Double), numbers([Double]), truth(Bool)
    /// Not measured: null in JSON, empty in CSV, left out of a table.
    case absent

    var isAbsent: Bool { if case .absent = self { true } else { false } }

    var json: String {
        switch self {
        case .text(let text): JSONText.string(text)
        case .integer(let value): String(value)
        case .number(let value): JSONText.number(value)
        case .truth(let value): value ? "true" : "false"
        case .numbers(let values): "[" + values.map { JSONText.number($0) }.joined(separator: ", ") + "]"
        case .absent: "null"
        }
    }

    /// As a person reads it.
    var plain: String {
        switch self {
        case .text(let text): text
        case .integer(let value): String(value)
        case .number(let value): String(format: value.magnitude >= 100 ? "%.1f" : "%.4g", value)
        case .truth(let value): value ? "true" : "false"
        case .numbers(let values): values.map { String(format: "%.4g", $0) }.joined(separator: " ")
        case .absent: ""
        }
    }
}

/// One measured configuration, in the order in which it is printed.
struct BenchRow {
    var fields: [(name: String, value: BenchValue)]

    func text(_ format: BenchFormat) -> String {
        switch format {
        case .json:
            return "{" + fields.map { "\"\($0.name)\": \($0.value.json)" }.joined(separator: ", ") + "}\n"
        case .csv:
            func quoted(_ text: String) -> String { text.contains(",") ? "\"\(text)\"" : text }
            return fields.map(\.name).joined(separator: ",") + "\n"
                + fields.map { quoted($0.value.plain) }.joined(separator: ",") + "\n"
        case .table:
            let fields = fields.filter { !$0.value.isAbsent }
            let width = fields.map(\.name.count).max() ?? 0
            return fields.map {
                $0.name.padding(toLength: width + 2, withPad: " ", startingAt: 0) + $0.value.plain + "\n"
            }.joined()
        }
    }
}

extension BenchRow {
    /// Several rows: one header in CSV, tables apart.
    static func text(_ rows: [BenchRow], _ format: BenchFormat) -> String {
        let texts = rows.map { $0.text(format) }
        switch format {
        case .json: return texts.joined()
        case .table: return texts.joined(separator: "\n")
        case .csv: return (texts.first ?? "") + texts.dropFirst().map { $0.drop { $0 != "\n" }.dropFirst() }.joined()
        }
    }
}

/// What the ranks measured together.
struct Measurement {
    /// The slowest rank's time, for each counted repetition.
    let seconds: [Double]
    /// The largest wait of a rank for messages, in the median repetition's sense: the median over repetitions.
    let exposed: Double
    /// Bytes of K/V sent by all ranks in one repetition.
    let bytesSent: Int
    /// The peak of all ranks' threads together.
    let peak: Double

    var median: Double { Self.median(seconds) }

    static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// The fields that every benchmark prints.
    func fields(session: Session, flop: Double, sha256: String) -> [(name: String, value: BenchValue)] {
        let gflops = flop / median * 1e-9
        return [
            ("ranks", .integer(session.transport.size)), ("threads", .integer(session.context.threads)),
            ("kernel", .text(session.kernels.name)), ("seconds", .number(median)), ("seconds_all", .numbers(seconds)),
            ("gflops", .number(gflops)), ("peak_gflops", .number(peak)), ("fraction_of_peak", .number(gflops / peak)),
            ("bytes_sent", .integer(bytesSent)), ("exposed_seconds", .number(exposed)), ("sha256", .text(sha256)),
        ]
    }
}

extension Session {
    /// The fused multiply-add peak, for the job's dtype, of all threads of all ranks while all of them run, in GFLOP/s.
    /// Collective.
    func peakGFLOPs() throws -> Double {
        try transport.barrier()
        return try sum(peak(kernels: kernels, element: options.dtype, seconds: 0.3, pool: threads).reduce(0, +))
    }

    /// The ranks' relative speeds for a balanced layout, nil for the others: each measures what it gets of its cores,
    /// which others may use too, over many time slices; that is rounded to eighths of the fastest, so that noise does
    /// not shape the layout. Collective.
    func relativeSpeeds() throws -> [Double]? {
        guard options.layout == .balanced, transport.size > 1 else { return nil }
        try transport.barrier()
        let rates = try everyone(peak(kernels: kernels, seconds: 0.1, pool: threads, sustained: true).reduce(0, +))
        let fastest = rates.max() ?? 1
        return rates.map { max(1, ($0 / fastest * 8).rounded()) / 8 }
    }

    /// Runs `work` on all ranks at once, once uncounted and then `repetitions` times. Collective.
    /// - Parameter work: returns the time in which this rank waited for messages.
    func measure(repetitions: Int, work: () throws -> Duration) throws -> Measurement {
        let peak = try peakGFLOPs()
        var seconds: [Double] = []
        var exposed: [Double] = []
        var bytes = 0
        for repetition in 0...repetitions {
            try transport.barrier()
            let before = transport.traffic.bytes
            let start = ContinuousClock.now
            let waited = try work()
            let time = (ContinuousClock.now - start).inSeconds
            bytes = transport.traffic.bytes - before
            watchdog.progress()
            let slowest = try maximum(time)
            let longestWait = try maximum(waited.inSeconds)
            if repetition > 0 {
                seconds.append(slowest)
                exposed.append(longestWait)
            }
        }
        return Measurement(
            seconds: seconds, exposed: Measurement.median(exposed), bytesSent: Int(try sum(Double(bytes))), peak: peak)
    }

    private func everyone(_ value: Double) throws -> [Double] {
        try transport.allGather(withUnsafeBytes(of: value) { Array($0) }).map { bytes in
            bytes.withUnsafeBytes { $0.loadUnaligned(as: Double.self) }
        }
    }

    func maximum(_ value: Double) throws -> Double { try everyone(value).max() ?? value }
    func sum(_ value: Double) throws -> Double { try everyone(value).reduce(0, +) }

    /// SHA-256 over the rows of all tiles in order, whoever holds them; empty but on rank 0. Collective.
    /// - Parameter rows: the bytes of one of this rank's tiles.
    func digest(_ sharding: Sharding, rowBytes: Int, rows: (_ firstRow: Int, _ count: Int) -> UnsafeRawBufferPointer)
        throws -> String
    {
        var hash = SHA256()
        var row = 0
        // A few tiles a round bound what rank 0 holds.
        let tilesPerRound = 64
        for first in stride(from: 0, to: sharding.numbering.tileCount, by: tilesPerRound) {
            let round = first..<min(first + tilesPerRound, sharding.numbering.tileCount)
            var mine: [(tile: Int, bytes: UnsafeRawBufferPointer)] = []
            for tile in sharding.tiles(of: transport.rank).intersection(round) {
                let count = sharding.numbering.tokens(of: tile).count
                mine.append((tile, rows(row, count)))
                row += count
            }
            guard isRoot else {
                try transport.exchange(
                    receive: [], send: mine.isEmpty ? [] : [Outgoing(to: Rank(0), pieces: mine.map(\.bytes))])
                continue
            }
            var arriving: [Incoming] = []
            var all = mine
            var held: [UnsafeMutableRawBufferPointer] = []
            defer { held.forEach { $0.deallocate() } }
            for rank in (1..<transport.size).map({ Rank($0) }) {
                var pieces: [UnsafeMutableRawBufferPointer] = []
                for tile in sharding.tiles(of: rank).intersection(round) {
                    let buffer = UnsafeMutableRawBufferPointer.allocate(
                        byteCount: sharding.numbering.tokens(of: tile).count * rowBytes, alignment: 64)
                    held.append(buffer)
                    pieces.append(buffer)
                    all.append((tile, UnsafeRawBufferPointer(buffer)))
                }
                if !pieces.isEmpty { arriving.append(Incoming(from: rank, pieces: pieces)) }
            }
            try transport.exchange(receive: arriving, send: [])
            for entry in all.sorted(by: { $0.tile < $1.tile }) { hash.update(bufferPointer: entry.bytes) }
        }
        return isRoot ? hash.finalize().map { String(format: "%02x", $0) }.joined() : ""
    }
}

struct BenchPeak: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peak", abstract: "The fused multiply-add peak of the threads of this job.")

    @OptionGroup var bench: BenchOptions

    func run() throws {
        let command = self
        try Session.run(self, bench.run) { session in
            var rates: [Double] = []
            for _ in 0..<command.bench.repetitions { rates.append(try session.peakGFLOPs()) }
            let row = BenchRow(fields: [
                ("ranks", .integer(session.transport.size)), ("threads", .integer(session.context.threads)),
                ("kernel", .text(session.kernels.name)), ("dtype", .text(session.options.dtype.rawValue)),
                ("peak_gflops", .number(Measurement.median(rates))), ("peak_gflops_all", .numbers(rates)),
            ])
            try session.agree { try session.printLines(row.text(command.bench.format)) }
        }
    }
}
