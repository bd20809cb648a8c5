// What a block of parameters holds of a term of the gradient, as it merges on the tree.

import Tiles

/// The part of a gradient inside a run of a parameter's floats, as it merges on the tree: nothing where no tile adds to it.
struct SegmentSum: Mergeable {
    /// The floats of the parameter that it is of.
    let range: Range<Int>
    /// The columns of a row, where only some rows have a gradient; 0 where all have.
    let columns: Int
    /// The rows that are there, ascending, where only some are. A row that is not there is not zero but absent.
    var rows: [Int32] = []
    /// All floats of the range, or those of the rows as far as they lie in it; empty where there are none.
    var values: [Float] = []

    /// The floats of a row that lie in the range.
    private func count(ofRow row: Int32) -> Int {
        (Int(row) * columns..<(Int(row) + 1) * columns).clamped(to: range).count
    }

    mutating func merge(right: SegmentSum) {
        if right.values.isEmpty { return }
        if values.isEmpty {
            (rows, values) = (right.rows, right.values)
        } else if columns == 0 || rows == right.rows {
            values.withUnsafeMutableBufferPointer { left in
                right.values.withUnsafeBufferPointer { right in
                    for index in left.indices { left[index] += right[index] }
                }
            }
        } else {
            mergeRows(right)
        }
    }

    private mutating func mergeRows(_ right: SegmentSum) {
        var (merged, sums): ([Int32], [Float]) = ([], [])
        merged.reserveCapacity(rows.count + right.rows.count)
        sums.reserveCapacity(values.count + right.values.count)
        var (place, other, start, otherStart) = (0, 0, 0, 0)
        while place < rows.count || other < right.rows.count {
            let takesLeft = other == right.rows.count || place < rows.count && rows[place] <= right.rows[other]
            let takesRight = place == rows.count || other < right.rows.count && right.rows[other] <= rows[place]
            let row = takesLeft ? rows[place] : right.rows[other]
            let width = count(ofRow: row)
            merged.append(row)
            if takesLeft, takesRight {
                for column in 0..<width { sums.append(values[start + column] + right.values[otherStart + column]) }
            } else if takesLeft {
                sums.append(contentsOf: values[start..<start + width])
            } else {
                sums.append(contentsOf: right.values[otherStart..<otherStart + width])
            }
            if takesLeft { (place, start) = (place + 1, start + width) }
            if takesRight { (other, otherStart) = (other + 1, otherStart + width) }
        }
        (rows, values) = (merged, sums)
    }

    /// Adds the sum to the range's floats; the first of a parameter is put there.
    func write(to target: UnsafeMutablePointer<Float>, isFirst: Bool) {
        func put(_ place: Int, _ value: Float) { target[place] = isFirst ? value : target[place] + value }
        if columns == 0 {
            for index in values.indices { put(index, values[index]) }
            return
        }
        var next = 0
        for row in rows {
            for place in (Int(row) * columns..<(Int(row) + 1) * columns).clamped(to: range) {
                put(place - range.lowerBound, values[next])
                next += 1
            }
        }
    }
}
