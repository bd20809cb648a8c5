// What a job is summed up as when it is done: rates, times, bytes, memory, and what would help.

import Foundation
import Plans

/// What one rank has to say of a job that is done.
package struct RankFigures: Equatable {
    package var host = ""
    package var threads = 0
    /// Seconds of each phase, in the order in which phases come.
    package var phases: [(name: String, seconds: Double)] = []
    /// Seconds of each lane of work: dense, compute, merge, wait.
    package var lanes: [Timeline.Lane: Double] = [:]
    package var bytesSent = 0
    package var messagesSent = 0
    /// The most bytes of memory that the process had.
    package var peakMemory = 0

    package init() {}

    package static func == (one: RankFigures, other: RankFigures) -> Bool { one.message.bytes == other.message.bytes }

    /// Seconds in which the rank computed.
    var working: Double {
        [.dense, .compute, .merge].reduce(0) { $0 + (lanes[$1] ?? 0) }
    }

    private static let lanesOfWork: [Timeline.Lane] = [.dense, .compute, .merge, .wait]

    package init(_ timeline: Timeline, host: String, threads: Int, traffic: (bytes: Int, messages: Int)) {
        self.host = host
        self.threads = threads
        let totals = timeline.totals(.phase)
        phases = Phase.allCases.compactMap { phase in
            totals["\(phase.name)"].map { ("\(phase.name)", Double($0.busy) * 1e-9) }
        }
        for lane in Self.lanesOfWork {
            lanes[lane] = Double(timeline.totals(lane).values.reduce(0) { $0 + $1.busy }) * 1e-9
        }
        (bytesSent, messagesSent) = traffic
        peakMemory = Self.peakMemory
    }

    /// The most bytes of memory that this process had, what it shares with others included. The corresponding C function is
    /// `getrusage`, whose figure is in KiB on Linux and in bytes elsewhere.
    package static var peakMemory: Int {
        var usage = rusage()
        #if os(Linux)
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss << 10
        #else
        getrusage(RUSAGE_SELF, &usage)
        return usage.ru_maxrss
        #endif
    }

    package var message: Message {
        var message = Message()
        message.write(host)
        for value in [threads, bytesSent, messagesSent, peakMemory, phases.count] { message.write(value) }
        for (name, seconds) in phases {
            message.write(name)
            message.write(Int(bitPattern: UInt(seconds.bitPattern)))
        }
        for lane in Self.lanesOfWork { message.write(Int(bitPattern: UInt((lanes[lane] ?? 0).bitPattern))) }
        return message
    }

    package init(_ bytes: [UInt8]) {
        var message = Message(bytes)
        host = message.readString()
        threads = message.readInt()
        bytesSent = message.readInt()
        messagesSent = message.readInt()
        peakMemory = message.readInt()
        func seconds() -> Double { Double(bitPattern: UInt64(UInt(bitPattern: message.readInt()))) }
        for _ in 0..<message.readInt() {
            let name = message.readString()
            phases.append((name, seconds()))
        }
        for lane in Self.lanesOfWork { lanes[lane] = seconds() }
    }
}

