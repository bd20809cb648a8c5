// Task heads: from hidden states to the logits of a task, as a list of steps that each family names in its own way.

import CLibrary
import Checkpoints
import Files
import Matrices

/// What a head is for.
public enum Task: String, Sendable, CaseIterable {
    case sequenceClassification, tokenClassification, maskedLanguage, questionAnswering

    /// Whether its results are labels, which the model's files name.
    public var hasLabels: Bool { self == .sequenceClassification || self == .tokenClassification }
}

/// The head of a task: steps that go over rows of hidden states, each row by itself.
public struct TaskHead: Sendable {
    /// What the logits are for; nil where they are vectors that are compared.
    public let task: Task?
    /// Logits a row.
    public let outputs: Int
    /// What of a document's states the head of a sequence reads.
    public let pooling: PoolingMode
    let steps: RowSteps
    /// Where the gradients of its parameters go; none where it is not trained. A tied decoder's comes last.
    public let gradientSlots: [GradientSlot]

    /// Loads a head.
    /// - Parameters:
    ///   - task: what the head is for.
    ///   - labels: how many outputs a classification has; other tasks have a number of their own.
    ///   - config: the model's `config.json`.
    ///   - path: names that file in errors.
    ///   - configuration: that of the encoder below the head.
    ///   - parameters: where the head's values come from, by the names that Hugging Face publishes.
    ///   - storage: where the weights are put.
    ///   - element: what the weights of dense layers are stored in.
    ///   - trains: whether gradients go back through it; the weights are float32 then.
    ///   - kernels: those that pack the weights and compute logits.
    /// - Throws: `FileError` naming the tensor that is missing, which tells a model that was not trained for the task.
    public init(
        _ task: Task, labels: Int, config: JSON, path: String, configuration: EncoderConfiguration,
        parameters: any ParameterSource,
        storage: WeightStorage = WeightStorage(), element: ElementKind = .float32, trains: Bool = false,
        kernels: KernelSet
    ) throws(FileError) {
        precondition(!trains || element == .float32, "weights that are trained are float32")
        let reader = ConfigurationReader(config: config, path: path)
        let plan = try configuration.family.heads.names(
            task, HeadSource(configuration: configuration, reader: reader, parameters: parameters))
        let outputs =
            switch task {
            case .maskedLanguage: configuration.vocabularySize
            case .questionAnswering: 2
            case .sequenceClassification, .tokenClassification: labels
            }
        let slots = trains ? GradientSlots() : nil
        let root = ParameterPath(source: parameters, storage: storage, slots: slots)
        var steps: [RowSteps.Step] = []
        var width = configuration.hiddenSize
        for step in plan.steps {
            storage.beginPart()
            switch step {
            case .dense(let name, let size, let hasBias):
                let next = size ?? width
                steps.append(
                    .dense(
                        try Dense(
                            root[name], inputs: width, outputs: next, hasBias: hasBias, element: element,
                            kernels: kernels)))
                width = next
            case .activation(let activation): steps.append(.activation(activation))
            // Of no use where nothing is trained.
            case .dropout(let place): if trains { steps.append(.dropout(place)) }
            case .norm(let name, let hasBias):
                steps.append(.norm(try Norm(root[name], width: width, configuration, hasBias: hasBias)))
            case .decoder(let weight, let biasName):
                let bias = try biasName.map { (name: String) throws(FileError) in
                    try root[name].read(shape: [outputs])
                }
                steps.append(
                    .dense(
                        try Dense(
                            parts: [
                                Dense.Rows(
                                    path: root[weight], range: 0..<outputs, all: outputs,
                                    bias: biasName.map { root[$0] })
                            ], bias: bias, inputs: width, element: element, kernels: kernels)))
                width = outputs
            case .labels(let name):
                steps.append(
                    .dense(try Dense(root[name], inputs: width, outputs: outputs, element: element, kernels: kernels)))
                width = outputs
            }
        }
        self.task = task
        self.outputs = outputs
        self.steps = RowSteps(steps, inputs: configuration.hiddenSize, kernels: kernels)
        pooling = plan.pooling
        gradientSlots = slots?.slots ?? []
    }

