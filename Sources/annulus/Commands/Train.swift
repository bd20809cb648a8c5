// `annulus train`: a model trained or fine-tuned, in a folder that this program and transformers load.

import ArgumentParser
import Foundation
import Pipelines
import Training
import Transformers

struct Train: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train or fine-tune a model.",
        discussion: """
            Documents of any length, whole: a step takes as many as fit into --batch-tokens of all ranks together. The weights \
            have the same bytes on any number of ranks and threads, with any --strategy, and after any --resume.

            Examples are JSON lines: classify has `text`, perhaps `text_pair`, and `label`; multi-label `labels`; regress a \
            number as `label`; ner `tokens` and `labels`, or `text` and `entities` of start, end, label; similarity `text`, \
            `text_pair` and perhaps `score`, and without scores all other pairs of the step are negatives \
            (MultipleNegativesRankingLoss). mlm takes texts as the other verbs do, cut into windows of --max-length.

            Several --task make one encoder with a head for each: the folder holds the first, task-2, task-3, … below it the \
            others. The norm of gradients is clipped over all parameters; weights of norms, and biases, do not decay. Weights and \
            the optimizer's state are float32; --dtype bfloat16 is refused.
            """)

    @Option(
        name: [.short, .long],
        help: "The model to go on from: a folder as Hugging Face has it, or org/name in the Hugging Face cache.")
    var model: String?

    @Option(help: "Begin with random weights of one of: \(PublishedShape.list).")
    var shape: String?

    @Option(help: "With --shape, the folder, or org/name, of the tokenizer; its vocabulary sets the model's.")
    var tokenizer: String?

    @Option(help: "With --shape, the longest document, in tokens. Default: that of the published model.")
    var positions: Int?

    @Option(
        help: """
            KIND or KIND:FILE, once or several times; KIND is mlm, classify, multi-label, regress, ner or similarity. Without FILE, \
            --input.
            """)
    var task: [String]

    @Option(
        help: """
            What the loss of each task is multiplied by, separated by commas; or learned: a trained number s a task, for the \
            logarithm of its variance, weighs the loss by e^-s, by half of it for squared errors, and s/2 is added (Kendall, Gal & \
            Cipolla 2018). Default: 1 each.
            """)
    var taskWeights: String?

    @OptionGroup var input: InputOptions

    @Option(name: [.short, .long], help: "The folder to make.")
    var output: String

    @Flag(help: "Overwrite a model, and remove the snapshots, in a folder that exists.")
    var force = false

    @Flag(
        help: """
            Go on from the newest snapshot (checkpoint-N) in the folder, on any number of ranks, to the same bytes; begin where there \
            is none. A training that differs in a file or in an option that changes its bytes is refused with 65.
            """)
    var resume = false

    @Option(help: "The learning rate at its highest.")
    var learningRate = 5e-5

    @Option(help: "That of the heads of tasks. Default: --learning-rate.")
    var headLearningRate: Double?

    @Option(
        help: "How the rate goes behind the warm-up: \(Schedule.Kind.allCases.map(\.rawValue).joined(separator: ", "))."
    )
    var lrSchedulerType: Schedule.Kind = .linear

    @Option(help: "Steps in which the rate rises from zero.")
    var warmupSteps = 0

    @Option(help: "For warmup-stable-decay, the last steps, in which the rate falls. Default: a tenth of all.")
    var decaySteps: Int?

    @Option(help: "Steps, whatever the epochs. Default: those of --num-train-epochs.")
    var maxSteps: Int?

    @Option(help: "How often every example is seen.")
    var numTrainEpochs = 3

    @Option(help: "Tokens of a step at most, of all ranks together; a longer document is a step of its own.")
    var batchTokens = 8192

    @Option(
        help: """
            Parts of a step that go through the model one after the other, for want of memory; the bits are the same. Not with \
            similarity.
            """)
    var gradientAccumulationSteps = 1

    @Option(help: "What part of a weight, times the rate, a step takes off it (AdamW).")
    var weightDecay = 0.0

    @Option(name: .customLong("adam-beta1"), help: "The decay of the mean of gradients.")
    var adamBeta1 = 0.9

    @Option(name: .customLong("adam-beta2"), help: "The decay of the mean of their squares.")
    var adamBeta2 = 0.999

    @Option(help: "What is added to the root of that mean.")
    var adamEpsilon = 1e-8

    @Option(help: "The norm to which gradients are clipped; 0 clips nothing.")
    var maxGradNorm = 1.0

    @Option(help: "The share of tokens that mlm masks.")
    var mlmProbability = 0.15

    @Flag(help: "Mask all tokens of a word, or none.")
    var wholeWordMask = false

    @Option(
        help: """
            The probability with which values of hidden rows are dropped, in the places where transformers has the family drop \
            them, whatever the model's configuration says.
            """)
    var dropout = 0.0

    @Option(help: "That of attention weights, dropped behind the softmax; of ModernBERT also of what attention gives.")
    var attentionDropout = 0.0

    @Option(
        help:
            "That of what the last layer of a head of labels reads, and where transformers has it of what such a head begins with. Default: --dropout."
    )
    var classifierDropout: Double?

    @Option(
        help: "For similarity without scores, what cosines are divided by: one over sentence-transformers' `scale`.")
    var temperature = 0.05

    @Flag(
        help:
            "For similarity without scores, also look for the first text of every second one, as MultipleNegativesSymmetricRankingLoss."
    )
    var symmetric = false

    @Option(help: "What is not trained: embeddings, layers by their numbers from 0, or A-B, separated by commas.")
    var freeze: String?

    @Option(help: "The seed of the order of examples, of masks, of dropout, and of weights that begin at random.")
    var seed: UInt64 = 42

    @Option(
        help: "Write a snapshot every N steps: checkpoint-N in the folder. SIGUSR1 writes one too, and ends with 75.")
    var saveSteps: Int?

    @Option(help: "Keep so many of the newest snapshots. Default: all.")
    var saveTotalLimit: Int?

    @Option(
        help:
            "KIND:FILE, once or several times: loss, and accuracy, F1, Spearman's correlation or perplexity, on examples of a file."
    )
    var eval: [String] = []

    @Option(help: "Evaluate every N steps. Default: at the end.")
    var evalSteps: Int?

    @Option(help: "Log every N steps.")
    var loggingSteps = 10

    @Option(help: "Write TensorBoard event files into a folder.")
    var loggingDir: String?

    @Option(help: "float32 or bfloat16, of the weights in the folder. Default: that of the model.")
    var saveDtype: TrainingSettings.SavedType?

    @OptionGroup var runOptions: RunOptions

    mutating func validate() throws {
        guard (model == nil) != (shape == nil) else {
            throw ValidationError("give --model to go on from a model, or --shape and --tokenizer to begin one")
        }
        if let shape, PublishedShape.named(shape) == nil {
            throw ValidationError("--shape '\(shape)' is unknown; known: \(PublishedShape.list)")
        }
        if (shape == nil) != (tokenizer == nil) {
            throw ValidationError("--shape and --tokenizer go together: the tokenizer says how large the vocabulary is")
        }
        if shape == nil, positions != nil { throw ValidationError("--positions goes with --shape") }
        if let positions, !(1...(1 << 24)).contains(positions) {
            throw ValidationError("--positions takes 1 to \(1 << 24), not \(positions)")
        }
        if runOptions.dtype != .float32 {
            throw ValidationError(
                "--dtype bfloat16: weights are trained in float32; --save-dtype bfloat16 writes them so")
        }
        if runOptions.askedLayout != nil {
            throw ValidationError(
                "--layout: a step's tiles are dealt out in runs of even cost, cut where fewest sums are sent; leave it out"
            )
        }
        for (name, value) in [
            ("--max-steps", maxSteps), ("--num-train-epochs", numTrainEpochs), ("--batch-tokens", batchTokens),
            ("--gradient-accumulation-steps", gradientAccumulationSteps), ("--save-steps", saveSteps),
            ("--save-total-limit", saveTotalLimit), ("--eval-steps", evalSteps), ("--logging-steps", loggingSteps),
            ("--decay-steps", decaySteps),
        ] {
            if let value, value < 1 { throw ValidationError("\(name) takes a positive number, not \(value)") }
        }
        if warmupSteps < 0 { throw ValidationError("--warmup-steps takes 0 or more, not \(warmupSteps)") }
        for (name, value, range) in [
            ("--learning-rate", learningRate, 0...1e3), ("--head-learning-rate", headLearningRate ?? 0, 0...1e3),
            ("--weight-decay", weightDecay, 0...1e3), ("--max-grad-norm", maxGradNorm, 0...1e9),
            ("--adam-epsilon", adamEpsilon, 1e-30...1), ("--temperature", temperature, 1e-6...1e6),
        ] {
            if !range.contains(value) {
                throw ValidationError("\(name) takes \(range.lowerBound) to \(range.upperBound), not \(value)")
            }
        }
        for (name, value) in [
            ("--adam-beta1", adamBeta1), ("--adam-beta2", adamBeta2), ("--dropout", dropout),
            ("--attention-dropout", attentionDropout), ("--classifier-dropout", classifierDropout ?? 0),
        ] {
            if !(0..<1).contains(value) { throw ValidationError("\(name) takes 0 up to below 1, not \(value)") }
        }
        if !(mlmProbability > 0 && mlmProbability < 1) {
            throw ValidationError("--mlm-probability takes more than 0 and less than 1, not \(mlmProbability)")
        }
        if gradientAccumulationSteps > 1, task.contains(where: { $0.hasPrefix(TrainingKind.similarity.rawValue) }) {
            throw ValidationError(
                "--gradient-accumulation-steps with similarity: every pair of a step is compared with all others, so a step is one part"
            )
        }
        if task.isEmpty { throw ValidationError("give --task what the model is to learn") }
        _ = try settings()
        _ = try frozen()
    }

    func run() throws {
        var settings = try settings()
        (settings.frozenEmbeddings, settings.frozenLayers) = try frozen()
        let start: TrainingStart =
            model.map { .model($0) } ?? .shape(shape ?? "", tokenizer: tokenizer ?? "", positions: positions)
        let identity = ResumeRequest(
            facts: AskedOptions(self).facts,
            inputs: Self.named("the input of --task", settings.tasks) + Self.named("--eval", settings.evaluations),
            saveSeconds: 0)
        var job = TrainingJob(
            start: start, settings: settings, input: input.documents, output: output, identity: identity)
        job.mayReplace = force
        job.resumes = resume
        Interruption.keep()
        try Session.run(self, runOptions, needs: []) { [job] in try job.run($0) }
    }

    /// Files by names of their own, by which snapshots tell what has changed.
    private static func named(_ name: String, _ files: [TrainingFile]) -> [(name: String, paths: [String])] {
        files.enumerated().map { (files.count == 1 ? name : "\(name) \($0 + 1)", $1.paths) }
    }

    /// What the options say, but for what is frozen.
    private func settings() throws -> TrainingSettings {
        var settings = TrainingSettings()
        settings.tasks = try task.map { try file($0, "--task", isNamed: false) }
        settings.evaluations = try eval.map { try file($0, "--eval", isNamed: true) }
        for file in settings.evaluations where !settings.tasks.contains(where: { $0.kind == file.kind }) {
            throw ValidationError(
                "--eval \(file.kind.rawValue): no --task is of that kind, so there is no head to evaluate")
        }
        if taskWeights == "learned" {
            guard task.count > 1 else {
                throw ValidationError(
                    "--task-weights learned weighs several tasks against each other, and there is one")
            }
            settings.learnsTaskWeights = true
        } else if let taskWeights {
            let weights = taskWeights.split(separator: ",").map { Double($0) }
            guard weights.count == task.count, weights.allSatisfy({ $0.map { $0 >= 0 && $0.isFinite } ?? false }) else {
                throw ValidationError(
                    "--task-weights '\(taskWeights)' needs a number for each of \(task.count) tasks, separated by commas, or is learned"
                )
            }
            settings.taskWeights = weights.compactMap { $0 }
        }
        (settings.learningRate, settings.headLearningRate) = (learningRate, headLearningRate)
        (settings.schedule, settings.warmupSteps, settings.decaySteps) = (lrSchedulerType, warmupSteps, decaySteps)
        (settings.maxSteps, settings.epochs, settings.batchTokens) = (maxSteps, numTrainEpochs, batchTokens)
        settings.accumulationSteps = gradientAccumulationSteps
        settings.adam = AdamW(beta1: adamBeta1, beta2: adamBeta2, epsilon: adamEpsilon, weightDecay: weightDecay)
        (settings.maxGradientNorm, settings.dropout, settings.seed) = (maxGradNorm, dropout, seed)
        (settings.attentionDropout, settings.classifierDropout) = (attentionDropout, classifierDropout)
        (settings.maskProbability, settings.masksWholeWords) = (mlmProbability, wholeWordMask)
        (settings.temperature, settings.isSymmetric) = (temperature, symmetric)
        (settings.loggingSteps, settings.evaluationSteps, settings.loggingFolder) = (
            loggingSteps, evalSteps, loggingDir
        )
        (settings.saveSteps, settings.saveTotalLimit, settings.saveType) = (saveSteps, saveTotalLimit, saveDtype)
        return settings
    }

    /// `KIND` or `KIND:FILE`.
    private func file(_ text: String, _ option: String, isNamed: Bool) throws -> TrainingFile {
        let parts = text.split(separator: ":", maxSplits: 1).map(String.init)
        guard let name = parts.first, let kind = TrainingKind(rawValue: name) else {
            let known = TrainingKind.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("\(option) '\(text)' is none of: \(known), with :FILE behind it")
        }
        if isNamed, parts.count < 2 { throw ValidationError("\(option) '\(text)' needs a file: \(name):FILE") }
        let paths = parts.count == 2 ? [parts[1]] : input.input
        if paths.contains("-") {
            throw ValidationError(
                "\(option) '\(text)' reads its examples again, and standard input comes but once: put them into a file, and name it so or with --input"
            )
        }
        return TrainingFile(kind, paths: paths)
    }

    /// What `--freeze` names.
    private func frozen() throws -> (embeddings: Bool, layers: Set<Int>) {
        var (embeddings, layers): (Bool, Set<Int>) = (false, [])
        for part in freeze?.split(separator: ",") ?? [] {
            if part == "embeddings" {
                embeddings = true
                continue
            }
            let ends = part.split(separator: "-").map { Int($0) }
            guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2, first <= last,
                last < 1 << 16
            else {
                throw ValidationError("--freeze '\(part)' is neither embeddings nor a layer's number, nor A-B")
            }
            layers.formUnion(first...last)
        }
        return (embeddings, layers)
    }
}

extension Schedule.Kind: ExpressibleByArgument {}
extension TrainingSettings.SavedType: ExpressibleByArgument {}
