// A training as a job: examples in, steps, evaluations, snapshots, and the trained model's folder out.

import Checkpoints
import Files
import Foundation
import Plans
import RingAttention
import Tiles
import Tokenization
import Training
import Transformers

/// A training: what it begins with, what it learns, and where it writes.
package struct TrainingJob: Sendable {
    package var start: TrainingStart
    package var settings: TrainingSettings
    /// How texts are read: format, field, limit and truncation.
    package var input: DocumentInput
    /// The folder that is made.
    package var output: String
    /// Whether what is in the folder may be replaced.
    package var mayReplace = false
    /// Whether it goes on from the newest snapshot in the folder.
    package var resumes = false
    /// What the training is, so that no other goes on from its snapshots.
    package var identity: ResumeRequest

    package init(
        start: TrainingStart, settings: TrainingSettings, input: DocumentInput, output: String, identity: ResumeRequest
    ) {
        self.start = start
        self.settings = settings
        self.input = input
        self.output = output
        self.identity = identity
    }

    /// Trains. Collective.
    package func run(_ session: Session) throws {
        let start = try StartingModel.open(self.start, seed: settings.seed, session)
        guard let tokenizer = start.tokenizer else { preconditionFailure("a model that was opened has a tokenizer") }
        let reader = ExampleReader(
            session: session, tokenizer: tokenizer, limit: limit(start), truncation: input.truncation,
            textField: input.textField, format: input.format)
        let sets = try settings.tasks.map { try reader.read($0, names: names(start, $0.kind)) }
        let model = try session.agree {
            try TrainedModel(start, sets.map { ($0.kind, $0.labels, $0.isScored) }, settings)
        }
        try tellOfHeads(model, session)
        tellOfDropout(start.config, session)
        let evaluations = try settings.evaluations.map { file -> (task: Int, set: TrainingSet) in
            let task = try session.agree {
                guard let task = settings.tasks.firstIndex(where: { $0.kind == file.kind }) else {
                    throw JobError(.usage, "--eval \(file.kind.rawValue): no --task is of that kind")
                }
                return task
            }
            return (task, try reader.read(file, names: sets[task].labels))
        }
        try Trainer(self, model, sets, evaluations, session).run()
    }

    /// Tokens that a text may have.
    private func limit(_ start: StartingModel) -> Int {
        let positions = start.configuration.positionCount
        return switch input.limit {
        case .positions: positions
        case .tokens(let count): start.configuration.hasComputedPositions ? count : min(count, positions)
        case .trained: min(positions, start.folder?.trainedLength?.tokens ?? positions)
        }
    }

    /// The names of the labels of a model that has the head of a kind; else none.
    private func names(_ start: StartingModel, _ kind: TrainingKind) throws -> [String] {
        guard let checkpoint = start.folder?.checkpoint, kind.task?.hasLabels == true, kind != .regress,
            start.config["id2label"]?.object != nil,
            let architecture = start.config["architectures"]?[0]?.string,
            architecture.hasSuffix(kind == .entities ? "ForTokenClassification" : "ForSequenceClassification")
        else { return [] }
        return try LabelSet(start.config, path: checkpoint.configPath).names
    }

    /// Says where the model's own configuration drops with another probability than this training: transformers would take
    /// that, here options alone count.
    private func tellOfDropout(_ config: JSON, _ session: Session) {
        let classifier = settings.tasks.contains { $0.kind.task?.hasLabels == true }
        for (option, probability, keys) in [
            (
                "--dropout", settings.dropout,
                ["hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout", "resid_pdrop"]
            ),
            (
                "--attention-dropout", settings.attentionDropout,
                ["attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"]
            ),
            (
                "--classifier-dropout", settings.classifierDropout ?? settings.dropout,
                classifier ? ["classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout"] : []
            ),
        ] {
            for key in keys {
                guard let own = config[key]?.double, own != probability else { continue }
                session.log.notice(
                    "the model's configuration has \(key) \(own); this training drops with \(probability), as \(option) says"
                )
            }
        }
    }

    /// Says which heads begin anew.
    private func tellOfHeads(_ model: TrainedModel, _ session: Session) throws {
        let source = model.start.parameters(encoder: model.encoderNames)
        let fresh = model.tasks.flatMap(\.head).filter {
            !model.encoderNames.contains($0.name) && !source.isStored($0.name, shape: $0.shape)
        }
        if model.start.folder != nil, let first = fresh.first {
            session.log.notice(
                "\(fresh.count) parameters of heads begin with random values, since the model does not have them: \(first.name)\(fresh.count > 1 ? ", …" : "")"
            )
        }
    }
}

