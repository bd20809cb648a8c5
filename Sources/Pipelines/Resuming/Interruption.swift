// Being told to stop at the next place from which the work can go on later.

import Synchronization

/// Whether this process was told to stop where its work can be resumed.
///
/// The signal that says so, Slurm's warning among them, ends a job that keeps nothing at once. A job with a journal is
/// left running until it has saved what it has done.
package enum Interruption {
    private static let isKeeping = Atomic<Bool>(false)
    private static let isAwaited = Atomic<Bool>(false)
    private static let isRequested = Atomic<Bool>(false)

    /// Tells that the job can be resumed.
    package static func keep() { isKeeping.store(true, ordering: .releasing) }

    /// Tells that the work looks for interruptions from here on.
    static func await() { isAwaited.store(true, ordering: .releasing) }

    /// Asks the work to stop: false where it keeps nothing, so that nothing is gained by waiting.
    package static func ask() -> Bool {
        guard isAwaited.load(ordering: .acquiring) else { return false }
        isRequested.store(true, ordering: .releasing)
        return true
    }

    /// Whether the work is to stop.
    static var isAsked: Bool { isRequested.load(ordering: .acquiring) }

    /// What stays of the work where the process ends, in words.
    package static var keptWords: String {
        isKeeping.load(ordering: .acquiring)
            ? "what was saved is kept: run the same command again to go on" : "nothing unfinished was kept"
    }
}
