// Sets of Unicode scalars: built from ranges, asked scalar by scalar.

/// A set of scalars as sorted, disjoint, inclusive ranges that do not touch.
struct ScalarSet: Hashable, Sendable {
    private(set) var ranges: [ClosedRange<UInt32>] = []

    static let all = ScalarSet([0...0x10FFFF])
    /// All but the newline, which is what a full stop matches.
    static let allButNewline = ScalarSet([0xA...0xA]).inverted

    init() {}

    init(_ scalars: String) { self.init(scalars.unicodeScalars.map { $0.value...$0.value }) }

    init(_ unsorted: [ClosedRange<UInt32>]) {
        for range in unsorted.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = ranges.last, range.lowerBound <= last.upperBound + 1 {
                ranges[ranges.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
            } else {
                ranges.append(range)
            }
        }
    }

    /// Inclusive ranges as the Unicode tables hold them: first, last, first, last, …
    init(table: [UInt32]) {
        self.init(stride(from: 0, to: table.count, by: 2).map { table[$0]...table[$0 + 1] })
    }

    var isEmpty: Bool { ranges.isEmpty }

    var inverted: ScalarSet {
        var gaps: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges {
            if next < range.lowerBound { gaps.append(next...range.lowerBound - 1) }
            next = range.upperBound + 1
        }
        if next <= 0x10FFFF { gaps.append(next...0x10FFFF) }
        var result = ScalarSet()
        result.ranges = gaps
        return result
    }

    func union(_ other: ScalarSet) -> ScalarSet { ScalarSet(ranges + other.ranges) }

    func intersection(_ other: ScalarSet) -> ScalarSet { inverted.union(other.inverted).inverted }

    func subtracting(_ other: ScalarSet) -> ScalarSet { intersection(other.inverted) }

    func contains(_ scalar: UInt32) -> Bool {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < scalar { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].contains(scalar)
    }
}

/// A set of scalars as a bitmap in two levels: one look-up, whatever the set.
struct ScalarBitmap: Sendable {
    /// By scalar / 256, the page; page 0 is empty, page 1 full.
    private var pageNumbers = [UInt16](repeating: 0, count: 0x1100)
    /// 256 bits a page, four words.
    private var words: [UInt64] = [0, 0, 0, 0, .max, .max, .max, .max]

    init(_ set: ScalarSet) {
        for range in set.ranges {
            let first = Int(range.lowerBound >> 8)
            let last = Int(range.upperBound >> 8)
            for page in first...last {
                let start = page == first ? range.lowerBound & 0xFF : 0
                let end = page == last ? range.upperBound & 0xFF : 0xFF
                if start == 0, end == 0xFF {
                    pageNumbers[page] = 1
                    continue
                }
                if pageNumbers[page] == 0 {
                    pageNumbers[page] = UInt16(words.count / 4)
                    words += [0, 0, 0, 0]
                }
                let base = Int(pageNumbers[page]) * 4
                for bit in start...end { words[base + Int(bit >> 6)] |= 1 << UInt64(bit & 63) }
            }
        }
    }

    /// - Precondition: a scalar value, below 0x110000.
    @inline(__always)
    func contains(_ scalar: UInt32) -> Bool {
        let word = words[Int(pageNumbers[Int(scalar >> 8)]) * 4 + Int(scalar >> 6 & 3)]
        return word >> UInt64(scalar & 63) & 1 != 0
    }
}
