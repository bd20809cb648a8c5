// Measurements kept from one job to the next, in a file for each kind of job on each host.

import Attention
import Crypto
import Files
import Foundation

/// The file in which rank 0's host keeps what jobs of the same ranks, hosts, threads, kernels, element type and head
/// widths have measured and shown.
package struct MeasurementCache {
    package let path: String
    /// What tells jobs apart, as it stands in the file.
    private let job: [String]
    private let rankCount: Int

    /// `${XDG_CACHE_HOME:-~/.cache}/annulus/measured`; nil where there is no home.
    package static func folder(environment: [String: String] = ProcessInfo.processInfo.environment) -> String? {
        func folder(_ name: String) -> String? { environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil } }
        return (folder("XDG_CACHE_HOME") ?? folder("HOME").map { $0 + "/.cache" }).map { $0 + "/annulus/measured" }
    }

    /// `HOST-KERNEL-ELEMENT-RANKS-THREADS-….json` in the folder; nil where there is none.
    /// - Parameters:
    ///   - ranks: the host of every rank, and how many threads it has.
    ///   - isVirtual: whether the ranks are of one process.
    package init?(
        ranks: [(host: String, threads: Int)], isVirtual: Bool, kernel: String, element: String, heads: HeadShape,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) {
        guard let folder = Self.folder(environment: environment), let first = ranks.first else { return nil }
        job =
            [
                "annulus \(Release.version)", kernel, element,
                "heads of \(heads.headDimension) and \(heads.valueDimension)",
            ] + (isVirtual ? ["virtual ranks"] : [])
            + ranks.map { "\($0.host), \($0.threads) thread\($0.threads == 1 ? "" : "s")" }
        let digest = SHA256.hash(data: Data(job.joined(separator: "\n").utf8)).prefix(8)
            .map { String(format: "%02x", $0) }.joined()
        let host = String(first.host.map { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "." ? $0 : "_" })
        path = "\(folder)/\(host)-\(kernel)-\(element)-\(ranks.count)-\(first.threads)-\(digest).json"
        rankCount = ranks.count
    }

    /// What is kept and not over a day old; nil where no speed is known of a rank, or where the file is missing,
    /// damaged or of another kind of job.
    package func read(at time: Double = Self.now) -> MachineHistory? {
        guard let json = try? JSON.load(path: path), json["job"]?.array?.map(\.string) == job,
            let ranks = json["ranks"]?.array, ranks.count == rankCount
        else { return nil }
        func history(_ json: JSON?) -> RateHistory {
            RateHistory(
                (json?.array ?? []).compactMap { entry in
                    guard let time = entry[0]?.double, let rate = entry[1]?.double else { return nil }
                    return .init(time: time, rate: rate)
                })
        }
        func link(_ json: JSON?) -> MachineHistory.Link {
            .init(
                messages: history(json?["messages"]), bytes: history(json?["bytes"]),
                processed: history(json?["processed"]))
        }
        var kept = MachineHistory(rankCount: rankCount)
        kept.ranks = ranks.map(history)
        kept.inside = link(json["inside"])
        kept.between = link(json["between"])
        kept.forget(at: time)
        return kept.measurements == nil ? nil : kept
    }

    /// Keeps what is known, if the folder lets it: a job does not fail for its cache. Written aside and renamed, so that
    /// a reader sees all of a file or none.
    package func write(_ known: MachineHistory) {
        func text(_ history: RateHistory) -> String {
            "[" + history.sightings.map { "[\($0.time), \($0.rate)]" }.joined(separator: ", ") + "]"
        }
        func text(_ link: MachineHistory.Link) -> String {
            "{\"messages\": \(text(link.messages)), \"bytes\": \(text(link.bytes)), \"processed\": \(text(link.processed))}"
        }
        let contents =
            """
            {"job": [\(job.map(JSONText.string).joined(separator: ", "))],
             "ranks": [\(known.ranks.map(text).joined(separator: ", "))],
             "inside": \(text(known.inside)),
             "between": \(text(known.between))}

            """
        let folder = (path as NSString).deletingLastPathComponent
        try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try? Data(contents.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }

    /// Whole seconds since 1970.
    package static var now: Double { Date().timeIntervalSince1970.rounded(.down) }
}
