// The parameters of an encoder by name and shape, without their values.

import Checkpoints
import Matrices
import Synchronization

/// A parameter of a checkpoint.
public struct ParameterShape: Sendable, Hashable {
    public let name: String
    public let shape: [Int]
}

extension EncoderConfiguration {
    /// Every parameter that the encoder reads, once each, in that order.
    ///
    /// Loading is the one place that knows names and shapes, so the encoder is loaded from a source that takes note.
    public func parameters() throws(FileError) -> [ParameterShape] {
        let notes = Notes()
        _ = try Encoder(self, parameters: notes, kernels: .best)
        return notes.parameters
    }

    /// Takes note of what is read, and gives zeros.
    private final class Notes: ParameterSource {
        private let read = Mutex<[ParameterShape]>([])
        var parameters: [ParameterShape] { read.withLock { $0 } }

        func has(_ name: String) -> Bool { !name.hasSuffix("inv_freq") }

        func read(_ name: String, shape: [Int]) -> [Float] {
            read.withLock { parameters in
                let parameter = ParameterShape(name: name, shape: shape)
                if !parameters.contains(parameter) { parameters.append(parameter) }
            }
            return Array(repeating: 0, count: shape.reduce(1, *))
        }
    }
}
