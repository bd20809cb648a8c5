// Passages of documents ranked against a question.

import RingAttention
import Transformers

/// A search for the passages that are nearest to a question, by the cosine of their vectors.
package struct Search: Sendable {
    /// A passage that was found.
    package struct Hit: Sendable {
        /// From 1, the best first.
        package let rank: Int
        /// The cosine of the passage's vector and the question's.
        package let score: Double
        /// Where its document came from, and the document's place in the input.
        package let source: String
        package let document: Int
        /// Unicode scalars of the document's text.
        package let start: Int
        package let end: Int
        package let text: String
    }

    package var question: String
    /// How many passages.
    package var topK = 5
    /// The tokens of a passage, special tokens apart; no more than the model takes.
    package var passageTokens = 128

    package init(question: String) { self.question = question }

    /// The best passages of the input, the best first, on rank 0; none on the others. Collective.
    package func run(model: String, input: DocumentInput, _ session: Session) throws -> [Hit] {
        let pipeline = try EncodingPipeline(model: model, input: input, session: session)
        session.logHeader("search \(model)", encodes: true)
        var corpus = try pipeline.corpus(try pipeline.stream.rest(), passageTokens: passageTokens)
        // The question is encoded like one more document, behind all others.
        let asked = try session.agree {
            try Corpus.items(
                Document(source: "the question", content: .text(question)), number: corpus.sources.count,
                tokenizer: pipeline.tokenizer, pipeline.preparation())
        }
        let passages = corpus.items.count
        corpus.items += asked
        corpus.sources.append("the question")
        var vectors: [(span: Int, vector: [Float])] = []
        try session.vectors(
            corpus, with: pipeline.model.encoder, pooling: pipeline.model.settings?.pooling ?? .mean, normalize: true,
            dimensions: nil
        ) { vectors += $0 }
        let all = try session.gather(vectors)
        guard session.isRoot, let wanted = all.last?.vector else { return [] }
        let scored = all.prefix(passages).map { entry in
            (span: entry.span, score: zip(entry.vector, wanted).reduce(0.0) { $0 + Double($1.0) * Double($1.1) })
        }
        return scored.sorted { ($1.score, $0.span) < ($0.score, $1.span) }.prefix(topK).enumerated().map {
            place, found in
            let item = corpus.items[found.span]
            return Hit(
                rank: place + 1, score: found.score, source: corpus.sources[item.document], document: item.document,
                start: item.start, end: item.end,
                text: scalars(corpus.texts[item.document], item.start..<item.end))
        }
    }
}
