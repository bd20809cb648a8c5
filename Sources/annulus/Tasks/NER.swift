// `annulus ner`: labels of tokens, and entities.

import ArgumentParser
import Pipelines
import Transformers

extension EntityAggregation: ExpressibleByArgument {}

struct NER: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ner", abstract: "Find entities in documents.",
        discussion: """
            One JSON line a document, a list of what the token-classification pipeline of transformers gives: `entity`, \
            `score`, `index`, `word`, `start` and `end` for each token, or with an aggregation `entity_group` instead of \
            `entity` and `index`. `start` and `end` count Unicode scalars. Tokens labelled O are left out.
            """)

    @OptionGroup var options: TaskOptions

    @Option(help: "How tokens become entities: none, simple, first, average or max.")
    var aggregation: EntityAggregation = .none

    func run() throws {
        var recognition = EntityRecognition()
        recognition.aggregation = aggregation
        try options.run(self, recognition.run)
    }
}
