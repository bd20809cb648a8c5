// Large blocks of memory from the system, and what happens where it refuses one.

import CLibrary
import Synchronization

/// What a process does where the system refuses it memory, though its job was priced and found to fit: others may have
/// taken it, or a limit of the process is nearer than anybody could know.
public enum MemoryRefusal {
    private static let end = Mutex<(@Sendable (_ bytes: Int) -> Void)?>(nil)

    /// Sets what ends the process then; told the bytes. Without it the process traps.
    public static func whenRefused(_ body: @escaping @Sendable (_ bytes: Int) -> Void) { end.withLock { $0 = body } }

    static func refuse(_ bytes: Int) -> Never {
        end.withLock { $0 }?(bytes)
        preconditionFailure("the system refused \(bytes) bytes of memory")
    }
}

/// Zeroed memory in pages of its own: those that are never touched cost nothing, and all return to the system.
enum SystemMemory {
    /// Smaller blocks come from the allocator.
    static let threshold = 1 << 20

    static func rounded(_ byteCount: Int) -> Int { (byteCount + 4095) & ~4095 }

    /// A large page. Blocks of that size and more begin at such a boundary and ask for large pages: rows of a few lines each,
    /// far from each other, and weights of which each block of rows meets all, cost a walk of the page tables for most small
    /// pages (docs/kernels.md). A wish, not a need; it costs memory only where a large page is touched in part.
    private static let largePage = 2 << 20

    /// The corresponding C function is `mmap`.
    static func map(_ byteCount: Int) -> UnsafeMutableRawPointer {
        let bytes = rounded(byteCount)
        #if canImport(Glibc) || canImport(Musl)
        guard bytes >= largePage else { return reserve(bytes) }
        let reserved = reserve(bytes + largePage)
        let before = -Int(bitPattern: reserved) & (largePage - 1)
        let memory = reserved + before
        if before > 0 { munmap(reserved, before) }
        if before < largePage { munmap(memory + bytes, largePage - before) }
        madvise(memory, bytes, MADV_HUGEPAGE)
        return memory
        #else
        return reserve(bytes)
        #endif
    }

    private static func reserve(_ bytes: Int) -> UnsafeMutableRawPointer {
        let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | anonymous, -1, 0)
        guard let memory, memory != UnsafeMutableRawPointer(bitPattern: -1) else { MemoryRefusal.refuse(bytes) }
        return memory
    }

    static func unmap(_ memory: UnsafeMutableRawPointer, _ byteCount: Int) { munmap(memory, rounded(byteCount)) }

    private static var anonymous: Int32 {
        #if canImport(Darwin)
        MAP_ANON
        #else
        Int32(MAP_ANONYMOUS)
        #endif
    }
}
