// The unfinished outputs of this process, removed on any way out.

import Foundation
import Synchronization

/// The unfinished outputs that this process knows of.
///
/// Whoever ends the process early, be it a failure, the watchdog, a signal or a crash, removes them first; a rank that is
/// killed outright leaves that to the others that share the folder.
enum TemporaryFiles {
    /// The paths, as text that a crash may read: it can neither wait for a lock nor take memory.
    private static let places = Places()
    /// Held while a path is added or taken out.
    private static let changing = Mutex(())

    static func register(_ path: String) {
        changing.withLock { _ in
            guard !places.all.contains(where: { $0 == path }) else { return }
            places.add(path)
        }
    }

    static func forget(_ path: String) { changing.withLock { _ in places.remove(path) } }

    /// Removes them all. To be called from any thread at any time, also where the process has crashed.
    static func removeAll() { places.unlinkAll() }

    /// Makes the places, so that a crash need not.
    static func prepare() { _ = places }

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
            UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped.assumingMemoryBound(to: Atomic<Int>.self) + index
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
                let address = place(index).pointee.exchange(0, ordering: .acquiringAndReleasing)
                if let path = UnsafePointer<CChar>(bitPattern: address) { unlink(path) }
                index += 1
            }
        }
    }
}