/// The loop over steps, on one rank. All its functions are collective.
private final class Trainer {
    private let job: TrainingJob
    private let model: TrainedModel
    private let corpus: TrainingCorpus
    private let evaluations: [(task: Int, set: TrainingSet)]
    private let session: Session
    private let folder: TrainingFolder
    private let shard: OptimizerShard
    private let order: StepOrder
    private let schedule: Schedule
    /// The steps of the whole training.
    private let totalSteps: Int
    /// How steps and evaluations attend, and what a rank takes of memory.
    private let decision: Decision
    private var state: TrainingState
    private var events: EventFile?
    private var settings: TrainingSettings { job.settings }

    init(
        _ job: TrainingJob, _ model: TrainedModel, _ sets: [TrainingSet],
        _ evaluations: [(task: Int, set: TrainingSet)], _ session: Session
    ) throws {
        self.job = job
        self.model = model
        self.evaluations = evaluations
        self.session = session
        let settings = job.settings
        corpus = try session.agreeReading { try TrainingCorpus(sets, model, settings) }
        folder = TrainingFolder(model: model, settings: settings, session: session)
        let order = StepOrder(
            lengths: sets.map { $0.examples.map(\.tokenCount) }, stepTokens: settings.batchTokens, seed: settings.seed)
        self.order = order
        var steps = 0
        if settings.maxSteps == nil { for epoch in 0..<settings.epochs { steps += order.steps(epoch: epoch).count } }
        totalSteps = settings.maxSteps ?? steps
        schedule = Schedule(
            kind: settings.schedule, warmupSteps: settings.warmupSteps, steps: totalSteps,
            decaySteps: settings.decaySteps)
        state = TrainingState(facts: try ResumableJob.facts(job.identity, session))
        try session.logHeader("train \(settings.tasks.map(\.kind.rawValue).joined(separator: ", "))")
        decision = try session.decideTraining(
            model, lengths: order.largestPart(settings), maskProbability: settings.maskProbability,
            remedy: "lower --batch-tokens, or raise --gradient-accumulation-steps")
        shard = OptimizerShard(settings.adam, model.blocks, rank: session.transport.rank, of: session.transport.size)
    }

