// `annulus answer`: the span of a document that answers a question.

import ArgumentParser
import Checkpoints
import Foundation
import RingAttention
import Tokenization
import Transformers

struct Answer: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answer a question from documents.",
        discussion: """
            One JSON line a document, with the fields of the question-answering pipeline of transformers 4: `score`, `start`, \
            `end` (Unicode scalars) and `answer`; with --top-k more than 1 a list of them. As there, a document is read in \
            windows of --window-tokens, question included, that overlap by --stride tokens.
            """)

    @Argument(help: "The question.")
    var question: String

    @OptionGroup var options: TaskOptions

    @Option(help: "How many answers a document.")
    var topK: Int = 1

    @Option(help: "The longest answer, in tokens.")
    var maxAnswerTokens: Int = 15

    @Option(
        help: "Tokens of a window: question, special tokens and a part of the document. No more than the model takes.")
    var windowTokens: Int = 384

    @Option(help: "Tokens that two windows share.")
    var stride: Int = 128

    mutating func validate() throws {
        for (name, value) in [
            ("--top-k", topK), ("--max-answer-tokens", maxAnswerTokens), ("--window-tokens", windowTokens),
        ] where value < 1 {
            throw ValidationError("\(name) takes a positive number, not \(value)")
        }
        if stride < 0 { throw ValidationError("--stride takes a number from 0 on, not \(stride)") }
    }

    func run() throws {
        let command = self
        try Session.run(self, options.spread, needs: options.streams) { try command.run($0) }
    }

    /// A part of a document behind the question.
    private struct Window {
        let document: Int
        let encoding: Encoding
    }

    private func run(_ session: Session) throws {
        let task = try TaskJob(.questionAnswering, options, session)
        let tokenizer = try task.tokenizer()
        session.logHeader("answer \(options.model.model)", encodes: true)
        try task.forEachPortion { portion in
            let windows = try session.agree { try split(portion.documents, task, tokenizer) }
            // The answers found so far of a document whose windows span two batches.
            var open: [(span: AnswerSpan, start: Int, end: Int)] = []
            try task.run(windows.map(\.encoding), of: portion.documents, owners: windows.map(\.document)) {
                run, items in
                let logits = try task.tokenLogits(run, items.count)
                if !session.isRoot { return "" }
                var lines = ""
                for number in items {
                    let window = windows[number]
                    open += answers(window.encoding, logits[number - items.lowerBound])
                    if number + 1 < windows.count, windows[number + 1].document == window.document { continue }
                    let text = if case .text(let text) = portion.documents[window.document].content { text } else { "" }
                    let best = open.enumerated().sorted {
                        ($1.element.span.score, $0.offset) < ($0.element.span.score, $1.offset)
                    }
                    .prefix(topK).map { json($0.element, text) }
                    lines +=
                        (topK == 1
                            ? best.first ?? "{\"score\": 0.0, \"start\": 0, \"end\": 0, \"answer\": \"\"}"
                            : "[" + best.joined(separator: ", ") + "]") + "\n"
                    open = []
                }
                return lines
            }
        }
    }

    private func split(_ documents: [Document], _ task: TaskJob, _ tokenizer: Tokenizer) throws -> [Window] {
        let limit = min(windowTokens, task.job.preparation().maximumLength)
        var windows: [Window] = []
        for (number, document) in documents.enumerated() {
            guard case .text(let text) = document.content else {
                throw FileError(.malformed, path: document.source, "holds token ids; answer needs text")
            }
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

    /// The answers of one window, widened to whole words.
    private func answers(_ window: Encoding, _ logits: [Float]) -> [(span: AnswerSpan, start: Int, end: Int)] {
        let (starts, ends) = (window.ids.indices.map { logits[2 * $0] }, window.ids.indices.map { logits[2 * $0 + 1] })
        let spans = answerSpans(
            starts: starts, ends: ends, isContext: window.sequences.map { $0 == 1 },
            first: window.sequences.first == -1 ? 0 : nil,
            maximumTokens: maxAnswerTokens, count: topK)
        return spans.map { span in
            func word(_ token: Int) -> Range<Int> {
                let tokens = window.ids.indices.filter {
                    window.sequences[$0] == 1 && window.words[$0] == window.words[token]
                }
                return window.offsets[tokens.first ?? token]
                    .lowerBound..<window.offsets[tokens.last ?? token].upperBound
            }
            return (span, word(span.tokens.lowerBound).lowerBound, word(span.tokens.upperBound).upperBound)
        }
    }

    private func json(_ answer: (span: AnswerSpan, start: Int, end: Int), _ text: String) -> String {
        "{\"score\": \(JSONText.number(answer.span.score)), \"start\": \(answer.start), \"end\": \(answer.end), "
            + "\"answer\": \(JSONText.string(scalars(text, answer.start..<max(answer.start, answer.end))))}"
    }
}
