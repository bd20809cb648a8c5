// What a training is told.

import Tiles
import Training
import Transformers

/// What a model learns of a file of examples.
package enum TrainingKind: String, CaseIterable, Sendable {
    /// Texts whose masked tokens are to be guessed.
    case maskedLanguage = "mlm"
    /// Texts, or pairs of them, with one label each.
    case classify
    /// Texts, or pairs of them, with any number of labels.
    case multiLabel = "multi-label"
    /// Texts, or pairs of them, with a number each.
    case regress
    /// Texts whose tokens have labels.
    case entities = "ner"
    /// Pairs of texts that are alike, or with a score of how alike they are.
    case similarity

    /// The task whose head it has; none where vectors are compared.
    package var task: Task? {
        switch self {
        case .maskedLanguage: .maskedLanguage
        case .classify, .multiLabel, .regress: .sequenceClassification
        case .entities: .tokenClassification
        case .similarity: nil
        }
    }

    /// What `config.json` calls its problem.
    package var problem: String? {
        switch self {
        case .classify: "single_label_classification"
        case .multiLabel: "multi_label_classification"
        case .regress: "regression"
        case .maskedLanguage, .entities, .similarity: nil
        }
    }
}

/// A kind of training, and where its examples are.
package struct TrainingFile: Sendable, Equatable {
    package let kind: TrainingKind
    package let paths: [String]

    package init(_ kind: TrainingKind, paths: [String]) {
        self.kind = kind
        self.paths = paths
    }
}

/// The model that a training begins with.
package enum TrainingStart: Sendable {
    /// A folder, or `org/name` in the Hugging Face cache.
    case model(String)
    /// A published shape with random weights, for documents of so many tokens, and the folder of its tokenizer.
    case shape(String, tokenizer: String, positions: Int?)
}

/// What a training is told. Names and values are those of the transformers trainer where it has them.
package struct TrainingSettings: Sendable {
    package var tasks: [TrainingFile] = []
    /// What the loss of each task is multiplied by.
    package var taskWeights: [Double] = []
    /// Whether they are learned instead, as ``LearnedTaskWeights`` says.
    package var learnsTaskWeights = false
    package var evaluations: [TrainingFile] = []

    package var learningRate = 5e-5
    /// nil: the same.
    package var headLearningRate: Double?
    package var schedule = Schedule.Kind.linear
    package var warmupSteps = 0
    package var decaySteps: Int?
    /// nil: as many as the epochs take.
    package var maxSteps: Int?
    package var epochs = 3
    /// Of all ranks, a step.
    package var batchTokens = 8192
    /// Parts of a step that go through the model one after the other.
    package var accumulationSteps = 1
    package var adam = AdamW()
    package var maxGradientNorm = 1.0
    /// Of values of embeddings and of each layer's two results.
    package var dropout = 0.0
    /// Of attention weights.
    package var attentionDropout = 0.0
    /// Of values in the heads of labels; nil: as `dropout`.
    package var classifierDropout: Double?
    package var seed: UInt64 = 42
    /// What is not trained: `embeddings`, and layers by their numbers from 0.
    package var frozenEmbeddings = false
    package var frozenLayers: Set<Int> = []

    package var maskProbability = 0.15
    package var masksWholeWords = false
    package var temperature = 0.05
    package var isSymmetric = false

    package var loggingSteps = 10
    package var evaluationSteps: Int?
    package var saveSteps: Int?
    package var saveTotalLimit: Int?
    package var loggingFolder: String?
    /// nil: that of the model that it begins with.
    package var saveType: SavedType?

    package init() {}

    /// What weights are written in.
    package enum SavedType: String, CaseIterable, Sendable {
        case float32, bfloat16
    }
}
