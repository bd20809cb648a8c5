// The model of a training: what it begins with, its heads, and its trained parameters.

import Checkpoints
import Files
import Foundation
import Matrices
import RingAttention
import Tiles
import Tokenization
import Training
import Transformers

/// What a training begins with.
struct StartingModel: Sendable {
    /// `config.json`.
    let config: JSON
    /// Names it in messages.
    let configPath: String
    let configuration: EncoderConfiguration
    /// nil: a shape with random weights.
    let folder: ModelFolder?
    /// Where the tokenizer's files are.
    let tokenizerFolder: String
    /// nil where ids are made up.
    let tokenizer: Tokenizer?
    /// Of parameters that begin at random.
    let seed: UInt64
    /// By the names of their folders, the weights of modules behind the transformer.
    var modules: [String: Checkpoint] = [:]

    /// Opens it. Collective.
    static func open(_ start: TrainingStart, seed: UInt64, _ session: Session) throws -> StartingModel {
        try session.agreeReading(as: "the model") {
            switch start {
            case .model(let name):
                let folder = try ModelFolder(named: name)
                let checkpoint = folder.checkpoint
                guard Tokenizer.exists(folder: checkpoint.folder) else {
                    throw FileError(
                        .missing, path: checkpoint.folder + "/tokenizer.json",
                        "no such file; training needs the model's tokenizer")
                }
                var start = StartingModel(
                    config: checkpoint.config, configPath: checkpoint.configPath,
                    configuration: try EncoderConfiguration(checkpoint.config, path: checkpoint.configPath),
                    folder: folder, tokenizerFolder: checkpoint.folder,
                    tokenizer: try Tokenizer.load(folder: checkpoint.folder, lowercase: folder.lowercases), seed: seed)
                for place in (folder.modules ?? []).compactMap(\.weights) {
                    start.modules[SentenceModule.name(place)] = try Checkpoint(folder: place)
                }
                return start
            case .shape(let name, let tokenizerName, let positions):
                guard let shape = PublishedShape.named(name) else {
                    throw JobError(.usage, "--shape '\(name)' is unknown; known: \(PublishedShape.list)")
                }
                let place = try Checkpoint.resolve(tokenizerName)
                let tokenizer = try Tokenizer.load(folder: place)
                let path = "shape \(name)"
                let config = try JSON.parse(Array(shape.config(positions: positions).utf8), path: path).setting(
                    "vocab_size", .integer(Int(tokenizer.largestId) + 1))
                return StartingModel(
                    config: config, configPath: path, configuration: try EncoderConfiguration(config, path: path),
                    folder: nil, tokenizerFolder: place, tokenizer: tokenizer, seed: seed)
            }
        }
    }

    /// Its first parameters: those of the checkpoint, and of heads that it does not have, or has with other labels, random
    /// ones.
    func parameters(encoder: Set<String>) -> StartParameters {
        StartParameters(
            checkpoint: folder?.checkpoint, modules: modules, random: RandomParameters(seed: seed), encoder: encoder)
    }
}

/// The parameters that a training begins with.
struct StartParameters: ParameterSource {
    let checkpoint: Checkpoint?
    /// By the names of their folders, the weights of modules behind the transformer.
    let modules: [String: Checkpoint]
    let random: RandomParameters
    /// The names of the encoder's parameters, which a checkpoint must have.
    let encoder: Set<String>

    /// What a second task's parameter is called in a checkpoint.
    private func stored(_ name: String) -> String { TaskParameters.withoutTask(name) }

    /// Where the parameter of a module lies, and what it is called there.
    private func ofModule(_ name: String) -> (checkpoint: Checkpoint, name: String)? {
        let parts = stored(name).split(separator: ".", maxSplits: 1).map(String.init)
        return parts.count == 2 ? modules[parts[0]].map { ($0, parts[1]) } : nil
    }

    func has(_ name: String) -> Bool {
        if let (checkpoint, name) = ofModule(name) { return checkpoint.has(name) }
        // A new head is named as transformers names it now.
        return checkpoint?.has(stored(name)) == true
            || (checkpoint == nil || !encoder.contains(name)) && random.has(name) && !name.contains("layer_norm")
    }

    /// Whether the checkpoint's own values are taken.
    func isStored(_ name: String, shape: [Int]) -> Bool {
        if ofModule(name) != nil { return true }
        guard let checkpoint, checkpoint.has(stored(name)) else { return false }
        do { try checkpoint.check(stored(name), shape: shape) } catch { return false }
        return true
    }

