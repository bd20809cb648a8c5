// `annulus embed`: documents to vectors.

import ArgumentParser
import Checkpoints
import Files
import Pipelines

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
    @OptionGroup var resuming: ResumeOptions
    @OptionGroup var runOptions: RunOptions

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
        try resuming.check(output: output.output, input: input.input)
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
        var options = EmbeddingOptions()
        options.pooling = pooling?.mode
        options.normalizes = normalize
        options.dimensions = truncateDim
        options.promptName = promptName
        options.passageTokens = passageTokens
        options.chunkTokens = chunkTokens
        options.keepsStates = pooling == PoolingChoice.none
        let command = self
        let resume = resuming.request(self, inputs: [("the input", input.input)])
        try Session.run(self, runOptions, needs: input.streams + output.streams) { [options] session in
            let embedder = try Embedder(
                session, model: command.model.model, input: command.input.documents, options)
            // Of a job that is continued, the output may be there.
            if let path = command.output.output, resume == nil {
                try ParallelFile.checkWritable(path, force: command.output.force, transport: session.transport)
            }
            try session.logHeader("embed \(command.model.model)", encodes: true)
            let file = command.output.output.map {
                OutputFile(path: $0, mayReplace: command.output.force, resume: resume)
            }
            if let file, file.format != .jsonLines { return try embedder.write(to: file) }
            try embedder.writeLines(to: LineDestination(file))
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