    /// The modules of sentence-transformers that stand behind pooling, to be trained: dense layers and layer norms over vectors.
    /// Each is called by its folder: `2_Dense.linear.weight`.
    /// - Parameters:
    ///   - modules: of a model's folder, all that follows its transformer; those that change no direction are passed over.
    ///   - pooling: of what the first of them reads.
    ///   - hidden: values of a state of the transformer.
    ///   - path: names the list of modules in errors.
    ///   - parameters: where the values come from.
    ///   - storage: where the weights are put.
    ///   - kernels: those that pack the weights and compute.
    /// - Throws: `FileError` naming a module that is not trained, or does not fit what comes before it.
    public init(
        vectorsOf modules: [SentenceModule], pooling: PoolingMode, hidden: Int, path: String,
        parameters: any ParameterSource, storage: WeightStorage = WeightStorage(), kernels: KernelSet
    ) throws(FileError) {
        let slots = GradientSlots()
        let root = ParameterPath(source: parameters, storage: storage, slots: slots)
        var steps: [RowSteps.Step] = []
        var width = hidden
        func refuse(_ what: String) -> FileError {
            FileError(.malformed, path: path, "similarity does not train \(what); begin with a model that has none")
        }
        func fit(_ inputs: Int, _ folder: String) throws(FileError) {
            guard inputs == width else {
                throw FileError(
                    .malformed, path: folder,
                    "takes \(inputs) values, and what comes before it gives \(width); fetch the folder again")
            }
        }
        var isPooled = false
        for module in modules {
            storage.beginPart()
            switch module {
            case .pooling(let modes, _):
                guard modes.count == 1, !isPooled else { throw refuse("\(modes.count) poolings side by side") }
                isPooled = true
            case .dense(let dense, let ofTokens):
                guard !ofTokens, isPooled else { throw refuse("a Dense over tokens, \(dense.folder)") }
                guard !dense.hasResidual else { throw refuse("a Dense with a residual, \(dense.folder)") }
                try fit(dense.inputs, dense.folder)
                steps.append(
                    .dense(
                        try Dense(
                            root[SentenceModule.name(dense.folder)][dense.name], inputs: dense.inputs,
                            outputs: dense.outputs, hasBias: dense.hasBias, element: .float32, kernels: kernels)))
                width = dense.outputs
                switch dense.activation {
                case .identity: break
                case .tanh: steps.append(.activation(.tanh))
                case .relu: steps.append(.activation(.relu))
                case .gelu: steps.append(.activation(.gelu))
                case .silu: steps.append(.activation(.silu))
                case .sigmoid, .softmax:
                    throw refuse("a Dense with \(dense.activation.rawValue), \(dense.folder)")
                }
            case .layerNorm(let folder, let size):
                guard isPooled else { throw refuse("a LayerNorm over tokens, \(folder)") }
                try fit(size, folder)
                steps.append(.norm(try Norm(root[SentenceModule.name(folder)]["norm"], width: size, epsilon: 1e-5)))
            case .normalize(ofTokens: true): throw refuse("a Normalize over tokens")
            case .other(let type): throw refuse("a module \(type)")
            // A cosine does not see the length of a vector, unless more follows.
            case .normalize(ofTokens: false), .passive: break
            }
        }
        guard isPooled else { throw refuse("a model without Pooling") }
        if let place = modules.firstIndex(where: { if case .normalize = $0 { true } else { false } }) {
            for module in modules[place...] {
                switch module {
                case .dense, .layerNorm: throw refuse("what stands behind a Normalize")
                case .pooling, .normalize, .passive, .other: break
                }
            }
        }
        task = nil
        outputs = width
        self.steps = RowSteps(steps, inputs: hidden, kernels: kernels)
        self.pooling = pooling
        gradientSlots = slots.slots
    }

    /// The logits of some rows of hidden states: (rows, outputs).
    /// - Parameters:
    ///   - rows: how many.
    ///   - states: (rows, hiddenSize)
    public func logits(rows: Int, _ states: UnsafePointer<Float>) -> [Float] { steps.forward(rows: rows, states) }
}

/// The steps of a head by the names of its parameters.
struct HeadNames {
    enum Step {
        /// A dense layer of so many outputs, as many as inputs where nil.
        case dense(String, Int? = nil, hasBias: Bool = true)
        case activation(Activation)
        /// Where values are dropped while the head is trained: 0 before the last layer, 1 at the states.
        case dropout(Int)
        case norm(String, hasBias: Bool = true)
        /// The last dense layer of a language model, whose weights may be those of the word embeddings.
        case decoder(weight: String, bias: String?)
        /// The last dense layer of any other head.
        case labels(String)
    }

    let steps: [Step]
    /// What of a document's states the head of a sequence reads.
    let pooling: PoolingMode

    init(_ steps: [Step], pooling: PoolingMode = .cls) {
        self.steps = steps
        self.pooling = pooling
    }
}

/// What a family looks at to name the steps of a head.
struct HeadSource {
    let configuration: EncoderConfiguration
    let reader: ConfigurationReader
    let parameters: any ParameterSource

    /// The last dense layer of a language model. The stored one counts where it is not tied; a tied one may be stored
    /// or not.
    func decoder(_ name: String, bias: String?) throws(FileError) -> HeadNames.Step {
        let isTied = try reader.flag("tie_word_embeddings", default: true)
        return .decoder(weight: (isTied ? configuration.names.words : name) + ".weight", bias: bias)
    }
}

/// The heads of a family's tasks.
struct TaskHeads: Sendable {
    typealias Names = @Sendable (HeadSource) throws(FileError) -> HeadNames

    /// Of a sequence: its class, or several.
    let sequence: Names
    /// Of each token.
    var tokens: Names = { _ throws(FileError) in HeadNames([.dropout(0), .labels("classifier")]) }
    /// Of each token: how well an answer begins and ends there.
    var answers: Names = { _ throws(FileError) in HeadNames([.labels("qa_outputs")]) }
    /// Of masked tokens: the words that stand there.
    let language: Names