/// What a job is summed up as.
package struct RunSummary {
    /// Seconds from the session's start to its end.
    package var seconds: Double
    package var ranks: [RankFigures]
    /// Tokens that the job has gone through; 0 where it counts none.
    package var tokens: Int
    /// Floating-point operations of visible work, of all ranks; 0 where they are not counted.
    package var flop: Double
    /// The multiply-add peak of all threads together, in floating-point operations a second.
    package var peak: Double
    /// What is wrong with where threads may run; nil: nothing.
    package var crowding: String?
    package var kernel: String

    package init(
        seconds: Double, ranks: [RankFigures], tokens: Int = 0, flop: Double = 0, peak: Double = 0,
        crowding: String? = nil, kernel: String
    ) {
        self.seconds = seconds
        self.ranks = ranks
        self.tokens = tokens
        self.flop = flop
        self.peak = peak
        self.crowding = crowding
        self.kernel = kernel
    }

    private func mean(_ value: (RankFigures) -> Double) -> Double {
        ranks.isEmpty ? 0 : ranks.reduce(0) { $0 + value($1) } / Double(ranks.count)
    }

    private func most(_ value: (RankFigures) -> Double) -> (rank: Int, value: Double) {
        ranks.enumerated().map { ($0, value($1)) }.max { $0.1 < $1.1 } ?? (0, 0)
    }

    /// Seconds of the phases in which models and attention run, of the rank that was longest at it.
    private var encodingSeconds: Double {
        most { $0.phases.filter { $0.name == "encoding" || $0.name == "attention" }.reduce(0) { $0 + $1.seconds } }
            .value
    }

    /// The lines that a terminal shows.
    package var lines: [String] {
        func row(_ name: String, _ text: String) -> String {
            "  " + name.padding(toLength: 16, withPad: " ", startingAt: 0) + text
        }
        var lines = ["summary of \(ranks.count == 1 ? "1 rank" : "\(ranks.count) ranks"), \(Self.time(seconds))"]
        if tokens > 0 {
            lines.append(
                row("tokens", "\(tokens), \(Self.short(Double(tokens) / max(seconds, 1e-9))) a second over all"))
        }
        if flop > 0, peak > 0, encodingSeconds > 0 {
            lines.append(
                row(
                    "share of peak",
                    String(
                        format:
                            "%.0f%% of %.0f GFLOP/s (fused multiply-adds of all threads, measured afterwards), in %@",
                        100 * flop / encodingSeconds / peak, peak * 1e-9, Self.time(encodingSeconds))))
        }
        let names = Phase.allCases.map { "\($0.name)" }.filter { name in
            ranks.contains { $0.phases.contains { $0.name == name } }
        }
        let phases = names.map { name -> String in
            let mean = mean { rank in rank.phases.first { $0.name == name }?.seconds ?? 0 }
            return "\(name) \(Self.time(mean))"
        }
        if !phases.isEmpty { lines.append(row("time by phase", phases.joined(separator: ", "))) }
        let work = [
            (Timeline.Lane.dense, "dense layers"), (.compute, "attention"), (.merge, "merging"), (.wait, "waiting"),
        ]
        .compactMap { lane, name -> String? in
            let mean = mean { $0.lanes[lane] ?? 0 }
            guard mean > 0 else { return nil }
            let (rank, value) = most { $0.lanes[lane] ?? 0 }
            return "\(name) \(Self.time(mean))"
                + (ranks.count > 1 && value > 1.2 * mean ? " (rank \(rank): \(Self.time(value)))" : "")
        }
        if !work.isEmpty { lines.append(row("of that", work.joined(separator: ", "))) }
        let bytes = ranks.reduce(0) { $0 + $1.bytesSent }
        if ranks.count > 1 {
            lines.append(
                row(
                    "sent",
                    "\(Self.short(Double(bytes) * 1e-6)) MB in \(ranks.reduce(0) { $0 + $1.messagesSent }) messages"))
        }
        let fullest = most { Double($0.peakMemory) }
        lines.append(
            row(
                "peak memory",
                String(format: "%.0f MiB", fullest.value / 0x1p20)
                    + (ranks.count > 1 ? " of rank \(fullest.rank) on \(ranks[fullest.rank].host)" : "")))
        for (number, advice) in advice.enumerated() { lines.append(row(number == 0 ? "would help" : "", advice)) }
        return lines
    }

    /// What would help, the most urgent first.
    package var advice: [String] {
        var advice: [String] = []
        if let crowding { advice.append(crowding) }
        if kernel == "reference" {
            advice.append("a processor with AVX2, AVX-512 or NEON: only the portable kernels ran")
        }
        let (work, wait) = (mean(\.working), mean { $0.lanes[.wait] ?? 0 })
        if ranks.count > 1, work + wait > 0, wait > 0.1 * (work + wait) {
            let share = String(format: "%.0f%%", 100 * wait / (work + wait))
            let (rank, longest) = most(\.working)
            if longest > 1.1 * work, longest - work > 0.5 * wait {
                advice.append(
                    "ranks wait \(share) of the time for others that have more to do, rank \(rank) most: --layout balanced (or zigzag for "
                        + "causal masks), or a host for rank \(rank) that is as fast as the others")
            } else {
                advice.append(
                    "ranks wait \(share) of the time for messages: more tokens a rank, a faster link, or --wire bfloat16; "
                        + "`annulus plan` prices them")
            }
        }
        let around = mean { rank in
            rank.phases.filter { ["reading", "tokenizing", "planning", "writing"].contains($0.name) }.reduce(0) {
                $0 + $1.seconds
            }
        }
        if seconds > 1, around > 0.3 * seconds {
            advice.append(
                String(format: "%.0f%%", 100 * around / seconds)
                    + " of the time is reading, tokenizing, planning and writing, which more ranks make no faster: more documents a job"
            )
        }
        return advice.isEmpty
            ? ["nothing stands out: \(Self.computing(work, seconds)) of the time is computing"] : advice
    }

    private static func computing(_ work: Double, _ seconds: Double) -> String {
        String(format: "%.0f%%", 100 * min(1, work / max(seconds, 1e-9)))
    }

    /// As a person reads it: `0.42 s`, `12.3 s`, `3 min 20 s`.
    private static func time(_ seconds: Double) -> String {
        if seconds < 0.0995 { return String(format: "%.1f ms", seconds * 1e3) }
        if seconds < 99.95 { return String(format: seconds < 9.995 ? "%.2f s" : "%.1f s", seconds) }
        let whole = Int(seconds.rounded())
        return whole < 3600 ? "\(whole / 60) min \(whole % 60) s" : "\(whole / 3600) h \(whole % 3600 / 60) min"
    }

    private static func short(_ value: Double) -> String {
        String(format: value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : "%.3g", value)
    }
}
