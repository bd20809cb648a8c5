// How much memory the processes of this host may still take.

import Foundation

package enum MemoryOfHost {
    /// The variable that lowers what `available` finds, in GiB.
    package static let variable = "ANNULUS_MEMORY_GIB"

    /// Bytes that new processes could take without swapping: the kernel's MemAvailable, what is left of the limits of
    /// the control groups that this process is in, and ANNULUS_MEMORY_GIB, whichever is least; nil where none is known.
    /// - Throws: `JobError` with status `usage` where the variable is no positive number.
    package static func available(environment: [String: String] = ProcessInfo.processInfo.environment) throws(JobError)
        -> Double?
    {
        var least = groupLimits + [kernelEstimate].compactMap { $0 }
        if let text = environment[variable], !text.isEmpty {
            guard let limit = Double(text), limit > 0, limit.isFinite else {
                throw JobError(.usage, "\(variable) is '\(text)'; set it to a positive number of GiB, or unset it")
            }
            least.append(limit * 0x1p30)
        }
        return least.min()
    }

    /// Bytes that this process may still map by its own limits (`ulimit -v`, `ulimit -d`; setrlimit(2)); nil where
    /// there are none.
    static var leftOfProcess: Double? {
        // In pages: all that is mapped, and of that data and stacks (proc(5)).
        let pages = ControlGroup.lines("/proc/self/statm").first?.split(separator: " ").compactMap { Double($0) } ?? []
        guard pages.count >= 6 else { return nil }
        let pageBytes = Double(sysconf(Int32(_SC_PAGESIZE)))
        return ControlGroup.lines("/proc/self/limits").compactMap { line -> Double? in
            let used = line.hasPrefix("Max address space") ? pages[0] : line.hasPrefix("Max data size") ? pages[5] : nil
            guard let used, let limit = line.split(separator: " ").compactMap({ Double($0) }).first else { return nil }
            return max(0, limit - used * pageBytes)
        }.min()
    }

    /// Bytes of memory that this process has now, with what it shares; 0 where that is unknown.
    static var resident: Double {
        // In pages: all that is mapped, and of that what is in memory (proc(5)).
        let pages = ControlGroup.lines("/proc/self/statm").first?.split(separator: " ").compactMap { Double($0) } ?? []
        return pages.count < 2 ? 0 : pages[1] * Double(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// Bytes of the memory that ranks of a node share that this process has mapped and not touched yet: of a model, what its
    /// other ranks have read from the file; 0 where that is unknown.
    static var untouchedShared: Double {
        let mapped = ControlGroup.lines("/proc/self/maps").filter { $0.contains(" /dev/shm/annulus.") }.map {
            line -> Double in
            let bounds = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt($0, radix: 16) }
            return bounds.count == 2 ? Double(bounds[1] - bounds[0]) : 0
        }
        let touched = ControlGroup.lines("/proc/self/status").first { $0.hasPrefix("RssShmem:") }
            .flatMap { $0.split(separator: " ").dropFirst().first }.flatMap { Double($0) }
        return touched.map { max(0, mapped.reduce(0, +) - $0 * 1024) } ?? 0
    }

    /// MemAvailable of /proc/meminfo (proc(5)).
    private static var kernelEstimate: Double? {
        for line in ControlGroup.lines("/proc/meminfo") where line.hasPrefix("MemAvailable:") {
            return line.split(separator: " ").dropFirst().first.flatMap { Double($0) }.map { $0 * 1024 }
        }
        return nil
    }

    /// What is left of the memory limit of each control group from this process's own up to the root, in either
    /// version.
    private static var groupLimits: [Double] { ControlGroup.current("memory").compactMap(\.memoryLeft) }

    /// The control group whose limit on memory is the least, where that is less than the host has.
    package static var limit: (bytes: Double, folder: String)? {
        ControlGroup.current("memory").compactMap { group in group.memoryLimit.map { (bytes: $0, folder: group.folder) }
        }
        .filter { $0.bytes < Double(ProcessInfo.processInfo.physicalMemory) }.min { $0.bytes < $1.bytes }
    }
}
