// `annulus classify`: documents to labels.

import ArgumentParser
import Pipelines

struct Classify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Classify documents.",
        discussion: """
            One JSON line a document: `label` and `score` as in the text-classification pipeline of transformers, and `logits`. \
            Where labels are given, as `label` of a jsonl object or one a line in --labels, `loss` too: cross entropy for an \
            index or a name, binary cross entropy for a list of numbers, mean squared error for a regression, as the model's \
            problem_type says. A jsonl object may hold a second text, `text_pair`. With --top-k the line is a list, best first: \
            such an object, and for further labels `label` and `score`.
            """)

    @OptionGroup var options: TaskOptions

    @Option(help: "The true labels, one a line for each document: an index, a name, or a JSON list of numbers.")
    var labels: String?

    @Option(
        help:
            "Give a list of this many labels with their scores, or of all if there are fewer. Default: the best label alone."
    )
    var topK: Int?

    mutating func validate() throws {
        if let topK, topK < 1 { throw ValidationError("--top-k takes a positive number, not \(topK)") }
    }

    func run() throws {
        var classification = Classification()
        classification.labels = labels
        classification.topK = topK
        try options.run(self, reading: [("--labels", labels)], classification.run)
    }
}
