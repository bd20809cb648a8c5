// `annulus answer`: the span of a document that answers a question.

import ArgumentParser
import Pipelines

struct Answer: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answer a question from documents.",
        discussion: """
            One JSON line a document, with the fields of the question-answering pipeline of transformers 4: `score`, `start`, \
            `end` (Unicode scalars) and `answer`; with --top-k more than 1 a list of them. As there, a document is read in \
            windows of --window-tokens, question included, that overlap by --stride tokens. With --impossible it may be that there \
            is no answer: an empty one, with the score that models trained on such questions give it (`handle_impossible_answer`).
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

    @Option(help: "Tokens that two windows share. Default: half of a window, or 128 if that is less.")
    var stride: Int?

    @Flag(help: "Let no answer be an answer.")
    var impossible = false

    mutating func validate() throws {
        for (name, value) in [
            ("--top-k", topK), ("--max-answer-tokens", maxAnswerTokens), ("--window-tokens", windowTokens),
        ] where value < 1 {
            throw ValidationError("\(name) takes a positive number, not \(value)")
        }
        if let stride, stride < 0 { throw ValidationError("--stride takes a number from 0 on, not \(stride)") }
    }

    func run() throws {
        var answering = Answering(question: question)
        answering.topK = topK
        answering.maxAnswerTokens = maxAnswerTokens
        answering.windowTokens = windowTokens
        answering.stride = stride
        answering.allowsNone = impossible
        try options.run(self, answering.run)
    }
}
