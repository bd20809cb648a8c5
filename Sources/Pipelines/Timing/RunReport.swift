// What is kept and said of a job beside its results: a trace, a closing summary, a log for each rank.

import Foundation
import Logging
import Matrices
import Plans
import RingAttention
import Tiles

/// What is asked for of it.
package struct ReportOptions: Sendable {
    /// Where a trace is written; nil: none is.
    package var trace: String?
    /// Whether the job is summed up at the end; nil: where rank 0's standard error is a terminal.
    package var sums: Bool?
    /// The folder of a log for each rank; nil: there is none.
    package var logFolder: String?

    package init(trace: String? = nil, sums: Bool? = nil, logFolder: String? = nil) {
        (self.trace, self.sums, self.logFolder) = (trace, sums, logFolder)
    }
}

/// One rank's part of what is kept of a job while it runs.
package final class RunReport {
    /// The ranks, watched by the timeline and the log too.
    package let group: RankGroup
    /// Where this rank's own lines go, if anywhere.
    package let log: RankLog?
    private let trace: String?
    private let sums: Bool
    /// Whether a job that is soon done is summed up too.
    private let sumsShort: Bool
    private let timeline: Timeline?
    private let start: ContinuousClock.Instant
    private let origin: Int
    private let firstReading: ClockReading?

    /// Collective.
    /// - Parameters:
    ///   - options: what is asked for; whether the job is summed up is as rank 0 has it, for others may be quiet or not.
    ///   - isTerminal: whether this rank's standard error is one.
    /// - Throws: `AgreedFailure` with status 73 where a trace or a log could not be written.
    package init(_ group: RankGroup, _ options: ReportOptions, isTerminal: @autoclosure () -> Bool) throws {
        // 1: where it takes a while; 2: in any case.
        var mine: UInt8 = 0
        if group.isRoot { mine = options.sums.map { $0 ? 2 : 0 } ?? (isTerminal() ? 1 : 0) }
        let told = try group.transport.allGather([mine])[0]
        let sums = told != [0]
        if let trace = options.trace { try ParallelFile.checkWritable(trace, force: true, transport: group.transport) }
        log = try group.agree {
            try options.logFolder.map { try RankLog(folder: $0, rank: group.rank.index, of: group.size) }
        }
        trace = options.trace
        self.sums = sums
        sumsShort = told == [2]
        start = .now
        origin = ClockReading.now
        timeline =
            trace != nil || sums
            ? Timeline(capacity: trace == nil ? 2 : TraceFile.capacity(ranks: group.size), origin: start) : nil
        firstReading = trace == nil ? nil : try ClockReading.read(group.transport)
        group.transport.timeline = timeline
        self.group =
            timeline == nil && log == nil
            ? group
            : RankGroup(
                group.transport, monitor: TimedMonitor(base: group.monitor, timeline: timeline, log: log),
                isVirtual: group.isVirtual)
        log?.write(
            "rank \(group.rank.index) of \(group.size) on \(LocalHost.name), process \(getpid()), annulus \(Release.version)"
        )
        group.monitor.progress(.starting)
        timeline?.enter("starting")
    }

    /// Writes the trace and sums the job up. Collective, once the work is done.
    package func finish(_ session: Session) throws {
        timeline?.enter(nil)
        let seconds = (ContinuousClock.now - start).inSeconds
        log?.write("done after \(String(format: "%.3f", seconds)) s, \(session.transport.traffic.bytes) bytes sent")
        guard let timeline else { return }
        // What follows is nobody's time.
        session.transport.timeline = nil
        if sums { try sum(timeline, seconds, session) }
        if let trace, let firstReading { try write(trace, timeline, firstReading, session) }
    }

    private func sum(_ timeline: Timeline, _ seconds: Double, _ session: Session) throws {
        let longest = try session.maximum(seconds)
        guard sumsShort || longest >= 1 else { return }
        let traffic = session.transport.traffic
        let mine = RankFigures(
            timeline, host: LocalHost.name, threads: session.threads.threads, traffic: (traffic.bytes, traffic.messages)
        )
        let all = try session.transport.allGather(mine.message.bytes).map { RankFigures($0) }
        var summary = RunSummary(
            seconds: longest, ranks: all, tokens: session.done.tokens, flop: session.done.flop,
            crowding: session.crowding, kernel: session.kernels.name)
        if summary.flop > 0 { summary.peak = try session.measuredPeak(seconds: 0.1) * 1e9 }
        for line in summary.lines {
            session.log.notice("\(line)")
        }
    }

    private func write(_ path: String, _ timeline: Timeline, _ first: ClockReading, _ session: Session) throws {
        let transport = session.transport
        let last = try ClockReading.read(transport)
        let zero = try transport.allGather(withUnsafeBytes(of: origin) { Array($0) })[0].withUnsafeBytes {
            $0.loadUnaligned(as: Int.self)
        }
        let clock = AlignedClock(origin: origin, first: first, last: last, zero: zero)
        let fold = Timeline.Lane.allCases.map { timeline.events($0).fold }.max() ?? 1
        let figures = try transport.allGather([clock.error, fold].withUnsafeBytes { Array($0) }).map { bytes in
            bytes.withUnsafeBytes {
                (error: $0.loadUnaligned(as: Int.self), fold: $0.loadUnaligned(fromByteOffset: 8, as: Int.self))
            }
        }
        let (error, most) = (figures.map(\.error).max() ?? 0, figures.map(\.fold).max() ?? 1)
        try TraceFile.write(
            path, lines: TraceFile.lines(timeline, rank: transport.rank.index, place: LocalHost.name, time: clock.time),
            facts: [
                ("annulus", JSONText.string(Release.version)), ("ranks", "\(transport.size)"),
                ("clock_error_us", JSONText.number(Double(error) * 1e-3)),
                ("spans_per_event", "\(most)"), ("kernel", JSONText.string(session.kernels.name)),
            ], over: transport)
        session.log.notice(
            """
            trace: \(path), for ui.perfetto.dev or chrome://tracing\(transport.size > 1 ? String(format: "; clocks agree to %.1f µs", Double(error) * 1e-3) : "")\
            \(most > 1 ? "; up to \(most) spans are one event, of which there would be too many" : "")
            """)
    }
}

extension Session {
    /// What the job has done so far, of all ranks: tokens, and floating-point operations of visible work.
    package struct Done: Sendable {
        package var tokens = 0
        package var flop = 0.0
    }

    /// The fused multiply-add peak, for the job's dtype, of all threads of all ranks while all of them run, in GFLOP/s.
    /// Collective.
    package func measuredPeak(seconds: Double, statistic: PeakStatistic = .best) throws -> Double {
        try transport.barrier()
        let ofThreads = Matrices.peak(
            kernels: kernels, element: settings.element, seconds: seconds, pool: threads, statistic: statistic)
        return try sum(ofThreads.reduce(0, +))
    }
}
