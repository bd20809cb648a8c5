// The control groups that this process is in, and the limits that they set (cgroups(7)).

import Foundation

/// A control group of either version, known by the folder where its limits stand.
package struct ControlGroup: Equatable {
    package enum Version { case one, two }

    package let version: Version
    package let folder: String

    /// This process's groups that may limit `controller`, each above those inside it: a limit holds for all below.
    package static func current(_ controller: String) -> [ControlGroup] {
        groups(of: controller, membership: lines("/proc/self/cgroup"))
    }

    /// The same, read from the lines of a `/proc/PID/cgroup`, `HIERARCHY:CONTROLLERS:PATH` each.
    ///
    /// Inside a container the folders may begin at its own group while the path still begins at the host's root:
    /// folders that do not exist set no limit.
    package static func groups(of controller: String, membership: [Substring]) -> [ControlGroup] {
        membership.flatMap { line -> [ControlGroup] in
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { return [] }
            let version: Version = parts[1].isEmpty ? .two : .one
            guard version == .two || parts[1].split(separator: ",").contains(controller[...]) else { return [] }
            var folders = [version == .two ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller]
            for step in parts[2].split(separator: "/") {
                // A process outside its own namespace's root: what is above cannot be seen.
                if step == ".." { break }
                folders.append(folders[folders.count - 1] + "/" + step)
            }
            return folders.map { ControlGroup(version: version, folder: $0) }
        }
    }

    // MARK: Processors

    /// How many processors' time its members may take together, nil where all.
    package var processorQuota: Double? {
        switch version {
        case .two: text("cpu.max").flatMap(Self.processorQuota(max:))
        case .one:
            text("cpu.cfs_quota_us").flatMap { quota in
                text("cpu.cfs_period_us").flatMap { Self.processorQuota(quota: quota, period: $0) }
            }
        }
    }

    /// What a `cpu.max` says: `QUOTA PERIOD`, or `max PERIOD` for no limit.
    package static func processorQuota(max text: Substring) -> Double? {
        let words = text.split { $0 == " " || $0 == "\t" }
        return words.count == 2 ? processorQuota(quota: words[0], period: words[1]) : nil
    }

    /// What `cpu.cfs_quota_us` and `cpu.cfs_period_us` say together: -1 is no limit.
    package static func processorQuota(quota: Substring, period: Substring) -> Double? {
        guard let quota = Int(quota), let period = Int(period), quota > 0, period > 0 else { return nil }
        return Double(quota) / Double(period)
    }

    /// The device and the number of its folder: groups of the same path in two containers are two groups.
    package var identity: [UInt64]? {
        var status = stat()
        guard stat(folder, &status) == 0 else { return nil }
        return [UInt64(truncatingIfNeeded: status.st_dev), UInt64(status.st_ino)]
    }

    // MARK: Memory

    /// Bytes that its members may take together, nil where it sets no limit.
    package var memoryLimit: Double? {
        text(version == .two ? "memory.max" : "memory.limit_in_bytes").flatMap(Self.memoryLimit)
    }

    /// What a `memory.max` or `memory.limit_in_bytes` says. The latter writes no limit as the largest number of pages.
    package static func memoryLimit(_ text: Substring) -> Double? {
        guard let bytes = Double(text), bytes >= 0, bytes < 0x1p62 else { return nil }
        return bytes
    }

    /// What is left of the limit, apart from file pages that can be dropped.
    var memoryLeft: Double? {
        let (usage, cache) =
            version == .two ? ("memory.current", "inactive_file") : ("memory.usage_in_bytes", "total_inactive_file")
        guard let limit = memoryLimit, let used = text(usage).flatMap({ Double($0) }) else { return nil }
        let droppable =
            Self.lines(folder + "/memory.stat").first { $0.hasPrefix(cache + " ") }
            .flatMap { $0.split(separator: " ").last }.flatMap { Double($0) } ?? 0
        return max(0, limit - used + droppable)
    }

    // MARK: Files of the kernel

    /// The first line of one of its files.
    private func text(_ name: String) -> Substring? { Self.lines(folder + "/" + name).first }

    /// The lines of a file of the kernel; none where it cannot be read.
    package static func lines(_ path: String) -> [Substring] {
        guard let data = FileManager.default.contents(atPath: path) else { return [] }
        return String(decoding: data, as: UTF8.self).split(separator: "\n")
    }
}
