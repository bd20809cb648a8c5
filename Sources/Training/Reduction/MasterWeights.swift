// The trained parameters on every rank, as a model is built from them.

import Files
import Matrices
import RingAttention
import Tiles
import Transformers

/// The master copy of all trained parameters in float32, whole on every rank, and those that are not trained as they
/// were.
///
/// It is written between two steps and read within them, by all threads of a rank.
public final class MasterWeights: ParameterSource {
    /// Where each parameter is.
    public let blocks: ParameterBlocks
    private let memory: MemoryBlock
    private let rest: any ParameterSource
    private let places: [String: Range<Int>]

    /// The vector of trained parameters.
    public var floats: UnsafeMutablePointer<Float> {
        memory.pointer.bindMemory(to: Float.self, capacity: max(1, blocks.count))
    }

    /// Reads the first values of all parameters.
    /// - Parameters:
    ///   - blocks: those that are trained.
    ///   - source: has them, and those that are not trained.
    /// - Throws: what the source throws.
    public init(_ blocks: ParameterBlocks, from source: any ParameterSource) throws(FileError) {
        self.blocks = blocks
        rest = source
        places = Dictionary(uniqueKeysWithValues: blocks.entries.map { ($0.parameter.name, $0.range) })
        memory = MemoryBlock(byteCount: max(1, blocks.count) * MemoryLayout<Float>.stride)
        for entry in blocks.entries {
            try source.check(entry.parameter.name, shape: entry.parameter.shape)
            try source.read(
                entry.parameter.name, shape: entry.parameter.shape, range: 0..<entry.range.count,
                into: floats + entry.range.lowerBound)
        }
    }

    /// Gives every rank what the owners of blocks have made of them: a rank sends its blocks to every other, four bytes a
    /// float. Collective.
    /// - Throws: what the transport throws.
    public func share(over transport: any Transport) throws {
        func bytes(of rank: Int) -> UnsafeMutableRawBufferPointer {
            let range = blocks.floats(of: blocks.blocks(of: Rank(rank), of: transport.size))
            return UnsafeMutableRawBufferPointer(start: floats + range.lowerBound, count: 4 * range.count)
        }
        let others = (0..<transport.size).filter { $0 != transport.rank.index }
        let mine = UnsafeRawBufferPointer(bytes(of: transport.rank.index))
        try transport.exchange(
            receive: others.filter { !bytes(of: $0).isEmpty }.map {
                Incoming(from: Rank($0), pieces: [bytes(of: $0)], keeping: [memory])
            },
            send: mine.isEmpty ? [] : others.map { Outgoing(to: Rank($0), pieces: [mine], keeping: [memory]) })
    }

    /// Whether it is trained, or the source has it.
    public func has(_ name: String) -> Bool { places[name] != nil || rest.has(name) }

    /// Throws where the source does, of parameters that are not trained.
    public func check(_ name: String, shape: [Int]) throws(FileError) {
        guard let place = places[name] else { return try rest.check(name, shape: shape) }
        precondition(place.count == shape.reduce(1, *), "a parameter of another shape")
    }

    /// The masters as they are, and other parameters as the source has them.
    public func read(_ name: String, shape: [Int], range: Range<Int>, into target: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        guard let place = places[name] else {
            return try rest.read(name, shape: shape, range: range, into: target)
        }
        target.update(from: floats + place.lowerBound + range.lowerBound, count: range.count)
    }
}
