// What is noted of what was read: the same whoever read which part, and another after any change.

import Checkpoints
import Files
import Foundation
import Testing

@Suite struct ReadNotesTests {
    /// A digest of a whole is the sum of those of its parts, however many there are, also where the last word is cut.
    @Test func theDigestOfAFileIsTheSumOfItsParts() throws {
        let scratch = try Scratch()
        var random = SeededGenerator(state: 3)
        for count in [0, 1, 3, 4, 5, 4096, 4097, 9999, 600_001] {
            let path = try scratch.write(
                "file-\(count)", (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) })
            let whole = try FileBytes.digest(path: path, part: 0, of: 1)
            for parts in [2, 3, 7, 64] {
                let sum = try (0..<parts).reduce(UInt64(0)) {
                    $0 &+ (try FileBytes.digest(path: path, part: $1, of: parts))
                }
                #expect(sum == whole, "\(count) bytes in \(parts) parts")
            }
        }
    }

    /// Any single bit counts, and so does the order of words.
    @Test func everyChangeIsAnotherDigest() throws {
        let scratch = try Scratch()
        var random = SeededGenerator(state: 4)
        var bytes = (0..<20_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        func digest() throws -> UInt64 { try FileBytes.digest(path: try scratch.write("file", bytes), part: 0, of: 1) }
        var seen: Set<UInt64> = [try digest()]
        for round in 0..<300 {
            let place = Int.random(in: bytes.indices, using: &random)
            bytes[place] ^= 1 << (round % 8)
            #expect(try seen.insert(digest()).inserted, "bit \(round % 8) of byte \(place)")
        }
        for distance in [4, 64, 4096, 8192] {
            for index in 0..<4 { bytes.swapAt(index, index + distance) }
            #expect(try seen.insert(digest()).inserted, "words \(distance) bytes apart")
        }
    }

    /// The parts of a tensor that are read add up to the tensor, in every type; what is shared is told apart.
    @Test func tensorsAreNotedByTheirParts() throws {
        let checkpoint = try Checkpoint(folder: Goldens.folder + "/tiny-bert")
        let name = "embeddings.word_embeddings.weight"
        let shape = try #require(checkpoint[name].tensor).shape
        let count = shape.reduce(1, *)
        func noted(_ cuts: [Int], shared: Bool = false) throws -> ReadNotes {
            let notes = ReadNotes()
            notes.setShared(shared)
            try ReadNotes.$current.withValue(notes) {
                var values = [Float](repeating: 0, count: count)
                for (first, end) in zip([0] + cuts, cuts + [count]) {
                    try values.withUnsafeMutableBufferPointer {
                        try checkpoint[name].read(shape: shape, range: first..<end, into: $0)
                    }
                }
            }
            return notes
        }
        let whole = try #require(try noted([]).tensors.values.first)
        #expect(whole.own != 0 && whole.shared == 0)
        for cuts in [[1], [count - 1], [7, 1024, 1025], [count / 3, count / 2]] {
            #expect(try noted(cuts).tensors.values.first == whole, "\(cuts)")
            let shared = try noted(cuts, shared: true).tensors.values.first
            #expect(shared == ReadNotes.Tensor(own: 0, shared: whole.own), "\(cuts)")
        }
        #expect(try noted([]).notFinite.isEmpty)
    }

    @Test func filesThatAreReadWholeAreNoted() throws {
        let scratch = try Scratch()
        let path = try scratch.write("a.json", "{}")
        func noted() throws -> [String: UInt64] {
            let notes = ReadNotes()
            try ReadNotes.$current.withValue(notes) { _ = try JSON.load(path: path) }
            return notes.files
        }
        let before = try noted()
        #expect(before.keys.sorted() == [path])
        try scratch.write("a.json", "{ }")
        #expect(try noted() != before)
        _ = try JSON.load(path: path)
        #expect(ReadNotes.current == nil)
    }
}
