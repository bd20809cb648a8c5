// Whether a checkpoint has all that its configuration asks for, nothing that it does not, and numbers only.

import Checkpoints
import Files

/// What the tensors of a checkpoint are to the encoder that its `config.json` describes.
public struct CheckpointAudit: Sendable {
    /// Parameters of the encoder, each by its name.
    public let parameters: [Parameter]
    /// What is wrong with those that are missing or have another shape or an unreadable type.
    public let unreadable: [String]
    /// Tensors of layers that the configuration does not have, or of parameters that its layers do not have.
    public let unused: [String]
    /// The tasks whose heads the checkpoint holds.
    public let tasks: [Task]
    /// Tensors that neither the encoder nor one of these heads reads: poolers, other heads, tables that are computed.
    public let others: [String]

    /// - Throws: `FileError` where the configuration cannot be read.
    public init(_ checkpoint: Checkpoint) throws(FileError) {
        let path = checkpoint.configPath
        let configuration = try EncoderConfiguration(checkpoint.config, path: path)
        parameters = try ParameterTree(configuration).parameters
        var used: Set<String> = []
        var unreadable: [String] = []
        func use(_ name: String) { if let stored = checkpoint[name].storedName { used.insert(stored) } }
        for parameter in parameters {
            do throws(FileError) {
                try checkpoint[parameter.name].check(shape: parameter.shape)
            } catch {
                unreadable.append(error.description)
            }
            use(parameter.name)
        }
        self.unreadable = unreadable
        var tasks: [Task] = []
        let labels = (try? LabelSet(checkpoint.config, path: path))?.names.count ?? 2
        for task in Task.allCases {
            guard let head = try? ParameterTree(task, labels: labels, of: checkpoint, path: path, configuration)
            else { continue }
            tasks.append(task)
            head.parameters.forEach { use($0.name) }
        }
        self.tasks = tasks
        // Layers are what a wrong config.json leaves out; what else lies beside them are poolers, heads, and tables of
        // numbers.
        let layers = checkpoint.prefix + configuration.names.layers + "."
        let rest = checkpoint.names.filter { !used.contains($0) }
        let buffers = ["inv_freq", "position_ids", "masked_bias", "attention.self.bias"]
        func isParameter(_ name: String) -> Bool { name.hasPrefix(layers) && !buffers.contains { name.hasSuffix($0) } }
        unused = rest.filter(isParameter)
        others = rest.filter { !isParameter($0) }
    }
}

extension Checkpoint {
    /// The tensors of floating-point numbers that hold infinities or what is no number, and how many of them.
    /// - Parameter progressed: called now and then.
    public func notFinite(progressed: () -> Void = {}) throws(FileError) -> [(name: String, count: Int)] {
        var found: [(name: String, count: Int)] = []
        for file in files {
            for name in file.names {
                guard let tensor = file.tensors[name],
                    [.float32, .float16, .bfloat16, .float64].contains(tensor.elementType)
                else { continue }
                let values = try file.readFloat32(name)
                let count = values.count { !$0.isFinite }
                if count > 0 { found.append((name, count)) }
                progressed()
            }
        }
        return found
    }
}
