// How many threads a rank may use: asked for, or its share of the processors and of the time on them.

import Foundation
import MPI
import RingAttention

/// How many threads a rank may use.
package enum ThreadShare {
    /// The number asked for: `--threads`, else `OMP_NUM_THREADS` (of a list, the first); nil where neither is given.
    /// - Throws: `JobError` with status `usage` where one is not a positive number.
    package static func requested(option: Int?, environment: [String: String]) throws(JobError) -> Int? {
        if let option {
            guard option > 0 else { throw JobError(.usage, "--threads needs a positive number, not \(option)") }
            return option
        }
        guard let text = environment["OMP_NUM_THREADS"], !text.isEmpty else { return nil }
        let first = text.prefix { $0 != "," }.trimmingCharacters(in: .whitespaces)
        guard let count = Int(first), count > 0 else {
            throw JobError(.usage, "OMP_NUM_THREADS is '\(text)'; set it to a positive number, or unset it")
        }
        return count
    }

    /// This rank's share of the processors of its host, and of the time on them that its control groups may take. What
    /// is left of a fraction is nobody's. At least 1. Collective.
    package static func fair(_ transport: any Transport) throws -> Int {
        let mine = ProcessorAllowance.current
        let all = try transport.allGather(mine.bytes).compactMap(ProcessorAllowance.init)
        return share(of: mine, among: all)
    }

    /// The share of `mine` among `all`, which include it once: each processor is divided among the ranks of its host
    /// that may run on it, and each quota among those that are in its control group.
    package static func share(of mine: ProcessorAllowance, among all: [ProcessorAllowance]) -> Int {
        let neighbours = all.filter { $0.host == mine.host }
        let byQuota = mine.quotas.map { quota in
            quota.processors / Double(max(1, neighbours.count { $0.quotas.contains { $0.group == quota.group } }))
        }
        let byMask = share(of: mine.mask, among: neighbours.map(\.mask))
        // Compared before it is rounded: a quota may be larger than any Int.
        return byQuota.map { $0 < Double(byMask) ? max(1, Int($0 + 1e-9)) : byMask }.min() ?? byMask
    }

    /// The share of `mine` when each processor is divided among the masks of `all` that hold it; `all` includes
    /// `mine` once.
    package static func share(of mine: ProcessorMask, among all: [ProcessorMask]) -> Int {
        // Processors grouped by their number of sharers, so that few fractions are added.
        var processors: [Int: Int] = [:]
        for processor in mine.processors {
            processors[max(1, all.count { $0.contains(processor) }), default: 0] += 1
        }
        let share = processors.reduce(0.0) { $0 + Double($1.value) / Double($1.key) }
        return max(1, Int(share + 1e-9))
    }
}

/// What a host grants a process: the processors that it may run on, and how much of their time.
package struct ProcessorAllowance: Equatable {
    /// The time that a control group's members may take together.
    package struct Quota: Equatable {
        /// Which group, on this host.
        package let group: [UInt64]
        /// In processors that are never idle.
        package let processors: Double

        package init(group: [UInt64], processors: Double) {
            self.group = group
            self.processors = processors
        }
    }

    package let host: String
    package let mask: ProcessorMask
    /// Those of all groups that this process is in and that have one.
    package let quotas: [Quota]

    package init(host: String, mask: ProcessorMask, quotas: [Quota] = []) {
        (self.host, self.mask, self.quotas) = (host, mask, quotas)
    }

    /// This process's.
    package static var current: ProcessorAllowance {
        let quotas = ControlGroup.current("cpu").compactMap { group -> Quota? in
            guard let processors = group.processorQuota, let identity = group.identity else { return nil }
            return Quota(group: identity, processors: processors)
        }
        return ProcessorAllowance(host: LocalHost.name, mask: .current, quotas: quotas)
    }

    /// As ranks tell each other: the count of quotas and of the host's bytes, quotas, host, mask.
    package var bytes: [UInt8] {
        let host = self.host.utf8.prefix(255)
        let words = quotas.prefix(255).flatMap { $0.group + [$0.processors.bitPattern] }
        return [UInt8(words.count / 3), UInt8(host.count)]
            + words.flatMap { word in withUnsafeBytes(of: word.littleEndian, Array.init) } + host + mask.bytes
    }

    /// Reads ``bytes``; nil where they are not whole.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count >= 2 else { return nil }
        let (quotaEnd, hostEnd) = (2 + 24 * Int(bytes[0]), 2 + 24 * Int(bytes[0]) + Int(bytes[1]))
        guard bytes.count >= hostEnd else { return nil }
        func word(_ place: Int) -> UInt64 { bytes[place..<place + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) } }
        quotas = stride(from: 2, to: quotaEnd, by: 24).map { place in
            Quota(group: [word(place), word(place + 8)], processors: Double(bitPattern: word(place + 16)))
        }
        host = String(decoding: bytes[quotaEnd..<hostEnd], as: UTF8.self)
        mask = ProcessorMask(bytes: Array(bytes[hostEnd...]))
    }
}

/// A set of processors that a process may run on.
package struct ProcessorMask: Equatable {
    /// Bit p of byte p / 8 stands for processor p.
    package var bytes: [UInt8]

    package init(bytes: [UInt8]) { self.bytes = bytes }

    package func contains(_ processor: Int) -> Bool {
        processor / 8 < bytes.count && bytes[processor / 8] >> (processor % 8) & 1 == 1
    }

    package var processors: [Int] { (0..<bytes.count * 8).filter(contains) }

    /// The processors this process may run on.
    package static var current: ProcessorMask { ProcessorMask(bytes: HostProcess.affinityMask) }
}
