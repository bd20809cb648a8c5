// Standard input, output and error where whoever started the process closed them.

import Foundation
import Pipelines

/// One of the streams that carry a verb's documents and results.
enum StandardStream: Int32, Sendable {
    case input = 0
    case output = 1

    /// Puts `/dev/null` in the place of closed descriptors 0, 1 and 2. Call before anything opens a file.
    ///
    /// The next file to be opened, a model's, would otherwise get the number and be read as the documents, or be
    /// written over with results. Input is opened for writing alone and output for reading alone: to use them still
    /// fails, with EBADF, and only a verb that does so notices. What is said on a closed standard error is meant for
    /// nobody.
    static func openClosed() {
        // In ascending order each gets the number that is missing, the lowest that is free.
        for (descriptor, mode) in [(0, O_WRONLY), (1, O_RDONLY), (2, O_WRONLY)] as [(Int32, Int32)] {
            guard fcntl(descriptor, F_GETFD) == -1, errno == EBADF else { continue }
            _ = open("/dev/null", mode)
        }
    }

    /// Refuses a closed stream before any work is done for it.
    /// - Throws: `JobError` with status `missingFile` for input, `cannotWrite` for output.
    func check() throws(JobError) {
        let mode = fcntl(rawValue, F_GETFL)
        let isOpen = mode != -1 && mode & O_ACCMODE != (self == .input ? O_WRONLY : O_RDONLY)
        guard !isOpen else { return }
        switch self {
        case .input:
            throw JobError(
                .missingFile,
                "standard input is closed or cannot be read; name the input with -i, or give one with '< FILE'")
        case .output:
            throw JobError(
                .cannotWrite,
                "standard output is closed or cannot be written; send it somewhere with '> FILE' or '| READER'")
        }
    }

    /// Writes all of `text` to standard output. The corresponding C function is `write`.
    /// - Throws: `JobError` with status `cannotWrite`.
    static func write(_ text: String) throws(JobError) {
        var text = text
        let failure = text.withUTF8 { bytes -> Int32? in
            var rest = UnsafeRawBufferPointer(bytes)[...]
            while !rest.isEmpty {
                let count = Foundation.write(
                    StandardStream.output.rawValue, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count > 0 { rest = rest.dropFirst(count) }
                guard count < 0, errno != EINTR else { continue }
                // A pipe that somebody else made non-blocking is waited for.
                guard errno == EAGAIN else { return errno }
                var request = pollfd(fd: StandardStream.output.rawValue, events: Int16(POLLOUT), revents: 0)
                poll(&request, 1, -1)
            }
            return nil
        }
        switch failure {
        case nil: return
        case EPIPE: throw JobError(.cannotWrite, "standard output cannot be written: its reader has gone")
        case ENOSPC, EDQUOT:
            throw JobError(.cannotWrite, "standard output cannot be written: the disk is full; free some space")
        case let code?:
            throw JobError(
                .cannotWrite,
                "standard output cannot be written (\(String(cString: strerror(code)))); send it somewhere else")
        }
    }
}
