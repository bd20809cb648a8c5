// The examples of a training: files of texts and JSON lines as tokens and targets, known to every rank.

import Files
import Foundation
import RingAttention
import Tokenization
import Training
import Transformers

/// A text of an example as the model reads it.
struct ExampleText: Sendable, Equatable {
    var ids: [Int32]
    /// Which of two texts each token is of; nil for a single one.
    var typeIds: [Int32]?
    /// By token: the number of its word, negative for a special token, where tokens are masked; its label, negative where
    /// it has none, where tokens have labels; else nothing.
    var marks: [Int32] = []
}

/// What an example teaches.
enum ExampleTarget: Sendable, Equatable {
    /// What its tokens say: masked ones, or their labels.
    case tokens
    case label(Int)
    case values([Float])
    /// That its two texts are alike: how much, where that is known.
    case pair(score: Float?)
}

/// An example of a training.
struct TrainingExample: Sendable {
    /// Where it came from, as messages name it.
    var source: String
    /// One text, or the two of a pair that are compared.
    var texts: [ExampleText]
    var target: ExampleTarget

    var tokenCount: Int { texts.reduce(0) { $0 + $1.ids.count } }
}

/// The examples of a task, and what their labels are called.
struct TrainingSet: Sendable {
    let kind: TrainingKind
    var examples: [TrainingExample]
    /// By their numbers; none where the kind has none.
    var labels: [String]

    /// Whether these are pairs that have scores.
    var isScored: Bool {
        examples.contains { if case .pair(.some) = $0.target { true } else { false } }
    }
}

/// Reads examples. All its functions are collective.
struct ExampleReader {
    let session: Session
    let tokenizer: Tokenizer
    /// Tokens that a text may have, special ones included.
    let limit: Int
    let truncation: Truncation
    let textField: String
    let format: InputFormat?

    /// The examples of a file.
    /// - Parameter names: those of the labels, where the model has them; none: in the order of first appearance.
    func read(_ file: TrainingFile, names: [String]) throws -> TrainingSet {
        session.monitor.progress(.reading)
        if file.kind == .maskedLanguage { return try texts(file) }
        let lines = try lines(file.paths)
        let parsed = try session.agree {
            try lines.map { line in
                (source: line.source, json: try JSON.parse(line.bytes, path: line.source))
            }
        }
        let labels = try session.agree {
            names.isEmpty ? try LabelNames.found(in: parsed, file.kind, textField) : names
        }
        let numbers = Dictionary(uniqueKeysWithValues: labels.enumerated().map { ($1, $0) })
        let targets = try session.agree {
            try parsed.map {
                try LabelNames.target(of: $0.json, file.kind, numbers, textField, source: $0.source)
            }
        }
        let texts = try tokenized(parsed.count) { number throws(FileError) in
            try self.texts(of: parsed[number].json, file.kind, numbers, source: parsed[number].source)
        }
        let named = labels.isEmpty ? "" : ", labels \(labels.joined(separator: ", "))"
        session.log.notice(
            "\(file.kind.rawValue): \(parsed.count) examples of \(file.paths.joined(separator: ", "))\(named)"
        )
        return TrainingSet(
            kind: file.kind,
            examples: parsed.indices.map {
                TrainingExample(source: parsed[$0].source, texts: texts[$0], target: targets[$0])
            }, labels: labels)
    }

    // MARK: - Texts to be masked

    /// Windows of texts: each document cut into as many as it takes, each with its own special tokens.
    private func texts(_ file: TrainingFile) throws -> TrainingSet {
        var input = DocumentInput(paths: file.paths)
        input.format = format
        input.textField = textField
        let stream = DocumentStream(input, session)
        var examples: [TrainingExample] = []
        while let portion = try stream.next() {
            session.monitor.progress(.tokenizing)
            let windows = try tokenized(portion.documents.count) { number throws(FileError) in
                try self.windows(of: portion.documents[number])
            }
            for (document, windows) in zip(portion.documents, windows) {
                examples += windows.map {
                    TrainingExample(source: document.source, texts: [$0], target: .tokens)
                }
            }
        }
        session.log.notice(
            "mlm: \(examples.count) windows of up to \(limit) tokens of \(file.paths.joined(separator: ", "))"
        )
        return TrainingSet(kind: .maskedLanguage, examples: examples, labels: [])
    }

