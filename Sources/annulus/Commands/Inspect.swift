// `annulus inspect`: a checkpoint's summary.

import ArgumentParser
import Checkpoints
import Files
import Foundation
import Matrices
import Pipelines
import Tokenization
import Transformers

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Summarise a checkpoint: family, shape, tensors, tokenizer, pooling; or the journal of a job.",
        discussion: """
            A checkpoint is loaded as `embed` would, so what is accepted will run. Of a journal, OUTPUT.journal beside the output \
            of a job with --resume, it tells what the job is and how much of it is done.
            """)

    @Argument(help: "A journal.")
    var journal: String?

    @Option(name: [.short, .long], help: "A checkpoint: a folder, or org/name in the Hugging Face cache.")
    var model: String?

    @OptionGroup var runOptions: RunOptions

    @Flag(help: "List every tensor with its type and shape.")
    var tensors = false

    mutating func validate() throws {
        if (model == nil) == (journal == nil) {
            throw ValidationError("name a checkpoint with --model, or a journal")
        }
        if journal != nil && tensors { throw ValidationError("--tensors is of a checkpoint, and a journal has none") }
    }

    func run() throws {
        let command = self
        try Session.run(self, runOptions) { session in
            let text = try session.agree { session.isRoot ? try command.text(session.kernels) : "" }
            try session.agree { try session.printLines(text) }
        }
    }

    private func text(_ kernels: KernelSet) throws -> String {
        if let model { return try summary(model, kernels) }
        guard let journal else { return "" }
        return table(try Journal(FileBytes.read(path: journal), path: journal).summary)
    }

    private func table(_ rows: [(String, String)]) -> String {
        rows.map { $0.0.padding(toLength: max(16, $0.0.count + 1), withPad: " ", startingAt: 0) + $0.1 + "\n" }.joined()
    }

    private func summary(_ name: String, _ kernels: KernelSet) throws -> String {
        let model = try LoadedModel.load(name, storage: .counting, kernels: kernels)
        let shape = model.encoder.configuration
        var rows: [(String, String)] = [
            ("folder", model.folder),
            ("family", shape.family.name),
            ("hidden size", "\(shape.hiddenSize) in \(shape.headCount) heads of \(shape.headDimension)"),
            ("layers", "\(shape.layerCount), intermediate \(shape.intermediateSize), \(shape.activation.rawValue)"),
            ("positions", "\(shape.positionCount)"),
            ("vocabulary", "\(shape.vocabularySize)"),
            ("parameters", "\(model.checkpoint.parameterCount) in \(model.checkpoint.names.count) tensors"),
            ("weights", model.checkpoint.files.map { "\($0.path) (\($0.byteCount) bytes)" }.joined(separator: ", ")),
        ]
        if !model.checkpoint.prefix.isEmpty { rows.append(("prefix", model.checkpoint.prefix)) }
        if let tokenizer = try model.tokenizer() {
            rows.append(
                (
                    "tokenizer",
                    "\(tokenizer.vocabularySize) tokens; adds \(tokenizer.prefixIds.count) before and \(tokenizer.suffixIds.count) after a text"
                ))
        } else {
            rows.append(("tokenizer", "none (tokenizer.json is missing): input must be token ids"))
        }
        if let settings = model.settings {
            rows.append(("pooling", settings.pooling.rawValue + (settings.normalize ? ", normalised" : "")))
            if let limit = settings.maximumSequenceLength {
                rows.append(
                    ("trained length", "\(limit) tokens (sentence-transformers would cut there; annulus does not)"))
            }
            if !settings.prompts.isEmpty {
                rows.append(("prompts", settings.prompts.keys.sorted().joined(separator: ", ")))
            }
        } else {
            rows.append(("pooling", "not told by the model; embed takes mean"))
        }
        var text = table(rows)
        if tensors {
            for name in model.checkpoint.names {
                guard let tensor = model.checkpoint.tensor(named: name) else { continue }
                text += "\(name)  \(tensor.elementType.rawValue) \(tensor.shape)\n"
            }
        }
        return text
    }
}
