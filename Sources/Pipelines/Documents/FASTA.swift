// Sequences of a FASTA file, a record at a time.

import Files

/// Takes records out of the lines of a FASTA file (Pearson and Lipman 1988).
///
/// A record is a header `>NAME …` and the lines up to the next one, joined. As the field's tools do: white space and
/// empty lines do not count, lines that begin with `;` are comments, small letters mark residues and are read as
/// capitals, and a `*` at the end, the stop of a translation, is left out. `-`, `.` and a `*` elsewhere stay, and so do
/// special tokens, as `<mask>`.
struct FASTAReader {
    /// The record that is being read.
    private var record: (line: Int, name: String, letters: [UInt8])?

    /// Takes a line; returns the record that it is the end of, if it begins another.
    /// - Throws: `FileError` that names the line.
    package mutating func read(_ line: ArraySlice<UInt8>, number: Int, path: String) throws(FileError) -> Document? {
        let place = "\(path):\(number)"
        if line.first == UInt8(ascii: ";") { return nil }
        if line.first == UInt8(ascii: ">") {
            let done = try finish(path: path)
            let name = line.dropFirst().prefix { !Self.isSpace($0) }
            guard UTF8Validation.firstInvalidByte(in: name) == nil else {
                throw FileError(
                    .malformed, path: place,
                    "has a name that is not UTF-8; convert the file, for example with iconv -t utf-8")
            }
            record = (number, String(decoding: name, as: UTF8.self), [])
            return done
        }
        let content = line.filter { !Self.isSpace($0) }
        if content.isEmpty { return nil }
        guard record != nil else {
            throw FileError(
                .malformed, path: place,
                "holds a sequence before the first header; begin each record with a line '>NAME'")
        }
        let letters = try letters(content, place: place)
        record?.letters += letters
        return nil
    }

    /// The last record, behind the last line.
    package mutating func finish(path: String) throws(FileError) -> Document? {
        guard var last = record else { return nil }
        record = nil
        if last.letters.last == UInt8(ascii: "*") { last.letters.removeLast() }
        let source = "\(path):\(last.line)" + (last.name.isEmpty ? "" : " \(last.name)")
        if last.letters.isEmpty {
            throw FileError(.malformed, path: source, "has a header and no sequence; give each record one")
        }
        return Document(source: source, content: .text(String(decoding: last.letters, as: UTF8.self)))
    }

    private func letters(_ content: [UInt8], place: String) throws(FileError) -> [UInt8] {
        var result: [UInt8] = []
        var next = 0
        while next < content.count {
            let byte = content[next]
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "*"):
                result.append(byte)
            case UInt8(ascii: "a")...UInt8(ascii: "z"): result.append(byte - 32)
            case UInt8(ascii: "<"):
                let end = content[(next + 1)...].firstIndex { !Self.isName($0) }
                guard let end, content[end] == UInt8(ascii: ">") else {
                    throw FileError(
                        .malformed, path: place, "has a '<' that begins no special token; write one as <mask>")
                }
                result += content[next...end]
                next = end
            default:
                let shown = (0x21...0x7E).contains(byte) ? "'\(Character(Unicode.Scalar(byte)))'" : "the byte \(byte)"
                throw FileError(
                    .malformed, path: place,
                    "has \(shown) in a sequence; only letters, '-', '.', '*' and special tokens as <mask> may stand there"
                )
            }
            next += 1
        }
        return result
    }

    private static func isName(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
}
