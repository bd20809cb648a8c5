// A verb's session: its options compared, its streams looked at, before anything else.

import ArgumentParser
import Attention
import Foundation
import Logging
import Matrices
import Pipelines

extension Session {
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
                context.group.size == 1 || context.group.isVirtual
                ? "" : " to rank \(context.group.rank.index) on \(LocalHost.name)"
            let ending = context.watchdog.ending
            MemoryRefusal.whenRefused { bytes in
                ending.end(
                    JobError(
                        .memory,
                        "the system refused \(bytes) bytes of memory\(place); raise the limits of the process (ulimit -v, ulimit -d), free "
                            + "some memory, or take fewer --threads"))
            }
            let group = context.group
            try group.compareStart(asked)
            try group.agree { if group.isRoot { for stream in streams { try stream.check() } } }
            let report = try RunReport(
                group, options.report.options(quiet: options.quiet), isTerminal: StandardError.isTerminal)
            let shown = options.quiet || !group.isRoot ? Logger.Level.error : .notice
            var log = Logger(label: "annulus") { _ in StandardErrorLog(shown: shown, ofRank: report.log) }
            log.logLevel = report.log == nil ? shown : .notice
            do {
                let session = try Session(
                    report.group, settings: options.settings, threads: context.threads, log: log
                ) {
                    ProgressLine(
                        $0, total: $1, unit: $2, mode: options.quiet ? .never : options.progress,
                        isVisible: group.isRoot)
                }
                try body(session)
                try report.finish(session)
            } catch {
                report.log?.write("error: \(JobError(error).message)")
                throw error
            }
        }
        if status != 0 { throw EndedJob(status: status) }
    }

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
    /// From which level on lines are shown.
    let shown: Logger.Level
    /// Where all of them are kept, if anywhere.
    let ofRank: RankLog?
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
        let line = level >= .warning ? "\(level): \(message)" : "\(message)"
        ofRank?.write(line)
        if level >= shown { StandardError.writeLine(line) }
    }
}
