// What ranks compare before anything else: what was asked for, and the program.

import ArgumentParser
import Foundation
import Pipelines

/// A command's verb and options, as ranks compare them.
struct AskedOptions: Sendable {
    private let values: [(name: String, value: String)]

    /// What may differ: it changes no bit and no plan. What files hold is compared, not where they are.
    private static let free: Set<String> = [
        "threads", "watchdog", "progress", "quiet", "force", "output", "input", "model", "labels", "cluster",
        "trace", "summary", "log-dir",
    ]

    /// What changes no bit of the output, and may be another when a job is continued.
    private static let mayChange: Set<String> = [
        "--strategy", "--layout", "--virtual-ranks", "--ranks-per-node", "--resume", "--save-seconds",
        "--save-steps", "--save-total-limit", "--logging-dir", "--gradient-accumulation-steps",
    ]

    /// What of the command changes its output, beside what files hold.
    var facts: [Journal.Fact] {
        values.filter { !Self.mayChange.contains($0.name) }.map { Journal.Fact($0.name, $0.value) }
    }

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

extension RankGroup {
    /// Refuses ranks that were asked for different things, or that run different builds. Collective.
    /// - Throws: `AgreedFailure` with status 78.
    func compareStart(_ asked: AskedOptions) throws {
        if size == 1 || isVirtual { return }
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
}
