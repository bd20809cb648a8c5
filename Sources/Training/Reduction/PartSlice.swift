// What a block of parameters gets of a part of a gradient, in memory and as it travels.

import Matrices
import Tiles
import Transformers

/// The floats of a part that lie inside a run of the parameter's floats.
struct PartSlice {
    /// The rows that are there, where only some are.
    let rows: ArraySlice<Int32>
    /// Contiguous: rows lie one behind the other.
    let values: UnsafeBufferPointer<Float>

    init(rows: ArraySlice<Int32>, values: UnsafeBufferPointer<Float>) {
        (self.rows, self.values) = (rows, values)
    }

    /// - Parameters:
    ///   - part: of a slot that begins at `start` in its parameter.
    ///   - range: floats of the parameter, inside the slot's.
    ///   - columns: of a row where only some rows are there, else 0.
    init(_ part: GradientPart, _ range: Range<Int>, columns: Int, start: Int) {
        guard let rows = part.rows, columns > 0 else {
            self.rows = []
            values = UnsafeBufferPointer(start: part.values.pointer + (range.lowerBound - start), count: range.count)
            return
        }
        let first = rows.partition { (Int($0) + 1) * columns > range.lowerBound }
        let end = rows.partition { Int($0) * columns >= range.upperBound }
        self.rows = rows[first..<max(first, end)]
        guard first < end else {
            values = UnsafeBufferPointer(start: nil, count: 0)
            return
        }
        // A row that the range cuts is there in part.
        let skipped = max(0, range.lowerBound - Int(rows[first]) * columns)
        let left = max(0, (Int(rows[end - 1]) + 1) * columns - range.upperBound)
        values = UnsafeBufferPointer(
            start: part.values.pointer + first * columns + skipped, count: (end - first) * columns - skipped - left)
    }

    /// What it is on the tree.
    func sum(range: Range<Int>, columns: Int) -> SegmentSum {
        SegmentSum(range: range, columns: columns, rows: Array(rows), values: Array(values))
    }
}

extension [Int32] {
    /// The place of the first number of which `holds` is true, where it is true of all behind it.
    fileprivate func partition(_ holds: (Int32) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if holds(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

/// What a rank sends to the owner of some blocks: words that say which parts there are and which rows of them, then all
/// floats.
struct ReductionMessage {
    private var words: [Int32] = []
    private var floats: [UnsafeRawBufferPointer] = []
    private var wordBuffer: AlignedBuffer?
    /// What holds the words until the message is sent.
    var owners: [AnyObject] { wordBuffer.map { [$0] } ?? [] }
    private(set) var byteCount = 0

    /// Nothing comes of a part.
    mutating func appendNothing() {
        words.append(-1)
        byteCount += 4
    }

    /// A slice of a part, with the number of its rows, and which.
    mutating func append(_ slice: PartSlice) {
        words.append(Int32(slice.rows.count))
        words.append(contentsOf: slice.rows)
        if !slice.values.isEmpty { floats.append(UnsafeRawBufferPointer(slice.values)) }
        byteCount += 4 * (1 + slice.rows.count + slice.values.count)
    }

    /// Where its bytes are; to be called once.
    mutating func pieces() -> [UnsafeRawBufferPointer] {
        let buffer = AlignedBuffer(count: words.count)
        for (index, word) in words.enumerated() { buffer.pointer[index] = Float(bitPattern: UInt32(bitPattern: word)) }
        wordBuffer = buffer
        return [UnsafeRawBufferPointer(buffer.bytes)] + floats
    }
}

/// Reads a message in the order in which it was written.
struct ReductionReader {
    private let buffer: AlignedBuffer
    private var nextWord = 0

    init(_ buffer: AlignedBuffer) { self.buffer = buffer }

    private mutating func word() -> Int32 {
        defer { nextWord += 1 }
        return Int32(bitPattern: buffer.pointer[nextWord].bitPattern)
    }

    /// The rows of the next slice; nil where nothing came of the part.
    mutating func rows() -> [Int32]? {
        let count = word()
        if count < 0 { return nil }
        return (0..<count).map { _ in word() }
    }

    /// Where the words end and floats begin.
    var end: Int { nextWord }
}
