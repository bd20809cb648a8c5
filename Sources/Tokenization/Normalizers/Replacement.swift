// Replacing what a pattern matches.

import Files

/// The normalizer Replace.
struct Replacement: Sendable {
    private let pattern: RegularExpression
    private let content: [UInt32]

    init(_ component: Component) throws(FileError) {
        pattern = try component.pattern("pattern")
        // The reference implementation gives what it puts into an empty match no place in the text.
        guard !pattern.matchesEmpty else {
            throw component.unsupported("a pattern that matches nothing", supported: ["others"])
        }
        content = try component.string("content").unicodeScalars.map(\.value)
    }

    /// How many scalars may come of one: a match has at least one.
    var growth: Double { Double(max(1, content.count)) }

    /// What is put in comes from where the last scalar of the match does.
    func apply(to text: inout NormalizedText) {
        let matches = text.scalars.withUnsafeBufferPointer { pattern.matches(in: $0[...]) }
        guard !matches.isEmpty else { return }
        var result = NormalizedText()
        result.reserve(text.count)
        var done = 0
        for match in matches {
            result.append(done..<match.lowerBound, of: text)
            for scalar in content { result.append(scalar, origin: text.origins[match.upperBound - 1]) }
            done = match.upperBound
        }
        result.append(done..<text.count, of: text)
        text = result
    }
}
