// `annulus fill-mask`: what stands in the place of mask tokens.

import ArgumentParser
import Pipelines

struct FillMask: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fill-mask", abstract: "Guess masked tokens.",
        discussion: """
            One JSON line a document, a list of what the fill-mask pipeline of transformers gives for its mask token: `score`, \
            `token`, `token_str` and `sequence`; where a document has several masks, a list of such lists.
            """)

    @OptionGroup var options: TaskOptions

    @Option(help: "Guesses for each mask.")
    var topK: Int = 5

    @Option(
        name: .long, parsing: .upToNextOption,
        help: "Score these tokens alone. Of a word that is none, the first token counts, and a line says so.")
    var targets: [String] = []

    mutating func validate() throws {
        if topK < 1 { throw ValidationError("--top-k takes a positive number, not \(topK)") }
    }

    func run() throws {
        var filling = MaskFilling()
        filling.topK = topK
        filling.targets = targets
        try options.run(self, filling.run)
    }
}
