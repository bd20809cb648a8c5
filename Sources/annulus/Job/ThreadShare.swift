// How many threads a rank may use: asked for, or its share of the processors.

import Foundation
import MPI
import RingAttention

/// How many threads a rank may use.
enum ThreadShare {
    /// The number asked for: `--threads`, else `OMP_NUM_THREADS` (of a list, the first); nil where neither is given.
    /// - Throws: `JobError` with status `usage` where one is not a positive number.
    static func requested(option: Int?, environment: [String: String]) throws(JobError) -> Int? {
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

    /// This rank's share of the processors: each is shared among the ranks of its host that may run on it, and what
    /// is left of a fraction is nobody's. At least 1. Collective.
    static func fair(_ transport: any Transport) throws -> Int {
        let host = Array(LocalHost.name.utf8)
        let mask = ProcessorMask.current.bytes
        let mine = [UInt8(clamping: host.count)] + host.prefix(255) + mask
        let masks = try transport.allGather(mine).compactMap { entry -> [UInt8]? in
            let end = 1 + Int(entry[0])
            return entry[1..<end].elementsEqual(host.prefix(255)) ? Array(entry[end...]) : nil
        }
        return share(of: ProcessorMask(bytes: mask), among: masks.map(ProcessorMask.init))
    }

    /// The share of `mine` when each processor is divided among the masks of `all` that hold it; `all` includes
    /// `mine` once.
    static func share(of mine: ProcessorMask, among all: [ProcessorMask]) -> Int {
        // Processors grouped by their number of sharers, so that few fractions are added.
        var processors: [Int: Int] = [:]
        for processor in mine.processors {
            processors[max(1, all.count { $0.contains(processor) }), default: 0] += 1
        }
        let share = processors.reduce(0.0) { $0 + Double($1.value) / Double($1.key) }
        return max(1, Int(share + 1e-9))
    }
}

/// A set of processors that a process may run on.
struct ProcessorMask: Equatable {
    /// Bit p of byte p / 8 stands for processor p.
    var bytes: [UInt8]

    func contains(_ processor: Int) -> Bool {
        processor / 8 < bytes.count && bytes[processor / 8] >> (processor % 8) & 1 == 1
    }

    var processors: [Int] { (0..<bytes.count * 8).filter(contains) }

    /// The processors this process may run on.
    static var current: ProcessorMask { ProcessorMask(bytes: HostProcess.affinityMask) }
}
