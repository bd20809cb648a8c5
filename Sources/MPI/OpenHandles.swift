// How many handles of the library are open, so that a test can tell that a job has let go of all.

import CLibrary
import Synchronization

/// The handles of one kind that this process has made and freed.
struct HandleTally: ~Copyable, Sendable {
    private let made = Atomic<Int>(0)
    private let freed = Atomic<Int>(0)

    func make() { made.wrappingAdd(1, ordering: .relaxed) }
    // Whoever sees the last one freed may end MPI, so what was done with it comes first.
    func free(_ count: Int = 1) { freed.wrappingAdd(count, ordering: .releasing) }

    var open: Int { made.load(ordering: .relaxed) - freed.load(ordering: .acquiring) }
    var description: String { "\(open) of \(made.load(ordering: .relaxed))" }
}

/// The handles of this process.
enum OpenHandles {
    static let communicators = HandleTally()
    static let windows = HandleTally()
    static let datatypes = HandleTally()
    static let requests = HandleTally()

    /// How long another thread may take to let go of the communicator that it was the last to use.
    private static let patience = Duration.seconds(1)

    /// Waits until no communicator is in use: freeing one while `MPI_Finalize` runs would be an error.
    static func waitForCommunicators() {
        guard communicators.open > 0 else { return }
        let end = ContinuousClock.now + patience
        while communicators.open > 0, ContinuousClock.now < end { yieldCore() }
    }

    /// Says on standard error how many are left, where `ANNULUS_SHOW_HANDLES` is set.
    static func show(rank: Int) {
        guard getenv("ANNULUS_SHOW_HANDLES") != nil else { return }
        let line =
            "handles: rank \(rank) leaves \(communicators.description) communicators, \(windows.description) windows, "
            + "\(datatypes.description) datatypes, \(requests.description) requests\n"
        // One call, so that lines of several ranks do not mix.
        Array(line.utf8).withUnsafeBytes { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
    }
}
