// Documents to labels.

import Checkpoints
import Files
import Foundation
import RingAttention
import Transformers

/// Labels of documents with their scores, and the loss where the true labels are known.
package struct Classification: Sendable {
    /// A file of true labels, one a line.
    package var labels: String?
    /// How many labels a document; nil: the best one alone.
    package var topK: Int?

    package init() {}

    /// Classifies every document. Collective.
    package func run(model: String, input: DocumentInput, output: LineDestination, _ session: Session) throws {
        let task = try TaskPipeline(.sequenceClassification, model: model, input: input, output: output, session)
        let labels = try session.agree {
            let folder = task.model.folder
            guard folder.kind != .crossEncoder || folder.defaultPrompt.isEmpty else {
                throw FileError(
                    .malformed, path: folder.path + "/config_sentence_transformers.json",
                    "names a default prompt for a cross-encoder, which is not supported")
            }
            return task.labels
        }
        try session.logHeader("classify \(model)", encodes: true)
        let listed = try session.agree { session.isRoot ? try listedLabels(labels) : nil }
        var misfits = Misfits()
        var count = task.documentsBefore
        try task.forEachPortion { portion in
            count = portion.first + portion.documents.count
            let truth: [Label?] = try session.agree {
                session.isRoot ? try trueLabels(portion, listed, labels, &misfits) : []
            }
            try task.run(try task.encodings(portion.documents), of: portion) { run, items in
                let spans = items.indices.map {
                    Span(
                        sequence: $0 - items.lowerBound,
                        tokens: 0..<run.sharding.numbering.lengths[$0 - items.lowerBound])
                }
                let mine = try run.pool(spans, mode: task.head.pooling, transport: session.transport).map { entry in
                    (span: entry.span, vector: task.head.logits(rows: 1, entry.vector))
                }
                return try session.gather(mine).map { span, logits in
                    line(logits, truth: truth.isEmpty ? nil : truth[items.lowerBound + span], labels)
                }.joined()
            }
        }
        if let text = misfits.text(labels) { session.log.warning("\(text)") }
        try session.agree {
            if let path = self.labels, let listed, listed.count > count {
                throw FileError(
                    .malformed, path: path, "has \(listed.count) lines for \(count) documents; give one a line")
            }
        }
    }

    private func line(_ logits: [Float], truth: Label?, _ labels: LabelSet) -> String {
        let scores = labels.scores(logits)
        let order = scores.indices.sorted { (scores[$1], $0) < (scores[$0], $1) }
        func fields(_ index: Int) -> String {
            "\"label\": \(JSONText.string(labels.names[index])), \"score\": \(JSONText.number(scores[index]))"
        }
        let loss = truth.flatMap { labels.loss(logits, $0) }.map { ", \"loss\": \(JSONText.number($0))" } ?? ""
        let first = "{\(fields(order[0])), \"logits\": \(JSONText.floats(logits))\(loss)}"
        guard let topK else { return first + "\n" }
        return "[" + ([first] + order.prefix(topK).dropFirst().map { "{\(fields($0))}" }).joined(separator: ", ")
            + "]\n"
    }

    /// The labels of --labels; nil where it is not given.
    private func listedLabels(_ labels: LabelSet) throws -> [Label]? {
        guard let path = self.labels else { return nil }
        var lines = String(decoding: try FileBytes.read(path: path), as: UTF8.self).split(
            separator: "\n", omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        return try lines.enumerated().map { number, line in
            let place = "\(path):\(number + 1)"
            let text = line.hasSuffix("\r") ? line.dropLast() : line
            let value = (try? JSON.parse(Array(text.utf8), path: place)) ?? .string(String(text))
            return try label(value, labels, at: place)
        }
    }

    /// The label of each document of a portion; none where none has one.
    private func trueLabels(
        _ portion: DocumentStream.Portion, _ listed: [Label]?, _ labels: LabelSet, _ misfits: inout Misfits
    ) throws -> [Label?] {
        guard let listed, let path = self.labels else {
            let found = portion.documents.map { document -> Label? in
                guard let value = document.label else { return nil }
                let found = label(value, labels)
                if found == nil { misfits.add(document.source) }
                return found
            }
            return found.allSatisfy { $0 == nil } ? [] : found
        }
        guard listed.count >= portion.first + portion.documents.count else {
            throw FileError(
                .malformed, path: path, "has \(listed.count) lines, and there are more documents; give one a line")
        }
        return Array(listed[portion.first..<portion.first + portion.documents.count])
    }

    private func label(_ value: JSON, _ labels: LabelSet, at place: String) throws -> Label {
        guard let label = label(value, labels) else {
            throw FileError(.malformed, path: place, "the label fits no \(Self.kind(labels))")
        }
        return label
    }

    /// What a value means as a label; nil where it fits none.
    private func label(_ value: JSON, _ labels: LabelSet) -> Label? {
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
        guard let result, labels.loss(Array(repeating: 0, count: labels.names.count), result) != nil else { return nil }
        return result
    }

    fileprivate static func kind(_ labels: LabelSet) -> String {
        "\(labels.problem?.rawValue ?? "problem") of \(labels.names.count) labels (\(labels.names.prefix(5).joined(separator: ", ")))"
    }
}

/// Labels of the input that are none of the model's: their documents are classified all the same, without a loss.
private struct Misfits {
    private var count = 0
    private var first: String?

    mutating func add(_ source: String) {
        count += 1
        first = first ?? source
    }

    /// What is said of them in the end; nil where there are none.
    func text(_ labels: LabelSet) -> String? {
        first.map { first in
            "\(count == 1 ? "1 label fits" : "\(count) labels fit") no \(Classification.kind(labels)), and no loss is given there; the first: \(first)"
        }
    }
}
