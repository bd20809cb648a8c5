// What was read of a model's files, in digests, so that ranks can compare their copies of them.

import CFiles
import Synchronization

/// Takes note of every file that is read whole, and of every tensor of a checkpoint that is read, while it is the
/// current one:
///
///     let notes = ReadNotes()
///     let model = try ReadNotes.$current.withValue(notes) { try load() }
///
/// A tensor's digest is the sum of those of its parts, so what several readers take in turn adds up to what one would
/// have.
public final class ReadNotes: Sendable {
    /// Who takes note of what this thread reads.
    @TaskLocal public static var current: ReadNotes?

    /// What was read of one tensor.
    public struct Tensor: Sendable, Equatable {
        /// Read into memory of the reader's own.
        public var own: UInt64 = 0
        /// Read into memory that several readers fill together.
        public var shared: UInt64 = 0

        /// Digests of what was read; 0 stands for nothing.
        public init(own: UInt64 = 0, shared: UInt64 = 0) {
            self.own = own
            self.shared = shared
        }
    }

    private struct State {
        var files: [String: UInt64] = [:]
        var tensors: [String: Tensor] = [:]
        var notFinite: Set<String> = []
        var opened: UInt64 = 0
        var isShared = false
    }

    private let state = Mutex(State())

    /// Notes of nothing so far.
    public init() {}

    /// The digests of files, by path.
    public var files: [String: UInt64] { state.withLock { $0.files } }

    /// The digests of tensors as float32, by the names they are stored under.
    public var tensors: [String: Tensor] { state.withLock { $0.tensors } }

    /// The tensors of which an infinity or NaN was read, by name.
    public var notFinite: [String] { state.withLock { $0.notFinite.sorted() } }

    /// Whether what is read from now on goes to memory that several readers fill together.
    public func setShared(_ isShared: Bool) { state.withLock { $0.isShared = isShared } }

    /// What tells the files of weights that were opened from others, wherever they are; see `FileBytes.Identity`.
    public var openedFiles: UInt64 { state.withLock { $0.opened } }

    func add(opened identity: FileBytes.Identity) {
        var values = [
            identity.number, UInt64(identity.byteCount), UInt64(bitPattern: Int64(identity.modified)),
            UInt64(bitPattern: Int64(identity.changed)),
        ]
        let digest = values.withUnsafeMutableBytes { WordDigest(UnsafeRawBufferPointer($0), first: 0).sum }
        state.withLock { $0.opened = $0.opened &* 0x100_0000_01B3 &+ digest }
    }

    func add(file path: String, _ bytes: [UInt8]) {
        let digest =
            bytes.withUnsafeBytes { WordDigest($0, first: 0).sum } ^ UInt64(bytes.count) &* 0x9E37_79B9_7F4A_7C15
        state.withLock { $0.files[path] = digest }
    }

    func add(tensor name: String, _ digest: WordDigest) {
        state.withLock { state in
            if state.isShared {
                state.tensors[name, default: Tensor()].shared &+= digest.sum
            } else {
                state.tensors[name, default: Tensor()].own &+= digest.sum
            }
            if digest.isSpecial { state.notFinite.insert(name) }
        }
    }
}

/// The digest of a run of 32-bit words, which adds up to that of the whole with those of the other runs.
struct WordDigest {
    var sum: UInt64 = 0
    /// Whether one of them, as a float, is infinite or no number.
    var isSpecial = false

    init() {}

    /// - Parameters:
    ///   - bytes: words; a last one that is cut is taken as if zeros followed.
    ///   - first: the place of the first word in the whole.
    init(_ bytes: UnsafeRawBufferPointer, first: Int) {
        let whole = bytes.count / 4
        add(bytes.baseAddress, words: whole, first: first)
        if bytes.count % 4 > 0 {
            var last: UInt32 = 0
            withUnsafeMutableBytes(of: &last) {
                $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[(4 * whole)...]))
            }
            add(&last, words: 1, first: first + whole)
        }
    }

    mutating func add(_ words: UnsafeRawPointer?, words count: Int, first: Int) {
        guard let words, count > 0 else { return }
        let found = annulus_digest_words(words, count, UInt64(first))
        sum &+= found.sum
        isSpecial = isSpecial || found.is_special != 0
    }
}

/// Whether none of the values is infinite or no number.
package func areFinite(_ values: UnsafePointer<Float>, count: Int) -> Bool { annulus_any_special(values, count) == 0 }

extension FileBytes {
    /// What tells one file from another without reading it: two that agree in this are one, also on hosts that share a
    /// file system, for a copy gets a place and a time of its own.
    package struct Identity: Hashable, Sendable {
        package let number: UInt64
        package let byteCount: Int
        package let modified: Int
        package let changed: Int

        package init(number: UInt64, byteCount: Int, modified: Int, changed: Int) {
            self.number = number
            self.byteCount = byteCount
            self.modified = modified
            self.changed = changed
        }
    }

    /// The corresponding C function is `stat`.
    package static func identity(path: String) throws(FileError) -> Identity { try ReadableFile(path: path).identity() }

    /// The digest of words that begin at a place of a whole; that of the whole is the sum.
    package static func digest(_ bytes: UnsafeRawBufferPointer, firstWord: Int) -> UInt64 {
        WordDigest(bytes, first: firstWord).sum
    }

    /// The digest of one of `count` equal parts of a file; that of the file is their sum.
    package static func digest(path: String, part: Int, of count: Int, progressed: () -> Void = {}) throws(FileError)
        -> UInt64
    {
        let file = try ReadableFile(path: path)
        let words = (file.byteCount + 3) / 4
        let mine = part * words / count..<(part + 1) * words / count
        let pieceWords = 1 << 17
        var piece = [UInt8](repeating: 0, count: 4 * min(pieceWords, max(1, mine.count)))
        var sum: UInt64 = 0
        var next = mine.lowerBound
        while next < mine.upperBound {
            let bytes = min(4 * min(pieceWords, mine.upperBound - next), file.byteCount - 4 * next)
            var failure: FileError?
            piece.withUnsafeMutableBytes { buffer in
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<bytes])
                do throws(FileError) { try file.read(at: 4 * next, into: part) } catch { failure = error }
                if failure == nil { sum &+= WordDigest(UnsafeRawBufferPointer(part), first: next).sum }
            }
            if let failure { throw failure }
            next += (bytes + 3) / 4
            progressed()
        }
        return sum
    }
}

/// Room for files that are about to be written.
package enum FileRoom {
    /// What keeps a file from being written: the error that a write would meet, and the bytes that there are.
    package struct Shortage {
        package let failure: Int32
        package let free: Int
    }

    /// Makes sure that a file of so many bytes can be written, reserving them where the file system can: nothing is
    /// written.
    ///
    /// The corresponding C function is `fallocate`; where it is not supported, `statvfs`.
    package static func reserve(_ bytes: Int, in descriptor: Int32) -> Shortage? {
        let failure = annulus_reserve(descriptor, Int64(bytes))
        return failure == 0 ? nil : Shortage(failure: failure, free: Int(annulus_room(descriptor)))
    }
}
