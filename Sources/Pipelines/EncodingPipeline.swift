// What comes before encoding: the model, the documents and their token ids.

import Checkpoints
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
    private let prompt: String

    /// Loads the model on every rank. Collective.
    /// - Parameters:
    ///   - name: a folder, or `org/name` in the Hugging Face cache.
    ///   - obeysSettings: whether documents are prepared as the sentence-transformers files of the model say.
    ///   - prompt: what stands before each document, given those files.
    package init(
        model name: String, input: DocumentInput, session: Session, obeysSettings: Bool = true,
        prompt: (SentenceTransformersSettings?) throws -> String = { _ in "" }
    ) throws {
        self.session = session
        session.monitor.progress(.reading)
        let (kernels, element) = (session.kernels, session.settings.element)
        let model = try session.loadWeights { storage in
            try LoadedModel.load(name, storage: storage, element: element, kernels: kernels)
        }
        self.model = model
        (tokenizer, self.prompt) = try session.agreeReading(as: "the tokenizer") {
            (try model.tokenizer(obeysSettings: obeysSettings), try prompt(model.settings))
        }
        stream = DocumentStream(input, session)
        let positions = model.encoder.configuration.positionCount
        maximumLength = min(input.maximumLength ?? positions, positions)
        truncation = input.truncation
    }

    /// What turning documents into items takes.
    package func preparation(passageTokens: Int? = nil, chunkTokens: Int? = nil) -> Corpus.Preparation {
        let log = session.log
        return Corpus.Preparation(
            maximumLength: maximumLength, truncation: truncation, passageTokens: passageTokens,
            chunkTokens: chunkTokens, prompt: prompt,
            truncated: { log.warning("\($0) was cut to the limit (--truncate right)") })
    }

    /// The token ids of some documents. Collective.
    package func corpus(_ documents: [Document], passageTokens: Int? = nil, chunkTokens: Int? = nil) throws -> Corpus {
        session.monitor.progress(.tokenizing)
        return try session.corpus(
            documents, tokenizer: tokenizer, preparation(passageTokens: passageTokens, chunkTokens: chunkTokens))
    }
}
