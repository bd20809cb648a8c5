// The unfinished outputs of this process, removed on any way out.

import Foundation
import Synchronization

/// The unfinished outputs that this process knows of.
///
/// Whoever ends the process early, be it a failure, the watchdog or a signal, removes them first; a rank that is
/// killed outright leaves that to the others that share the folder.
enum TemporaryFiles {
    private static let paths = Mutex<Set<String>>([])

    static func register(_ path: String) { paths.withLock { _ = $0.insert(path) } }
    static func forget(_ path: String) { paths.withLock { _ = $0.remove(path) } }

    static func removeAll() {
        paths.withLock { paths in
            for path in paths { unlink(path) }
            paths.removeAll()
        }
    }
}
