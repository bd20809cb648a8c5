// From tokens back to text, as the decoder of tokenizer.json says.

import Files

/// The decoder of a `tokenizer.json`, with the special tokens that a reader of its text leaves out.
public struct TokenDecoder: Sendable {
    private enum Step: Sendable {
        /// Continued pieces lose their prefix, others follow a space; `cleanup` closes up punctuation.
        case wordPiece(prefix: String, cleanup: Bool)
        /// Each character stands for a byte (GPT-2).
        case byteLevel
        /// A character stands for a space; the first one of a text is dropped where the encoder put it there.
        case metaspace(String, dropsFirst: Bool)
        /// Ends of words carry a suffix, which becomes a space.
        case wordEnds(String)
        case replace(String, String)
        /// `<0x41>` is a byte.
        case byteFallback
        case fuse
        /// So many of a character are taken off both ends.
        case strip(Character, start: Int, stop: Int)
    }

    private let steps: [Step]
    /// Whether spaces before punctuation are taken out of a text in the end.
    private let cleansUp: Bool
    /// Tokens that a text without special tokens leaves out.
    public let specialTokens: Set<String>

    /// Reads the member `decoder` of a tokenizer file.
    /// - Throws: `FileError` naming a decoder that is not supported.
    /// - Parameters:
    ///   - json: that member.
    ///   - path: the file, for messages.
    ///   - cleansUp: whether spaces before punctuation are taken out, as `clean_up_tokenization_spaces` says.
    public init(json: JSON, path: String, cleansUp: Bool = false) throws(FileError) {
        self.cleansUp = cleansUp
        var special: Set<String> = []
        for token in json["added_tokens"]?.array ?? [] where token["special"]?.bool == true {
            if let content = token["content"]?.string { special.insert(content) }
        }
        specialTokens = special
        guard let decoder = json["decoder"], !decoder.isNull else {
            steps = []
            return
        }
        steps = try Self.steps(decoder, path: path)
        let growth = steps.reduce(1.0) {
            if case .replace(_, let to) = $1 { $0 * Double(max(1, to.utf8.count)) } else { $0 }
        }
        guard growth <= Tokenizer.mostGrowth else {
            throw FileError(
                .malformed, path: path,
                "decoder: its steps one after another could make a text more than \(Int(Tokenizer.mostGrowth)) times as long; fetch the file again"
            )
        }
    }

    /// Reads the decoder of the model in `folder`.
    public static func load(folder: String) throws(FileError) -> TokenDecoder {
        let file = try TokenizerFile(folder: folder)
        return try TokenDecoder(json: file.json, path: file.path, cleansUp: file.cleansUp)
    }

    private static func steps(_ json: JSON, path: String) throws(FileError) -> [Step] {
        func pattern(_ value: JSON?) -> String? { value?["String"]?.string ?? value?.string }
        switch json["type"]?.string {
        case "Sequence":
            var steps: [Step] = []
            for part in json["decoders"]?.array ?? [] { steps += try Self.steps(part, path: path) }
            return steps
        case "WordPiece":
            return [.wordPiece(prefix: json["prefix"]?.string ?? "##", cleanup: json["cleanup"]?.bool ?? true)]
        case "ByteLevel": return [.byteLevel]
        case "Metaspace":
            let scheme =
                json["prepend_scheme"]?.string ?? (json["add_prefix_space"]?.bool == false ? "never" : "always")
            return [.metaspace(json["replacement"]?.string ?? "▁", dropsFirst: scheme != "never")]
        case "BPEDecoder": return [.wordEnds(json["suffix"]?.string ?? "</w>")]
        case "Replace":
            guard let from = pattern(json["pattern"]), let to = json["content"]?.string, !from.isEmpty else { break }
            return [.replace(from, to)]
        case "ByteFallback": return [.byteFallback]
        case "Fuse": return [.fuse]
        case "Strip":
            guard let content = json["content"]?.string, content.count == 1, let only = content.first else { break }
            return [.strip(only, start: json["start"]?.int ?? 0, stop: json["stop"]?.int ?? 0)]
        default: break
        }
        throw FileError(
            .malformed, path: path,
            "decoder: '\(json["type"]?.string ?? json.kindName)' is not supported; supported: BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, Replace of a string, Sequence, Strip, WordPiece"
        )
    }

