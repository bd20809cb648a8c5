// Where the ranks of a job may run: what a run's header says of it.

import Foundation
import Tiles

/// What a rank may run on, and with how many threads.
package struct Binding: Equatable {
    package let allowance: ProcessorAllowance
    package let threads: Int
    /// The NUMA nodes of its processors; empty where the system does not tell.
    package let nodes: [Int]

    package init(_ allowance: ProcessorAllowance, threads: Int, nodes: [Int]) {
        (self.allowance, self.threads, self.nodes) = (allowance, threads, nodes)
    }

    /// This process's.
    package static func current(threads: Int) -> Binding {
        let allowance = ProcessorAllowance.current
        return Binding(allowance, threads: threads, nodes: numaNodes(of: allowance.mask))
    }

    /// The NUMA nodes that some processors are of, as Linux tells them.
    private static func numaNodes(of mask: ProcessorMask) -> [Int] {
        let folder = "/sys/devices/system/node"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.compactMap { name -> Int? in
            guard name.hasPrefix("node"), let number = Int(name.dropFirst(4)),
                let list = ControlGroup.lines("\(folder)/\(name)/cpulist").first
            else { return nil }
            return numbers(list).contains(where: mask.contains) ? number : nil
        }.sorted()
    }

    /// The numbers of a list like `0-3,8,10-11`.
    package static func numbers(_ list: some StringProtocol) -> [Int] {
        list.split(separator: ",").flatMap { part -> [Int] in
            let ends = part.split(separator: "-").compactMap { Int($0.trimmingCharacters(in: .whitespaces)) }
            guard let first = ends.first, let last = ends.last, first <= last else { return [] }
            return Array(first...last)
        }
    }

    /// Ascending numbers as such a list.
    package static func list(_ numbers: [Int]) -> String {
        var parts: [(first: Int, last: Int)] = []
        for number in numbers {
            if let last = parts.last, last.last + 1 == number {
                parts[parts.count - 1].last = number
            } else {
                parts.append((number, number))
            }
        }
        return parts.map { $0.first == $0.last ? "\($0.first)" : "\($0.first)-\($0.last)" }.joined(separator: ",")
    }

    package var message: Message {
        var message = Message()
        message.write(threads)
        message.write(nodes.map { Int32($0) })
        message.write(allowance.bytes.map { Int32($0) })
        return message
    }

    package init?(_ bytes: [UInt8]) {
        var message = Message(bytes)
        threads = message.readInt()
        nodes = message.readIds().map { Int($0) }
        guard let allowance = ProcessorAllowance(message.readIds().map { UInt8(truncatingIfNeeded: $0) }) else {
            return nil
        }
        self.allowance = allowance
    }

    /// In words, ranks that are bound alike together: `ranks 0-3 (node7): processors 0-3 of NUMA node 0`.
    package static func text(_ all: [Binding]) -> String {
        var groups: [(hosts: [String], ranks: [Int], words: String)] = []
        for (rank, binding) in all.enumerated() {
            let processors = binding.allowance.mask.processors
            let words =
                "processor\(processors.count == 1 ? "" : "s") \(list(processors))"
                + (binding.nodes.isEmpty
                    ? "" : " of NUMA node\(binding.nodes.count == 1 ? "" : "s") \(list(binding.nodes))")
            let host = binding.allowance.host
            if let place = groups.firstIndex(where: { $0.words == words }) {
                groups[place].ranks.append(rank)
                if groups[place].hosts.last != host, !groups[place].hosts.contains(host) {
                    groups[place].hosts.append(host)
                }
            } else {
                groups.append(([host], [rank], words))
            }
        }
        let shown = groups.prefix(6).map { group in
            let place = group.hosts.count == 1 ? group.hosts[0] : "\(group.hosts.count) hosts"
            return "rank\(group.ranks.count == 1 ? "" : "s") \(list(group.ranks)) (\(place)): \(group.words)"
        }
        return shown.joined(separator: "; ") + (groups.count > 6 ? "; and \(groups.count - 6) more kinds" : "")
    }

    /// What is wrong with it, once for the job: threads that outnumber the processors that they may run on, or the time
    /// that a control group allows; nil where nothing is.
    package static func crowding(_ all: [Binding]) -> String? {
        for host in Set(all.map(\.allowance.host)).sorted() {
            let ranks = all.indices.filter { all[$0].allowance.host == host }
            // Ranks that share a mask, or whose masks overlap, share its processors.
            var processors = Set<Int>()
            for rank in ranks { processors.formUnion(all[rank].allowance.mask.processors) }
            let threads = ranks.reduce(0) { $0 + all[$1].threads }
            if let rank = ranks.first(where: { all[$0].threads > all[$0].allowance.mask.processors.count }) {
                let own = all[rank].allowance.mask.processors.count
                return
                    "the \(all[rank].threads) threads of rank \(rank) on \(host) share \(own) processor\(own == 1 ? "" : "s"): "
                    + "fewer --threads, or a wider binding (mpirun --bind-to none, --map-by slot:PE=n; srun --cpus-per-task=n)"
            }
            if threads > processors.count {
                return
                    "the \(threads) threads of \(ranks.count) ranks on \(host) share \(processors.count) "
                    + "processor\(processors.count == 1 ? "" : "s"): fewer ranks or --threads are as fast, or faster"
            }
            for quota in Set(ranks.flatMap { all[$0].allowance.quotas.map(\.group) }) {
                let members = ranks.filter { all[$0].allowance.quotas.contains { $0.group == quota } }
                let threads = members.reduce(0) { $0 + all[$1].threads }
                guard let limit = all[members[0]].allowance.quotas.first(where: { $0.group == quota })?.processors,
                    Double(threads) > limit.rounded(.up), threads > 1
                else { continue }
                return
                    "the \(threads) threads of \(members.count) rank\(members.count == 1 ? "" : "s") on \(host) may take the time of "
                    + String(format: "%.2f", limit)
                    + " processors (the quota of a control group): fewer --threads, or a larger quota"
            }
        }
        return nil
    }
}
