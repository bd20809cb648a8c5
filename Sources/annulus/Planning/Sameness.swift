// What ranks compare before the first message of the work: what was asked for, the program, and what they have read.

import ArgumentParser
import Checkpoints
import Foundation
import Plans
import RingAttention
import Tiles

/// A command's verb and options, as ranks compare them.
struct AskedOptions: Sendable {
    private let values: [(name: String, value: String)]

    /// What may differ: it changes no bit and no plan. What files hold is compared, not where they are.
    private static let free: Set<String> = [
        "threads", "watchdog", "progress", "quiet", "force", "output", "input", "model", "labels", "cluster",
    ]

    init(_ command: some ParsableCommand) {
        let kind = type(of: command)
        values =
            [(name: "the verb", value: kind.configuration.commandName ?? "\(kind)".lowercased())]
            + Self.options(of: command)
    }

    /// Every option, flag and argument of a command and of its groups.
    private static func options(of group: Any) -> [(name: String, value: String)] {
        Mirror(reflecting: group).children.flatMap { child -> [(name: String, value: String)] in
            guard let label = child.label, let option = child.value as? any ParsedOption else { return [] }
            if let group = option.parsed as? any ParsableArguments { return options(of: group) }
            let name = spelled(label)
            return free.contains(name)
                ? [] : [(name: option.isNamed ? "--" + name : "the " + name, value: text(option.parsed))]
        }
    }

    /// An option's name by that of its property: `_truncateDim` is truncate-dim.
    private static func spelled(_ label: String) -> String {
        let words = label.drop { $0 == "_" }.reduce(into: "") {
            $0 += $1.isUppercase ? "-" + $1.lowercased() : String($1)
        }
        return words == "asked-layout" ? "layout" : words
    }

    /// A value as one writes it; empty where none is given.
    private static func text(_ value: Any) -> String {
        let mirror = Mirror(reflecting: value)
        if mirror.displayStyle == .optional { return mirror.children.first.map { text($0.value) } ?? "" }
        return (value as? any ExpressibleByArgument)?.defaultValueDescription ?? "\(value)"
    }

    var message: Message {
        var message = Message()
        for (name, value) in values {
            message.write(name)
            message.write(value)
        }
        return message
    }

    /// What the ranks of a job differ in, in words; nil where all were asked for the same.
    static func difference(_ all: [[UInt8]], _ places: Places) -> String? {
        let asked = all.map { bytes -> [String: String] in
            var told = Message(bytes)
            var values: [String: String] = [:]
            while !told.isAtEnd { values[told.readString()] = told.readString() }
            return values
        }
        func shown(_ value: String?) -> String { value.map { $0.isEmpty ? "not given" : "'\($0)'" } ?? "unknown" }
        let names = Set(asked.flatMap(\.keys)).sorted {
            ($0.hasPrefix("--") ? 1 : 0, $0) < ($1.hasPrefix("--") ? 1 : 0, $1)
        }
        for name in names {
            let others = asked.indices.filter { asked[$0][name] != asked[0][name] }
            guard let first = others.first else { continue }
            return
                "\(name) is \(shown(asked[first][name])) on \(places.text(others)), and \(shown(asked[0][name])) on \(places.text([0])); "
                + "start all ranks with the same options"
        }
        return nil
    }
}

/// An option, flag, argument or group of options, once the command line is parsed.
private protocol ParsedOption {
    var parsed: Any { get }
    var isNamed: Bool { get }
}

extension Option: ParsedOption {
    fileprivate var parsed: Any { wrappedValue }
    fileprivate var isNamed: Bool { true }
}

extension Flag: ParsedOption {
    fileprivate var parsed: Any { wrappedValue }
    fileprivate var isNamed: Bool { true }
}

extension Argument: ParsedOption {
    fileprivate var parsed: Any { wrappedValue }
    fileprivate var isNamed: Bool { false }
}

extension OptionGroup: ParsedOption {
    fileprivate var parsed: Any { wrappedValue }
    fileprivate var isNamed: Bool { true }
}

/// Ranks and the hosts they run on, in words.
struct Places {
    let hosts: [String]

    func text(_ ranks: [Int]) -> String {
        guard ranks.count > 1 else { return ranks.first.map { "rank \($0) on \(hosts[$0])" } ?? "no rank" }
        let shown = ranks.prefix(3).map { "\($0) on \(hosts[$0])" }.joined(separator: ", ")
        return "ranks " + shown + (ranks.count > 3 ? " and \(ranks.count - 3) more" : "")
    }
}

extension JobContext {
    /// The hosts of all ranks. Collective.
    fileprivate func places() throws -> Places {
        Places(hosts: try transport.allGather(Array(LocalHost.name.utf8)).map { String(decoding: $0, as: UTF8.self) })
    }

    /// Runs `work` on every rank and agrees on its outcome, errors of files being what they are. Collective.
    func agreeOnFiles<Value>(_ work: () throws -> Value) throws -> Value {
        try agree {
            do {
                return try work()
            } catch let error as FileError {
                throw JobError(ExitStatus(rawValue: error.exitStatus) ?? .internal, error.description)
            }
        }
    }

    /// Refuses ranks that were asked for different things, or that run different builds. Collective.
    /// - Throws: `AgreedFailure` with status 78.
    func compareStart(_ asked: AskedOptions) throws {
        if size == 1 || options.virtualRanks != nil { return }
        // Another build may have other options.
        #if os(Linux)
        let program = "/proc/self/exe"
        #else
        let program = Bundle.main.executablePath ?? CommandLine.arguments[0]
        #endif
        try compareCopies(of: program) { others, first in
            JobError(
                .environment,
                "the program on \(others) is another build than that on \(first); run one build of annulus on all ranks"
            )
        }
        let all = try transport.allGather(asked.message.bytes)
        if all.contains(where: { $0 != all[0] }) {
            let places = try places()
            try agree {
                if let difference = AskedOptions.difference(all, places) { throw JobError(.environment, difference) }
            }
        }
    }

    /// Refuses ranks whose copies of a file differ. Only files that are not evidently one are read, by the ranks that
    /// have the same one in turn. Collective.
    /// - Throws: `AgreedFailure` with the error that `refusal` makes of the ranks that differ from the first, and of
    ///   that one.
    func compareCopies(of path: String, refusal: (_ others: String, _ first: String) -> JobError) throws {
        if size == 1 || options.virtualRanks != nil { return }
        let mine = try agreeOnFiles { try FileBytes.identity(path: path) }
        var message = Message()
        for value in [Int(truncatingIfNeeded: mine.number), mine.byteCount, mine.modified, mine.changed] {
            message.write(value)
        }
        let identities = try transport.allGather(message.bytes)
        guard identities.contains(where: { $0 != identities[0] }) else { return }
        let mates = identities.indices.filter { identities[$0] == message.bytes }
        let part = mates.firstIndex(of: rank.index) ?? 0
        let digest = try agreeOnFiles {
            try FileBytes.digest(path: path, part: part, of: mates.count) { watchdog.progress() }
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
    /// - Parameter nodes: which ranks share what they read into `WeightStorage`; none where nil.
    /// - Throws: `AgreedFailure`, also with status 65 where copies differ.
    func agreeReading<Value>(among nodes: Topology? = nil, _ work: () throws -> Value) throws -> Value {
        let notes = ReadNotes()
        let value = try agree { try ReadNotes.$current.withValue(notes, operation: work) }
        try compare(Readings(notes), among: nodes ?? Topology(separate: transport.size))
        return value
    }

    private func compare(_ mine: Readings, among nodes: Topology) throws {
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
            let places = Places(hosts: try hostNames())
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