    private func windows(of document: Document) throws(FileError) -> [ExampleText] {
        try document.refusePair("masked texts are single ones")
        let (prefix, suffix) = (tokenizer.prefixIds, tokenizer.suffixIds)
        var body: (ids: [Int32], words: [Int32])
        switch document.content {
        case .text(let text):
            let encoding = tokenizer.encode(text, addSpecialTokens: false)
            body = (encoding.ids, encoding.words)
        case .ids(var ids):
            // Special tokens are in place: windows get their own.
            if ids.starts(with: prefix) { ids.removeFirst(prefix.count) }
            if ids.reversed().starts(with: suffix.reversed()) { ids.removeLast(suffix.count) }
            body = (ids, ids.indices.map { Int32($0) })
        }
        let room = max(1, limit - prefix.count - suffix.count)
        return stride(from: 0, to: body.ids.count, by: room).map { first in
            let part = first..<min(first + room, body.ids.count)
            return ExampleText(
                ids: prefix + body.ids[part] + suffix, typeIds: nil,
                marks: prefix.map { _ in -1 } + body.words[part] + suffix.map { _ in -1 })
        }
    }

    // MARK: - JSON lines

    /// The lines of files that are not blank, read by rank 0.
    private func lines(_ paths: [String]) throws -> [(source: String, bytes: [UInt8])] {
        var message = Message()
        try session.agree {
            guard session.isRoot else { return }
            for path in paths {
                var number = 0
                let bytes = try FileBytes.read(path: path)
                if let offset = UTF8Validation.firstInvalidByte(in: bytes[...]) {
                    throw FileError(
                        .malformed, path: path,
                        "byte \(offset) is not UTF-8; convert the file, for example with iconv -t utf-8")
                }
                for line in bytes.split(
                    separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
                {
                    number += 1
                    if line.allSatisfy({ $0 == 0x20 || (0x09...0x0D).contains($0) }) { continue }
                    message.write("\(path):\(number)")
                    message.write(String(decoding: line, as: UTF8.self))
                }
                if message.bytes.isEmpty { throw FileError(.malformed, path: path, "holds no example") }
            }
        }
        var told = Message(
            session.transport.size == 1
                ? message.bytes : try session.transport.allGather(message.bytes)[0])
        var lines: [(source: String, bytes: [UInt8])] = []
        while !told.isAtEnd { lines.append((told.readString(), Array(told.readString().utf8))) }
        return lines
    }

    /// The texts of a line.
    private func texts(
        of line: JSON, _ kind: TrainingKind, _ numbers: [String: Int], source: String
    ) throws(FileError) -> [ExampleText] {
        if kind == .entities { return [try labelled(line, numbers, source: source)] }
        guard let text = line[textField]?.string else {
            throw FileError(.malformed, path: source, "has no text in a field '\(textField)'")
        }
        let second = line["text_pair"].flatMap { $0.isNull ? nil : $0 }
        let pair = second?.string
        if let second, pair == nil {
            throw FileError(
                .malformed, path: source, "has \(second.kindName) in 'text_pair' where a text is needed")
        }
        if kind == .similarity {
            guard let pair else {
                throw FileError(.malformed, path: source, "has no 'text_pair' to compare with")
            }
            return [try encoded(text, nil, source), try encoded(pair, nil, source)]
        }
        return [try encoded(text, pair, source)]
    }

    private func encoded(_ text: String, _ pair: String?, _ source: String) throws(FileError)
        -> ExampleText
    {
        var encoding = pair.map { tokenizer.encode(text, pair: $0) } ?? tokenizer.encode(text)
        _ = try truncation.apply(to: &encoding, limit: limit, of: source)
        if encoding.ids.isEmpty { throw FileError(.malformed, path: source, "has no tokens") }
        return ExampleText(ids: encoding.ids, typeIds: pair == nil ? nil : encoding.typeIds)
    }

    /// A text with the labels of its tokens: words as they are given, each word's first token having its label; or spans
    /// of the text, whose tokens are labelled B-… and I-….
    private func labelled(_ line: JSON, _ numbers: [String: Int], source: String) throws(FileError)
        -> ExampleText
    {
        var (text, starts): (String, [Int: Int32]) = ("", [:])
        var spans: [(range: Range<Int>, first: Int32, rest: Int32)] = []
        var other: Int32 = -1
        if let tokens = line["tokens"]?.array {
            for (word, label) in zip(tokens, line["labels"]?.array ?? []) {
                if !text.isEmpty { text += " " }
                starts[text.unicodeScalars.count] = Int32(numbers[LabelNames.name(label) ?? ""] ?? -1)
                text += word.string ?? ""
            }
        } else {
            text = line[textField]?.string ?? ""
            other = Int32(numbers["O"] ?? -1)
            let length = text.unicodeScalars.count
            for (range, label) in try LabelNames.spans(of: line, source).sorted(by: {
                $0.0.lowerBound < $1.0.lowerBound
            }) {
                guard range.upperBound <= length else {
                    throw FileError(
                        .malformed, path: source,
                        "has an entity that ends at \(range.upperBound), and the text has \(length) characters")
                }
                if let last = spans.last?.range, last.overlaps(range) {
                    throw FileError(
                        .malformed, path: source,
                        "has entities that overlap, at \(range.lowerBound); a token has one label")
                }
                spans.append(
                    (range, Int32(numbers["B-" + label] ?? -1), Int32(numbers["I-" + label] ?? -1)))
            }
        }
        var encoding = tokenizer.encode(text)
        _ = try truncation.apply(to: &encoding, limit: limit, of: source)
        var begun = Set<Int>()
        let marks = encoding.ids.indices.map { index -> Int32 in
            if encoding.specialTokensMask[index] { return -1 }
            let offsets = encoding.offsets[index]
            if !starts.isEmpty {
                // The first token that begins at a word's start: byte-level ones may begin at the space before it.
                for start in [offsets.lowerBound, offsets.lowerBound + 1] {
                    guard start < max(offsets.upperBound, offsets.lowerBound + 1), let label = starts[start]
                    else {
                        continue
                    }
                    return begun.insert(start).inserted ? label : -1
                }
                return -1
            }
            guard let place = spans.firstIndex(where: { $0.range.overlaps(offsets) }) else {
                return other
            }
            return begun.insert(place).inserted ? spans[place].first : spans[place].rest
        }
        return ExampleText(ids: encoding.ids, typeIds: nil, marks: marks)
    }

    // MARK: - Sharing the work

    /// What `make` makes of so many examples, each by one rank, on every rank.
    private func tokenized(
        _ count: Int, _ make: (_ number: Int) throws(FileError) -> [ExampleText]
    ) throws -> [[ExampleText]] {
        let (transport, monitor) = (session.transport, session.monitor)
        var made = [[ExampleText]](repeating: [], count: count)
        let mine = stride(from: transport.rank.index, to: count, by: transport.size)
        try session.agree {
            for number in mine {
                made[number] = try make(number)
                monitor.progress()
            }
        }
        if transport.size == 1 { return made }
        var message = Message()
        for number in mine {
            message.write(number)
            message.write(made[number].count)
            for text in made[number] {
                message.write(text.ids)
                message.write(text.typeIds == nil ? 0 : 1)
                message.write(text.typeIds ?? [])
                message.write(text.marks)
            }
        }
        for bytes in try transport.allGather(message.bytes) {
            var told = Message(bytes)
            while !told.isAtEnd {
                let number = told.readInt()
                made[number] = (0..<told.readInt()).map { _ in
                    let ids = told.readIds()
                    let hasTypes = told.readInt() == 1
                    let typeIds = told.readIds()
                    return ExampleText(ids: ids, typeIds: hasTypes ? typeIds : nil, marks: told.readIds())
                }
            }
        }
        return made
    }
}

/// What the labels of examples are called, and what an example's own are.
enum LabelNames {
    /// A label as it is written: a string, a number or a truth value.
    static func name(_ value: JSON) -> String? {
        switch value {
        case .string(let text): text
        case .integer(let number): String(number)
        case .bool(let flag): String(flag)
        case .null, .number, .array, .object: nil
        }
    }

