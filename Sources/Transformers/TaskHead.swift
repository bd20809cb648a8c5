// Task heads: from hidden states to the logits of a task, as a list of steps that each family names in its own way.

import CLibrary
import Checkpoints
import Files
import Matrices

/// What a head is for.
public enum Task: String, Sendable, CaseIterable {
    case sequenceClassification, tokenClassification, maskedLanguage, questionAnswering
}

/// The head of a task: steps that go over rows of hidden states, each row by itself.
public struct TaskHead: Sendable {
    private enum Step: Sendable {
        case dense(Dense)
        case activation(Activation)
        case norm(Norm)
    }

    /// What the logits are for.
    public let task: Task
    /// Logits a row.
    public let outputs: Int
    /// What of a document's states the head of a sequence reads.
    public let pooling: PoolingMode
    private let steps: [Step]
    private let widest: Int
    private let kernels: KernelSet

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
    ///   - kernels: those that pack the weights and compute logits.
    /// - Throws: `FileError` naming the tensor that is missing, which tells a model that was not trained for the task.
    public init(
        _ task: Task, labels: Int, config: JSON, path: String, configuration: EncoderConfiguration,
        parameters: any ParameterSource,
        storage: WeightStorage = WeightStorage(), element: ElementKind = .float32, kernels: KernelSet
    ) throws(FileError) {
        let reader = ConfigurationReader(config: config, path: path)
        let plan = try configuration.family.heads.names(
            task, HeadSource(configuration: configuration, reader: reader, parameters: parameters))
        let outputs =
            switch task {
            case .maskedLanguage: configuration.vocabularySize
            case .questionAnswering: 2
            case .sequenceClassification, .tokenClassification: labels
            }
        let root = ParameterPath(source: parameters, storage: storage)
        var steps: [Step] = []
        var width = configuration.hiddenSize
        var widest = width
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
            case .norm(let name, let hasBias):
                steps.append(.norm(try Norm(root[name], width: width, configuration, hasBias: hasBias)))
            case .decoder(let weight, let bias):
                let bias = try bias.map { (name: String) throws(FileError) in try root[name].read(shape: [outputs]) }
                steps.append(
                    .dense(
                        try Dense(
                            parts: [Dense.Rows(path: root[weight], range: 0..<outputs, all: outputs)], bias: bias,
                            inputs: width, element: element,
                            kernels: kernels)))
                width = outputs
            case .labels(let name):
                steps.append(
                    .dense(try Dense(root[name], inputs: width, outputs: outputs, element: element, kernels: kernels)))
                width = outputs
            }
            widest = max(widest, width)
        }
        self.task = task
        self.outputs = outputs
        self.steps = steps
        self.widest = widest
        self.kernels = kernels
        pooling = plan.pooling
    }

    /// The logits of some rows of hidden states: (rows, outputs).
    public func logits(rows: Int, _ states: UnsafePointer<Float>, width hidden: Int) -> [Float] {
        var current = [Float](repeating: 0, count: rows * widest)
        var next = current
        current.withUnsafeMutableBufferPointer { $0.baseAddress?.update(from: states, count: rows * hidden) }
        var width = hidden
        for step in steps {
            current.withUnsafeMutableBufferPointer { x in
                next.withUnsafeMutableBufferPointer { y in
                    guard let x = x.baseAddress, let y = y.baseAddress else { return }
                    switch step {
                    case .dense(let dense):
                        dense.forward(rows: rows, x, into: y, kernels: kernels)
                        width = dense.weight.outputs
                    case .activation(let activation):
                        activation.forward(rows: rows, columns: width, x, stride: width, bias: nil, kernels: kernels)
                    case .norm(let norm): norm.forward(rows: rows, x, into: x, kernels: kernels)
                    }
                }
            }
            if case .dense = step { swap(&current, &next) }
        }
        return Array(current[..<(rows * outputs)])
    }
}

/// The steps of a head by the names of its parameters.
struct HeadNames {
    enum Step {
        /// A dense layer of so many outputs, as many as inputs where nil.
        case dense(String, Int? = nil, hasBias: Bool = true)
        case activation(Activation)
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
    var tokens: Names = { _ throws(FileError) in HeadNames([.labels("classifier")]) }
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

    /// Reads `id2label`, or where it is missing takes `num_labels` names `LABEL_0`, `LABEL_1`, …; and `problem_type`.
    /// - Parameters:
    ///   - config: the model's `config.json`.
    ///   - path: names the file in errors.
    /// - Throws: `FileError` where labels are not numbered from 0 without a gap, or the problem is an unknown one.
    public init(_ config: JSON, path: String) throws(FileError) {
        let reader = ConfigurationReader(config: config, path: path)
        if let map = config["id2label"]?.object, map.count > 0 {
            var names = [String?](repeating: nil, count: map.count)
            for member in map.members {
                guard let id = Int(member.key), names.indices.contains(id), let name = member.value.string else {
                    throw reader.refuse("'id2label' must name the labels 0 to \(map.count - 1)")
                }
                names[id] = name
            }
            let all = names.compactMap { $0 }
            // Keys as 1 and 01 are one number.
            guard all.count == names.count else {
                throw reader.refuse("'id2label' must name the labels 0 to \(map.count - 1)")
            }
            self.names = all
        } else {
            names = (0..<(try reader.width("num_labels", default: 2))).map { "LABEL_\($0)" }
        }
        let text = try reader.text("problem_type", default: "")
        problem = Problem(rawValue: text)
        if problem == nil, !text.isEmpty { throw reader.refuse("problem_type '\(text)' is not supported") }
    }

    /// The scores of a row of logits: as they are for a regression, each by itself for several labels or one, else
    /// shares that sum to one. Computed in double precision, rounded once.
    public func scores(_ logits: [Float]) -> [Float] {
        switch problem {
        case .regression: logits
        case .multiple: logits.map(logistic)
        case nil where logits.count == 1: logits.map(logistic)
        case .single, nil: softmax(logits)
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
