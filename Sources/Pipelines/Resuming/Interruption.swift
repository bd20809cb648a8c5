// Being told to stop at the next place from which the work can go on later.

import Synchronization

/// Whether this process was told to stop where its work can be resumed.
///
/// The signal that says so, Slurm's warning among them, ends a job that keeps nothing at once. A job with a journal is
/// left running until it has come to a place where it saves what it has done; however early the signal comes, that is
/// some way further than where the job began.
package enum Interruption {
    private static let isKept = Atomic<Bool>(false)
    private static let isRequested = Atomic<Bool>(false)

    /// Tells that the job can be resumed.
    package static func keep() { isKept.store(true, ordering: .releasing) }

    /// Asks the work to stop: false where it keeps nothing, so that nothing is gained by waiting.
    package static func ask() -> Bool {
        guard isKept.load(ordering: .acquiring) else { return false }
        isRequested.store(true, ordering: .releasing)
        return true
    }

    /// Whether the work is to stop.
    static var isAsked: Bool { isRequested.load(ordering: .acquiring) }

    /// What stays of the work where the process ends, in words.
    package static var keptWords: String {
        isKept.load(ordering: .acquiring)
            ? "what was saved is kept: run the same command again to go on" : "nothing unfinished was kept"
    }
}
