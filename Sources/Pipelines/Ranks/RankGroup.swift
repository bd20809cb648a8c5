// The ranks of a job, as they agree with each other before and between pieces of work.

import RingAttention
import Tiles

/// One rank among those of a job.
package struct RankGroup {
    package let transport: any Transport
    package let monitor: any Monitor
    /// Whether all ranks are of this process, which has read every file once.
    package let isVirtual: Bool

    package init(_ transport: any Transport, monitor: any Monitor, isVirtual: Bool) {
        self.transport = transport
        self.monitor = monitor
        self.isVirtual = isVirtual
    }

    package var rank: Rank { transport.rank }
    package var size: Int { transport.size }
    /// Whether this is the rank that reads standard input and writes standard output.
    package var isRoot: Bool { rank == Rank(0) }

    /// Runs `work` on every rank and agrees on its outcome: all go on, or all leave with one error. Collective.
    /// - Throws: ``AgreedFailure``; what the transport throws.
    package func agree<Value>(_ work: () throws -> Value) throws -> Value { try Failure.agree(transport, work) }

    /// Where the ranks are. Collective.
    package func places() throws -> Places {
        Places(hosts: try transport.allGather(Array(LocalHost.name.utf8)).map { String(decoding: $0, as: UTF8.self) })
    }
}

/// Ranks and the hosts they run on, in words.
package struct Places {
    package let hosts: [String]

    package func text(_ ranks: [Int]) -> String {
        guard ranks.count > 1 else { return ranks.first.map { "rank \($0) on \(hosts[$0])" } ?? "no rank" }
        let shown = ranks.prefix(3).map { "\($0) on \(hosts[$0])" }.joined(separator: ", ")
        return "ranks " + shown + (ranks.count > 3 ? " and \(ranks.count - 3) more" : "")
    }
}