    func check(_ name: String, shape: [Int]) throws(FileError) {
        if let (checkpoint, name) = ofModule(name) { return try checkpoint.check(name, shape: shape) }
        guard let checkpoint, encoder.contains(name) else { return }
        try checkpoint.check(name, shape: shape)
    }

    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        // All tasks begin with a variance of 1.
        if name == LearnedTaskWeights.parameterName { return floats.update(repeating: 0, count: range.count) }
        if let (checkpoint, name) = ofModule(name) {
            return try checkpoint.read(name, shape: shape, range: range, into: floats)
        }
        if let checkpoint, encoder.contains(name) || isStored(name, shape: shape) {
            return try checkpoint.read(stored(name), shape: shape, range: range, into: floats)
        }
        random.read(name, shape: shape, range: range, into: floats)
    }
}

/// The parameters of one of several heads: those that are not the encoder's have the task's number before their names.
struct TaskParameters: ParameterSource {
    let all: any ParameterSource
    let encoder: Set<String>
    /// From 0.
    let task: Int

    private static let mark = "task."

    /// What a parameter of the task's head is called among those of all tasks.
    static func name(_ name: String, task: Int, encoder: Set<String>) -> String {
        task == 0 || encoder.contains(name) ? name : "\(mark)\(task + 1).\(name)"
    }

    /// The name without the task's number.
    static func withoutTask(_ name: String) -> String {
        name.hasPrefix(mark)
            ? name.dropFirst(mark.count).split(separator: ".", maxSplits: 1).last.map(String.init) ?? name : name
    }

    private func full(_ name: String) -> String { Self.name(name, task: task, encoder: encoder) }

    func has(_ name: String) -> Bool { all.has(full(name)) }

    func check(_ name: String, shape: [Int]) throws(FileError) { try all.check(full(name), shape: shape) }

    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        try all.read(full(name), shape: shape, range: range, into: floats)
    }
}

/// One of the tasks of a training.
struct TrainedTask: Sendable {
    let kind: TrainingKind
    /// What its loss is multiplied by, unless weights are learned.
    let weight: Double
    let labels: [String]
    /// Of pairs that are compared: whether they have scores.
    let isScored: Bool
    /// `config.json` as the task has it.
    let config: JSON
    /// The parameters of the task's head by their own names; that of a tied decoder is the encoder's. Those of modules behind
    /// pooling begin with the names of their folders.
    let head: [Parameter]
    /// How vectors are pooled, where they are compared.
    let pooling: PoolingMode

    /// What a row's loss is; of pairs, what their loss is made of.
    var loss: RowLoss {
        switch kind {
        case .maskedLanguage, .classify, .entities: .crossEntropy
        case .multiLabel: .binary
        case .regress: .squaredError
        case .similarity: isScored ? .squaredError : .crossEntropy
        }
    }
}

/// A model that is trained: its trained parameters on every rank, and what it is built from in every step.
final class TrainedModel {
    let start: StartingModel
    let tasks: [TrainedTask]
    let blocks: ParameterBlocks
    let masters: MasterWeights
    /// The names of the encoder's parameters.
    let encoderNames: Set<String>
    /// All parameters, the encoder's first.
    let parameters: [Parameter]
    /// The names of those that are not trained.
    let frozen: Set<String>
    /// nil where the tasks' weights are given.
    let learnedWeights: LearnedTaskWeights?

    /// - Parameter tasks: of each its kind, the names of its labels, and whether its pairs have scores.
    init(
        _ start: StartingModel, _ tasks: [(kind: TrainingKind, labels: [String], isScored: Bool)],
        _ settings: TrainingSettings
    ) throws {
        self.start = start
        let encoder = try ParameterTree(start.configuration).parameters
        let encoderNames = Set(encoder.map(\.name))
        self.encoderNames = encoderNames
        let source = start.parameters(encoder: encoderNames)
        var made: [TrainedTask] = []
        var all = encoder
        for (number, task) in tasks.enumerated() {
            let config = Self.config(start.config, task.kind, task.labels)
            var head: [Parameter] = []
            if let kind = task.kind.task {
                head = try ParameterTree(
                    kind, labels: task.labels.count, config: config, path: start.configPath, start.configuration,
                    parameters: TaskParameters(all: source, encoder: encoderNames, task: number)
                ).parameters
            } else {
                head =
                    try Self.vectorHead(
                        start, TaskParameters(all: source, encoder: encoderNames, task: number), storage: .counting,
                        .best
                    )?.gradientSlots.map(\.parameter) ?? []
            }
            made.append(
                TrainedTask(
                    kind: task.kind, weight: settings.taskWeights.isEmpty ? 1 : settings.taskWeights[number],
                    labels: task.labels, isScored: task.isScored, config: config, head: head,
                    pooling: Self.pooling(start.folder)))
            for parameter in head where !encoderNames.contains(parameter.name) {
                all.append(
                    Parameter(
                        name: TaskParameters.name(parameter.name, task: number, encoder: encoderNames),
                        shape: parameter.shape))
            }
        }
        self.tasks = made
        learnedWeights = settings.learnsTaskWeights ? LearnedTaskWeights(made.map(\.loss)) : nil
        if learnedWeights != nil {
            all.append(Parameter(name: LearnedTaskWeights.parameterName, shape: [made.count]))
        }
        parameters = all
        let frozen = try Self.frozen(encoder.map(\.name), start.configuration, settings)
        self.frozen = frozen
        blocks = ParameterBlocks(
            all.filter { !frozen.contains($0.name) }, heads: Set(all.map(\.name)).subtracting(encoderNames))
        masters = try MasterWeights(blocks, from: source)
    }

