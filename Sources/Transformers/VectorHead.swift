// From states of tokens to vectors, by the modules that a model's folder lists behind its transformer.

import Checkpoints
import Files
import Matrices

/// What a model's folder does with the states of tokens: pooling, and layers before and behind it.
public struct VectorHead: Sendable {
    /// Over the states of each token, where the model gives those: the projection of a ColBERT.
    private let tokenSteps: RowSteps
    /// Over pooled vectors.
    private let steps: RowSteps
    /// How tokens are pooled; the vectors of several ways are put side by side.
    public let poolings: [PoolingMode]
    /// Whether the tokens of a prompt take part in pooling.
    public let includesPrompt: Bool
    /// Whether the last of the modules divides vectors by their norms.
    public let normalizes: Bool

    /// Values of a token's state.
    public var tokenWidth: Int { tokenSteps.outputs }
    /// Values of a vector.
    public var width: Int { steps.outputs }

    /// Loads the modules of a folder.
    /// - Parameters:
    ///   - folder: the model's. Without modules of its own, vectors are means.
    ///   - pooling: replaces the folder's own.
    ///   - hidden: values of a state of the transformer.
    ///   - pools: whether vectors are wanted, else the states of tokens.
    ///   - storage: where the weights are put.
    ///   - element: what the weights of dense layers are stored in.
    ///   - kernels: those that pack the weights and compute.
    /// - Throws: `FileError` naming the module that is not supported, or the file that does not fit.
    public init(
        _ folder: ModelFolder, pooling: PoolingMode?, hidden: Int, pools: Bool, storage: WeightStorage,
        element: ElementKind = .float32, kernels: KernelSet
    ) throws(FileError) {
        let list = folder.path + "/modules.json"
        var (poolings, includesPrompt): ([PoolingMode]?, Bool) = (nil, true)
        var (before, behind): ([RowSteps.Step], [RowSteps.Step]) = ([], [])
        var tokenWidth = hidden
        var width: Int?
        func fit(_ inputs: Int, _ width: Int, _ place: String) throws(FileError) {
            guard inputs == width else {
                throw FileError(
                    .malformed, path: place,
                    "takes \(inputs) values, and what comes before it gives \(width)"
                        + (pooling == nil ? "; fetch the folder again" : " with --pooling; leave that out"))
            }
        }
        for module in folder.modules ?? [] {
            switch module {
            case .pooling(let modes, let includes):
                guard poolings == nil else {
                    throw FileError(.malformed, path: list, "pools twice, which is not supported")
                }
                let chosen = pooling.map { [$0] } ?? modes
                (poolings, includesPrompt, width) = (chosen, includes, tokenWidth * chosen.count)
            case .dense(let dense, let ofTokens):
                if ofTokens {
                    try fit(dense.inputs, tokenWidth, dense.folder)
                    before += try Self.steps(dense, storage, element, kernels)
                    tokenWidth = dense.outputs
                } else if pools {
                    guard let now = width else { throw Self.misplaced("Dense", list) }
                    try fit(dense.inputs, now, dense.folder)
                    behind += try Self.steps(dense, storage, element, kernels)
                    width = dense.outputs
                }
            case .layerNorm(let place, let size):
                guard pools else { continue }
                guard let now = width else { throw Self.misplaced("LayerNorm", list) }
                try fit(size, now, place)
                let path = ParameterPath(source: try Checkpoint(folder: place), storage: storage)["norm"]
                behind.append(.norm(try Norm(path, width: size, epsilon: 1e-5)))
            case .normalize(let ofTokens):
                if ofTokens { before.append(.normalize) } else if pools { behind.append(.normalize) }
            case .passive: break
            case .other(let type):
                guard pools else { break }
                throw FileError(
                    .malformed, path: list,
                    "module \(type) is not supported (Transformer, Pooling, Dense, LayerNorm, Normalize are)"
                        + (type.hasSuffix("SpladePooling")
                            ? "; the model gives weights of words, and --pooling none gives states"
                            : ", and vectors need it; --pooling none gives the states of tokens"))
            }
        }
        if pools, poolings == nil {
            guard let pooling = pooling ?? (folder.modules == nil ? .mean : nil) else {
                // A ColBERT folder of the first kind has its projection among the weights, and no list.
                throw FileError(
                    .malformed, path: FileBytes.exists(list) ? list : folder.path,
                    "has no Pooling, so no vectors come of this model; choose one with --pooling, or --pooling none for the states of tokens"
                )
            }
            poolings = [pooling]
        }
        // States that are changed before they are pooled are nobody's convention.
        if pools, !before.isEmpty {
            guard width == nil || folder.modules == nil else {
                throw FileError(
                    .malformed, path: list, "has a Dense before Pooling, which is not supported; use --pooling none")
            }
            before = []
        }
        normalizes = if case .normalize? = behind.last { true } else { false }
        if normalizes { behind.removeLast() }
        self.poolings = poolings ?? []
        self.includesPrompt = includesPrompt
        tokenSteps = RowSteps(before, inputs: hidden, kernels: kernels)
        steps = RowSteps(behind, inputs: hidden * max(1, self.poolings.count), kernels: kernels)
    }

    /// The vector of what pooling gave, not yet divided by its norm.
    /// - Parameter pooled: for each of ``poolings`` its values, one after the other.
    public func vector(_ pooled: [Float]) -> [Float] {
        steps.steps.isEmpty
            ? pooled
            : pooled.withUnsafeBufferPointer { values in
                values.baseAddress.map { steps.forward(rows: 1, $0) } ?? []
            }
    }

    /// Whether states of tokens are those of the transformer as they are.
    public var keepsStates: Bool { tokenSteps.steps.isEmpty }

    /// What the model gives for some tokens: (rows, tokenWidth).
    /// - Parameters:
    ///   - rows: how many tokens.
    ///   - states: (rows, hidden)
    public func states(rows: Int, _ states: UnsafePointer<Float>) -> [Float] {
        tokenSteps.forward(rows: rows, states)
    }

    private static func misplaced(_ kind: String, _ list: String) -> FileError {
        FileError(.malformed, path: list, "has a \(kind) over vectors before any Pooling; fetch it again")
    }

    private static func steps(
        _ module: DenseModule, _ storage: WeightStorage, _ element: ElementKind, _ kernels: KernelSet
    ) throws(FileError) -> [RowSteps.Step] {
        let source = try Checkpoint(folder: module.folder)
        let root = ParameterPath(source: source, storage: storage)
        storage.beginPart()
        let dense = try Dense(
            root[module.name], inputs: module.inputs, outputs: module.outputs, hasBias: module.hasBias,
            element: element, kernels: kernels)
        var steps = [RowSteps.Step.dense(dense)]
        switch module.activation {
        case .identity, .softmax: break
        case .sigmoid: steps.append(.logistic)
        case .tanh: steps.append(.activation(.tanh))
        case .relu: steps.append(.activation(.relu))
        case .gelu: steps.append(.activation(.gelu))
        case .silu: steps.append(.activation(.silu))
        }
        guard module.hasResidual else { return steps }
        let through =
            module.inputs == module.outputs
            ? nil
            : try Dense(
                root["residual"], inputs: module.inputs, outputs: module.outputs, hasBias: false, element: element,
                kernels: kernels)
        return [.residual(inside: steps, through: through)]
    }
}
