// An output file that all ranks write into at once, and that appears under its name only when it is whole.

import Files
import Foundation
import RingAttention
import Tiles

/// A file that all ranks write into, under a temporary name in its folder until it is whole.
///
/// Rank 0 creates it and writes a nonce that the others must find in it. Those that do not, because they have no folder
/// in common with rank 0, send their pieces to rank 0, which writes them. The content is what was written, at the
/// offsets where it was written: it tells neither time nor the number of ranks.
package final class ParallelFile {
    /// The bytes of one round of messages to rank 0, over all ranks that send.
    private static let roundBytes = 32 << 20

    /// The name the file will have.
    package let path: String
    private let temporaryPath: String
    private let transport: any Transport
    private let force: Bool
    /// Whether what was written stays where the work ends early.
    private let isKept: Bool
    // Negative where this rank cannot reach the file.
    private var descriptor: Int32
    private var isFinished = false
    // The ranks that send their pieces to rank 0.
    private let senders: [Rank]

    private init(
        path: String, temporaryPath: String, transport: any Transport, force: Bool, isKept: Bool = false,
        descriptor: Int32, senders: [Rank] = []
    ) {
        self.path = path
        self.temporaryPath = temporaryPath
        self.transport = transport
        self.force = force
        self.isKept = isKept
        self.descriptor = descriptor
        self.senders = senders
    }

    deinit {
        // Whoever lets go without committing has met an error: nothing half-written stays.
        if !isFinished { abandon() }
    }

    /// Checks that the output could be created, before the work that fills it. Collective.
    /// - Throws: ``AgreedFailure`` with status `cannotCreate` where the file exists and may not be replaced, is no
    ///   regular file, or its folder cannot be written.
    package static func checkWritable(_ path: String, force: Bool, transport: any Transport) throws {
        try Failure.agree(transport) {
            guard transport.rank == Rank(0) else { return }
            let temporaryPath = temporaryPath(for: path)
            TemporaryFiles.register(temporaryPath)
            defer { TemporaryFiles.forget(temporaryPath) }
            close(try openTemporary(temporaryPath, for: path, force: force))
            unlink(temporaryPath)
        }
    }

    /// Creates the file under its temporary name. Collective.
    /// - Parameter size: its bytes, where they are known: room for them is made sure of, so that a disk that is too
    ///   full is found before the work and not after it.
    /// - Parameter seeksFile: whether this rank looks for the file that rank 0 creates; one that does not has its
    ///   pieces written by rank 0. Rank 0 always writes for itself.
    /// - Throws: ``AgreedFailure`` with status `cannotCreate`, as ``checkWritable(_:force:transport:)``; with
    ///   `cannotWrite` where there is no room.
    package static func create(
        _ path: String, force: Bool, transport: any Transport, size: Int? = nil, seeksFile: Bool = true
    ) throws -> ParallelFile {
        let isRoot = transport.rank == Rank(0)
        let nonce = (0..<16).map { _ in UInt8.random(in: 0...255) }
        // Rank 0 tells where the file will be and what it will hold before it is there: should it be killed, others
        // remove it.
        let announcement = try transport.allGather(isRoot ? nonce + Array(temporaryPath(for: path).utf8) : [])[0]
        let temporaryPath =
            isRoot || seeksFile ? String(decoding: announcement.dropFirst(nonce.count), as: UTF8.self) : ""
        if !temporaryPath.isEmpty { TemporaryFiles.register(temporaryPath) }
        var descriptor: Int32
        do {
            descriptor = try Failure.agree(transport) {
                guard isRoot else { return -1 }
                let descriptor = try openTemporary(temporaryPath, for: path, force: force)
                do {
                    try nonce.withUnsafeBytes { try write($0, at: 0, to: descriptor, path: path) }
                    guard fsync(descriptor) == 0 else { throw cannotWrite(path, errno) }
                } catch {
                    close(descriptor)
                    unlink(temporaryPath)
                    throw error
                }
                return descriptor
            }
        } catch {
            TemporaryFiles.forget(temporaryPath)
            throw error
        }
        if !isRoot && seeksFile {
            descriptor = Foundation.open(temporaryPath, O_RDWR | O_CLOEXEC)
            if descriptor >= 0 {
                var found = [UInt8](repeating: 0, count: nonce.count)
                let count = found.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
                if count != nonce.count || !found.elementsEqual(announcement.prefix(nonce.count)) {
                    close(descriptor)
                    descriptor = -1
                }
            }
        }
        let reached = try transport.allGather([descriptor >= 0 ? 1 : 0])
        let file = ParallelFile(
            path: path, temporaryPath: temporaryPath, transport: transport, force: force, descriptor: descriptor,
            senders: reached.indices.filter { reached[$0] == [0] }.map { Rank($0) })
        // The nonce goes before anybody writes.
        try Failure.agree(transport) {
            guard isRoot else { return }
            if ftruncate(descriptor, 0) != 0 { throw cannotWrite(path, errno) }
        }
        if let size { try file.reserve(size) }
        return file
    }

    /// Makes sure of room for so many bytes, so that a disk that is too full is found before the work. Collective.
    /// - Throws: ``AgreedFailure`` with status `cannotWrite`.
    package func reserve(_ size: Int) throws {
        try Failure.agree(transport) {
            guard transport.rank == Rank(0), let shortage = FileRoom.reserve(size, in: descriptor) else { return }
            let limit =
                shortage.failure == EFBIG
                ? "the limit of a file's size (ulimit -f) is \(shortage.free)"
                : shortage.failure == EDQUOT ? "the quota does not allow them" : "\(shortage.free) are free"
            throw JobError(
                .cannotWrite,
                "\(path): cannot write: it takes \(size) bytes, and \(limit); "
                    + (shortage.failure == EFBIG ? "raise it" : "free some space") + ", or name an output elsewhere")
        }
    }

    /// Writes this rank's pieces, each at its offset from the start of the file. Collective.
    /// - Throws: `JobError` with status `cannotWrite`, on the ranks that meet it.
    package func write(_ pieces: [(offset: Int, bytes: UnsafeRawBufferPointer)]) throws {
        if descriptor >= 0 {
            for piece in pieces { try Self.write(piece.bytes, at: piece.offset, to: descriptor, path: path) }
        }
        if !senders.isEmpty { try passToRoot(pieces) }
    }

    /// Gives the file its name, once all ranks have written theirs. Collective.
    /// - Throws: ``AgreedFailure`` with status `cannotWrite`, or `cannotCreate` where a file of that name has come into
    ///   being meanwhile; nothing is left under either name then.
    package func commit() throws {
        do {
            try Failure.agree(transport) {
                guard descriptor >= 0 else { return }
                let isWritten = fsync(descriptor) == 0
                let failure = errno
                close(descriptor)
                descriptor = -1
                if !isWritten { throw Self.cannotWrite(path, failure) }
            }
            try Failure.agree(transport) {
                if transport.rank == Rank(0) { try Self.rename(temporaryPath, to: path, force: force) }
            }
        } catch {
            abandon()
            throw error
        }
        isFinished = true
        TemporaryFiles.forget(temporaryPath)
    }

    /// Removes what was written. The ranks need not agree: the file is gone as soon as one calls it, and goes
    /// nowhere.
    package func abandon() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
        isFinished = true
        if !isKept && !temporaryPath.isEmpty {
            unlink(temporaryPath)
            TemporaryFiles.forget(temporaryPath)
        }
    }

    // MARK: - Files that outlive a job

    /// The name of an output that is kept until it is whole.
    static func keptPath(for path: String) -> String { path + ".partial" }

    /// The file of an output: that of the job it is of, or one of its own. Collective.
    /// - Throws: as ``create(_:force:transport:size:seeksFile:)``.
    static func open(_ output: OutputFile, _ job: ResumableJob?, size: Int, transport: any Transport) throws
        -> ParallelFile
    {
        guard let job else {
            return try create(output.path, force: output.mayReplace, transport: transport, size: size)
        }
        try job.file.reserve(size)
        return job.file
    }

    /// Whether all ranks reach a file that rank 0 creates beside `path`. Collective.
    /// - Throws: as ``create(_:force:transport:size:seeksFile:)``.
    static func isFolderShared(_ path: String, force: Bool, _ transport: any Transport) throws -> Bool {
        let probe = try create(path, force: force, transport: transport)
        let isShared = probe.senders.isEmpty
        // Nobody looks for it any more.
        _ = try transport.allGather([])
        probe.abandon()
        return isShared
    }

    /// Opens a file that stays where the work ends early, in a folder that all ranks reach. Collective.
    /// - Parameters:
    ///   - path: the output it becomes or is kept for.
    ///   - suffix: of its own name, behind that.
    ///   - isNew: whether it begins empty; it must exist otherwise.
    ///   - size: its bytes, where they are known.
    /// - Throws: ``AgreedFailure`` with status `cannotCreate`, also where another job holds the file; with `badInput`
    ///   where it should exist; with `cannotWrite` where there is no room.
    static func keep(
        _ path: String, suffix: String = ".partial", force: Bool, isNew: Bool, size: Int? = nil,
        transport: any Transport
    ) throws -> ParallelFile {
        let name = path + suffix
        func opened(creates: Bool) throws(JobError) -> Int32 {
            let descriptor = Foundation.open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (creates ? O_CREAT : 0), 0o666)
            if descriptor >= 0 { return descriptor }
            if errno == ENOENT {
                throw JobError(
                    .badInput, "\(name): is gone, and the journal beside it needs it; begin anew with --force")
            }
            throw JobError(.cannotCreate, "\(name): cannot open it: \(reason(errno)); name an output elsewhere")
        }
        let isRoot = transport.rank == Rank(0)
        var descriptor = try Failure.agree(transport) { () -> Int32 in
            guard isRoot else { return -1 }
            let descriptor = try opened(creates: isNew)
            do {
                try lock(descriptor, name)
                if isNew && ftruncate(descriptor, 0) != 0 { throw cannotWrite(name, errno) }
            } catch {
                close(descriptor)
                throw error
            }
            return descriptor
        }
        let own = descriptor
        descriptor = try Failure.agree(transport) { isRoot ? own : try opened(creates: false) }
        // From here on all hold it, so that whoever comes next waits for the last of them.
        _ = flock(descriptor, LOCK_SH)
        let file = ParallelFile(
            path: path, temporaryPath: name, transport: transport, force: force, isKept: true, descriptor: descriptor)
        if let size { try file.reserve(size) }
        return file
    }

    /// Makes sure that no job is at work on the kept file of an output, if there is one. Not collective.
    static func checkKeptIsFree(_ path: String) throws(JobError) {
        let name = keptPath(for: path)
        let descriptor = Foundation.open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        try lock(descriptor, name)
    }

    /// Waits a moment for ranks of an earlier job, which may be about to end. File systems that know no locks have none
    /// here either.
    private static func lock(_ descriptor: Int32, _ name: String) throws(JobError) {
        var tries = 0
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK || errno == EINTR else { return }
            tries += 1
            if tries > 100 {
                throw JobError(
                    .cannotCreate, "\(name): another job is at work on it; wait for that, or name another output")
            }
            usleep(100_000)
        }
        // Whoever held it may have given it another name or removed it.
        var (held, named) = (stat(), stat())
        if fstat(descriptor, &held) != 0 || stat(name, &named) != 0 || held.st_ino != named.st_ino {
            throw JobError(.cannotCreate, "\(name): another job was at work on it until now; run the command again")
        }
    }

    /// Makes what this rank wrote last. Collective.
    /// - Throws: ``AgreedFailure`` with status `cannotWrite`.
    func synchronize() throws {
        try Failure.agree(transport) { if fsync(descriptor) != 0 { throw Self.cannotWrite(path, errno) } }
    }

    /// Cuts the file, on rank 0. Collective.
    func truncate(to size: Int) throws {
        try Failure.agree(transport) {
            if transport.rank == Rank(0), ftruncate(descriptor, off_t(size)) != 0 {
                throw Self.cannotWrite(path, errno)
            }
        }
    }

    /// Reads what is at an offset.
    func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(JobError) {
        var done = 0
        while done < bytes.count {
            let count = pread(
                descriptor, bytes.baseAddress! + done, min(bytes.count - done, 1 << 30), off_t(offset + done))
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                throw JobError(
                    .badInput,
                    "\(temporaryPath): \(count == 0 ? "is cut short" : "cannot read: \(Self.reason(errno))"); begin anew with "
                        + "--force")
            }
            done += count
        }
    }

    /// Reads a stretch of the file piece by piece.
    func forEachPiece(
        at offset: Int, count: Int, _ body: (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: min(max(count, 1), 1 << 20), alignment: 16)
        defer { piece.deallocate() }
        for start in stride(from: 0, to: count, by: piece.count) {
            let part = UnsafeMutableRawBufferPointer(rebasing: piece[..<min(piece.count, count - start)])
            try read(part, at: offset + start)
            try body(offset + start, UnsafeRawBufferPointer(part))
        }
    }

    /// Replaces a small file as a whole: whoever reads it, also after a crash, finds the old one or the new one.
    /// Not collective.
    static func replace(_ path: String, with bytes: [UInt8]) throws(JobError) {
        let name = path + ".new"
        let descriptor = Foundation.open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o666)
        guard descriptor >= 0 else { throw cannotWrite(name, errno) }
        var failure: JobError?
        bytes.withUnsafeBytes { bytes in
            do throws(JobError) { try write(bytes, at: 0, to: descriptor, path: path) } catch { failure = error }
        }
        if failure == nil && fsync(descriptor) != 0 { failure = cannotWrite(path, errno) }
        close(descriptor)
        if let failure {
            unlink(name)
            throw failure
        }
        if Foundation.rename(name, path) != 0 { throw cannotWrite(path, errno) }
        synchronizeFolder(of: path)
    }

    /// So that a name survives a crash as the content does. Folders that cannot be synchronised are left alone.
    static func synchronizeFolder(of path: String) {
        let folder = Foundation.open(URL(fileURLWithPath: path).deletingLastPathComponent().path, O_RDONLY | O_CLOEXEC)
        guard folder >= 0 else { return }
        fsync(folder)
        close(folder)
    }

    // MARK: - Pieces of ranks that cannot reach the file

    /// Sends pieces to rank 0 in rounds of bounded size. A message is a count n, n pairs of offset and length, and the
    /// bytes of the pieces in order; numbers have eight bytes, and both sides are of one job.
    private func passToRoot(_ pieces: [(offset: Int, bytes: UnsafeRawBufferPointer)]) throws {
        let isSender = descriptor < 0
        let limit = max(64 << 10, Self.roundBytes / senders.count)
        var rest = isSender ? pieces.filter { !$0.bytes.isEmpty }[...] : []
        while true {
            var round: [(offset: Int, bytes: UnsafeRawBufferPointer)] = []
            var room = limit
            while room > 0, let next = rest.first {
                let count = min(room, next.bytes.count)
                round.append((next.offset, UnsafeRawBufferPointer(rebasing: next.bytes.prefix(count))))
                room -= count
                if count == next.bytes.count {
                    rest = rest.dropFirst()
                } else {
                    rest[rest.startIndex] = (
                        next.offset + count, UnsafeRawBufferPointer(rebasing: next.bytes.dropFirst(count))
                    )
                }
            }
            let header = [round.count] + round.flatMap { [$0.offset, $0.bytes.count] }
            let size = round.isEmpty ? 0 : header.count * MemoryLayout<Int>.size + limit - room
            let sizes = try transport.allGather(withUnsafeBytes(of: Int64(size)) { Array($0) }).map { bytes in
                bytes.withUnsafeBytes { Int($0.loadUnaligned(as: Int64.self)) }
            }
            guard sizes.contains(where: { $0 > 0 }) else { return }
            if transport.rank == Rank(0) {
                try receiveRound(sizes)
            } else {
                try header.withUnsafeBytes { header in
                    try transport.exchange(
                        receive: [],
                        send: size == 0 ? [] : [Outgoing(to: Rank(0), pieces: [header] + round.map(\.bytes))])
                }
            }
        }
    }

    private func receiveRound(_ sizes: [Int]) throws {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: sizes.reduce(0, +), alignment: 16)
        defer { memory.deallocate() }
        var incoming: [Incoming] = []
        var offset = 0
        for (index, size) in sizes.enumerated() where size > 0 {
            let piece = UnsafeMutableRawBufferPointer(rebasing: memory[offset..<offset + size])
            incoming.append(Incoming(from: Rank(index), pieces: [piece]))
            offset += size
        }
        try transport.exchange(receive: incoming, send: [])
        let word = MemoryLayout<Int>.size
        for message in incoming.map({ UnsafeRawBufferPointer($0.pieces[0]) }) {
            let count = message.loadUnaligned(as: Int.self)
            var start = (1 + 2 * count) * word
            for index in 0..<count {
                let offset = message.loadUnaligned(fromByteOffset: (1 + 2 * index) * word, as: Int.self)
                let length = message.loadUnaligned(fromByteOffset: (2 + 2 * index) * word, as: Int.self)
                try Self.write(
                    UnsafeRawBufferPointer(rebasing: message[start..<start + length]), at: offset, to: descriptor,
                    path: path)
                start += length
            }
        }
    }

    // MARK: - The file system

    /// A name for a new file beside `path`, after it.
    private static func temporaryPath(for path: String) -> String {
        let url = URL(fileURLWithPath: path)
        let folder = url.deletingLastPathComponent().path
        let suffix = String(UInt64.random(in: 0 ... .max), radix: 36)
        // The name itself may be as long as names can be, so only the start of it is kept.
        let name = ".\(url.lastPathComponent.prefix(40)).\(suffix).partial"
        return folder == "/" ? "/\(name)" : "\(folder)/\(name)"
    }

    /// Creates the file of a temporary name, if it may become `path`.
    private static func openTemporary(_ temporaryPath: String, for path: String, force: Bool) throws(JobError) -> Int32
    {
        try checkDestination(path, force: force)
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        var failure: Int32 = 0
        let descriptor = try TemporaryFiles.create { () throws(JobError) in
            let descriptor = Foundation.open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
            failure = errno
            return descriptor
        }
        guard descriptor >= 0 else {
            if failure == ENOENT || failure == ENOTDIR {
                throw JobError(
                    .cannotCreate, "\(path): the folder \(folder) does not exist; create it, or name another output")
            }
            throw JobError(
                .cannotCreate,
                "\(path): cannot create a file in \(folder): \(reason(failure)); name an output elsewhere")
        }
        return descriptor
    }

    private static func checkDestination(_ path: String, force: Bool) throws(JobError) {
        guard !path.isEmpty else { throw JobError(.cannotCreate, "the output's name is empty") }
        var status = stat()
        guard stat(path, &status) == 0 else { return }
        switch status.st_mode & S_IFMT {
        case S_IFREG:
            guard force else {
                throw JobError(
                    .cannotCreate, "\(path): the output exists; use --force to replace it, or name another output")
            }
        case S_IFDIR:
            throw JobError(.cannotCreate, "\(path): the output is a folder; name a file in it")
        default:
            throw JobError(.cannotCreate, "\(path): the output exists and is no regular file; name another output")
        }
    }

    private static func write(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, to descriptor: Int32, path: String
    ) throws(JobError) {
        var done = 0
        while done < bytes.count {
            // Linux writes at most 2 GiB less a page a call.
            let count = min(bytes.count - done, 1 << 30)
            let written = pwrite(descriptor, bytes.baseAddress! + done, count, off_t(offset + done))
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else { throw cannotWrite(path, written == 0 ? ENOSPC : errno) }
            done += written
        }
    }

    private static func rename(_ temporaryPath: String, to path: String, force: Bool) throws(JobError) {
        try checkDestination(path, force: force)
        // A link, unlike a rename, refuses to replace a file that has just come into being. Not every file system
        // has links.
        if !force && link(temporaryPath, path) == 0 {
            unlink(temporaryPath)
        } else if !force && errno == EEXIST {
            throw JobError(.cannotCreate, "\(path): the output came into being meanwhile; use --force to replace it")
        } else if Foundation.rename(temporaryPath, path) != 0 {
            throw cannotWrite(path, errno)
        }
        synchronizeFolder(of: path)
    }

    private static func cannotWrite(_ path: String, _ failure: Int32) -> JobError {
        JobError(
            .cannotWrite,
            "\(path): cannot write: \(reason(failure)); "
                + (failure == EFBIG ? "raise the limit of a file's size (ulimit -f)" : "free some space")
                + ", or name an output elsewhere")
    }

    private static func reason(_ failure: Int32) -> String { String(cString: strerror(failure)) }
}
