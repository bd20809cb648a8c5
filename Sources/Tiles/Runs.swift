// Sorted, disjoint runs of integers: the set of tiles that somebody owns, needs or sees.

/// A set of integers kept as sorted, disjoint, non-adjacent, non-empty half-open runs; gone through, its integers
/// ascending.
///
/// Ranks and threads of a process plan at the same moment, so nothing here is generic, and what is written with it
/// should not be either: `runs.lazy.filter { … }` or `runs.ranges.joined()` handed to a generic function of another
/// module is metadata that several threads would make at its first use, and Swift's compilers (6.3 still) let one of
/// them take it before it is complete. `Tests/Stress/check-generics` looks for it.
public struct Runs: Hashable, Sendable, Sequence {
    /// The runs, ascending: none is empty, and between two of them at least one integer is missing.
    public private(set) var ranges: [Range<Int>]

    /// The empty set.
    public init() { ranges = [] }

    /// The integers of one range, which may be empty.
    public init(_ range: Range<Int>) { ranges = range.isEmpty ? [] : [range] }

    /// Any ranges: overlapping, unsorted, empty ones included.
    public init(_ unsorted: [Range<Int>]) {
        ranges = []
        // Mostly they come in order, and sorting takes longer than all else.
        var rest: [Range<Int>] = []
        for range in unsorted {
            if rest.isEmpty, ranges.last.map({ $0.lowerBound <= range.lowerBound }) ?? true {
                append(range)
            } else {
                rest.append(range)
            }
        }
        if rest.isEmpty { return }
        let sorted = (ranges + rest).sorted { $0.lowerBound < $1.lowerBound }
        ranges.removeAll(keepingCapacity: true)
        for range in sorted { append(range) }
    }

    /// Adds a range that starts at or after every range already here starts.
    public mutating func append(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        if let last = ranges.last, range.lowerBound <= last.upperBound {
            ranges[ranges.count - 1] = last.lowerBound..<Swift.max(last.upperBound, range.upperBound)
        } else {
            ranges.append(range)
        }
    }

    /// Whether the set holds no integer.
    public var isEmpty: Bool { ranges.isEmpty }

    /// The integers, ascending.
    public struct Iterator: IteratorProtocol, Sendable {
        @usableFromInline let ranges: [Range<Int>]
        /// The run after the one that is gone through, and what is left of that.
        @usableFromInline var run = 0
        @usableFromInline var value = 0
        @usableFromInline var end = 0

        @inlinable init(_ ranges: [Range<Int>]) { self.ranges = ranges }

        /// The next integer, or nil after the last.
        @inlinable public mutating func next() -> Int? {
            // No run is empty.
            if value == end {
                guard run < ranges.count else { return nil }
                value = ranges[run].lowerBound
                end = ranges[run].upperBound
                run += 1
            }
            defer { value += 1 }
            return value
        }
    }

    /// Goes through the integers, ascending.
    @inlinable public func makeIterator() -> Iterator { Iterator(ranges) }

    /// The number of integers, exactly, so that collecting them allocates once.
    public var underestimatedCount: Int { count }

    /// How many integers the set holds.
    public var count: Int { ranges.reduce(0) { $0 + $1.count } }

    /// The index of the first run that ends after `value`.
    private func firstRun(endingAfter value: Int) -> Int {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound > value { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Whether an integer is in the set.
    public func contains(_ value: Int) -> Bool {
        let run = firstRun(endingAfter: value)
        return run < ranges.count && ranges[run].lowerBound <= value
    }

    /// How many integers of `range` are in the set.
    public func count(in range: Range<Int>) -> Int {
        var count = 0
        var run = firstRun(endingAfter: range.lowerBound)
        while run < ranges.count, ranges[run].lowerBound < range.upperBound {
            count += ranges[run].clamped(to: range).count
            run += 1
        }
        return count
    }

    /// Whether every integer of another set is in this one.
    public func contains(_ other: Runs) -> Bool { other.subtracting(self).isEmpty }

    /// Whether any integer of `range` is in the set.
    public func intersects(_ range: Range<Int>) -> Bool {
        guard !range.isEmpty else { return false }
        let run = firstRun(endingAfter: range.lowerBound)
        return run < ranges.count && ranges[run].lowerBound < range.upperBound
    }

    /// Whether any integer is in both sets.
    public func intersects(_ other: Runs) -> Bool { other.ranges.contains { intersects($0) } }

    /// The integers of the set that `range` holds too.
    public func intersection(_ range: Range<Int>) -> Runs {
        var result = Runs()
        var run = firstRun(endingAfter: range.lowerBound)
        while run < ranges.count, ranges[run].lowerBound < range.upperBound {
            result.append(ranges[run].clamped(to: range))
            run += 1
        }
        return result
    }

    /// The integers that are in both sets.
    public func intersection(_ other: Runs) -> Runs {
        var result = Runs()
        var left = 0
        var right = 0
        while left < ranges.count, right < other.ranges.count {
            let a = ranges[left]
            let b = other.ranges[right]
            let low = Swift.max(a.lowerBound, b.lowerBound)
            let high = Swift.min(a.upperBound, b.upperBound)
            if low < high { result.append(low..<high) }
            if a.upperBound < b.upperBound { left += 1 } else { right += 1 }
        }
        return result
    }

    /// The integers that are in either set.
    public func union(_ other: Runs) -> Runs {
        if isEmpty { return other }
        if other.isEmpty { return self }
        var result = Runs()
        var left = 0
        var right = 0
        while left < ranges.count || right < other.ranges.count {
            let takeLeft =
                right == other.ranges.count
                || (left < ranges.count && ranges[left].lowerBound <= other.ranges[right].lowerBound)
            if takeLeft {
                result.append(ranges[left])
                left += 1
            } else {
                result.append(other.ranges[right])
                right += 1
            }
        }
        return result
    }

    /// The integers of `universe` that are not in the set.
    public func complement(in universe: Range<Int>) -> Runs {
        var result = Runs()
        var start = universe.lowerBound
        for range in intersection(universe).ranges {
            result.append(start..<range.lowerBound)
            start = range.upperBound
        }
        result.append(start..<Swift.max(start, universe.upperBound))
        return result
    }

    /// The integers of this set that are not in the other.
    public func subtracting(_ other: Runs) -> Runs {
        guard let first = ranges.first, let last = ranges.last else { return self }
        return intersection(other.complement(in: first.lowerBound..<last.upperBound))
    }

    /// The same set, every integer moved by `offset`.
    public func shifted(by offset: Int) -> Runs {
        var result = Runs()
        result.ranges = ranges.map { $0.lowerBound + offset..<$0.upperBound + offset }
        return result
    }
}
