// The parameters of a model, named as checkpoints name them, and what is done with all of them.

import Checkpoints
import Files
import Matrices
import Synchronization

/// A parameter of a model.
public struct Parameter: Sendable, Hashable {
    /// As checkpoints have it, without a prefix that all of a checkpoint's tensors share.
    public let name: String
    /// Dimensions, outermost first.
    public let shape: [Int]

    /// A parameter of that name and shape.
    public init(name: String, shape: [Int]) {
        self.name = name
        self.shape = shape
    }
}

/// The parameters of an encoder, in the order in which its layers come to them.
///
/// The tree itself is the layers: each goes from its `ParameterPath` to its parameters and to the layers within it, and
/// is the one place that knows their names and shapes. Whoever visits brings a ``ParameterSource``, which says what a
/// parameter's values are, and a ``WeightStorage``, which says where the weights made of them lie:
///
/// | visit | source | storage |
/// | --- | --- | --- |
/// | load | the checkpoint, or a seed | memory of the model's own |
/// | share per node | the checkpoint | memory that the ranks of a node fill together |
/// | count memory | none | one that counts |
/// | list, audit, save | one that takes note | one that counts |
public struct ParameterTree: Sendable {
    /// Each once, however many layers share it.
    public let parameters: [Parameter]

    /// The parameters of an encoder.
    /// - Throws: `FileError` where the configuration has no encoder.
    public init(_ configuration: EncoderConfiguration) throws(FileError) {
        let notes = ParameterNotes()
        _ = try Encoder(configuration, parameters: notes, storage: .counting, kernels: .best)
        parameters = notes.parameters
    }

    /// The parameters of a task's head, as a checkpoint has it.
    /// - Parameters:
    ///   - task: what the head is for.
    ///   - labels: how many the head gives, where the task is a classification.
    ///   - checkpoint: the one that has the head.
    ///   - path: of `config.json`, for messages.
    ///   - configuration: that of the encoder below the head.
    /// - Throws: `FileError` where the checkpoint has no such head.
    public init(
        _ task: Task, labels: Int, of checkpoint: Checkpoint, path: String, _ configuration: EncoderConfiguration
    ) throws(FileError) {
        try self.init(
            task, labels: labels, config: checkpoint.config, path: path, configuration, parameters: checkpoint)
    }

    /// The parameters of a task's head, as any source has it.
    /// - Parameters:
    ///   - task: what the head is for.
    ///   - labels: how many the head gives, where the task is a classification.
    ///   - config: the model's `config.json`.
    ///   - path: of `config.json`, for messages.
    ///   - configuration: that of the encoder below the head.
    ///   - source: has the head, or says what one would have.
    /// - Throws: `FileError` where the source has no such head.
    public init(
        _ task: Task, labels: Int, config: JSON, path: String, _ configuration: EncoderConfiguration,
        parameters source: any ParameterSource
    ) throws(FileError) {
        let notes = ParameterNotes(source)
        _ = try TaskHead(
            task, labels: labels, config: config, path: path, configuration: configuration,
            parameters: notes, storage: .counting, kernels: .best)
        parameters = notes.parameters
    }

    /// Writes a checkpoint's weights again, with new values for the parameters of this tree.
    ///
    /// Every other tensor is copied, also those that nothing reads; types, order, the text of headers and the division
    /// into files are the checkpoint's.
    /// - Parameters:
    ///   - values: the new values, by the names of ``parameters``.
    ///   - checkpoint: the one that is written again; it has every parameter of this tree, in its shape.
    ///   - write: takes the name of a file in the folder, bytes, and where they belong in it.
    /// - Throws: `FileError` where the checkpoint lacks a parameter or cannot be read; what `values` and `write` throw.
    public func save(
        _ values: any ParameterSource, as checkpoint: Checkpoint,
        write: (_ file: String, _ offset: Int, _ bytes: UnsafeRawBufferPointer) throws(FileError) -> Void
    ) throws(FileError) {
        var stored: [String: Parameter] = [:]
        for parameter in parameters {
            try checkpoint.check(parameter.name, shape: parameter.shape)
            if let name = checkpoint[parameter.name].storedName { stored[name] = parameter }
        }
        for file in checkpoint.files {
            let name = file.path.split(separator: "/").last.map(String.init) ?? file.path
            try file.rewrite { (tensor, range, floats) throws(FileError) in
                guard let parameter = stored[tensor], let target = floats.baseAddress else { return false }
                try values.read(parameter.name, shape: parameter.shape, range: range, into: target)
                return true
            } write: { (offset, bytes) throws(FileError) in
                try write(name, offset, bytes)
            }
        }
    }
}

extension EncoderConfiguration {
    /// Bytes of the weights in memory: packed dense layers, and tables.
    /// - Parameters:
    ///   - element: what the weights of dense layers are stored in.
    ///   - trains: whether dense layers hold their weights' transposes too.
    public func weightBytes(_ element: ElementKind, trains: Bool = false) throws(FileError) -> Double {
        let storage = WeightStorage.counting
        _ = try Encoder(
            self, parameters: ParameterNotes(), storage: storage, element: element, trains: trains, kernels: .best)
        return Double(storage.floats * MemoryLayout<Float>.stride)
    }
}

/// Takes note of what is asked for. Gives zeros, or what a source has.
private final class ParameterNotes: ParameterSource {
    private let source: (any ParameterSource)?
    private let read = Mutex<[Parameter]>([])
    var parameters: [Parameter] { read.withLock { $0 } }

    init(_ source: (any ParameterSource)? = nil) { self.source = source }

    func has(_ name: String) -> Bool { source?.has(name) ?? !name.hasSuffix("inv_freq") }

    func check(_ name: String, shape: [Int]) throws(FileError) {
        try source?.check(name, shape: shape)
        read.withLock { parameters in
            let parameter = Parameter(name: name, shape: shape)
            if !parameters.contains(parameter) { parameters.append(parameter) }
        }
    }

    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        if let source { return try source.read(name, shape: shape, range: range, into: floats) }
        floats.update(repeating: 0, count: range.count)
    }
}
