// The text that a regular expression is matched in.

/// A text by place, from 0 to its count.
struct PatternText {
    private let scalars: UnsafeBufferPointer<UInt32>

    /// - Parameter scalars: must stay valid as long as this is used.
    init(_ scalars: Slice<UnsafeBufferPointer<UInt32>>) { self.scalars = UnsafeBufferPointer(rebasing: scalars) }

    var count: Int { scalars.count }

    @inline(__always)
    subscript(_ position: Int) -> UInt32 { scalars[position] }

    private static let newline: UInt32 = 0xA
    private static let word = ScalarBitmap(CharacterClass.bareWord)

    func holds(_ assertion: Pattern.Assertion, at position: Int) -> Bool {
        switch assertion {
        case .textStart: position == 0
        case .textEnd: position == count
        case .lastLineEnd: position == count || position == count - 1 && self[position] == Self.newline
        case .lineStart: position == 0 || position < count && self[position - 1] == Self.newline
        case .lineEnd: position == count || self[position] == Self.newline
        case .wordBoundary: isWord(position - 1) != isWord(position)
        case .noWordBoundary: isWord(position - 1) == isWord(position)
        }
    }

    private func isWord(_ position: Int) -> Bool {
        position >= 0 && position < count && Self.word.contains(self[position])
    }
}