    /// The names of the labels of some lines, in the order of first appearance. Whole numbers, where all are such, are the
    /// labels' numbers, called `LABEL_0`, `LABEL_1`, ….
    /// - Throws: `FileError` naming a line that has none.
    static func found(
        in lines: [(source: String, json: JSON)], _ kind: TrainingKind, _ textField: String
    ) throws(FileError) -> [String] {
        var (names, seen): ([String], Set<String>) = ([], [])
        var (largest, areNumbers) = (-1, true)
        func add(_ value: JSON?, _ source: String, _ field: String) throws(FileError) {
            guard let value, let name = name(value) else {
                throw FileError(.malformed, path: source, "has no label in the field '\(field)'")
            }
            if case .integer(let number) = value, number >= 0 {
                largest = max(largest, number)
            } else {
                areNumbers = false
            }
            if seen.insert(name).inserted { names.append(name) }
        }
        switch kind {
        case .maskedLanguage, .similarity: return []
        case .regress: return ["LABEL_0"]
        case .classify:
            for line in lines { try add(line.json["label"], line.source, "label") }
        case .multiLabel:
            for line in lines {
                guard let labels = line.json["labels"]?.array else {
                    throw FileError(
                        .malformed, path: line.source, "has no list of labels in the field 'labels'")
                }
                for label in labels { try add(label, line.source, "labels") }
            }
        case .entities:
            for line in lines {
                for label in try entityLabels(of: line.json, textField, line.source) {
                    try add(label, line.source, "labels")
                }
            }
        }
        guard !names.isEmpty else {
            throw FileError(.malformed, path: lines.first?.source ?? "", "no example has a label")
        }
        if kind == .classify, names.count == 1, !areNumbers || largest == 0 {
            throw FileError(
                .malformed, path: lines.first?.source ?? "",
                "all examples have the label '\(names[0])', and there is nothing to tell apart; a classifier needs two"
            )
        }
        guard areNumbers else { return names }
        guard largest < mostNumbers else {
            throw FileError(
                .malformed, path: lines.first?.source ?? "",
                "labels are numbers up to \(largest), and a model would have as many; write names in quotation marks"
            )
        }
        return (0...largest).map { "LABEL_\($0)" }
    }

