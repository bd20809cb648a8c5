// What ranks compare before the first message of the work: what they have read.

import Files
import Foundation
import Plans
import RingAttention
import Tiles

extension RankGroup {
    /// Refuses ranks whose copies of a file differ. Only files that are not evidently one are read, by the ranks that
    /// have the same one in turn. Collective.
    /// - Throws: `AgreedFailure` with the error that `refusal` makes of the ranks that differ from the first, and of
    ///   that one.
    package func compareCopies(of path: String, refusal: (_ others: String, _ first: String) -> JobError) throws {
        if size == 1 || isVirtual { return }
        let mine = try agree { try FileBytes.identity(path: path) }
        var message = Message()
        for value in [Int(truncatingIfNeeded: mine.number), mine.byteCount, mine.modified, mine.changed] {
            message.write(value)
        }
        let identities = try transport.allGather(message.bytes)
        guard identities.contains(where: { $0 != identities[0] }) else { return }
        let mates = identities.indices.filter { identities[$0] == message.bytes }
        let part = mates.firstIndex(of: rank.index) ?? 0
        let digest = try agree {
            try FileBytes.digest(path: path, part: part, of: mates.count) { monitor.progress() }
        }
        var found = Message()
        found.write(Int(truncatingIfNeeded: digest))
        found.write(mine.byteCount)
        let digests = try transport.allGather(found.bytes).map { bytes in
            var told = Message(bytes)
            return (sum: told.readInt(), byteCount: told.readInt())
        }
        func whole(_ rank: Int) -> [Int] {
            [
                identities.indices.filter { identities[$0] == identities[rank] }.reduce(0) { $0 &+ digests[$1].sum },
                digests[rank].byteCount,
            ]
        }
        let first = whole(0)
        let others = identities.indices.filter { identities[$0] != identities[0] && whole($0) != first }
        if others.isEmpty { return }
        let places = try places()
        try agree { throw refusal(places.text(others), places.text([0])) }
    }
}

extension Session {
    /// Runs `work`, which reads files or a model, on every rank; agrees on its outcome, and that all have read the
    /// same. Collective.
    /// - Parameters:
    ///   - name: what it is that is read.
    ///   - nodes: which ranks share what they read into `WeightStorage`; none where nil.
    /// - Throws: `AgreedFailure`, also with status 65 where copies differ.
    package func agreeReading<Value>(
        as name: String = "other files", among nodes: Topology? = nil, _ work: () throws -> Value
    ) throws -> Value {
        let notes = ReadNotes()
        let value = try agree { try ReadNotes.$current.withValue(notes, operation: work) }
        let digest = try compare(Readings(notes), among: nodes ?? Topology(separate: transport.size))
        if let place = readings.firstIndex(where: { $0.name == name }) {
            readings[place].digest = readings[place].digest &* 0x100_0000_01B3 &+ digest
        } else {
            readings.append((name, digest))
        }
        return value
    }

