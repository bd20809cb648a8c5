// What comes before encoding: the model, the documents and their token ids.

import Checkpoints
import Files
import Foundation
import Tokenization
import Transformers

/// A loaded model and the documents it is to encode.
package struct EncodingPipeline {
    package let session: Session
    package let model: LoadedModel
    package let tokenizer: Tokenizer?
    package let stream: DocumentStream
    /// Tokens that a document may have.
    package let maximumLength: Int
    /// What happens to a longer one.
    package let truncation: Truncation
    /// What else can be done about one, with a comma behind it; empty: nothing.
    let remedy: String

    /// Loads the model on every rank. Collective.
    /// - Parameters:
    ///   - name: a folder, or `org/name` in the Hugging Face cache.
    ///   - lowercases: whether texts are lowercased where the sentence-transformers files of the model say so.
    package init(model name: String, input: DocumentInput, session: Session, lowercases: Bool = true) throws {
        self.session = session
        session.monitor.progress(.reading)
        let (kernels, element) = (session.kernels, session.settings.element)
        let model = try session.loadWeights { storage in
            try LoadedModel.load(name, storage: storage, element: element, kernels: kernels)
        }
        self.model = model
        tokenizer = try session.agreeReading(as: "the tokenizer") { try model.tokenizer(lowercases: lowercases) }
        stream = DocumentStream(input, session)
        let configuration = model.encoder.configuration
        maximumLength =
            switch input.limit {
            case .positions: configuration.positionCount
            case .tokens(let count):
                configuration.hasComputedPositions ? count : min(count, configuration.positionCount)
            case .trained: model.trainedLength.tokens
            }
        truncation = input.truncation
        remedy =
            configuration.hasComputedPositions
            ? "raise that with --max-length, since the positions of this model are computed, " : ""
    }

    /// The items of some documents. Collective.
    package func corpus(_ documents: [Document], _ preparation: Corpus.Preparation) throws -> Corpus {
        session.monitor.progress(.tokenizing)
        let corpus = try session.corpus(documents, tokenizer: tokenizer, preparation)
        tell(
            cut: corpus.items.filter(\.isCut).map { corpus.source(of: $0) },
            lengths: corpus.items.lazy.map { (corpus.source(of: $0), $0.ids.count) })
        return corpus
    }

    /// Some documents' tokens, on every rank. Collective.
    /// - Throws: `AgreedFailure` where one is too long, naming the limit.
    func encodings(_ documents: [Document]) throws -> [Encoding] {
        session.monitor.progress(.tokenizing)
        var cut: [String] = []
        let encodings = try session.agree {
            try documents.map { document in
                session.monitor.progress()
                var tokens = try document.encoding(tokenizer)
                if try truncation.apply(to: &tokens, limit: maximumLength, of: document.source, remedy: remedy) {
                    cut.append(document.source)
                }
                return tokens
            }
        }
        tell(cut: cut, lengths: zip(documents, encodings).lazy.map { ($0.source, $1.count) })
        return encodings
    }

    /// What turning documents into items takes.
    package func preparation(
        prompt: Prompt = Prompt(), passageTokens: Int? = nil, chunkTokens: Int? = nil
    ) -> Corpus.Preparation {
        Corpus.Preparation(
            maximumLength: maximumLength, truncation: truncation, passageTokens: passageTokens,
            chunkTokens: chunkTokens, prompt: prompt, remedy: remedy)
    }

    /// Says which documents were cut, and once that one is longer than the model was trained for.
    /// - Parameters:
    ///   - cut: where those that were cut came from.
    ///   - lengths: where each came from, and its tokens.
    func tell(cut: [String], lengths: some Sequence<(source: String, tokens: Int)>) {
        if let first = cut.first {
            let limit = "cut to the limit of \(maximumLength) tokens (--truncate \(truncation.rawValue))"
            session.log.warning(
                cut.count == 1 ? "\(first) was \(limit)" : "\(cut.count) documents were \(limit), the first \(first)")
        }
        let trained = model.trainedLength
        guard maximumLength > trained.tokens, let first = lengths.first(where: { $0.tokens > trained.tokens }) else {
            return
        }
        session.warn(
            once: "trained length",
            """
            \(first.source) has \(first.tokens) tokens, more than the \(trained.tokens) that the model was trained for \
            (\(trained.source)), and is run whole; --max-length model sets the limit there
            """)
    }
}
