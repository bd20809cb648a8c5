// The pipe from a signal's handler, which may call next to nothing, to the thread that answers it.

import Foundation
import Synchronization

enum SignalPipe {
    struct Received {
        let number: Int32
        let sender: Int32
    }

    /// Where handlers write.
    private static let writing = Atomic<Int32>(-1)

    /// Makes the pipe and returns the descriptor to read from; nil where the process has no descriptors left.
    static func open() -> Int32? {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        writing.store(ends[1], ordering: .releasing)
        return ends[0]
    }

    /// To be called in a handler. A pipe takes so few bytes whole.
    static func write(_ number: Int32, sender: Int32) {
        let before = errno
        var message = (number, sender)
        _ = Foundation.write(writing.load(ordering: .acquiring), &message, 8)
        errno = before
    }

    /// Waits for the next signal.
    static func next(from descriptor: Int32) -> Received? {
        var message: (Int32, Int32) = (0, 0)
        while true {
            let count = read(descriptor, &message, 8)
            if count == 8 { return Received(number: message.0, sender: message.1) }
            if count >= 0 || errno != EINTR { return nil }
        }
    }
}
