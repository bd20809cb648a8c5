// Timelines as a file that chrome://tracing and ui.perfetto.dev show.

import Foundation
import Plans
import RingAttention
import Tiles

/// A trace: a process for each rank, a thread for each lane of its timeline, in the JSON of Chrome's trace events.
///
/// An event's `ts` and `dur` are microseconds. Its `args` hold the step or layer, bytes that were sent, and, where an event
/// stands for several spans, their count and the time that they really took.
package enum TraceFile {
    /// The most events of all ranks together; see ``capacity(ranks:)``.
    private static let mostEvents = 1 << 20

    /// The numbers of a rank's process and of its threads: none is zero or another rank's, since viewers take a thread 0 for an idle
    /// processor's, and its events for those of the thread that has the process's number.
    private static func process(_ rank: Int) -> Int { 10 * (rank + 1) }
    private static func thread(_ lane: Timeline.Lane, _ rank: Int) -> Int { process(rank) + lane.rawValue }

    /// How many events each lane of a rank may have, so that a trace of any job stays below some 150 MB.
    package static func capacity(ranks: Int) -> Int {
        min(1 << 14, max(64, mostEvents / max(1, ranks * Timeline.Lane.allCases.count))) & ~1
    }

    /// The lines of one rank, a comma behind each.
    /// - Parameters:
    ///   - place: what the rank is called beside its number: its host.
    ///   - time: nanoseconds since the start of the trace, given those of the timeline.
    package static func lines(_ timeline: Timeline, rank: Int, place: String, time: (Int) -> Int = { $0 }) -> String {
        func name(_ kind: String, thread: Int?, _ argument: String) -> String {
            #"{"ph": "M", "name": "\#(kind)", "pid": \#(process(rank))\#(thread.map { ", \"tid\": \($0)" } ?? ""), "args": {\#(argument)}},"#
                + "\n"
        }
        var text = name("process_name", thread: nil, "\"name\": \(JSONText.string("rank \(rank) on \(place)"))")
        text += name("process_sort_index", thread: nil, "\"sort_index\": \(rank)")
        for lane in Timeline.Lane.allCases {
            let (events, fold) = timeline.events(lane)
            if events.isEmpty { continue }
            let title = fold == 1 ? lane.name : "\(lane.name), \(fold) spans an event"
            text += name("thread_name", thread: thread(lane, rank), "\"name\": \(JSONText.string(title))")
            text += name("thread_sort_index", thread: thread(lane, rank), "\"sort_index\": \(lane.rawValue)")
            for event in events {
                var arguments: [String] = []
                if event.number >= 0 { arguments.append("\"\(lane.numbered)\": \(event.number)") }
                if event.bytes > 0 { arguments.append("\"bytes\": \(event.bytes)") }
                if event.count > 1 {
                    arguments.append("\"spans\": \(event.count), \"busy_us\": \(microseconds(event.busy))")
                }
                let start = time(event.start)
                text +=
                    #"{"ph": "X", "name": \#(JSONText.string(event.name)), "cat": "\#(lane.name)", "pid": \#(process(rank)), "tid": \#(thread(lane, rank)), "#
                    + #""ts": \#(microseconds(start)), "dur": \#(microseconds(max(0, time(event.end) - start)))"#
                    + (arguments.isEmpty ? "" : ", \"args\": {\(arguments.joined(separator: ", "))}") + "},\n"
            }
        }
        return text
    }

    /// Microseconds to three decimals, written without rounding.
    private static func microseconds(_ nanoseconds: Int) -> String {
        let (whole, rest) = nanoseconds.magnitude.quotientAndRemainder(dividingBy: 1000)
        let digits = String(rest)
        return (nanoseconds < 0 ? "-" : "") + "\(whole)." + String(repeating: "0", count: 3 - digits.count) + digits
    }

    /// Writes a trace of which every rank has its lines. Collective.
    /// - Parameters:
    ///   - path: the file, which is replaced where it exists.
    ///   - lines: this rank's; see ``lines(_:rank:place:time:)``.
    ///   - facts: what is said of the whole, a JSON value by its name; of rank 0.
    /// - Throws: `AgreedFailure` with status 73 or 74.
    package static func write(
        _ path: String, lines: String, facts: [(name: String, json: String)], over transport: any Transport
    ) throws {
        var mine = lines
        if transport.rank.index == 0 {
            mine =
                "{\"displayTimeUnit\": \"ms\", \"otherData\": {"
                + facts.map { "\(JSONText.string($0.name)): \($0.json)" }.joined(separator: ", ")
                + "},\n\"traceEvents\": [\n" + mine
        }
        if transport.rank.index == transport.size - 1 {
            // What closes the list is an event too, since the one before it has a comma.
            mine +=
                "{\"ph\": \"M\", \"name\": \"process_labels\", \"pid\": \(process(0)), \"args\": {\"labels\": \"annulus \(Release.version)\"}}\n]}\n"
        }
        let sizes = try transport.allGather(withUnsafeBytes(of: mine.utf8.count) { Array($0) }).map { bytes in
            bytes.withUnsafeBytes { $0.loadUnaligned(as: Int.self) }
        }
        let file = try ParallelFile.create(path, force: true, transport: transport, size: sizes.reduce(0, +))
        let first = sizes[..<transport.rank.index].reduce(0, +)
        try Failure.agree(
            transport, Result { try mine.withUTF8 { try file.write([(first, UnsafeRawBufferPointer($0))]) } })
        try file.commit()
    }
}

extension Timeline.Lane {
    /// What the numbers of a lane's events count.
    fileprivate var numbered: String { self == .phase || self == .dense ? "layer" : "step" }
}
