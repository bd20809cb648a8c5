// The unfinished outputs of this process, removed on any way out.

import Foundation
import Synchronization

/// The unfinished outputs that this process knows of.
///
/// Whoever ends the process early, be it a failure, the watchdog, a signal or a crash, removes them first; a rank that
/// is killed outright leaves that to the others that share the folder.
package enum TemporaryFiles {
    /// The paths, as text that a crash may read: it can neither wait for a lock nor take memory.
    private static let places = Places()
    /// Held while a path is added or taken out.
    private static let changing = Mutex(())

    package static func register(_ path: String) {
        changing.withLock { _ in
            guard !places.all.contains(where: { $0 == path }) else { return }
            places.add(path)
        }
    }

    package static func forget(_ path: String) { changing.withLock { _ in places.remove(path) } }

    /// How many files are being created at the moment.
    private static let creating = Atomic<Int>(0)
    private static let isClosed = Atomic<Bool>(false)

    /// Creates a file whose path is registered.
    /// - Parameter open: makes it and returns its descriptor.
    /// - Throws: where the process is on its way out, and what `open` throws.
    package static func create(_ open: () throws(JobError) -> Int32) throws(JobError) -> Int32 {
        creating.add(1, ordering: .sequentiallyConsistent)
        defer { creating.subtract(1, ordering: .sequentiallyConsistent) }
        if isClosed.load(ordering: .sequentiallyConsistent) {
            throw JobError(.interrupted, "the process is about to end")
        }
        return try open()
    }

    /// Removes them all. To be called from any thread at any time, also where the process has crashed.
    package static func removeAll() { places.unlinkAll() }

    /// The same where the process is about to end: no other is created any more, and one that is just being created is
    /// waited for, a moment, for it may be this thread's own.
    package static func close() {
        isClosed.store(true, ordering: .sequentiallyConsistent)
        removeAll()
        var left = 50
        while creating.load(ordering: .sequentiallyConsistent) > 0, left > 0 {
            var moment = timespec(tv_sec: 0, tv_nsec: 2_000_000)
            nanosleep(&moment, nil)
            left -= 1
            removeAll()
        }
        removeAll()
    }

    /// Makes the places, so that a crash need not.
    package static func prepare() { _ = places }

    /// A fixed number of places for C strings, each zero or the address of one.
    private final class Places: Sendable {
        private let address: UInt
        /// A rank writes one output at a time; virtual ranks write the same one.
        private static let count = 64

        init() {
            let memory = UnsafeMutablePointer<Int>.allocate(capacity: Self.count)
            memory.initialize(repeating: 0, count: Self.count)
            address = UInt(bitPattern: memory)
        }

        private func place(_ index: Int) -> UnsafeMutablePointer<Atomic<Int>> {
            // It came from a pointer and is never zero; a place is as large as the integer it holds.
            UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped.assumingMemoryBound(to: Atomic<Int>.self)
                + index
        }

        private func text(_ index: Int) -> UnsafeMutablePointer<CChar>? {
            UnsafeMutablePointer(bitPattern: place(index).pointee.load(ordering: .acquiring))
        }

        var all: [String] { (0..<Self.count).compactMap { text($0).map { String(cString: $0) } } }

        func add(_ path: String) {
            guard let free = (0..<Self.count).first(where: { text($0) == nil }) else { return }
            place(free).pointee.store(Int(bitPattern: strdup(path)), ordering: .releasing)
        }

        func remove(_ path: String) {
            for index in 0..<Self.count where text(index).map({ String(cString: $0) == path }) ?? false {
                // The text itself stays: somebody may be about to read it.
                place(index).pointee.store(0, ordering: .releasing)
            }
        }

        func unlinkAll() {
            var index = 0
            while index < Self.count {
                if let path = text(index) { unlink(path) }
                index += 1
            }
        }
    }
}