    func run() throws {
        guard try begin() else { return }
        let trained = model.blocks.count
        let frozen = model.frozen.isEmpty ? "" : ", \(model.frozen.count) tensors are not"
        session.log.notice(
            "\(totalSteps) steps of up to \(settings.batchTokens) tokens; \(trained) parameters are trained\(frozen); about \(Int(decision.memory / 0x1p20)) MiB a rank"
        )
        if let place = settings.loggingFolder {
            events = try session.agree { session.isRoot ? try EventFile(folder: place) : nil }
        }
        let line = session.display("training", total: totalSteps, unit: "steps")
        let runner = StepRunner(model, settings, shard, decision.strategy, session)
        let clock = ContinuousClock.now
        var tokens = 0
        let first = state.step
        var (epoch, before) = (0, 0)
        while state.step < totalSteps {
            let steps = order.steps(epoch: epoch)
            for (place, examples) in steps.enumerated() {
                if before + place < state.step { continue }
                if state.step == totalSteps { break }
                let factor = schedule.factor(state.step)
                let rate = settings.learningRate * factor
                let documents = corpus.documents(examples, step: state.step)
                let result = try runner.run(
                    documents, number: state.step, rate: rate,
                    headRate: (settings.headLearningRate ?? settings.learningRate) * factor)
                try session.agree {
                    if !result.norm.isFinite || !result.loss.isFinite {
                        throw JobError(
                            .badInput,
                            "step \(state.step + 1): the \(result.loss.isFinite ? "norm of the gradients" : "loss") is not finite; lower --learning-rate, or see the model with `annulus verify`"
                        )
                    }
                }
                state.step += 1
                state.lossSum += result.loss
                state.lossCount += 1
                tokens += result.tokens
                session.done.tokens += result.tokens
                line.advance(to: state.step)
                session.monitor.progress()
                let seconds = (ContinuousClock.now - clock).inSeconds
                try finishStep(
                    result, rate: rate, epoch: Double(epoch) + Double(place + 1) / Double(steps.count),
                    tokensPerSecond: Double(tokens) / max(seconds, 1e-9),
                    secondsLeft: seconds / Double(max(1, state.step - first)) * Double(totalSteps - state.step))
            }
            before += steps.count
            epoch += 1
            if steps.isEmpty { break }
        }
        line.finish(done: state.step)
        try folder.write(to: job.output)
        try session.agree {
            if session.isRoot {
                try ParallelFile.replace(
                    job.output + "/" + TrainingState.fileName, with: Array(state.text.utf8))
            }
        }
    }

    /// What follows a step: the log, evaluations, a snapshot, and an end where one was asked for.
    private func finishStep(
        _ result: StepResult, rate: Double, epoch: Double, tokensPerSecond: Double, secondsLeft: Double
    ) throws {
        let isLast = state.step == totalSteps
        if state.step % settings.loggingSteps == 0 || isLast {
            let mean = state.lossSum / Double(max(1, state.lossCount))
            (state.lossSum, state.lossCount) = (0, 0)
            var entry: [(String, Double)] = [("loss", mean), ("learning_rate", rate), ("grad_norm", result.norm)]
            if model.tasks.count > 1 {
                for (number, loss) in result.losses.enumerated() {
                    if let loss { entry.append(("loss_\(number + 1)_\(model.tasks[number].kind.rawValue)", loss)) }
                }
                if model.learnedWeights != nil {
                    for (number, weight) in result.weights.enumerated() {
                        entry.append(("weight_\(number + 1)_\(model.tasks[number].kind.rawValue)", weight))
                    }
                }
            }
            try log(entry, group: "train", epoch: epoch)
            session.log.notice(
                "step \(state.step)/\(totalSteps): loss \(short(mean)), rate \(short(rate)), norm \(short(result.norm)), \(Int(tokensPerSecond)) tokens/s, \(time(secondsLeft)) left"
            )
        }
        if !evaluations.isEmpty, isLast || settings.evaluationSteps.map({ state.step % $0 == 0 }) ?? false {
            try evaluate(epoch: epoch)
        }
        let isAsked = try session.transport.allGather([Interruption.isAsked ? 1 : 0]).contains([1])
        if isAsked && !isLast || settings.saveSteps.map({ state.step % $0 == 0 }) ?? false { try save() }
        if isAsked, !isLast {
            throw AgreedFailure(
                status: .interrupted,
                message:
                    "interrupted by SIGUSR1, with \(state.step) of \(totalSteps) steps done; run the same command again with --resume to go on"
            )
        }
    }

    private func log(_ values: [(String, Double)], group: String, epoch: Double) throws {
        var members = JSONObject()
        members.set("step", .integer(state.step))
        members.set("epoch", .number(epoch))
        for (name, value) in values { members.set(group == "train" ? name : "\(group)_\(name)", .number(value)) }
        state.log.append(.object(members))
        try session.agree {
            try events?.add(values.map { ("\(group)/\($0.0)", $0.1) }, step: state.step)
        }
    }