    /// - Returns: a digest of what the ranks have read.
    private func compare(_ mine: Readings, among nodes: Topology) throws -> UInt64 {
        var message = Message()
        for value in [mine.own, mine.shared, UInt64(mine.notFinite.count)] {
            message.write(Int(truncatingIfNeeded: value))
        }
        let sums = try transport.allGather(message.bytes).map { bytes in
            var told = Message(bytes)
            return (own: told.readInt(), shared: told.readInt(), notFinite: told.readInt())
        }
        /// What the ranks of a rank's node have read together.
        func ofNode<Number: FixedWidthInteger>(_ rank: Int, _ part: (Int) -> Number) -> Number {
            nodes.mates(of: Rank(rank)).reduce(0) { $0 &+ part($1) }
        }
        let first = (sums[0].own, ofNode(0) { sums[$0].shared })
        if sums.indices.contains(where: { (sums[$0].own, ofNode($0) { sums[$0].shared }) != first }) {
            let all = try transport.allGather(mine.message.bytes).map { Readings.list(Message($0)) }
            let places = try group.places()
            try agree {
                let names = Set(all.flatMap(\.keys)).sorted {
                    ($0.hasPrefix("tensor ") ? 1 : 0, $0) < ($1.hasPrefix("tensor ") ? 1 : 0, $1)
                }
                let differences = names.compactMap { name -> (name: String, ranks: [Int])? in
                    func value(_ rank: Int) -> [UInt64] {
                        [all[rank][name]?.own ?? 0, ofNode(rank) { all[$0][name]?.shared ?? 0 }]
                    }
                    let first = value(0)
                    let ranks = all.indices.filter { value($0) != first }
                    return ranks.isEmpty ? nil : (name, ranks)
                }
                guard let difference = differences.first else { return }
                throw JobError(
                    .badInput,
                    "\(difference.name): the copy on \(places.text(difference.ranks)) is another than that on \(places.text([0]))"
                        + (differences.count > 1 ? ", and \(differences.count - 1) more differ" : "")
                        + "; give all ranks the same files")
            }
        }
        if sums.contains(where: { $0.notFinite > 0 }) {
            let names = Set(
                try transport.allGather(Array(mine.notFinite.joined(separator: "\0").utf8)).flatMap {
                    String(decoding: $0, as: UTF8.self).split(separator: "\0").map(String.init)
                }
            ).sorted()
            warn(
                "the weights hold infinities or NaN, in "
                    + names.prefix(3).map { "tensor '\($0)'" }.joined(separator: ", ")
                    + (names.count > 3 ? " and \(names.count - 3) more" : "")
                    + "; `annulus verify` counts them")
        }
        return UInt64(bitPattern: Int64(first.0 &+ first.1))
    }
}

/// What a rank has read, file by file and tensor by tensor.
private struct Readings {
    private let entries: [(name: String, digests: ReadNotes.Tensor)]
    let notFinite: [String]

    init(_ notes: ReadNotes) {
        let files = notes.files
        // Copies lie in folders of their own: files go by their names below that.
        let paths = files.keys.map { $0.split(separator: "/", omittingEmptySubsequences: false) }
        var common = paths.map { $0.count - 1 }.min() ?? 0
        for path in paths { while common > 0, path[..<common] != paths[0][..<common] { common -= 1 } }
        var entries: [(name: String, digests: ReadNotes.Tensor)] = []
        for (path, digest) in files {
            let name = path.split(separator: "/", omittingEmptySubsequences: false)[common...].joined(separator: "/")
            entries.append((name, ReadNotes.Tensor(own: digest)))
        }
        for (name, digests) in notes.tensors { entries.append(("tensor '\(name)'", digests)) }
        self.entries = entries
        notFinite = notes.notFinite
    }

    /// FNV-1a.
    private static func hash(_ name: String) -> UInt64 {
        name.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 } | 1
    }

    /// A sum over what the rank has read for itself.
    var own: UInt64 { entries.reduce(0) { $0 &+ Self.hash($1.name) &* $1.digests.own } }

    /// A sum over what it has read for its node, which adds up over the node.
    var shared: UInt64 { entries.reduce(0) { $0 &+ Self.hash($1.name) &* $1.digests.shared } }

    var message: Message {
        var message = Message()
        for (name, digests) in entries {
            message.write(name)
            for digest in [digests.own, digests.shared] { message.write(Int(truncatingIfNeeded: digest)) }
        }
        return message
    }

    static func list(_ message: Message) -> [String: ReadNotes.Tensor] {
        var message = message
        var entries: [String: ReadNotes.Tensor] = [:]
        while !message.isAtEnd {
            let name = message.readString()
            entries[name] = ReadNotes.Tensor(
                own: UInt64(bitPattern: Int64(message.readInt())), shared: UInt64(bitPattern: Int64(message.readInt())))
        }
        return entries
    }
}
