// `annulus classify`: documents to labels.

import ArgumentParser
import Checkpoints
import Encoders
import Foundation
import RingAttention

struct Classify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Classify documents.",
        discussion: """
            One JSON line a document: `label` and `score` as in the text-classification pipeline of transformers, and `logits`. \
            Where labels are given, as `label` of a jsonl object or one a line in --labels, `loss` too: cross entropy for an \
            index or a name, binary cross entropy for a list of numbers, mean squared error for a regression, as the model's \
            problem_type says. A jsonl object may hold a second text, `text_pair`.
            """)

    @OptionGroup var options: TaskOptions

    @Option(help: "The true labels, one a line for each document: an index, a name, or a JSON list of numbers.")
    var labels: String?

    func run() throws {
        let command = self
        try Session.run(options.spread) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let task = try TaskJob(.sequenceClassification, options, session)
        session.logHeader("classify \(options.model.model)")
        let truth: [Label?] = try session.agree { session.isRoot ? try trueLabels(task) : [] }
        try task.run(try task.encodings()) { run, items in
            let spans = items.indices.map { Span(sequence: $0 - items.lowerBound, tokens: 0..<run.sharding.numbering.lengths[$0 - items.lowerBound]) }
            let mine = try run.pool(spans, mode: task.head.pooling, transport: session.transport).map { entry in
                (span: entry.span, vector: task.head.logits(rows: 1, entry.vector, width: entry.vector.count))
            }
            return try session.gather(mine).map { span, logits in
                line(logits, truth: truth.isEmpty ? nil : truth[items.lowerBound + span], task.labels)
            }.joined()
        }
    }

    private func line(_ logits: [Float], truth: Label?, _ labels: LabelSet) -> String {
        let scores = labels.scores(logits)
        var best = 0
        for index in scores.indices where scores[index] > scores[best] { best = index }
        let loss = truth.flatMap { labels.loss(logits, $0) }.map { ", \"loss\": \(JSONText.number($0))" } ?? ""
        return "{\"label\": \(JSONText.string(labels.names[best])), \"score\": \(JSONText.number(scores[best])), "
            + "\"logits\": \(JSONText.floats(logits))\(loss)}\n"
    }

    /// The label of each document; none where none has one.
    private func trueLabels(_ task: TaskJob) throws -> [Label?] {
        guard let path = labels else {
            let found = try task.documents.map { document in
                try document.label.map { try label($0, task.labels, at: document.source) }
            }
            return found.allSatisfy { $0 == nil } ? [] : found
        }
        var lines = String(decoding: try FileBytes.read(path: path), as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        guard lines.count == task.documents.count else {
            throw FileError(.malformed, path: path, "has \(lines.count) lines for \(task.documents.count) documents; give one a line")
        }
        return try lines.enumerated().map { number, line in
            let place = "\(path):\(number + 1)"
            let text = line.hasSuffix("\r") ? line.dropLast() : line
            let value = (try? JSON.parse(Array(text.utf8), path: place)) ?? .string(String(text))
            return try label(value, task.labels, at: place)
        }
    }

    private func label(_ value: JSON, _ labels: LabelSet, at place: String) throws -> Label {
        let result: Label?
        if let list = value.array {
            let numbers = list.compactMap(\.double)
            result = numbers.count == list.count ? .values(numbers) : nil
        } else if case .integer(let index) = value {
            result = .index(index)
        } else if let number = value.double {
            result = .values([number])
        } else {
            result = value.string.flatMap { labels.names.firstIndex(of: $0) }.map { .index($0) }
        }
        guard let result, labels.loss(Array(repeating: 0, count: labels.names.count), result) != nil else {
            throw FileError(
                .malformed, path: place,
                "the label fits no \(labels.problem?.rawValue ?? "problem") of \(labels.names.count) labels (\(labels.names.prefix(5).joined(separator: ", ")))")
        }
        return result
    }
}
