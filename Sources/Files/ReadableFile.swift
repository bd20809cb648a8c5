// An open file read by position or from front to back, and whole files read into memory.

import CLibrary

/// A regular file open for reading, closed when the last reference goes.
///
/// Reads name their position, so any number of threads may read at once: there is no cursor to share.
package final class ReadableFile: Sendable {
    package let path: String
    /// Bytes in the file when it was opened.
    package let byteCount: Int
    private let descriptor: Int32
    private let isOwned: Bool

    /// Standard input, which stays open.
    package init(standardInputNamed path: String) {
        self.path = path
        descriptor = STDIN_FILENO
        isOwned = false
        byteCount = 0
    }

    /// The C functions corresponding are `open` and `fstat`.
    package init(path: String) throws(FileError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw ReadableFile.openingError(errno, path: path) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let code = errno
            close(descriptor)
            throw FileError(
                .inputOutput, path: path,
                "cannot be examined (\(systemMessage(code))); check the disk or mount it lies on")
        }
        guard status.st_mode & S_IFMT != S_IFDIR else {
            close(descriptor)
            throw FileError(.malformed, path: path, "is a folder where a file is needed; name the file inside it")
        }
        self.path = path
        self.descriptor = descriptor
        isOwned = true
        self.byteCount = status.st_mode & S_IFMT == S_IFREG ? Int(status.st_size) : 0
    }

    deinit {
        if isOwned { close(descriptor) }
    }

    private static func openingError(_ code: Int32, path: String) -> FileError {
        switch code {
        case ENOENT, ENOTDIR:
            FileError(.missing, path: path, "no such file; check the name and the folder")
        case EACCES, EPERM:
            FileError(.missing, path: path, "may not be read by this user; change its permissions or run as its owner")
        case EMFILE, ENFILE:
            FileError(.inputOutput, path: path, "too many files are open; raise `ulimit -n`")
        default:
            FileError(
                .inputOutput, path: path,
                "cannot be opened (\(systemMessage(code))); check the disk or mount it lies on")
        }
    }

    /// What tells this file from others. The corresponding C function is `fstat`.
    package func identity() throws(FileError) -> FileBytes.Identity {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw FileError(
                .inputOutput, path: path,
                "cannot be examined (\(systemMessage(errno))); check the disk or mount it lies on")
        }
        func nanoseconds(_ time: timespec) -> Int { time.tv_sec &* 1_000_000_000 &+ time.tv_nsec }
        #if canImport(Darwin)
        let (modified, changed) = (status.st_mtimespec, status.st_ctimespec)
        #else
        let (modified, changed) = (status.st_mtim, status.st_ctim)
        #endif
        return FileBytes.Identity(
            number: UInt64(status.st_ino), byteCount: Int(status.st_size), modified: nanoseconds(modified),
            changed: nanoseconds(changed))
    }

    /// Fills `buffer` with the bytes that start at `offset`. The corresponding C function is `pread`.
    package func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        var done = 0
        while done < buffer.count {
            let count = pread(
                descriptor, buffer.baseAddress! + done, min(buffer.count - done, 1 << 30), off_t(offset + done))
            if count > 0 {
                done += count
            } else if count == 0 {
                throw FileError(
                    .malformed, path: path,
                    "ends at byte \(offset + done), before the \(buffer.count) bytes that start at byte \(offset); the file shrank while it was read, fetch it again"
                )
            } else if errno != EINTR {
                throw FileError(
                    .inputOutput, path: path,
                    "cannot be read at byte \(offset + done) (\(systemMessage(errno))); check the disk or mount it lies on"
                )
            }
        }
    }

    /// Everything from the first byte to the end, also where the size is not known beforehand (pipes, `/dev/stdin`).
    package func readToEnd() throws(FileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: max(byteCount + 1, 1 << 16))
        var filled = 0
        while true {
            if filled == bytes.count { bytes.append(contentsOf: repeatElement(0, count: bytes.count)) }
            let count = bytes.withUnsafeMutableBytes { Self.readOnce(descriptor, $0, from: filled) }
            if count > 0 {
                filled += count
            } else if count == 0 {
                break
            } else if errno != EINTR {
                throw FileError(
                    .inputOutput, path: path,
                    "cannot be read at byte \(filled) (\(systemMessage(errno))); check the disk or mount it lies on")
            }
        }
        bytes.removeLast(bytes.count - filled)
        return bytes
    }

    /// Whether ``readNext(limit:)`` would return at once. The corresponding C function is `poll`.
    package var isReady: Bool {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&request, 1, 0) != 0
    }

    /// The bytes that come next, at least one and at most `limit`; none at the end. Waits for a pipe that is empty.
    package func readNext(limit: Int) throws(FileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: limit)
        while true {
            let count = bytes.withUnsafeMutableBytes { Self.readOnce(descriptor, $0, from: 0) }
            if count >= 0 { return Array(bytes[..<count]) }
            if errno != EINTR {
                throw FileError(
                    .inputOutput, path: path,
                    "cannot be read (\(systemMessage(errno))); check the disk or mount it lies on")
            }
        }
    }

    private static func readOnce(_ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer, from start: Int) -> Int {
        // Sequential `read`, not `pread`: pipes have no positions. Only reads from front to back use the cursor.
        platformRead(descriptor, buffer.baseAddress! + start, min(buffer.count - start, 1 << 30))
    }
}

/// `read(2)` under a name that the method above does not shadow.
private func platformRead(_ descriptor: Int32, _ buffer: UnsafeMutableRawPointer, _ count: Int) -> Int {
    read(descriptor, buffer, count)
}

/// The system's own words for an `errno` value.
package func systemMessage(_ code: Int32) -> String {
    var text = [CChar](repeating: 0, count: 256)
    guard strerror_r(code, &text, text.count) == 0 else { return "error \(code)" }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Whole files as bytes.
public enum FileBytes {
    /// The contents of the file at `path`. Missing files, folders and refused permissions are told apart.
    public static func read(path: String) throws(FileError) -> [UInt8] {
        let bytes = try ReadableFile(path: path).readToEnd()
        ReadNotes.current?.add(file: path, bytes)
        return bytes
    }

    /// Whether something that is a folder stands at `path`.
    public static func isFolder(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Whether anything stands at `path`.
    public static func exists(_ path: String) -> Bool {
        access(path, F_OK) == 0
    }

    /// The names in a folder, sorted; empty where it cannot be listed.
    package static func names(inFolder path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 1) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