    func names(_ task: Task, _ source: HeadSource) throws(FileError) -> HeadNames {
        switch task {
        case .sequenceClassification: try sequence(source)
        case .tokenClassification: try tokens(source)
        case .questionAnswering: try answers(source)
        case .maskedLanguage: try language(source)
        }
    }
}

/// What the labels of a head mean, as `config.json` tells.
public struct LabelSet: Sendable {
    /// How a label is chosen, and what loss it has.
    public enum Problem: String, Sendable {
        case regression
        case single = "single_label_classification"
        case multiple = "multi_label_classification"
    }

    /// The labels, each at its number, in the order of the logits.
    public let names: [String]
    /// nil where the file does not say.
    public let problem: Problem?
    /// What a cross-encoder's logits go through.
    private let function: TorchActivation?

    /// Those of a task that has none.
    public static let none = LabelSet(names: [], problem: nil, function: nil)

    private init(names: [String], problem: Problem?, function: TorchActivation?) {
        (self.names, self.problem, self.function) = (names, problem, function)
    }

    /// Reads `id2label`, or where it is missing or names another number than `num_labels` takes the names `LABEL_0`,
    /// `LABEL_1`, …; and `problem_type`.
    /// - Parameters:
    ///   - config: the model's `config.json`.
    ///   - path: names the file in errors.
    ///   - scores: what a cross-encoder's logits go through; nil for any other classifier.
    /// - Throws: `FileError` where labels are not numbered from 0 without a gap, or the problem is an unknown one.
    public init(_ config: JSON, path: String, scores: TorchActivation? = nil) throws(FileError) {
        let reader = ConfigurationReader(config: config, path: path)
        function = scores
        let map = config["id2label"]?.object
        let count = try reader.width("num_labels", default: map.flatMap { $0.count > 0 ? $0.count : nil } ?? 2)
        if let map, map.count == count {
            var names = [String?](repeating: nil, count: count)
            for member in map.members {
                guard let id = Int(member.key), names.indices.contains(id), let name = Self.name(member.value) else {
                    throw reader.refuse("'id2label' must name the labels 0 to \(count - 1)")
                }
                names[id] = name
            }
            let all = names.compactMap { $0 }
            // Keys as 1 and 01 are one number.
            guard all.count == names.count else {
                throw reader.refuse("'id2label' must name the labels 0 to \(count - 1)")
            }
            self.names = all
        } else {
            names = (0..<count).map { "LABEL_\($0)" }
        }
        let text = try reader.text("problem_type", default: "")
        problem = Problem(rawValue: text)
        if problem == nil, !text.isEmpty { throw reader.refuse("problem_type '\(text)' is not supported") }
    }

    /// A label's name; a number or a truth value is taken as it is written.
    private static func name(_ value: JSON) -> String? {
        switch value {
        case .string(let text): text
        case .integer(let number): String(number)
        case .number(let number): String(number)
        case .bool(let flag): String(flag)
        case .null, .array, .object: nil
        }
    }

    /// The scores of a row of logits: through the function of a cross-encoder; else as they are for a regression, each by
    /// itself for several labels or one, else shares that sum to one. Computed in double precision, rounded once.
    public func scores(_ logits: [Float]) -> [Float] {
        if let function { return function.applied(to: logits) }
        switch problem {
        case .regression: return logits
        case .multiple: return logits.map(logistic)
        case .single, nil: return logits.count == 1 ? logits.map(logistic) : softmax(logits)
        }
    }
}

/// A document's true label.
public enum Label: Sendable, Equatable {
    case index(Int)
    case values([Double])
}

extension LabelSet {
    /// The loss of a row of logits: cross entropy, binary cross entropy or mean squared error, by the problem; where
    /// the model does not tell, one label is a regression, an index a single label, numbers several.
    /// - Returns: nil where the label does not fit the problem.
    public func loss(_ logits: [Float], _ label: Label) -> Float? {
        let kind =
            problem ?? (logits.count == 1 ? .regression : { if case .index = label { .single } else { .multiple } }())
        var values: [Double]
        switch label {
        case .index(let index): values = [Double(index)]
        case .values(let list): values = list
        }
        switch kind {
        case .single:
            guard case .index(let index) = label, logits.indices.contains(index) else { return nil }
            return Float(logSumExp(logits) - Double(logits[index]))
        case .regression:
            guard values.count == logits.count else { return nil }
            return Float(
                zip(logits, values).reduce(0.0) { $0 + (Double($1.0) - $1.1) * (Double($1.0) - $1.1) }
                    / Double(values.count))
        case .multiple:
            if case .index = label { values = [] }
            guard values.count == logits.count else { return nil }
            // max(x, 0) − x·y + ln(1 + e^(−|x|))
            return Float(
                zip(logits, values).reduce(0.0) { sum, pair in
                    let x = Double(pair.0)
                    return sum + max(x, 0) - x * pair.1 + log1p(exp(-abs(x)))
                } / Double(values.count))
        }
    }
}
