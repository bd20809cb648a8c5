// `annulus search`: passages of the input ranked against a question.

import ArgumentParser
import Checkpoints
import Foundation
import RingAttention
import Transformers

struct Search: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Rank passages of the input against a question.",
        discussion: """
            Splits documents into passages, embeds them and the question with the model's own pooling, and prints the best \
            by cosine similarity: the place, the score and the text, or JSON lines with --format json.
            """)

    @Argument(help: "The question.")
    var question: String

    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var spread: RunOptions

    @Option(help: "How many passages to print.")
    var topK: Int = 5

    @Option(help: "The tokens of a passage, special tokens apart; no more than the model takes.")
    var passageTokens: Int = 128

    @Option(help: "text or json.")
    var format: SearchFormat = .text

    mutating func validate() throws {
        if topK < 1 { throw ValidationError("--top-k takes a positive number, not \(topK)") }
        if passageTokens < 1 { throw ValidationError("--passage-tokens takes a positive number, not \(passageTokens)") }
    }

    func run() throws {
        let command = self
        try Session.run(self, spread, needs: input.streams + [.output]) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let job = try EncodingJob(model: model, input: input, session: session)
        session.logHeader("search \(model.model)", encodes: true)
        var corpus = try job.corpus(try job.stream.rest(), passageTokens: passageTokens)
        // The question is encoded like one more document, behind all others.
        let asked = try session.agree {
            try Corpus.items(
                Document(source: "the question", content: .text(question)), number: corpus.sources.count,
                tokenizer: job.tokenizer, job.preparation())
        }
        let passages = corpus.items.count
        corpus.items += asked
        corpus.sources.append("the question")
        var vectors: [(span: Int, vector: [Float])] = []
        try session.vectors(
            corpus, with: job.model.encoder, pooling: job.model.settings?.pooling ?? .mean, normalize: true,
            dimensions: nil
        ) { vectors += $0 }
        let all = try session.gather(vectors)
        guard session.isRoot, let wanted = all.last?.vector else { return try session.agree {} }
        let scored = all.prefix(passages).map { entry in
            (span: entry.span, score: zip(entry.vector, wanted).reduce(0.0) { $0 + Double($1.0) * Double($1.1) })
        }
        let best = scored.sorted { ($1.score, $0.span) < ($0.score, $1.span) }.prefix(topK)
        try session.agree {
            for (place, hit) in best.enumerated() { try session.printLines(line(corpus, hit, place: place + 1)) }
        }
    }

    private func line(_ corpus: Corpus, _ hit: (span: Int, score: Double), place: Int) -> String {
        let item = corpus.items[hit.span]
        let scalars = corpus.texts[item.document].unicodeScalars
        let start = scalars.index(scalars.startIndex, offsetBy: item.start)
        let text = String(scalars[start..<scalars.index(start, offsetBy: item.end - item.start)])
        switch format {
        case .json:
            return
                "{\"rank\": \(place), \"score\": \(Float(hit.score)), \"source\": \(JSONText.string(corpus.sources[item.document])), "
                + "\"document\": \(item.document), \"start\": \(item.start), \"end\": \(item.end), \"text\": \(JSONText.string(text))}\n"
        case .text:
            let words = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            let score = String(format: "%.4f", hit.score)
            return "\(place). \(score)  \(corpus.sources[item.document]) [\(item.start)–\(item.end)]\n   \(words)\n"
        }
    }
}

enum SearchFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
}
