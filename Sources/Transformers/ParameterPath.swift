// Where an encoder's parameters come from: a checkpoint, or a seed.

import Checkpoints
import Files
import Matrices
import Tiles

/// Something that has parameters by the names that Hugging Face publishes.
public protocol ParameterSource: Sendable {
    /// Elements `range` of the parameter of that name, in row-major order, into memory for them.
    /// - Throws: `FileError` where it is missing or has another shape.
    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)

    /// Whether there is a parameter of that name, for those that a checkpoint may leave out.
    func has(_ name: String) -> Bool

    /// Throws what `read` would, without reading.
    func check(_ name: String, shape: [Int]) throws(FileError)
}

extension ParameterSource {
    /// The parameter of that name, row-major.
    /// - Throws: `FileError` where it is missing or has another shape.
    public func read(_ name: String, shape: [Int]) throws(FileError) -> [Float] {
        try check(name, shape: shape)
        var values = [Float](repeating: 0, count: shape.reduce(1, *))
        var failure: FileError?
        values.withUnsafeMutableBufferPointer { floats in
            guard let start = floats.baseAddress else { return }
            do throws(FileError) { try read(name, shape: shape, range: 0..<floats.count, into: start) } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return values
    }
}

extension Checkpoint: ParameterSource {
    /// Reads the tensor that `WeightPath` finds under that name, as float32.
    /// - Throws: `FileError` naming the file and the tensor.
    public func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        try self[name].read(
            shape: shape, range: range, into: UnsafeMutableBufferPointer(start: floats, count: range.count))
    }

    /// Whether `WeightPath` finds a tensor under that name.
    public func has(_ name: String) -> Bool { self[name].exists }
    /// Throws where the tensor is missing, has another shape or is of no readable type.
    public func check(_ name: String, shape: [Int]) throws(FileError) { try self[name].check(shape: shape) }
}

/// A place among the parameters of a source, written as the checkpoint names it: `path["layer"][3]["bias"]`.
struct ParameterPath {
    let source: any ParameterSource
    /// Where the weights made of them are put.
    let storage: WeightStorage
    /// Takes note of what gradients go to which parameters, where the weights are to be trained.
    var slots: GradientSlots?
    var name = ""

    subscript(_ component: String) -> ParameterPath {
        ParameterPath(
            source: source, storage: storage, slots: slots, name: name.isEmpty ? component : name + "." + component)
    }

    /// The number of a new slot for the gradient of this parameter; nil where nothing is trained.
    /// - Parameters:
    ///   - shape: the parameter's.
    ///   - rows: of its outermost dimension, those that the gradient belongs to; nil: all.
    ///   - isTable: whether tokens read single rows of it.
    func slot(shape: [Int], rows: Range<Int>? = nil, isTable: Bool = false) -> Int? {
        let width = shape.dropFirst().reduce(1, *)
        let rows = rows ?? 0..<(shape.first ?? 0)
        return slots?.add(
            GradientSlot(
                parameter: Parameter(name: name, shape: shape),
                floats: rows.lowerBound * width..<rows.upperBound * width, rowWidth: isTable ? width : nil))
    }

    /// The parameter itself: for vectors, which every rank has.
    func read(shape: [Int]) throws(FileError) -> [Float] { try source.read(name, shape: shape) }

    /// The parameter in the storage, as it is.
    func table(shape: [Int]) throws(FileError) -> WeightBlock {
        try check(shape: shape)
        return try storage.table(shape.reduce(1, *)) { target, range throws(FileError) in
            try source.read(name, shape: shape, range: range, into: target)
        }
    }

    func check(shape: [Int]) throws(FileError) { try source.check(name, shape: shape) }
}

/// Random parameters of any shape, for benchmarks and trials: normal-like with standard deviation 0.02, norms
/// at one, biases at zero, as BERT is initialised. A value depends on the seed, the name and its place alone.
public struct RandomParameters: ParameterSource {
    /// What the values depend on, beside names and places.
    public let seed: UInt64

    /// Parameters that are the same wherever the same seed is given.
    public init(seed: UInt64) { self.seed = seed }

    /// True but for the frequencies of rotary positions, which follow from the configuration.
    public func has(_ name: String) -> Bool { !name.hasSuffix("inv_freq") }

    /// Accepts every shape.
    public func check(_ name: String, shape: [Int]) {}

    /// Makes elements `range` of a parameter; in whatever parts it is read, the values are the same.
    public func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>) {
        if name.hasSuffix("bias") { return floats.update(repeating: 0, count: range.count) }
        // Of all weights, only those of norms are vectors.
        if shape.count == 1 { return floats.update(repeating: 1, count: range.count) }
        // FNV-1a over the name, so that every tensor has a stream of its own.
        let key = name.utf8.reduce(seed ^ 0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        for (place, index) in range.enumerated() { floats[place] = 0.02 * CountedNormal.value(key: key, index: index) }
    }
}
