// Memory that several threads, or ranks, of a process hold: who writes it when is theirs to order.

/// Zeroed bytes on cache-line boundaries, which live as long as anybody holds them.
public final class MemoryBlock: Sendable {
    /// Its place, an integer so that it can be handed to other threads.
    private let address: UInt
    /// 0 where the allocator gave them.
    private let mappedBytes: Int

    /// So many bytes, all zero. From 1 MiB on they come from the system: pages that are never touched cost nothing.
    public init(byteCount: Int) {
        mappedBytes = byteCount >= SystemMemory.threshold ? byteCount : 0
        if mappedBytes > 0 {
            address = UInt(bitPattern: SystemMemory.map(byteCount))
        } else {
            let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
            memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
            address = UInt(bitPattern: memory)
        }
    }

    /// The first byte, for as long as the block is held.
    public var pointer: UnsafeMutableRawPointer {
        // The address came from an allocation and is never zero.
        UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped
    }

    deinit {
        if mappedBytes > 0 {
            SystemMemory.unmap(pointer, mappedBytes)
        } else {
            pointer.deallocate()
        }
    }
}

/// Floats that are written while they are made, and only read from then on, by any thread and any rank that sees the
/// memory.
public struct WeightBlock: Sendable {
    /// How many floats there are.
    public let count: Int
    private let address: UInt
    private let owner: (any AnyObject & Sendable)?

    /// Memory of its own, zero but for what `fill` writes.
    public init<Failure: Error>(count: Int, fill: (UnsafeMutablePointer<Float>) throws(Failure) -> Void) throws(Failure)
    {
        let memory = MemoryBlock(byteCount: max(1, count) * MemoryLayout<Float>.stride)
        let floats = memory.pointer.bindMemory(to: Float.self, capacity: max(1, count))
        try fill(floats)
        self.init(floats, count: count, of: memory)
    }

    /// A part of the memory that `owner` keeps.
    public init(_ pointer: UnsafeMutablePointer<Float>, count: Int, of owner: any AnyObject & Sendable) {
        self.count = count
        self.owner = owner
        address = UInt(bitPattern: pointer)
    }

    /// Room for so many floats that is only counted: there is nothing to read.
    public init(promised count: Int) {
        self.count = count
        address = 0
        owner = nil
    }

    /// The first float, for as long as the block is held.
    public var pointer: UnsafePointer<Float> {
        guard let pointer = UnsafePointer<Float>(bitPattern: address) else {
            preconditionFailure("these weights were only counted")
        }
        return pointer
    }
}
