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
        _ = try Encoder(self, parameters: notes, storage: .counting, kernels: .best)
        return notes.parameters
    }

    /// Bytes of the weights in memory: packed dense layers, and tables.
    public func weightBytes(_ element: ElementKind) throws(FileError) -> Double {
        let storage = WeightStorage.counting
        _ = try Encoder(self, parameters: Notes(), storage: storage, element: element, kernels: .best)
        return Double(storage.floats * MemoryLayout<Float>.stride)
    }

    /// Takes note of what is checked, and gives zeros.
    private final class Notes: ParameterSource {
        private let read = Mutex<[ParameterShape]>([])
        var parameters: [ParameterShape] { read.withLock { $0 } }

        func has(_ name: String) -> Bool { !name.hasSuffix("inv_freq") }

        func check(_ name: String, shape: [Int]) {
            read.withLock { parameters in
                let parameter = ParameterShape(name: name, shape: shape)
                if !parameters.contains(parameter) { parameters.append(parameter) }
            }
        }

        func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>) {
            floats.update(repeating: 0, count: range.count)
        }
    }
}
