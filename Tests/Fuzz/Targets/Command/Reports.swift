// What a report makes of texts, and how tokens are chosen on a command line.

import Files

/// A choice of tokens, a phrase and a text, zero bytes between them.
func fuzzReport(_ bytes: [UInt8]) {
    let parts = parts(bytes, 3).map { String(decoding: $0, as: UTF8.self) }
    checkChoice(parts[0])
    checkPhrase(parts[1], in: parts[2])
    for text in parts {
        checkEscapes(text)
        checkTokens(of: text, cuts: bytes)
    }
}

private func checkChoice(_ text: String) {
    switch TokenChoice(range: text) {
    case nil: return
    case .phrase: check(false, "a range is a phrase")
    case .range(let first, let end):
        check(first >= 0 && end.map { $0 > first } ?? true, "tokens \(first) to \(end ?? -1)")
        check(TokenChoice(range: "\(first):\(end.map(String.init) ?? "")") == TokenChoice(range: text), "another range")
    }
}

private func checkPhrase(_ phrase: String, in text: String) {
    let (all, wanted) = (Array(text.unicodeScalars), Array(phrase.unicodeScalars))
    let found = TokenChoice.place(of: phrase, in: text)
    func stands(at start: Int) -> Bool {
        start + wanted.count <= all.count && wanted.indices.allSatisfy { all[start + $0] == wanted[$0] }
    }
    guard let found else {
        check(wanted.isEmpty || !all.indices.contains(where: stands), "a phrase that is not found")
        return
    }
    check(found.count == wanted.count && stands(at: found.lowerBound), "something else is found")
    check(!(0..<found.lowerBound).contains(where: stands), "not the first place")
}

private func checkEscapes(_ text: String) {
    let json = ReportEscaping.json(text)
    check(
        json.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0 != "<" && $0 != ">" && $0 != "&" && $0 != "'" },
        "JSON that could end a script")
    check((try? JSON.parse(Array(json.utf8), path: "json"))?.string == text, "JSON of another text")
    let html = ReportEscaping.html(text)
    check(
        html.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0 != "<" && $0 != ">" && $0 != "\"" && $0 != "'" },
        "text that could be markup")
    // An ampersand begins one of five names.
    for piece in html.split(separator: "&", omittingEmptySubsequences: false).dropFirst() {
        check(["lt;", "gt;", "amp;", "quot;", "#39;"].contains { piece.hasPrefix($0) }, "an ampersand of its own")
    }
}

/// Tokens anywhere in the text, in any order and over each other.
private func checkTokens(of text: String, cuts: [UInt8]) {
    let count = text.unicodeScalars.count
    let offsets = stride(from: 0, to: min(cuts.count, 200) - 1, by: 2).map { place in
        let start = Int(cuts[place]) % (count + 1)
        return start..<start + Int(cuts[place + 1]) % 8
    }
    let tokens = ReportToken.tokens(
        of: text, pieces: offsets.map { "\($0)" }, offsets: offsets, special: offsets.map(\.isEmpty))
    check(tokens.count == offsets.count, "\(tokens.count) tokens of \(offsets.count)")
    // What is shown, one behind another, is the beginning of the text, each scalar once.
    var shown: [Unicode.Scalar] = []
    for token in tokens {
        shown += token.before.unicodeScalars
        shown += token.text.unicodeScalars
        check(token.bytesOnPage >= 6, "a token of no bytes")
    }
    check(shown.elementsEqual(text.unicodeScalars.prefix(shown.count)), "other text is shown")
}