    private func evaluate(epoch: Double) throws {
        for (number, evaluation) in evaluations.enumerated() {
            let values = try Evaluation(model, settings, decision.strategy, session).run(
                evaluation.set, task: evaluation.task)
            let name = evaluations.count == 1 ? "eval" : "eval_\(number + 1)_\(evaluation.set.kind.rawValue)"
            try log(values, group: name, epoch: epoch)
            let shown = values.map { "\($0.0) \(short($0.1))" }.joined(separator: ", ")
            session.log.notice("step \(state.step), \(evaluation.set.kind.rawValue): \(shown)")
        }
    }

    private func short(_ value: Double) -> String { String(format: "%.4g", value) }

    private func time(_ seconds: Double) -> String {
        seconds < 90
            ? "\(Int(seconds)) s"
            : seconds < 5400 ? "\(Int(seconds / 60)) min" : String(format: "%.1f h", seconds / 3600)
    }

    // MARK: - Snapshots

    /// Looks at the output's folder, and goes on from a snapshot where that is asked for.
    /// - Returns: whether anything is left to do.
    private func begin() throws -> Bool {
        let found = try session.agree { () -> [UInt8] in
            guard session.isRoot else { return [] }
            let snapshots = TrainingState.snapshots(in: job.output)
            let isThere = FileBytes.exists(job.output + "/model.safetensors")
            if job.resumes {
                if isThere, FileBytes.exists(job.output + "/" + TrainingState.fileName) {
                    let done = try TrainingState(path: job.output + "/" + TrainingState.fileName)
                    try compare(done, at: job.output)
                    return Array("done".utf8)
                }
                guard let step = snapshots.last else { return [] }
                return Array("\(step)".utf8)
            }
            guard job.mayReplace || snapshots.isEmpty && !isThere else {
                throw JobError(
                    .cannotCreate,
                    "\(job.output): holds a model or snapshots; go on from them with --resume, overwrite them with --force, or name another folder"
                )
            }
            for step in snapshots { try remove(step) }
            if FileBytes.exists(job.output + "/" + TrainingState.fileName) {
                try FileManager.default.removeItem(atPath: job.output + "/" + TrainingState.fileName)
            }
            return []
        }
        let told = String(decoding: try session.transport.allGather(found)[0], as: UTF8.self)
        if told == "done" {
            session.log.notice("\(job.output): the training is complete")
            return false
        }
        guard let step = Int(told) else { return true }
        let place = "\(job.output)/checkpoint-\(step)"
        let saved = try session.agree {
            let saved = try TrainingState(path: place + "/" + TrainingState.fileName)
            try compare(saved, at: place)
            return saved
        }
        try folder.readSnapshot(place, saved, shard)
        state = saved
        session.log.notice("resuming: \(state.step) of \(totalSteps) steps done")
        return true
    }

    private func compare(_ other: TrainingState, at place: String) throws {
        let journal = Journal(facts: other.facts, mayReplace: false)
        // Digests are rank 0's.
        guard session.isRoot else { return }
        if let difference = journal.difference(from: state.facts, path: place) {
            throw JobError(.badInput, difference)
        }
    }

    private func save() throws {
        try folder.writeSnapshot(state, shard, to: "\(job.output)/checkpoint-\(state.step)")
        try session.agree {
            guard session.isRoot, let limit = settings.saveTotalLimit else { return }
            for step in TrainingState.snapshots(in: job.output).dropLast(limit) { try remove(step) }
        }
    }

    /// Removes a snapshot, its state first, without which it is none. Not collective.
    private func remove(_ step: Int) throws {
        let place = "\(job.output)/checkpoint-\(step)"
        do {
            try FileManager.default.removeItem(atPath: "\(place)/\(TrainingState.fileName)")
            try FileManager.default.removeItem(atPath: place)
        } catch {
            throw JobError(.cannotWrite, "\(place): cannot be removed (\(error.localizedDescription))")
        }
    }
}