    /// The text of some tokens; without a decoder they are joined by spaces.
    public func text(_ tokens: [String]) -> String {
        let text =
            steps.isEmpty
            ? tokens.joined(separator: " ") : steps.reduce(tokens) { Self.apply($1, to: $0) }.joined()
        return cleansUp ? Self.withoutSpaces(text) : text
    }

    /// What `clean_up_tokenization_spaces` of transformers makes of a text.
    private static func withoutSpaces(_ text: String) -> String {
        [
            (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
            (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
        ].reduce(text) { replacing($0, $1.0, $1.1) }
    }

    private static func apply(_ step: Step, to tokens: [String]) -> [String] {
        switch step {
        case .wordPiece(let prefix, let cleanup):
            return tokens.enumerated().map { place, token in
                var piece = token
                if place > 0 { piece = token.hasPrefix(prefix) ? String(token.dropFirst(prefix.count)) : " " + token }
                return cleanup ? closedUp(piece) : piece
            }
        case .byteLevel:
            return [String(decoding: tokens.flatMap(bytes), as: UTF8.self)]
        case .metaspace(let mark, let dropsFirst):
            return tokens.enumerated().map { place, token in
                let text = replacing(token, mark, " ")
                return place == 0 && dropsFirst && token.hasPrefix(mark) ? String(text.dropFirst()) : text
            }
        case .wordEnds(let suffix):
            return tokens.enumerated().map { replacing($1, suffix, $0 == tokens.count - 1 ? "" : " ") }
        case .replace(let from, let to): return tokens.map { replacing($0, from, to) }
        case .byteFallback: return bytesFused(tokens)
        case .fuse: return [tokens.joined()]
        case .strip(let character, let start, let stop):
            return tokens.map { token in
                var text = Substring(token)
                var (first, last) = (start, stop)
                while first > 0, text.first == character { (first, text) = (first - 1, text.dropFirst()) }
                while last > 0, text.last == character { (last, text) = (last - 1, text.dropLast()) }
                return String(text)
            }
        }
    }

    /// Runs of `<0x41>` as the text of their bytes; bytes that are no text are replacement characters.
    private static func bytesFused(_ tokens: [String]) -> [String] {
        var result: [String] = []
        var bytes: [UInt8] = []
        func flush() {
            if bytes.isEmpty { return }
            if String(validating: bytes, as: UTF8.self) != nil {
                result.append(String(decoding: bytes, as: UTF8.self))
            } else {
                result += bytes.map { _ in "\u{FFFD}" }
            }
            bytes = []
        }
        for token in tokens {
            if token.utf8.count == 6, token.hasPrefix("<0x"), token.hasSuffix(">"),
                let byte = UInt8(token.dropFirst(3).dropLast(), radix: 16)
            {
                bytes.append(byte)
            } else {
                flush()
                result.append(token)
            }
        }
        flush()
        return result
    }

    private static func replacing(_ text: String, _ from: String, _ to: String) -> String {
        var result: [UInt8] = []
        let (bytes, pattern) = (Array(text.utf8), Array(from.utf8))
        var place = 0
        while place < bytes.count {
            if bytes[place...].starts(with: pattern) {
                result += to.utf8
                place += pattern.count
            } else {
                result.append(bytes[place])
                place += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// English punctuation and contractions without the space before them, in the order in which `tokenizers` goes over
    /// them.
    private static func closedUp(_ text: String) -> String {
        let pairs = [
            (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
            (" do not", " don't"),
            (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
        ]
        return pairs.reduce(text) { replacing($0, $1.0, $1.1) }
    }

    /// The bytes that a token's characters stand for in GPT-2's alphabet; a token with any other character is text.
    private static func bytes(_ token: String) -> [UInt8] {
        var bytes: [UInt8] = []
        for scalar in token.unicodeScalars {
            guard let byte = byte(scalar) else { return Array(token.utf8) }
            bytes.append(byte)
        }
        return bytes
    }

    private static func byte(_ scalar: Unicode.Scalar) -> UInt8? {
        let value = scalar.value
        if (0x21...0x7E).contains(value) || (0xA1...0xAC).contains(value) || (0xAE...0xFF).contains(value) {
            return UInt8(value)
        }
        // The other bytes, in ascending order, are the characters from U+0100 on.
        guard (0x100..<0x144).contains(value) else { return nil }
        let place = Int(value - 0x100)
        if place < 33 { return UInt8(place) }
        if place < 67 { return UInt8(0x7F + place - 33) }
        return 0xAD
    }
}
