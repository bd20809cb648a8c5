// Steps of masked-language-model training on made-up ids, for benchmarks.

import Files
import Matrices
import RingAttention
import Tiles
import Tokenization
import Training
import Transformers

/// A training of a shape with random weights, whose steps can be run one by one. All its functions are collective.
package final class TrainingBenchmark {
    private let model: TrainedModel
    private let runner: StepRunner
    private let lengths: [Int]
    private let seed: UInt64
    private var step = 0
    /// The bytes that the fullest rank is told to take.
    package let predictedBytes: Double

    /// The share of tokens that are to be guessed.
    private static let maskProbability = 0.15

    /// - Parameters:
    ///   - config: the model's `config.json`.
    ///   - lengths: the tokens of the documents of every step.
    ///   - seed: of ids, weights and masks.
    package init(config: JSON, named name: String, lengths: [Int], seed: UInt64, _ session: Session) throws {
        var settings = TrainingSettings()
        settings.seed = seed
        model = try session.agree {
            let start = StartingModel(
                config: config, configPath: name, configuration: try EncoderConfiguration(config, path: name),
                folder: nil, tokenizerFolder: "", tokenizer: nil, seed: seed)
            return try TrainedModel(start, [(.maskedLanguage, [], false)], settings)
        }
        let decision = try session.decideTraining(
            model, lengths: lengths, maskProbability: Self.maskProbability)
        predictedBytes = decision.memory
        let shard = OptimizerShard(
            settings.adam, model.blocks, rank: session.transport.rank, of: session.transport.size)
        runner = StepRunner(model, settings, shard, decision.strategy, session)
        self.lengths = lengths
        self.seed = seed
    }

    /// Floating-point operations of a step, all ranks together: three times the forward's products, and the head's for
    /// every masked token.
    package func flop() -> Double {
        let configuration = model.start.configuration
        let head = Double(2 * configuration.hiddenSize * (configuration.hiddenSize + configuration.vocabularySize))
        return 3 * EncoderRun.flop(lengths: lengths, configuration: configuration)
            + 3 * Self.maskProbability * Double(lengths.reduce(0, +)) * head
    }

    /// One step.
    package func run() throws {
        let vocabulary = UInt64(model.start.configuration.vocabularySize)
        let draws = CountedDraws(seed: seed, step: 0, site: .shuffling)
        let masking = TokenMasking(
            probability: Self.maskProbability, wholeWords: false, maskId: 0, vocabularySize: Int(vocabulary), seed: seed
        )
        let examples = lengths.enumerated().map { number, length in
            let ids = (0..<length).map { Int32(draws.state(document: number, row: $0) % vocabulary) }
            return (
                task: 0,
                example: TrainingExample(
                    source: "document \(number)",
                    texts: [ExampleText(ids: ids, typeIds: nil, marks: ids.indices.map { Int32($0) })], target: .tokens),
                number: 2 * number
            )
        }
        let documents = TrainingCorpus.documents(
            examples, tasks: 1, masking: masking, kinds: [.maskedLanguage], step: step)
        _ = try runner.run(documents, number: step, rate: 1e-5, headRate: 1e-5)
        step += 1
    }

    /// The weights as they are.
    package var weights: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: model.masters.floats, count: 4 * model.blocks.count)
    }
}
