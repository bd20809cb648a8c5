// Memory that the ranks of one node read and write directly.

import CLibrary

/// A segment of memory for each rank of a communicator, which all of its ranks see; given back when they have let go of
/// it.
///
/// A file in memory that every rank maps and that has no name any more: nothing is left of it, however the processes
/// end. The library's own windows (MPI 3.1 §11.2.3) promise memory that may not be there: a process that touches a page
/// which the file system cannot back is ended by SIGBUS, and where the library notices, only one rank is told. Here
/// every page is touched by the kernel, which answers with an error instead, before anybody is given the memory.
///
/// Who writes where and when is the caller's to order: nothing here does.
public final class SharedWindow: Sendable {
    /// Where all segments lie, an integer so that any thread may be handed it.
    private let address: UInt
    private let byteCount: Int
    private let places: [Range<Int>]

    /// Each rank's segment, on pages of its own and zero at first.
    public var segments: [UnsafeMutableRawBufferPointer] {
        places.map {
            UnsafeMutableRawBufferPointer(
                start: UnsafeMutableRawPointer(bitPattern: address + UInt($0.lowerBound)), count: $0.count)
        }
    }

    /// Makes the segments, this rank's of so many bytes. Collective.
    /// - Returns: nil on every rank where one of them cannot have the memory.
    public init?(byteCount: Int, over communicator: borrowing Communicator) throws(MPIError) {
        precondition(byteCount >= 0)
        let sizes = try communicator.allGather(withUnsafeBytes(of: Int64(byteCount)) { Array($0) })
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        var places: [Range<Int>] = []
        for rank in 0..<communicator.size {
            let size = sizes.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: 8 * rank, as: Int64.self)) }
            let start = places.last.map { ($0.upperBound + page - 1) / page * page } ?? 0
            places.append(start..<start + size)
        }
        let total = max(page, ((places.last?.upperBound ?? 0) + page - 1) / page * page)
        // The first rank makes the file, tells its name, and takes the name away when all have opened it.
        let isFirst = communicator.rank == 0
        var name = [UInt8](repeating: 0, count: Self.nameBytes)
        var descriptor: Int32 = -1
        if isFirst {
            let made = "\(Self.folder)/annulus.\(String(UInt64.random(in: 0 ... .max), radix: 36)).\(getpid())"
            descriptor = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            if descriptor >= 0 { name.replaceSubrange(0..<made.utf8.count, with: made.utf8) }
            if descriptor >= 0, ftruncate(descriptor, off_t(total)) != 0 {
                close(descriptor)
                descriptor = -1
            }
        }
        let told: [UInt8]
        do {
            told = Array(try communicator.allGather(name)[..<Self.nameBytes])
        } catch {
            Self.remove(name)
            throw error
        }
        if !isFirst, told[0] != 0 { descriptor = open(Self.path(told), O_RDWR | O_CLOEXEC) }
        var memory: UnsafeMutableRawPointer?
        if descriptor >= 0 {
            let mapped = mmap(nil, total, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
            if mapped != UnsafeMutableRawPointer(bitPattern: -1) { memory = mapped }
            close(descriptor)
        }
        let hasMemory = memory.map { memory in
            Self.pages(of: communicator.rank, places, page).allSatisfy { Self.touch(memory + $0.lowerBound, $0.count) }
        }
        let outcomes: [UInt8]
        do {
            outcomes = try communicator.allGather([hasMemory == true ? 1 : 0])
        } catch {
            Self.remove(name)
            throw error
        }
        Self.remove(name)
        guard outcomes.allSatisfy({ $0 == 1 }), let memory else {
            if let memory { munmap(memory, total) }
            return nil
        }
        address = UInt(bitPattern: memory)
        self.byteCount = total
        OpenHandles.windows.make()
        self.places = places
    }

    deinit {
        munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
        OpenHandles.windows.free()
    }

    /// What a rank touches, so that the memory lies near the rank that will fill it: its own segment; of the only large
    /// one, which all fill together, an equal share.
    private static func pages(of rank: Int, _ places: [Range<Int>], _ page: Int) -> [Range<Int>] {
        let large = places.filter { $0.count > page }
        guard large.count == 1, places.count > 1 else { return [places[rank]] }
        let pages = (large[0].count + page - 1) / page
        let share = rank * pages / places.count * page..<min(large[0].count, (rank + 1) * pages / places.count * page)
        let part =
            large[0].lowerBound + share.lowerBound..<large[0].lowerBound + max(share.lowerBound, share.upperBound)
        return places[rank].count > page ? [part] : [places[rank], part]
    }

    /// Fills memory with zeros by way of the kernel; false where there is none to be had.
    ///
    /// The corresponding C function is `read`, of `/dev/zero`.
    private static func touch(_ memory: UnsafeMutableRawPointer, _ byteCount: Int) -> Bool {
        let zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC)
        guard zeros >= 0 else { return false }
        defer { close(zeros) }
        var done = 0
        while done < byteCount {
            let count = read(zeros, memory + done, min(byteCount - done, 1 << 30))
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return false }
            done += count
        }
        return true
    }

    private static let nameBytes = 96

    private static var folder: String {
        #if os(Linux)
        "/dev/shm"
        #else
        "/tmp"
        #endif
    }

    private static func path(_ name: [UInt8]) -> String { String(decoding: name.prefix { $0 != 0 }, as: UTF8.self) }
    private static func remove(_ name: [UInt8]) { if name[0] != 0 { unlink(path(name)) } }
}
