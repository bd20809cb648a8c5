// `annulus tokenize`: text to ids and offsets.

import ArgumentParser
import Checkpoints
import Tokenization

struct Tokenize: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the token ids and offsets of documents.",
        discussion: """
            One JSON line a document: {"ids": […], "offsets": [[start, end], …]}, offsets in Unicode scalars of the text, \
            [0, 0] for special tokens, as Hugging Face's fast tokenizers give them.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var spread: RunOptions

    @Flag(name: .customLong("no-special-tokens"), help: "Leave out the special tokens around each document.")
    var noSpecialTokens = false

    func run() throws {
        let command = self
        try Session.run(spread) { session in
            let lines = try session.agree { session.isRoot ? try command.lines() : [] }
            try session.agree { for line in lines { try session.printLines(line) } }
        }
    }

    private func lines() throws -> [String] {
        let folder = try Checkpoint.resolve(model.model)
        let tokenizer = try Tokenizer.load(folder: folder)
        return try Documents.read(input).map { document in
            guard case .text(let text) = document.content else {
                throw JobError(.badInput, "\(document.source): holds token ids already; tokenize takes text")
            }
            let encoding = tokenizer.encode(text, addSpecialTokens: !noSpecialTokens)
            let ids = encoding.ids.map(String.init).joined(separator: ", ")
            let offsets = encoding.offsets.map { "[\($0.lowerBound), \($0.upperBound)]" }.joined(separator: ", ")
            return "{\"ids\": [\(ids)], \"offsets\": [\(offsets)]}\n"
        }
    }
}
