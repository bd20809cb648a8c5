// Questions answered from documents.

import Files
import Foundation
import RingAttention
import Tokenization
import Transformers

/// The spans of documents that answer a question, with a model of extractive question answering.
///
/// As in the pipeline of transformers, a document is read in windows that overlap.
package struct Answering: Sendable {
    package var question: String
    /// How many answers a document.
    package var topK = 1
    /// The longest answer, in tokens.
    package var maxAnswerTokens = 15
    /// Tokens of a window: question, special tokens and a part of the document.
    package var windowTokens = 384
    /// Tokens that two windows share; nil: as the pipeline of transformers 4, half a window or 128.
    package var stride: Int?
    /// Whether no answer at all is among the answers, with the score that it has.
    package var allowsNone = false

    package init(question: String) { self.question = question }

    /// A part of a document behind the question.
    private struct Window {
        let document: Int
        let encoding: Encoding
    }

    /// An answer, in Unicode scalars of its document.
    private struct Found {
        let score: Float
        let start: Int
        let end: Int

        init(score: Float, start: Int, end: Int) {
            self.score = score
            self.start = start
            self.end = end
        }

        /// Bits of the score, start and end.
        init(_ numbers: [Int]) {
            self.init(
                score: Float(bitPattern: UInt32(truncatingIfNeeded: numbers[0])), start: numbers[1], end: numbers[2])
        }

        var numbers: [Int] { [Int(score.bitPattern), start, end] }
    }

    /// What the windows of a document that were read so far give.
    private struct Gathered {
        var answers: [Found] = []
        /// The least probability of a window that there is no answer.
        var none: Float?

        init() {}

        /// Of rows as ``rows`` gives them.
        init(_ rows: [[Int]]) {
            for found in rows.map({ Found($0) }) {
                if found.start < 0 { none = found.score } else { answers.append(found) }
            }
        }

        /// Each answer in numbers; what tells that there is none has no place.
        var rows: [[Int]] {
            answers.map(\.numbers) + (none.map { [Found(score: $0, start: -1, end: -1).numbers] } ?? [])
        }
    }

    /// The best answers, the best first, each with its place; of equal ones the first.
    private func best(of answers: [Found]) -> ArraySlice<(offset: Int, element: Found)> {
        answers.enumerated().sorted { ($1.element.score, $0.offset) < ($0.element.score, $1.offset) }.prefix(topK)
    }

    /// The line of a document whose windows are all read.
    private func line(_ gathered: Gathered, _ text: String) -> String {
        let none = Found(score: gathered.none ?? 0, start: 0, end: 0)
        let chosen = best(of: gathered.answers + (allowsNone ? [none] : [])).map { json($0.element, text) }
        if topK > 1 { return "[" + chosen.joined(separator: ", ") + "]\n" }
        return (chosen.first ?? json(Found(score: 0, start: 0, end: 0), text)) + "\n"
    }

    /// Answers the question from every document. Collective.
    package func run(model: String, input: DocumentInput, output: LineDestination, _ session: Session) throws {
        let task = try TaskPipeline(.questionAnswering, model: model, input: input, output: output, session)
        let tokenizer = try task.tokenizer()
        try session.logHeader("answer \(model)", encodes: true)
        try task.forEachPortion { portion in
            let windows = try session.agree { try split(portion.documents, task, tokenizer) }
            // What was found so far of a document whose windows span two batches, or two runs of the job.
            var open = Gathered(task.carried(into: portion))
            try task.run(windows.map(\.encoding), of: portion, owners: windows.map(\.document)) {
                run, items in
                let logits = try task.tokenLogits(run, items.count)
                if !session.isRoot { return "" }
                var lines = ""
                for number in items {
                    let window = windows[number]
                    gather(window.encoding, logits[number - items.lowerBound], into: &open)
                    if number + 1 < windows.count, windows[number + 1].document == window.document { continue }
                    let text = if case .text(let text) = portion.documents[window.document].content { text } else { "" }
                    lines += line(open, text)
                    open = Gathered()
                }
                // Of those that are not among the best already, none will be.
                open.answers = best(of: open.answers).sorted { $0.offset < $1.offset }.map(\.element)
                task.carry(open.rows)
                return lines
            }
        }
    }

    private func split(_ documents: [Document], _ task: TaskPipeline, _ tokenizer: Tokenizer) throws -> [Window] {
        let limit = min(windowTokens, task.encoding.maximumLength)
        let stride = self.stride ?? min(limit / 2, 128)
        var windows: [Window] = []
        for (number, document) in documents.enumerated() {
            guard case .text(let text) = document.content else {
                throw FileError(.malformed, path: document.source, "holds token ids; answer needs text")
            }
            try document.refusePair("the question comes with the command")
            let whole = tokenizer.encode(question, pair: text)
            let context = whole.sequences.indices.filter { whole.sequences[$0] == 1 }
            guard let first = context.first, let last = context.last else {
                throw FileError(.malformed, path: document.source, "has no tokens to answer from")
            }
            let (before, after) = (Array(0..<first), Array(last + 1..<whole.count))
            let room = limit - before.count - after.count
            guard room > 0, room >= context.count || room > stride else {
                throw JobError(
                    .usage,
                    "the question takes \(before.count) tokens, which leaves no room in windows of \(limit) that share \(stride)"
                )
            }
            var start = 0
            while true {
                let end = min(start + room, context.count)
                windows.append(
                    Window(document: number, encoding: whole.selecting(before + context[start..<end] + after)))
                if end == context.count { break }
                start += room - stride
            }
        }
        return windows
    }

    /// Adds the answers of one window, widened to whole words.
    private func gather(_ window: Encoding, _ logits: [Float], into gathered: inout Gathered) {
        let (starts, ends) = (window.ids.indices.map { logits[2 * $0] }, window.ids.indices.map { logits[2 * $0 + 1] })
        let answers = answerSpans(
            starts: starts, ends: ends, isContext: window.sequences.map { $0 == 1 },
            first: window.sequences.first == -1 ? 0 : nil,
            maximumTokens: maxAnswerTokens, count: topK)
        if let none = answers.none { gathered.none = min(gathered.none ?? none, none) }
        gathered.answers += answers.spans.map { span in
            func word(_ token: Int) -> Range<Int> {
                let tokens = window.ids.indices.filter {
                    window.sequences[$0] == 1 && window.words[$0] == window.words[token]
                }
                return window.offsets[tokens.first ?? token]
                    .lowerBound..<window.offsets[tokens.last ?? token].upperBound
            }
            return Found(
                score: span.score, start: word(span.tokens.lowerBound).lowerBound,
                end: word(span.tokens.upperBound).upperBound)
        }
    }

    private func json(_ answer: Found, _ text: String) -> String {
        "{\"score\": \(JSONText.number(answer.score)), \"start\": \(answer.start), \"end\": \(answer.end), "
            + "\"answer\": \(JSONText.string(scalars(text, answer.start..<max(answer.start, answer.end))))}"
    }
}
