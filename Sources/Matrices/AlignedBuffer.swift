// Zeroed float storage on cache-line boundaries, whose large blocks come from and return to the system.

import CLibrary

/// `count` floats, zero at first, aligned to 64 bytes.
///
/// A buffer of a megabyte or more is mapped on its own: pages that are never touched cost no memory, and all of them
/// return to the system when the buffer goes. Not `Sendable`: its owner decides who writes which part.
public final class AlignedBuffer {
    /// The first float.
    public let pointer: UnsafeMutablePointer<Float>
    /// Floats in the buffer.
    public let count: Int
    private let mappedBytes: Int
    /// Whose memory it is, where it is not the buffer's own.
    private let lender: AnyObject?

    /// Makes a buffer of `count` floats; `count` may be 0.
    ///
    /// Where the system refuses the memory the process ends as `MemoryRefusal` says: callers price a job before they
    /// allocate for it.
    public init(count: Int) {
        precondition(count >= 0, "a buffer holds at least 0 floats")
        self.count = count
        lender = nil
        let bytes = max(count, 1) * MemoryLayout<Float>.stride
        if bytes >= SystemMemory.threshold {
            pointer = SystemMemory.map(bytes).bindMemory(to: Float.self, capacity: count)
            mappedBytes = bytes
        } else {
            let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
            pointer = memory.bindMemory(to: Float.self, capacity: max(count, 1))
            pointer.initialize(repeating: 0, count: max(count, 1))
            mappedBytes = 0
        }
    }

    /// A part of memory that `lender` owns, and that others may see too; not zeroed.
    public init(_ pointer: UnsafeMutablePointer<Float>, count: Int, of lender: AnyObject) {
        self.pointer = pointer
        self.count = count
        self.lender = lender
        mappedBytes = 0
    }

    /// Whether the memory is somebody else's.
    public var isBorrowed: Bool { lender != nil }

    deinit {
        if isBorrowed { return }
        if mappedBytes > 0 {
            SystemMemory.unmap(pointer, mappedBytes)
        } else {
            UnsafeMutableRawPointer(pointer).deallocate()
        }
    }

    /// The float at `index`, which is checked in debug builds.
    public subscript(index: Int) -> Float {
        get {
            assert(index >= 0 && index < count, "index \(index) of a buffer of \(count) floats")
            return pointer[index]
        }
        set {
            assert(index >= 0 && index < count, "index \(index) of a buffer of \(count) floats")
            pointer[index] = newValue
        }
    }

    /// The memory as bytes, as messages and files take it.
    public var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: pointer, count: count * MemoryLayout<Float>.stride)
    }
}
