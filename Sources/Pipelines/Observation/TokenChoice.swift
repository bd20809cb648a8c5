// How tokens of a document are chosen: by number, or by a phrase of its text.

/// Tokens of a document that somebody chose.
package enum TokenChoice: Sendable, Equatable {
    /// From one token to before another; without an end, to the last.
    case range(Int, Int?)
    /// Those that overlap the first place where a text stands.
    case phrase(String)

    /// `A:B`, `A:`, `:B` or a single token `A`; nil where it is none of them.
    package init?(range text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        func number(_ part: String, or standard: Int) -> Int? { part.isEmpty ? standard : Int(part) }
        guard let first = parts.first, let lower = number(first, or: 0), lower >= 0 else { return nil }
        switch parts.count {
        case 1:
            guard !first.isEmpty, lower < .max else { return nil }
            self = .range(lower, lower + 1)
        case 2:
            if parts[1].isEmpty {
                self = .range(lower, nil)
            } else {
                guard let upper = Int(parts[1]), upper > lower else { return nil }
                self = .range(lower, upper)
            }
        default: return nil
        }
    }

    /// The first place where a phrase stands in a text, in Unicode scalars; nil where there is none, or no phrase.
    static func place(of phrase: String, in text: String) -> Range<Int>? {
        let (all, wanted) = (Array(text.unicodeScalars), Array(phrase.unicodeScalars))
        if wanted.isEmpty || wanted.count > all.count { return nil }
        return (0...all.count - wanted.count).first { all[$0..<$0 + wanted.count].elementsEqual(wanted) }.map {
            $0..<$0 + wanted.count
        }
    }
}
