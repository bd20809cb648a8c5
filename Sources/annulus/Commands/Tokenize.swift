// `annulus tokenize`: text to ids and offsets.

import ArgumentParser
import Checkpoints
import Files
import Pipelines
import Tokenization

struct Tokenize: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the token ids and offsets of documents.",
        discussion: """
            One JSON line a document: {"ids": […], "offsets": [[start, end], …]}, offsets in Unicode scalars of the text, \
            [0, 0] for special tokens, as Hugging Face's fast tokenizers give them. With a `text_pair` in a jsonl object they are \
            those of the pair.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var runOptions: RunOptions

    @Flag(name: .customLong("no-special-tokens"), help: "Leave out the special tokens around each document.")
    var noSpecialTokens = false

    func run() throws {
        let command = self
        try Session.run(self, runOptions, needs: input.streams + [.output]) { session in
            try session.agree { if session.isRoot { try command.write(session) } }
        }
    }

    /// Prints lines as documents come.
    private func write(_ session: Session) throws {
        let tokenizer = try Tokenizer.load(folder: ModelFolder.transformerFolder(named: model.model))
        var source = DocumentSource(input.documents)
        while true {
            let documents = try source.next(limit: 1 << 20) { try session.monitor.whileWaiting($0) }
            if documents.isEmpty { return }
            try session.printLines(try documents.map { try line($0, tokenizer) }.joined())
        }
    }

    private func line(_ document: Document, _ tokenizer: Tokenizer) throws -> String {
        guard case .text(let text) = document.content else {
            throw JobError(.badInput, "\(document.source): holds token ids already; tokenize takes text")
        }
        let encoding =
            document.pair.map { tokenizer.encode(text, pair: $0, addSpecialTokens: !noSpecialTokens) }
            ?? tokenizer.encode(text, addSpecialTokens: !noSpecialTokens)
        let ids = encoding.ids.map(String.init).joined(separator: ", ")
        let offsets = encoding.offsets.map { "[\($0.lowerBound), \($0.upperBound)]" }.joined(separator: ", ")
        return "{\"ids\": [\(ids)], \"offsets\": [\(offsets)]}\n"
    }
}
