// `annulus embed`: documents to vectors.

import ArgumentParser
import Checkpoints
import Foundation
import Matrices
import RingAttention
import Tiles
import Transformers

struct Embed: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Turn documents into vectors.",
        discussion: """
            Pooling, normalisation and prompts default to what the model's own files say (sentence-transformers), else to \
            mean pooling without normalisation. --truncate-dim keeps the first N values, before normalising. A .npy holds \
            [rows, hidden]; a .safetensors a tensor `embeddings`, or with --pooling none one tensor per document, `0`, `1`, …, \
            [tokens, hidden], special tokens included. With --passage-tokens or --chunk-tokens each row also tells \
            `document`, `start` and `end`: Unicode scalars of the document's text, or token positions where ids were given. \
            JSON lines come out as they are finished, also while standard input stays open; the other files need all documents first.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var spread: RunOptions

    @Option(help: "cls, mean, max, mean-sqrt-len, weighted-mean, last-token, or none for every token's state.")
    var pooling: PoolingChoice?

    @Flag(inversion: .prefixedNo, help: "Divide vectors by their Euclidean norm.")
    var normalize: Bool?

    @Option(help: "Keep the first N values of each vector.")
    var truncateDim: Int?

    @Option(help: "Put the model's prompt of this name before each document.")
    var promptName: String?

    @Option(
        help: "Split documents into passages of at most N tokens before encoding, each with its own special tokens.")
    var passageTokens: Int?

    @Option(help: "Pool spans of N tokens after encoding the whole document (late chunking).")
    var chunkTokens: Int?

    mutating func validate() throws {
        for (name, value) in [
            ("--truncate-dim", truncateDim), ("--passage-tokens", passageTokens), ("--chunk-tokens", chunkTokens),
        ] {
            if let value, value < 1 { throw ValidationError("\(name) takes a positive number, not \(value)") }
        }
        if passageTokens != nil && chunkTokens != nil {
            throw ValidationError("--passage-tokens splits before encoding and --chunk-tokens after it: choose one")
        }
        if pooling == PoolingChoice.none {
            if chunkTokens != nil {
                throw ValidationError("--chunk-tokens pools, and --pooling none does not: choose one")
            }
            if truncateDim != nil || normalize == true {
                throw ValidationError(
                    "--pooling none writes the states as they are, without --truncate-dim or --normalize")
            }
        }
        if output.format == .numpy && (passageTokens != nil || chunkTokens != nil) {
            throw ValidationError("a .npy has no room for document, start and end: write .safetensors or .jsonl")
        }
    }

    func run() throws {
        let command = self
        try Session.run(self, spread, needs: input.streams + output.streams) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let job = try EncodingJob(model: model, input: input, session: session) { settings in
            if let promptName {
                guard let prompt = settings?.prompts[promptName] else {
                    let names = settings.map { $0.prompts.keys.sorted().joined(separator: ", ") } ?? ""
                    throw JobError(
                        .usage,
                        "--prompt-name '\(promptName)' is unknown to the model; it has: \(names.isEmpty ? "none" : names)"
                    )
                }
                return prompt
            }
            return settings?.defaultPromptName.flatMap { settings?.prompts[$0] } ?? ""
        }
        let width = job.model.encoder.configuration.hiddenSize
        try session.agree {
            if let truncateDim, truncateDim > width {
                throw JobError(.usage, "--truncate-dim \(truncateDim) is more than the model's \(width) values")
            }
        }
        if let path = output.output {
            try ParallelFile.checkWritable(path, force: output.force, transport: session.transport)
        }
        session.logHeader("embed \(model.model)", encodes: true)
        guard let path = output.output, output.format != .jsonLines else { return try writeLines(job) }
        // The headers of these files tell how many rows follow: all documents come first.
        let corpus = try job.corpus(try job.stream.rest(), passageTokens: passageTokens, chunkTokens: chunkTokens)
        if pooling == PoolingChoice.none {
            return try StatesWriter(session, corpus: corpus, encoder: job.model.encoder, output: output).run()
        }
        let writer = try VectorWriter(
            session, corpus: corpus, path: path, output: output, width: truncateDim ?? width, located: isLocated)
        try vectors(job, corpus, body: writer.write)
        try writer.finish()
    }

    /// Whether rows tell where in their document they come from.
    private var isLocated: Bool { passageTokens != nil || chunkTokens != nil }

    /// Lines of JSON, as documents come. Collective.
    private func writeLines(_ job: EncodingJob) throws {
        let session = job.session
        let lines = try LineOutput(output.output, force: output.force, session)
        while let portion = try job.stream.next() {
            let corpus = try job.corpus(portion.documents, passageTokens: passageTokens, chunkTokens: chunkTokens)
            if pooling == PoolingChoice.none {
                try StatesWriter(session, corpus: corpus, encoder: job.model.encoder, output: output).write(to: lines)
                continue
            }
            let places = corpus.items.flatMap { item in
                item.spans.map { (document: portion.first + item.document, start: $0.start, end: $0.end) }
            }
            try vectors(job, corpus) { found in
                try lines.write(
                    try session.gather(found).map { span, vector in
                        let place = places[span]
                        let location =
                            isLocated
                            ? "\"document\": \(place.document), \"start\": \(place.start), \"end\": \(place.end), " : ""
                        return "{\(location)\"embedding\": \(JSONText.floats(vector))}\n"
                    }.joined())
            }
        }
        try lines.finish()
    }

    /// The vectors of a corpus, each on the rank that holds the first token of its span. Collective.
    private func vectors(_ job: EncodingJob, _ corpus: Corpus, body: ([(span: Int, vector: [Float])]) throws -> Void)
        throws
    {
        let settings = job.model.settings
        try job.session.vectors(
            corpus, with: job.model.encoder, pooling: pooling?.mode ?? settings?.pooling ?? .mean,
            normalize: normalize ?? settings?.normalize ?? false, dimensions: truncateDim, body: body)
    }
}

/// The poolings that can be asked for.
enum PoolingChoice: String, ExpressibleByArgument, CaseIterable {
    case cls, mean, max
    case meanSquareRootLength = "mean-sqrt-len"
    case weightedMean = "weighted-mean"
    case lastToken = "last-token"
    case none

    var mode: PoolingMode? { PoolingMode(rawValue: rawValue) }
}
