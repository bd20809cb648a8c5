// `annulus inspect`: a checkpoint's summary.

import ArgumentParser
import Checkpoints
import Crypto
import Files
import Foundation
import Matrices
import Pipelines
import Tokenization
import Transformers

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Summarise a checkpoint: family, shape, tensors, tokenizer, pooling; a file of tensors; the journal of a job.",
        discussion: """
            A checkpoint is loaded as `embed` would, so what is accepted will run. Of a journal, OUTPUT.journal beside the output \
            of a job with --resume, it tells what the job is and how much of it is done. Of any other file it lists the tensors: \
            safetensors, or what torch.save writes, of which nothing is run; of a sentencepiece model (.model) the pieces with their \
            numbers, kinds and scores.
            """)

    @Argument(help: "A journal, a file of tensors, or a sentencepiece model.")
    var file: String?

    @Option(name: [.short, .long], help: "A checkpoint: a folder, or org/name in the Hugging Face cache.")
    var model: String?

    @OptionGroup var runOptions: RunOptions

    @Flag(help: "List every tensor with its type and shape.")
    var tensors = false

    @Flag(help: "With --tensors or a file of tensors, also the SHA-256 of each one's elements in row-major order.")
    var digests = false

    private var isJournal: Bool { file?.hasSuffix(".journal") == true }

    mutating func validate() throws {
        if (model == nil) == (file == nil) {
            throw ValidationError("name a checkpoint with --model, or a journal or a file of tensors")
        }
        if tensors && file != nil { throw ValidationError("--tensors is of a checkpoint") }
        if digests && (isJournal || model != nil && !tensors) {
            throw ValidationError("--digests is of the tensors that --tensors lists, or of a file of tensors")
        }
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
        guard let file else { return "" }
        if isJournal { return table(try Journal(FileBytes.read(path: file), path: file).summary) }
        if file.hasSuffix(".model") {
            return try SentencepieceModel(path: file).pieces.enumerated().map { id, piece in
                "\(id)  \(JSONText.string(piece.text))  \(piece.kind.rawValue)  \(JSONText.number(piece.score))\n"
            }.joined()
        }
        let tensors = try TensorFile(path: file)
        return try tensors.names.map { try line($0, tensors) }.joined()
    }

    /// A tensor's name, type and shape, and where asked for the digest of its elements.
    private func line(_ name: String, _ file: TensorFile) throws -> String {
        guard let tensor = file.tensors[name] else { return "" }
        let digest =
            digests
            ? try "  " + SHA256.hash(data: file.bytes(of: name)).map { String(format: "%02x", $0) }.joined() : ""
        return "\(name)  \(tensor.elementType.rawValue) \(tensor.shape)\(digest)\n"
    }

    private func table(_ rows: [(String, String)]) -> String {
        rows.map { $0.0.padding(toLength: max(16, $0.0.count + 1), withPad: " ", startingAt: 0) + $0.1 + "\n" }.joined()
    }

    private func summary(_ name: String, _ kernels: KernelSet) throws -> String {
        let model = try LoadedModel.load(name, storage: .counting, kernels: kernels)
        let shape = model.encoder.configuration
        var rows: [(String, String)] = [
            ("folder", model.folder.path),
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
        rows += try pipeline(model, kernels)
        var text = table(rows)
        if tensors {
            for name in model.checkpoint.names {
                if let file = model.checkpoint.file(of: name) { text += try line(name, file) }
            }
        }
        return text
    }

    /// What the files of sentence-transformers say.
    private func pipeline(_ model: LoadedModel, _ kernels: KernelSet) throws -> [(String, String)] {
        let folder = model.folder
        var rows: [(String, String)] = []
        if folder.checkpoint.folder != folder.path { rows.append(("transformer", folder.checkpoint.folder)) }
        if folder.kind != .vectors { rows.append(("made for", folder.kind.rawValue)) }
        if let modules = folder.modules {
            rows.append(("modules", (["transformer"] + modules.map(Self.name)).joined(separator: ", ")))
        } else {
            rows.append(("pooling", "not told by the model; embed takes mean"))
        }
        do {
            let head = try VectorHead(
                folder, pooling: nil, hidden: model.encoder.configuration.hiddenSize, pools: true, storage: .counting,
                kernels: kernels)
            let width = folder.dimensions.map { min($0, head.width) } ?? head.width
            rows.append(
                (
                    "vectors",
                    "\(width) values" + (width < head.width ? " of \(head.width) (truncate_dim)" : "")
                        + ", compared by \(folder.similarity.rawValue)"
                ))
        } catch {
            rows.append(("vectors", "none: \(error.message)"))
        }
        if let scores = folder.scores { rows.append(("scores", "\(scores.rawValue) of the logits")) }
        let trained = model.trainedLength
        rows.append(("trained length", "\(trained.tokens) tokens (\(trained.source))"))
        if folder.lowercases { rows.append(("text", "lowercased before the tokenizer (do_lower_case)")) }
        if !folder.prompts.isEmpty {
            rows.append(
                (
                    "prompts",
                    folder.prompts.sorted { $0.key < $1.key }.map { name, text in
                        "\(name)\(name == folder.defaultPromptName ? " (default)" : "") \(JSONText.string(text))"
                    }.joined(separator: ", ")
                ))
        }
        return rows
    }

    private static func name(_ module: SentenceModule) -> String {
        switch module {
        case .pooling(let modes, let includesPrompt):
            "pooling \(modes.map(\.rawValue).joined(separator: " + "))\(includesPrompt ? "" : " without the prompt")"
        case .dense(let dense, let ofTokens):
            "dense \(dense.inputs) → \(dense.outputs) \(dense.activation.rawValue)\(ofTokens ? " of tokens" : "")"
        case .layerNorm: "layer norm"
        case .normalize(let ofTokens): "normalize" + (ofTokens ? " of tokens" : "")
        case .passive(let type), .other(let type): type
        }
    }
}
