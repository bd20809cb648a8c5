// `annulus search`: passages of the input ranked against a question.

import ArgumentParser
import Foundation
import Pipelines

struct Search: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Rank passages of the input against a question.",
        discussion: """
            Splits documents into passages, embeds them and the question as the model's own files say (sentence-transformers), \
            and prints the best by cosine similarity, or by what `similarity_fn_name` names (dot; a distance with its sign \
            changed): the place, the score and the text, or JSON lines with --format json. Where the model has prompts of these \
            names, `query` is put before the question and `document` before passages; where it has neither, its default prompt \
            before both. A line says which. A text that begins with its prompt is left as it is.
            """)

    @Argument(help: "The question.")
    var question: String

    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var runOptions: RunOptions

    @Option(help: "How many passages to print.")
    var topK: Int = 5

    @Option(help: "The tokens of a passage, special tokens apart; no more than the model takes.")
    var passageTokens: Int = 128

    @Option(help: "Put the model's prompt of this name before each passage.")
    var promptName: String?

    @Option(help: "Put the model's prompt of this name before the question.")
    var questionPromptName: String?

    @Option(help: "text or json.")
    var format: SearchFormat = .text

    @Flag(help: .hidden)
    var resume = false

    mutating func validate() throws {
        if resume {
            throw ValidationError(
                "search prints its hits and keeps nothing: annulus embed --passage-tokens N --resume -o FILE keeps the vectors of passages"
            )
        }
        if topK < 1 { throw ValidationError("--top-k takes a positive number, not \(topK)") }
        if passageTokens < 1 { throw ValidationError("--passage-tokens takes a positive number, not \(passageTokens)") }
    }

    func run() throws {
        var search = Pipelines.Search(question: question)
        search.topK = topK
        search.passageTokens = passageTokens
        search.promptName = promptName
        search.questionPromptName = questionPromptName
        let command = self
        try Session.run(self, runOptions, needs: input.streams + [.output]) { [search] session in
            let hits = try search.run(model: command.model.model, input: command.input.documents, session)
            try session.agree { for hit in hits { try session.printLines(command.line(hit)) } }
        }
    }

    private func line(_ hit: Pipelines.Search.Hit) -> String {
        switch format {
        case .json:
            return
                "{\"rank\": \(hit.rank), \"score\": \(Float(hit.score)), \"source\": \(JSONText.string(hit.source)), "
                + "\"document\": \(hit.document), \"start\": \(hit.start), \"end\": \(hit.end), \"text\": \(JSONText.string(hit.text))}\n"
        case .text:
            let words = hit.text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            let score = String(format: "%.4f", hit.score)
            return "\(hit.rank). \(score)  \(hit.source) [\(hit.start)–\(hit.end)]\n   \(words)\n"
        }
    }
}

enum SearchFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
}
