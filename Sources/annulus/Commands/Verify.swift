// `annulus verify`: a checkpoint proved sound, the same on any ranks, and right by a float64 reference.

import ArgumentParser
import Pipelines

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prove a checkpoint: its tensors, the same bytes on any ranks, and its states against float64.",
        discussion: """
            Prints a line a check: ok, or FAILED with what is wrong; and what was not checked. Documents of seeded token ids, one of \
            the first and last rows of every table, and where there is a tokenizer one of text and one of a pair of texts go through the encoder on one rank, on virtual ranks, and on the ranks of the \
            job if there are several; the bytes must be the same. Beside them goes a plain float64 pass over whole sequences, one \
            loop after another; the states may be off by twice what the same loops are in float32; a line a layer tells how far they are off behind it. It takes seconds for a small \
            model and some minutes for a large one. Status 65 where a check fails.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var runOptions: RunOptions

    @Option(
        help: ArgumentHelp("Tokens of the documents of seeded ids, cut at the model's positions.", valueName: "n,…"))
    var lengths = CountList([1, 70, 300])

    @Option(help: ArgumentHelp("Numbers of virtual ranks.", valueName: "n,…"))
    var ranks = CountList([1, 2, 3, 5])

    @Option(help: "The seed of the token ids.")
    var seed: UInt64 = 0

    mutating func validate() throws {
        for (name, list, most) in [("--lengths", lengths, 1 << 20), ("--ranks", ranks, 64)] {
            guard list.values.allSatisfy({ (1...most).contains($0) }) else {
                throw ValidationError("\(name) takes whole numbers from 1 to \(most), with commas between them")
            }
        }
    }

    func run() throws {
        let options = Verification.Options(
            model: model.model, lengths: lengths.values, ranks: ranks.values, seed: seed)
        try Session.run(self, runOptions) { session in
            try Verification(options, session) { try StandardStream.write($0) }.run()
        }
    }
}

/// Whole numbers with commas between them.
struct CountList: ExpressibleByArgument, Sendable {
    let values: [Int]

    init(_ values: [Int]) { self.values = values }

    init?(argument: String) {
        let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
        values = numbers.compactMap { $0 }
        if values.count != numbers.count { return nil }
    }

    var defaultValueDescription: String { values.map(String.init).joined(separator: ",") }
}
