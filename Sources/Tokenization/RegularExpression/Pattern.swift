// The syntax tree of a regular expression.

/// A regular expression as read.
indirect enum Pattern: Sendable {
    case empty
    /// One scalar of the set.
    case set(ScalarSet)
    case sequence([Pattern])
    /// The first that leads to a match counts.
    case alternation([Pattern])
    /// - Parameter maximum: nil for no end.
    case repetition(Pattern, minimum: Int, maximum: Int?, Greed)
    case assertion(Assertion)
    /// What stands ahead or behind must match, or must not.
    case look(Pattern, ahead: Bool, negated: Bool)
    /// Once matched, never tried otherwise.
    case atomic(Pattern)

    enum Greed: Sendable { case greedy, lazy, possessive }

    enum Assertion: Sendable {
        case textStart, textEnd
        /// The end, or before a newline that ends the text.
        case lastLineEnd
        /// The start, or behind a newline that does not end the text.
        case lineStart
        /// The end, or before a newline.
        case lineEnd
        case wordBoundary, noWordBoundary
    }

    /// Whether it can match without a scalar.
    var matchesEmpty: Bool {
        switch self {
        case .empty, .assertion, .look: true
        case .set: false
        case .sequence(let parts): parts.allSatisfy(\.matchesEmpty)
        case .alternation(let parts): parts.contains(where: \.matchesEmpty)
        case .repetition(let part, let minimum, _, _): minimum == 0 || part.matchesEmpty
        case .atomic(let part): part.matchesEmpty
        }
    }
}
