// What `embed` and `search` do before they encode: the model, the documents and their token ids.

import Checkpoints
import Foundation
import Tokenization
import Transformers

/// A loaded model and the documents it is to encode.
struct EncodingJob {
    let session: Session
    let model: LoadedModel
    let tokenizer: Tokenizer?
    let stream: DocumentStream
    private let prompt: String
    private let input: InputOptions

    /// Loads the model on every rank. Collective.
    /// - Parameter obeysSettings: whether documents are prepared as the sentence-transformers files of the model say.
    init(
        model options: ModelOptions, input: InputOptions, session: Session, obeysSettings: Bool = true,
        prompt: (SentenceTransformersSettings?) throws -> String = { _ in "" }
    ) throws {
        self.session = session
        self.input = input
        session.watchdog.progress(.reading)
        let kernels = session.kernels
        let element = session.options.dtype
        let model = try session.loadWeights { storage in
            try LoadedModel.load(options.model, storage: storage, element: element, kernels: kernels)
        }
        self.model = model
        (tokenizer, self.prompt) = try session.agreeReading {
            (try model.tokenizer(obeysSettings: obeysSettings), try prompt(model.settings))
        }
        stream = DocumentStream(input, session)
    }

    /// What turning documents into items takes.
    func preparation(passageTokens: Int? = nil, chunkTokens: Int? = nil) -> Corpus.Preparation {
        let configuration = model.encoder.configuration
        let log = session.log
        return Corpus.Preparation(
            maximumLength: min(input.maxLength ?? configuration.positionCount, configuration.positionCount),
            truncation: input.truncate, passageTokens: passageTokens, chunkTokens: chunkTokens, prompt: prompt,
            truncated: { log.warning("\($0) was cut to the limit (--truncate right)") })
    }

    /// The token ids of some documents. Collective.
    func corpus(_ documents: [Document], passageTokens: Int? = nil, chunkTokens: Int? = nil) throws -> Corpus {
        session.watchdog.progress(.tokenizing)
        return try session.corpus(
            documents, tokenizer: tokenizer, preparation(passageTokens: passageTokens, chunkTokens: chunkTokens))
    }
}
