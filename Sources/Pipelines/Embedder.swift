// Documents to vectors.

import Checkpoints
import Crypto
import Files
import Foundation
import RingAttention
import Tokenization
import Transformers

/// How documents become vectors, where it is not to be as the model's own files say.
package struct EmbeddingOptions: Sendable {
    /// nil: as the model's files say, else the mean.
    package var pooling: PoolingMode?
    /// Whether vectors are divided by their Euclidean norm; nil: as the model's files say, else not.
    package var normalizes: Bool?
    /// How many values of each vector are kept, before normalising; nil: as many as the model's files say, else all.
    package var dimensions: Int?
    /// The model's prompt that is put before each document; nil: the one that its files name, if any.
    package var promptName: String?
    /// Documents are split before encoding into passages of at most so many tokens.
    package var passageTokens: Int?
    /// Spans of so many tokens are pooled after the whole document was encoded (late chunking).
    package var chunkTokens: Int?
    /// Whether every token's state is given, and nothing is pooled.
    package var keepsStates = false

    package init() {}

    /// Whether rows tell where in their document they come from.
    var isLocated: Bool { passageTokens != nil || chunkTokens != nil }
}

/// A model that turns texts into vectors, on all ranks of a job.
///
/// Pooling, normalisation and prompts are those of the model's own files (sentence-transformers), unless said
/// otherwise. The vectors have the same bits on any number of ranks.
public final class Embedder {
    private let session: Session
    private let pipeline: EncodingPipeline
    private let options: EmbeddingOptions
    private let prompt: Prompt
    private let shape: VectorShape

    /// Loads a model on every rank of `session`. Collective.
    /// - Parameters:
    ///   - session: what this rank works with, also whenever the embedder is used later.
    ///   - model: a model's folder, or `org/name` in the Hugging Face cache.
    ///   - pooling: how the tokens' states become a vector; nil: as the model's files say, else the mean.
    ///   - normalizes: whether vectors are divided by their Euclidean norm; nil: as the model's files say, else not.
    ///   - promptName: the model's prompt that is put before each text.
    ///   - truncates: whether a text of more tokens than the model has positions is cut; it is an error otherwise.
    /// - Throws: an error with a line that names the file and what is wrong with it, the same on every rank.
    public convenience init(
        _ session: Session, model: String, pooling: PoolingMode? = nil, normalizes: Bool? = nil,
        promptName: String? = nil, truncates: Bool = false
    ) throws {
        var options = EmbeddingOptions()
        options.pooling = pooling
        options.normalizes = normalizes
        options.promptName = promptName
        var input = DocumentInput(paths: [])
        input.truncation = truncates ? .right : .error
        try self.init(session, model: model, input: input, options)
    }

    /// - Parameter input: the documents that are embedded by ``write(to:)`` and ``writeLines(to:)``.
    package init(_ session: Session, model: String, input: DocumentInput, _ options: EmbeddingOptions) throws {
        self.session = session
        self.options = options
        let pipeline = try EncodingPipeline(model: model, input: input, session: session)
        self.pipeline = pipeline
        let encoder = pipeline.model.encoder
        let (element, kernels) = (session.settings.element, session.kernels)
        let head = try session.loadWeights { storage in
            try VectorHead(
                pipeline.model.folder, pooling: options.pooling, hidden: encoder.configuration.hiddenSize,
                pools: !options.keepsStates, storage: storage, element: element, kernels: kernels)
        }
        let folder = pipeline.model.folder
        prompt = try session.agree {
            let text = try folder.prompt(named: options.promptName, option: "--prompt-name") ?? folder.defaultPrompt
            if let dimensions = options.dimensions, dimensions > head.width {
                throw JobError(.usage, "--truncate-dim \(dimensions) is more than the model's \(head.width) values")
            }
            return Prompt(text, isPooled: head.includesPrompt, pipeline.tokenizer)
        }
        shape = VectorShape(
            head, saved: folder.dimensions, dimensions: options.dimensions, normalizes: options.normalizes)
    }

    /// The values of a vector.
    public var dimensions: Int { shape.width }