    /// Labels that are whole numbers lie below.
    private static let mostNumbers = 1 << 16

    /// All labels that the tokens of a line may have.
    /// - Throws: `FileError` where the line has neither words with their labels nor a text with its entities.
    static func entityLabels(of line: JSON, _ textField: String, _ source: String) throws(FileError)
        -> [JSON]
    {
        if let tokens = line["tokens"]?.array {
            guard let labels = line["labels"]?.array, labels.count == tokens.count,
                tokens.allSatisfy({ $0.string != nil })
            else {
                throw FileError(
                    .malformed, path: source, "needs a string in 'tokens' for every label in 'labels'")
            }
            return labels
        }
        guard line[textField]?.string != nil, line["entities"]?.array != nil else {
            throw FileError(
                .malformed, path: source,
                "needs 'tokens' and 'labels', or '\(textField)' and 'entities' of start, end and label")
        }
        return try ["O"]
            + spans(of: line, source).flatMap { [.string("B-" + $0.label), .string("I-" + $0.label)] }
    }

    /// The entities of a text.
    static func spans(of line: JSON, _ source: String) throws(FileError) -> [(
        range: Range<Int>, label: String
    )] {
        var spans: [(range: Range<Int>, label: String)] = []
        for entity in line["entities"]?.array ?? [] {
            guard let label = entity["label"]?.string, let start = entity["start"]?.int,
                let end = entity["end"]?.int, 0 <= start, start < end
            else {
                throw FileError(.malformed, path: source, "has an entity without start, end and label")
            }
            spans.append((start..<end, label))
        }
        return spans
    }

    /// What a line teaches.
    /// - Throws: `FileError` naming the line whose label is none of those that are known.
    static func target(
        of line: JSON, _ kind: TrainingKind, _ numbers: [String: Int], _ textField: String,
        source: String
    ) throws(FileError) -> ExampleTarget {
        func number(_ value: JSON?) throws(FileError) -> Int {
            if case .integer(let index)? = value, numbers["LABEL_\(index)"] == index { return index }
            guard let value, let name = name(value), let found = numbers[name] else {
                let shown = value.flatMap(Self.name) ?? "nothing"
                throw FileError(.malformed, path: source, "the label '\(shown)' is none of the model's")
            }
            return found
        }
        switch kind {
        case .maskedLanguage: return .tokens
        case .entities:
            for label in try entityLabels(of: line, textField, source) { _ = try number(label) }
            return .tokens
        case .classify: return .label(try number(line["label"]))
        case .multiLabel:
            var values = [Float](repeating: 0, count: numbers.count)
            guard let labels = line["labels"]?.array else {
                throw FileError(.malformed, path: source, "has no list of labels in the field 'labels'")
            }
            for label in labels { values[try number(label)] = 1 }
            return .values(values)
        case .regress:
            guard let value = (line["label"] ?? line["score"])?.double else {
                throw FileError(.malformed, path: source, "has no number in the field 'label'")
            }
            return .values([Float(value)])
        case .similarity:
            guard let score = line["score"], !score.isNull else { return .pair(score: nil) }
            guard let value = score.double else {
                throw FileError(
                    .malformed, path: source, "has \(score.kindName) in 'score' where a number is needed")
            }
            return .pair(score: Float(value))
        }
    }
}