    /// `config.json` of a task.
    private static func config(_ config: JSON, _ kind: TrainingKind, _ labels: [String]) -> JSON {
        guard kind.task?.hasLabels == true else { return config }
        var (names, numbers) = (JSONObject(), JSONObject())
        for (number, label) in labels.enumerated() {
            names.set(String(number), .string(label))
            numbers.set(label, .integer(number))
        }
        var config = config.setting("id2label", .object(names)).setting("label2id", .object(numbers))
        if config["num_labels"] != nil { config = config.setting("num_labels", .integer(labels.count)) }
        return kind.problem.map { config.setting("problem_type", .string($0)) } ?? config
    }

    /// How the vectors of a model are pooled: as its files say, the mean where they do not.
    private static func pooling(_ folder: ModelFolder?) -> PoolingMode {
        for module in folder?.modules ?? [] {
            if case .pooling(let modes, _) = module, let mode = modes.first { return mode }
        }
        return .mean
    }

    /// What stands behind pooling, where vectors are compared: a head that may have no layers.
    /// - Parameter parameters: by the names of one task.
    private static func vectorHead(
        _ start: StartingModel, _ parameters: any ParameterSource, storage: WeightStorage = WeightStorage(),
        _ kernels: KernelSet
    ) throws(FileError) -> TaskHead? {
        guard let folder = start.folder, let modules = folder.modules else { return nil }
        return try TaskHead(
            vectorsOf: modules, pooling: pooling(folder), hidden: start.configuration.hiddenSize,
            path: folder.path + "/modules.json", parameters: parameters, storage: storage, kernels: kernels)
    }

    /// The parameters that are not trained.
    private static func frozen(_ names: [String], _ configuration: EncoderConfiguration, _ settings: TrainingSettings)
        throws -> Set<String>
    {
        if let layer = settings.frozenLayers.max(), layer >= configuration.layerCount {
            throw JobError(
                .usage,
                "--freeze names layer \(layer), and the model has the layers 0 to \(configuration.layerCount - 1)")
        }
        return Set(
            names.filter { name in
                guard let layer = configuration.layer(of: name) else {
                    return settings.frozenEmbeddings && name.contains("embeddings")
                }
                return settings.frozenLayers.contains(layer)
            })
    }

    /// The numbers that learned weights of the tasks come from, as the masters have them, and where they are in the vector
    /// of parameters; nil where weights are given.
    var logVariances: (values: [Float], range: Range<Int>)? {
        guard learnedWeights != nil, let entry = blocks.entry(LearnedTaskWeights.parameterName) else { return nil }
        return (
            Array(UnsafeBufferPointer(start: masters.floats + entry.range.lowerBound, count: entry.range.count)),
            entry.range
        )
    }

    /// What each task's loss is multiplied by as the masters are.
    func weights(_ kernels: KernelSet) -> [Double] {
        guard let learnedWeights, let logVariances else { return tasks.map(\.weight) }
        return learnedWeights.weights(logVariances: logVariances.values, kernels: kernels)
    }

    /// The encoder of the masters as they are.
    func encoder(_ kernels: KernelSet) throws(FileError) -> Encoder {
        try Encoder(start.configuration, parameters: masters, trains: true, kernels: kernels)
    }

    /// The head of a task, of the masters as they are; none where vectors are compared as pooling gives them.
    func head(_ number: Int, _ kernels: KernelSet) throws(FileError) -> TaskHead? {
        let task = tasks[number]
        let parameters = TaskParameters(all: masters, encoder: encoderNames, task: number)
        guard let kind = task.kind.task else {
            guard !task.head.isEmpty else { return nil }
            return try Self.vectorHead(start, parameters, kernels)
        }
        return try TaskHead(
            kind, labels: task.labels.count, config: task.config, path: start.configPath,
            configuration: start.configuration,
            parameters: parameters, trains: true, kernels: kernels)
    }

    /// The slots of a step's gradients by the names of all parameters: the encoder's, then those of each head.
    func slots(_ encoder: Encoder, _ heads: [TaskHead?]) -> [GradientSlot] {
        var slots = encoder.gradientSlots
        for (number, head) in heads.enumerated() {
            slots += (head?.gradientSlots ?? []).map { slot in
                GradientSlot(
                    parameter: Parameter(
                        name: TaskParameters.name(slot.parameter.name, task: number, encoder: encoderNames),
                        shape: slot.parameter.shape), floats: slot.floats, rowWidth: slot.rowWidth)
            }
        }
        return slots
    }
}
