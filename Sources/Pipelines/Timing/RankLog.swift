// What one rank has to say, in a file of its own.

import Foundation
import Synchronization
import Tiles

/// A file of lines, each with the seconds since the job began. Each line is written at once, so that it is there whatever
/// comes next.
package final class RankLog: Sendable {
    private let descriptor: Int32
    private let start = ContinuousClock.now
    private let phase = Mutex("")

    /// Opens `rank-N.log` in a folder, which is made where it is missing; a file of that name is replaced.
    /// - Throws: `JobError` with status `cannotCreate`.
    package init(folder: String, rank: Int, of size: Int) throws(JobError) {
        do {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        } catch {
            throw JobError(.cannotCreate, "\(folder): the folder for logs cannot be made; name another with --log-dir")
        }
        let digits = String(rank)
        let name = String(repeating: "0", count: max(0, String(size - 1).count - digits.count)) + digits
        let path = folder + "/rank-\(name).log"
        descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            throw JobError(
                .cannotCreate,
                "\(path): the log cannot be created: \(String(cString: strerror(errno))); name another folder with --log-dir"
            )
        }
    }

    deinit { close(descriptor) }

    /// Writes a line. What cannot be written is left out: a log ends no job.
    package func write(_ line: String) {
        let seconds = (ContinuousClock.now - start).inSeconds
        var text = String(format: "%10.3f  ", seconds) + line + "\n"
        text.withUTF8 { _ = Foundation.write(descriptor, $0.baseAddress, $0.count) }
    }

    /// Writes that another phase begins.
    func enter(_ name: String) {
        let isNew = phase.withLock { phase in
            defer { phase = name }
            return phase != name
        }
        if isNew { write("phase: \(name)") }
    }
}
