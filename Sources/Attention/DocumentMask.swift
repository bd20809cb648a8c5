// Documents packed one behind another: a query sees the keys of its own document.

import Tiles

/// The lengths of packed documents, as queries and as keys.
public struct DocumentMask: Hashable, Sendable {
    /// Document `d` has the query rows `firstQuery[d]..<firstQuery[d + 1]`.
    private let firstQuery: [Int]
    private let firstKey: [Int]

    /// - Precondition: equally many documents as queries and as keys.
    public init(queries: [Int], keys: [Int]) {
        precondition(queries.count == keys.count && queries.allSatisfy { $0 >= 0 } && keys.allSatisfy { $0 >= 0 })
        func starts(_ lengths: [Int]) -> [Int] { lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) } }
        firstQuery = starts(queries)
        firstKey = starts(keys)
    }

    /// How many documents there are, empty ones included.
    public var count: Int { firstQuery.count - 1 }
    /// The query rows of all documents together, which are those of the sequence.
    public var queryCount: Int { firstQuery[count] }
    /// The keys of all documents together, which are those of the sequence.
    public var keyCount: Int { firstKey[count] }

    /// The query rows of a document.
    public func queries(of document: Int) -> Range<Int> { firstQuery[document]..<firstQuery[document + 1] }
    /// The keys of a document.
    public func keys(of document: Int) -> Range<Int> { firstKey[document]..<firstKey[document + 1] }

    /// The document that holds an item, by the starts of all; empty documents hold none.
    private func document(holding item: Int, _ starts: [Int]) -> Int {
        var low = 0
        var high = count
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= item { low = middle } else { high = middle }
        }
        return low
    }

    func keys(ofRow row: Int) -> Range<Int> { keys(of: document(holding: row, firstQuery)) }

    func sees(row: Int, key: Int) -> Bool { document(holding: row, firstQuery) == document(holding: key, firstKey) }

    func bounds(rows: Range<Int>) -> (any: Runs, all: Runs) {
        let first = document(holding: rows.lowerBound, firstQuery)
        let last = document(holding: rows.upperBound - 1, firstQuery)
        if first == last { return (Runs(keys(of: first)), Runs(keys(of: first))) }
        // Both ends have rows here, so no key is seen by all; a document without rows is seen by nobody.
        var any = Runs()
        for document in first...last where !queries(of: document).isEmpty { any.append(keys(of: document)) }
        return (any, Runs())
    }
}

/// A matrix of blocks, each visible or not.
public struct BlockMask: Hashable, Sendable {
    /// The tokens of a block's side; the last row and column of blocks may be cut.
    public let size: Int
    /// How many rows of blocks there are: the queries over `size`, rounded up.
    public let rows: Int
    /// How many columns of blocks there are: the keys over `size`, rounded up.
    public let columns: Int
    /// For each row of blocks, the visible columns.
    private let visible: [Runs]

    /// - Parameters:
    ///   - size: the tokens of a block's side, positive.
    ///   - rows: how many rows of blocks there are: the queries over `size`, rounded up.
    ///   - columns: how many columns of blocks there are: the keys over `size`, rounded up.
    ///   - cells: whether each block is visible: rows × columns, row-major.
    public init(size: Int, rows: Int, columns: Int, cells: [Bool]) {
        precondition(size > 0 && cells.count == rows * columns)
        self.size = size
        self.rows = rows
        self.columns = columns
        visible = (0..<rows).map { row in
            Runs((0..<columns).filter { cells[row * columns + $0] }.map { $0..<$0 + 1 })
        }
    }

    func sees(row: Int, key: Int) -> Bool { visible[row / size].contains(key / size) }

    private func tokens(_ blocks: Runs, keyCount: Int) -> Runs {
        Runs(
            blocks.ranges.map { $0.lowerBound * size..<min($0.upperBound * size, max(keyCount, $0.lowerBound * size)) })
    }

    func bounds(rows: Range<Int>, keyCount: Int) -> (any: Runs, all: Runs) {
        let touched = rows.lowerBound / size...(rows.upperBound - 1) / size
        var any = Runs()
        var all = Runs(0..<columns)
        for row in touched {
            any = any.union(visible[row])
            all = all.intersection(visible[row])
        }
        return (tokens(any, keyCount: keyCount), tokens(all, keyCount: keyCount))
    }

    func bits(row: Int, keys: Range<Int>) -> TileBits {
        let blocks = keys.lowerBound / size..<(keys.upperBound + size - 1) / size
        return visible[row / size].intersection(blocks).ranges.reduce(TileBits()) {
            $0.union(TileBits(clamping: $1.lowerBound * size..<$1.upperBound * size, to: keys))
        }
    }
}
