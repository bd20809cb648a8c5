// A token as a report shows it.

/// A token of a document, with the text that it stands for.
public struct ReportToken: Sendable {
    /// Its string in the vocabulary, such as `##ing` or `Ġand`.
    public let piece: String
    /// The text between the token before and this one.
    public let before: String
    /// The text that it stands for; empty where it stands for none, as special tokens do.
    public let text: String
    /// Where that text is in the document, in Unicode scalars; nil where it stands for none.
    public let place: Range<Int>?
    /// Whether it is a special token.
    public let isSpecial: Bool

    /// - Parameters:
    ///   - piece: its string in the vocabulary.
    ///   - before: the text between the token before and this one.
    ///   - text: the text that it stands for; empty where it stands for none.
    ///   - place: where that text is in the document, in Unicode scalars.
    ///   - isSpecial: whether it is a special token.
    public init(piece: String, before: String = "", text: String, place: Range<Int>? = nil, isSpecial: Bool = false) {
        (self.piece, self.before, self.text, self.place, self.isSpecial) = (piece, before, text, place, isSpecial)
    }

    /// The tokens of a text by their offsets.
    ///
    /// Every scalar of the text is shown once: what lies between two tokens goes before the second, what lies behind the
    /// last is left out, and of a place that several tokens share, as the bytes of one scalar do, the first has the text.
    /// - Parameters:
    ///   - text: the document; nil where only its ids are known.
    ///   - pieces: the tokens' strings in the vocabulary.
    ///   - offsets: where each token's text is, in Unicode scalars; equal ends where it has none.
    ///   - special: whether each is a special token.
    public static func tokens(of text: String?, pieces: [String], offsets: [Range<Int>], special: [Bool])
        -> [ReportToken]
    {
        precondition(pieces.count == special.count && (text == nil || pieces.count == offsets.count))
        guard let text else {
            return pieces.indices.map { ReportToken(piece: pieces[$0], text: "", isSpecial: special[$0]) }
        }
        let scalars = Array(text.unicodeScalars)
        func part(_ range: Range<Int>) -> String {
            var part = ""
            part.unicodeScalars.append(contentsOf: scalars[range.clamped(to: 0..<scalars.count)])
            return part
        }
        var shown = 0
        return pieces.indices.map { index in
            let place = offsets[index]
            guard !place.isEmpty else { return ReportToken(piece: pieces[index], text: "", isSpecial: special[index]) }
            let start = max(place.lowerBound, shown)
            let end = max(place.upperBound, start)
            let token = ReportToken(
                piece: pieces[index], before: part(min(shown, start)..<start), text: part(start..<end), place: place,
                isSpecial: special[index])
            shown = end
            return token
        }
    }
}
