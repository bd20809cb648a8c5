// From bytes of UTF-8, in which the reference implementation counts, to scalars.

enum UTF8Length {
    /// Bytes of a scalar in UTF-8.
    static func of(_ scalar: UInt32) -> Int { scalar < 0x80 ? 1 : scalar < 0x800 ? 2 : scalar < 0x10000 ? 3 : 4 }
}

/// Walks over scalars in steps of bytes.
struct ByteCursor {
    private let scalars: UnsafeBufferPointer<UInt32>
    /// The scalar in which the next byte lies, and how many of its bytes are taken.
    private var index: Int
    private var taken = 0

    init(_ scalars: UnsafeBufferPointer<UInt32>, start: Int) {
        self.scalars = scalars
        index = start
    }

    /// The scalars in which the next `count` > 0 bytes lie; the first and the last may be there in part.
    mutating func take(_ count: Int) -> Range<Int> {
        let start = index
        var left = count
        while index < scalars.count {
            let length = UTF8Length.of(scalars[index]) - taken
            if left < length {
                taken += left
                return start..<index + 1
            }
            left -= length
            taken = 0
            index += 1
            if left == 0 { break }
        }
        return start..<index
    }
}
