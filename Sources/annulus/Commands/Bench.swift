// `annulus bench`: what the machine can do, and what the kernels make of it.

import ArgumentParser
import Crypto
import Foundation
import Matrices
import Pipelines
import Plans
import RingAttention
import Tiles

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the machine's peak, dense layers, attention, encoders, training and messages.",
        discussion: """
            Every figure of merit is a ratio within one run: gflops counts visible work of the whole job, peak_gflops is what \
            the same threads reach with nothing but fused multiply-adds for a tenth of a second before and after each repetition. Inputs depend on the seed and the global \
            position alone, and sha256 is that of the output, so it is the same on any number of ranks.
            """,
        subcommands: [
            BenchPeak.self, BenchGemm.self, BenchAttention.self, BenchMerge.self, BenchEncoder.self, BenchTrain.self,
            BenchExchange.self,
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
    /// What all ranks' threads together reach around each counted repetition with nothing but fused multiply-adds, in GFLOP/s.
    let peaks: [Double]
    /// Seconds of a counted repetition in each lane of work, in the mean of the ranks.
    var lanes: [(lane: Timeline.Lane, seconds: Double)] = []
    /// The most bytes of memory that a rank's process had, what it shares included; nil: nobody asked.
    var peakMemory: Int?

    var median: Double { Pipelines.median(seconds) }

    /// The fields that every benchmark prints.
    func fields(session: Session, flop: Double, sha256: String) -> [(name: String, value: BenchValue)] {
        let fractions = zip(seconds, peaks).map { flop / $0 * 1e-9 / $1 }
        return [
            ("ranks", .integer(session.transport.size)), ("threads", .integer(session.threads.threads)),
            ("kernel", .text(session.kernels.name)), ("seconds", .number(median)), ("seconds_all", .numbers(seconds)),
            ("gflops", .number(flop / median * 1e-9)), ("peak_gflops", .number(Pipelines.median(peaks))),
            ("fraction_of_peak", .number(Pipelines.median(fractions))),
            ("bytes_sent", .integer(bytesSent)), ("exposed_seconds", .number(exposed)),
        ] + lanes.map { ("\($0.lane.name)_seconds", .number($0.seconds)) } + [
            ("peak_memory", peakMemory.map { .integer($0) } ?? .absent), ("sha256", .text(sha256)),
        ]
    }
}

extension Session {
    /// The fused multiply-add peak, for the job's dtype, of all threads of all ranks while all of them run, in GFLOP/s.
    /// Collective.
    func peakGFLOPs() throws -> Double { try measuredPeak(seconds: 0.3) }

    /// What the same threads reach just now, in GFLOP/s, at the clock that their cores have: a benchmark asks between its repetitions,
    /// for it changes from second to second. Collective.
    func presentPeak() throws -> Double { try measuredPeak(seconds: 0.1, statistic: .median) }

    /// Runs `work` on all ranks at once, once uncounted and then `repetitions` times. Collective.
    /// - Parameter work: returns the time in which this rank waited for messages.
    func measure(repetitions: Int, work: () throws -> Duration) throws -> Measurement {
        var peaks: [Double] = []
        var seconds: [Double] = []
        var exposed: [Double] = []
        var bytes = 0
        // Where the time goes is told by a timeline: one that is asked for, or else one of totals alone.
        let asked = transport.timeline
        let timeline = asked ?? Timeline(capacity: 2)
        transport.timeline = timeline
        defer { transport.timeline = asked }
        func busy(_ lane: Timeline.Lane) -> Int { timeline.totals(lane).values.reduce(0) { $0 + $1.busy } }
        let lanes: [Timeline.Lane] = [.dense, .compute, .merge, .wait]
        var uncounted = lanes.map { _ in 0 }
        for repetition in 0...repetitions {
            if repetition == 1 { uncounted = lanes.map(busy) }
            try transport.barrier()
            let before = transport.traffic.bytes
            let start = ContinuousClock.now
            let waited = try work()
            let time = (ContinuousClock.now - start).inSeconds
            bytes = transport.traffic.bytes - before
            monitor.progress()
            let slowest = try maximum(time)
            let longestWait = try maximum(waited.inSeconds)
            peaks.append(try presentPeak())
            if repetition > 0 {
                seconds.append(slowest)
                exposed.append(longestWait)
            }
        }
        let ranks = Double(transport.size)
        let shares = try zip(lanes, uncounted).map { lane, before in
            (lane, try sum(Double(busy(lane) - before) * 1e-9) / ranks / Double(repetitions))
        }
        return Measurement(
            seconds: seconds, exposed: Pipelines.median(exposed), bytesSent: Int(try sum(Double(bytes))),
            peaks: means(peaks), lanes: shares, peakMemory: Int(try maximum(Double(RankFigures.peakMemory))))
    }
}

/// The means of neighbours: of what was measured between repetitions, what stood around each.
func means(_ values: [Double]) -> [Double] { zip(values, values.dropFirst()).map { ($0 + $1) / 2 } }

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
                ("ranks", .integer(session.transport.size)), ("threads", .integer(session.threads.threads)),
                ("kernel", .text(session.kernels.name)), ("dtype", .text(session.settings.element.rawValue)),
                ("peak_gflops", .number(Pipelines.median(rates))), ("peak_gflops_all", .numbers(rates)),
            ])
            try session.agree { try session.printLines(row.text(command.bench.format)) }
        }
    }
}
