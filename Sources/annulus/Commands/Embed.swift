// `annulus embed`: documents to vectors.

import ArgumentParser
import Checkpoints
import Encoders
import Foundation
import Matrices
import RingAttention
import Tiles

struct Embed: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Turn documents into vectors.",
        discussion: """
            Pooling, normalisation and prompts default to what the model's own files say (sentence-transformers), else to \
            mean pooling without normalisation. --truncate-dim keeps the first N values, before normalising. A .npy holds \
            [rows, hidden]; a .safetensors a tensor `embeddings`, or with --pooling none one tensor per document, `0`, `1`, …, \
            [tokens, hidden], special tokens included. With --passage-tokens or --chunk-tokens each row also tells \
            `document`, `start` and `end`: Unicode scalars of the document's text, or token positions where ids were given.
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

    @Option(help: "Split documents into passages of at most N tokens before encoding, each with its own special tokens.")
    var passageTokens: Int?

    @Option(help: "Pool spans of N tokens after encoding the whole document (late chunking).")
    var chunkTokens: Int?

    mutating func validate() throws {
        for (name, value) in [("--truncate-dim", truncateDim), ("--passage-tokens", passageTokens), ("--chunk-tokens", chunkTokens)] {
            if let value, value < 1 { throw ValidationError("\(name) takes a positive number, not \(value)") }
        }
        if passageTokens != nil && chunkTokens != nil {
            throw ValidationError("--passage-tokens splits before encoding and --chunk-tokens after it: choose one")
        }
        if pooling == PoolingChoice.none {
            if chunkTokens != nil { throw ValidationError("--chunk-tokens pools, and --pooling none does not: choose one") }
            if truncateDim != nil || normalize == true {
                throw ValidationError("--pooling none writes the states as they are, without --truncate-dim or --normalize")
            }
        }
        if output.format == .numpy && (passageTokens != nil || chunkTokens != nil) {
            throw ValidationError("a .npy has no room for document, start and end: write .safetensors or .jsonl")
        }
    }

    func run() throws {
        let command = self
        try Session.run(spread) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let job = try EncodingJob(model: model, input: input, session: session) { settings in
            if let promptName {
                guard let prompt = settings?.prompts[promptName] else {
                    let names = settings.map { $0.prompts.keys.sorted().joined(separator: ", ") } ?? ""
                    throw JobError(.usage, "--prompt-name '\(promptName)' is unknown to the model; it has: \(names.isEmpty ? "none" : names)")
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
        session.logHeader("embed \(model.model)")
        let corpus = try job.corpus(passageTokens: passageTokens, chunkTokens: chunkTokens)
        if pooling == PoolingChoice.none {
            try StatesWriter(session, corpus: corpus, encoder: job.model.encoder, output: output).run()
        } else {
            let settings = job.model.settings
            let writer = try VectorWriter(
                session, corpus: corpus, output: output, width: truncateDim ?? width,
                located: passageTokens != nil || chunkTokens != nil)
            try session.vectors(
                corpus, with: job.model.encoder, pooling: pooling?.mode ?? settings?.pooling ?? .mean,
                normalize: normalize ?? settings?.normalize ?? false, dimensions: truncateDim, body: writer.write)
            try writer.finish()
        }
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