    /// The vectors of some texts, in their order, on every rank. Collective: all ranks give the same texts.
    /// - Returns: for each text ``dimensions`` values.
    /// - Throws: an error that names the text which cannot be embedded by its place, or a rank that gave other texts.
    public func embed(_ texts: [String]) throws -> [[Float]] {
        var message = Message()
        for text in texts { message.write(text) }
        let digests = try session.transport.allGather(
            Array(SHA256.hash(data: message.bytes)))
        try session.agree {
            if let other = digests.firstIndex(where: { $0 != digests[0] }) {
                throw JobError(.badInput, "rank \(other) has other texts than rank 0; give all ranks the same")
            }
        }
        let documents = texts.enumerated().map { Document(source: "text \($0)", content: .text($1)) }
        var mine: [(span: Int, vector: [Float])] = []
        try vectors(try pipeline.corpus(documents, pipeline.preparation(prompt: prompt))) { mine += $0 }
        var told = Message()
        for (span, vector) in mine {
            told.write(span)
            told.write(vector)
        }
        var all = [[Float]](repeating: [], count: texts.count)
        for bytes in try session.transport.allGather(told.bytes) {
            var message = Message(bytes)
            while !message.isAtEnd { all[message.readInt()] = message.readFloats() }
        }
        return all
    }

    /// The vectors of a corpus, each on the rank that holds the first token of its span. Collective.
    private func vectors(
        _ corpus: Corpus, job: ResumableJob? = nil, body: ([(span: Int, vector: [Float])]) throws -> Void
    ) throws {
        try session.vectors(corpus, with: pipeline.model.encoder, shape, job: job, body: body)
    }

    private func corpus(_ documents: [Document]) throws -> Corpus {
        try pipeline.corpus(
            documents,
            pipeline.preparation(
                prompt: prompt, passageTokens: options.passageTokens, chunkTokens: options.chunkTokens))
    }

    /// Embeds all documents of the input into a .npy or .safetensors. Collective.
    package func write(to output: OutputFile) throws {
        // The headers of these files tell how many rows follow: all documents come first.
        var corpus = try corpus(try pipeline.stream.rest())
        var job: ResumableJob?
        if let request = output.resume {
            job = try ResumableJob.begin(output, request, session)
            guard let job else { return }
            job.note(total: corpus.sources.count)
            corpus.finished = job.finished(of: corpus)
        }
        if options.keepsStates {
            return try StatesWriter(session, corpus: corpus, encoder: pipeline.model.encoder, head: shape.head).write(
                to: output, job: job)
        }
        let writer = try VectorWriter(
            session, corpus: corpus, output: output, width: dimensions, located: options.isLocated, job: job)
        try vectors(corpus, job: job, body: writer.write)
        try writer.finish()
    }

    /// Embeds the documents of the input into lines of JSON, as they come. Collective.
    package func writeLines(to destination: LineDestination) throws {
        let lines = try LineOutput(destination, session)
        if lines.documentsBefore == .max { return }
        pipeline.stream.skip(lines.documentsBefore)
        while let portion = try pipeline.stream.next() {
            var corpus = try corpus(portion.documents)
            corpus.documentsBefore = portion.first
            corpus.finished = lines.job?.finished(from: portion.first) ?? 0
            if options.keepsStates {
                try StatesWriter(session, corpus: corpus, encoder: pipeline.model.encoder, head: shape.head).write(
                    to: lines)
                continue
            }
            let places = corpus.items.flatMap { item in
                item.spans.map { (document: portion.first + item.document, start: $0.start, end: $0.end) }
            }
            try vectors(corpus, job: lines.job) { found in
                try lines.write(
                    try session.gather(found).map { span, vector in
                        let place = places[span]
                        let location =
                            options.isLocated
                            ? "\"document\": \(place.document), \"start\": \(place.start), \"end\": \(place.end), " : ""
                        return "{\(location)\"embedding\": \(JSONText.floats(vector))}\n"
                    }.joined())
            }
        }
        try lines.finish()
    }
}

extension ModelFolder {
    /// The prompt of that name; nil where no name is given.
    /// - Throws: `JobError` that lists the names there are.
    func prompt(named name: String?, option: String) throws -> String? {
        guard let name else { return nil }
        guard let prompt = prompts[name] else {
            let names = prompts.keys.sorted().joined(separator: ", ")
            throw JobError(
                .usage, "\(option) '\(name)' is unknown to the model; it has: \(names.isEmpty ? "none" : names)")
        }
        return prompt
    }

    /// What is put before a text where nothing is asked for.
    var defaultPrompt: String { defaultPromptName.flatMap { prompts[$0] } ?? "" }
}
