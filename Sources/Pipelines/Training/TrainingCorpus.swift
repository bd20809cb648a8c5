// The documents of a step: examples with what is masked of them in that step.

import Checkpoints
import Files
import Tokenization
import Training
import Transformers

/// The examples of all tasks.
struct TrainingCorpus: Sendable {
    private let sets: [TrainingSet]
    /// The number of each task's first text.
    private let first: [Int]
    private let masking: TokenMasking?

    /// - Throws: `FileError` where tokens are to be masked and the tokenizer has no mask token.
    init(_ sets: [TrainingSet], _ model: TrainedModel, _ settings: TrainingSettings) throws {
        self.sets = sets
        var first: [Int] = []
        var next = 0
        for set in sets {
            first.append(next)
            next += 2 * set.examples.count
        }
        self.first = first
        masking =
            sets.contains { $0.kind == .maskedLanguage }
            ? try Self.masking(model.start, settings, seed: settings.seed) : nil
        for set in sets where set.examples.isEmpty {
            throw JobError(.badInput, "\(set.kind.rawValue): there are no examples")
        }
        for set in sets where set.kind == .similarity {
            let scored = set.examples.count { if case .pair(.some) = $0.target { true } else { false } }
            guard scored == 0 || scored == set.examples.count else {
                throw JobError(
                    .badInput,
                    "similarity: \(scored) of \(set.examples.count) pairs have a score; give all one, or none")
            }
        }
        for set in sets {
            for example in set.examples {
                for text in example.texts {
                    do throws(TokenError) {
                        try model.start.configuration.check(ids: [text.ids], typeIds: text.typeIds.map { [$0] })
                    } catch {
                        throw FileError(.malformed, path: example.source, "\(error.reason); use this model's tokenizer")
                    }
                }
            }
        }
    }

    /// How the tokens of texts are masked.
    static func masking(_ start: StartingModel, _ settings: TrainingSettings, seed: UInt64) throws -> TokenMasking {
        let names = try NamedTokens(folder: start.tokenizerFolder)
        guard let tokenizer = start.tokenizer,
            let mask = names.id("mask_token", tokenizer, usual: ["[MASK]", "<mask>"])
        else {
            throw FileError(
                .malformed, path: start.tokenizerFolder,
                "its tokenizer has no mask token; use that of a masked language model")
        }
        return TokenMasking(
            probability: settings.maskProbability, wholeWords: settings.masksWholeWords, maskId: mask,
            vocabularySize: start.configuration.vocabularySize, seed: seed)
    }

    /// The documents of a step.
    /// - Parameter step: its number, counted from 0, by which tokens are masked.
    func documents(_ examples: [ExampleNumber], step: Int) -> StepDocuments {
        Self.documents(
            examples.map { ($0.task, sets[$0.task].examples[$0.example], first[$0.task] + 2 * $0.example) },
            tasks: sets.count, masking: masking, kinds: sets.map(\.kind), step: step)
    }

    /// - Parameter examples: each with its task and the number of its first text.
    static func documents(
        _ examples: [(task: Int, example: TrainingExample, number: Int)], tasks: Int, masking: TokenMasking?,
        kinds: [TrainingKind], step: Int
    ) -> StepDocuments {
        var sequences: [StepDocuments.Sequence] = []
        var groups: [Int] = []
        var targets: [[ExampleTarget]] = Array(repeating: [], count: tasks)
        for (task, example, number) in examples {
            groups.append(example.texts.count)
            for (place, text) in example.texts.enumerated() {
                var ids = text.ids
                var wanted: [(row: Int, label: Int)] = []
                if kinds[task] == .maskedLanguage, let masking {
                    let masked = masking.mask(ids, words: text.marks, document: number + place, step: step)
                    ids = masked.ids
                    wanted = masked.rows.map { ($0, Int(text.ids[$0])) }
                } else if kinds[task] == .entities {
                    wanted = text.marks.indices.compactMap { text.marks[$0] < 0 ? nil : ($0, Int(text.marks[$0])) }
                }
                sequences.append(
                    StepDocuments.Sequence(
                        task: task, example: targets[task].count, text: place, number: number + place, ids: ids,
                        typeIds: text.typeIds ?? Array(repeating: 0, count: ids.count), wanted: wanted))
            }
            targets[task].append(example.target)
        }
        return StepDocuments(sequences: sequences, groups: groups, targets: targets)
    }
}
