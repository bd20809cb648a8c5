// Passages of documents ranked against a question.

import Checkpoints
import RingAttention
import Tokenization
import Transformers

/// A search for the passages whose vectors are nearest to a question's, as the model's files say how to compare them.
package struct Search: Sendable {
    /// A passage that was found.
    package struct Hit: Sendable {
        /// From 1, the best first.
        package let rank: Int
        /// How near the passage's vector is to the question's.
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

    /// The model's prompts that are put before the question and before each passage; nil: `query` and `document`, or where
    /// the model has neither its default.
    package var questionPromptName: String?
    package var promptName: String?

    package init(question: String) { self.question = question }

    /// The best passages of the input, the best first, on rank 0; none on the others. Collective.
    package func run(model: String, input: DocumentInput, _ session: Session) throws -> [Hit] {
        let pipeline = try EncodingPipeline(model: model, input: input, session: session)
        let (folder, encoder) = (pipeline.model.folder, pipeline.model.encoder)
        let (element, kernels) = (session.settings.element, session.kernels)
        let head = try session.loadWeights { storage in
            try VectorHead(
                folder, pooling: nil, hidden: encoder.configuration.hiddenSize, pools: true, storage: storage,
                element: element, kernels: kernels)
        }
        let shape = VectorShape(head, saved: folder.dimensions)
        let (asking, reading) = try session.agree { try prompts(folder, head, pipeline.tokenizer) }
        try session.logHeader("search \(model)", encodes: true)
        tell(asking, reading, session)
        var corpus = try pipeline.corpus(
            try pipeline.stream.rest(), pipeline.preparation(prompt: reading, passageTokens: passageTokens))
        // The question is encoded like one more document, behind all others.
        let asked = try session.agree {
            try Corpus.items(
                Document(source: "the question", content: .text(question)), number: corpus.sources.count,
                tokenizer: pipeline.tokenizer, pipeline.preparation(prompt: asking))
        }
        let passages = corpus.items.count
        corpus.items += asked
        corpus.sources.append("the question")
        corpus.skippedTokens = max(asking.skippedTokens, reading.skippedTokens)
        var vectors: [(span: Int, vector: [Float])] = []
        try session.vectors(corpus, with: encoder, shape) { vectors += $0 }
        let all = try session.gather(vectors)
        guard session.isRoot, let wanted = all.last?.vector else { return [] }
        let compare = folder.similarity.measure(to: wanted)
        let scored = all.prefix(passages).map { (span: $0.span, score: compare($0.vector)) }
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

extension Search {
    /// What is put before the question, and before passages.
    private func prompts(_ folder: ModelFolder, _ head: VectorHead, _ tokenizer: Tokenizer?) throws -> (Prompt, Prompt)
    {
        // As sentence-transformers 6 has it: where there is a prompt for one of the two, the other goes without.
        let hasRoles = folder.prompts["query"] != nil || folder.prompts["document"] != nil
        func text(_ role: String) -> String {
            hasRoles ? folder.prompts[role] ?? "" : folder.defaultPrompt
        }
        let question = try folder.prompt(named: questionPromptName, option: "--question-prompt-name") ?? text("query")
        let passage = try folder.prompt(named: promptName, option: "--prompt-name") ?? text("document")
        return (
            Prompt(question, isPooled: head.includesPrompt, tokenizer),
            Prompt(passage, isPooled: head.includesPrompt, tokenizer)
        )
    }

    /// One line on what is put before texts, where anything is.
    private func tell(_ asking: Prompt, _ reading: Prompt, _ session: Session) {
        if asking.text.isEmpty && reading.text.isEmpty { return }
        func name(_ prompt: Prompt) -> String { prompt.text.isEmpty ? "nothing" : JSONText.string(prompt.text) }
        session.log.notice(
            "prompts of the model: \(name(asking)) before the question, \(name(reading)) before passages")
    }
}

extension Similarity {
    /// How near a vector is to another; computed in double precision.
    fileprivate func measure(to wanted: [Float]) -> ([Float]) -> Double {
        func dot(_ one: [Float], _ other: [Float]) -> Double {
            zip(one, other).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        }
        switch self {
        case .cosine:
            let wanted = normalized(wanted)
            return { dot(normalized($0), wanted) }
        case .dot: return { dot($0, wanted) }
        case .euclidean:
            return { vector in
                -zip(vector, wanted).reduce(0.0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
                    .squareRoot()
            }
        case .manhattan: return { vector in -zip(vector, wanted).reduce(0.0) { $0 + abs(Double($1.0) - Double($1.1)) } }
        }
    }
}
