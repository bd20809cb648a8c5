// Documents out of files and standard input, with errors that name the file, line and byte.

import Files
import Foundation

/// One document as it was read.
package struct Document: Sendable {
    package enum Content: Sendable {
        case text(String)
        case ids([Int32])
    }

    /// Where it came from, as error messages and `search` name it: a path, or path:line.
    package var source: String
    package var content: Content
    /// The second text of a pair (`text_pair` of a jsonl object), if there is one.
    package var pair: String?
    /// What is said of its label (`label` of a jsonl object). Rank 0 alone knows it.
    package var label: JSON?
}

/// The documents of the input files, one file after the other, as much at a time as there is.
///
/// A pipe may stay open: what has come of it is handed on before more is waited for.
package struct DocumentSource {
    private let input: DocumentInput
    private var paths: ArraySlice<String>
    private var open: (file: ReadableFile, reader: DocumentReader, isEmpty: Bool, hasDocuments: Bool)?

    package init(_ input: DocumentInput) {
        self.input = input
        paths = input.paths[...]
    }

    /// The next documents; none behind the last one.
    /// - Parameters:
    ///   - limit: bytes after which no more are read, unless they hold no document yet.
    ///   - waiting: runs what may wait for a pipe.
    /// - Throws: `FileError`.
    package mutating func next(limit: Int, waiting: (() throws -> [UInt8]) throws -> [UInt8]) throws -> [Document] {
        var documents: [Document] = []
        var count = 0
        while documents.isEmpty || count < limit {
            if open == nil {
                guard let path = paths.popFirst() else { break }
                let name = path == "-" ? "standard input" : path
                let reader = DocumentReader(
                    format: input.format ?? Self.format(of: path), path: name, textField: input.textField)
                open = (
                    path == "-" ? ReadableFile(standardInputNamed: name) : try ReadableFile(path: path), reader, true,
                    false
                )
            }
            guard var current = open else { break }
            if !documents.isEmpty, !current.file.isReady { break }
            let bytes = try waiting { try current.file.readNext(limit: Self.pieceBytes) }
            let found = try current.reader.read(bytes, isLast: bytes.isEmpty)
            count += bytes.count
            documents += found
            current.isEmpty = current.isEmpty && bytes.isEmpty
            current.hasDocuments = current.hasDocuments || !found.isEmpty
            open = bytes.isEmpty ? nil : current
            if !bytes.isEmpty { continue }
            let name = current.reader.path
            if current.isEmpty { throw FileError(.malformed, path: name, "is empty; give it at least one document") }
            if !current.hasDocuments {
                throw FileError(
                    .malformed, path: name,
                    current.reader.format == .fasta
                        ? "holds no record; begin each with a line '>NAME'"
                        : "holds blank lines alone; give it a document")
            }
        }
        return documents
    }

    /// Bytes that are asked for at a time.
    private static let pieceBytes = 1 << 16

    private static func format(of path: String) -> InputFormat {
        if path == "-" { return .lines }
        switch path.split(separator: ".", omittingEmptySubsequences: false).last?.lowercased() {
        // Data sets call lines of JSON so, too.
        case "jsonl", "ndjson", "json": return .jsonl
        case "ids": return .ids
        case "fasta", "fa", "faa", "fas": return .fasta
        default: return .text
        }
    }
}

/// Takes documents out of the bytes of one file, which may come in portions.
struct DocumentReader {
    package let format: InputFormat
    /// What errors call the file.
    package let path: String
    /// The field of a jsonl object that holds the text.
    package let textField: String
    private var fasta = FASTAReader()
    /// What has come of a line that is not over, or of a text.
    private var rest: [UInt8] = []
    /// Bytes of `rest` that hold no end of a line.
    private var searched = 0
    private var lines = 0
    /// Bytes before `rest`.
    private var offset = 0
    /// Whether the file's first bytes were looked at for a byte-order mark.
    private var isBegun = false

    init(format: InputFormat, path: String, textField: String) {
        self.format = format
        self.path = path
        self.textField = textField
    }

    /// The documents that `bytes` complete; behind the last bytes, all that are left.
    ///
    /// Every line is a document, and a last line needs no end; an empty line is one where lines are texts, and none where
    /// they are JSON. A text is one document, and a FASTA file one a record. A byte-order mark is no part of them.
    /// - Throws: `FileError` that names the line.
    package mutating func read(_ bytes: [UInt8], isLast: Bool) throws(FileError) -> [Document] {
        rest += bytes
        var documents: [Document] = []
        if !isBegun {
            if !isLast && rest.count < Self.byteOrderMark.count { return documents }
            isBegun = true
            if rest.starts(with: Self.byteOrderMark) {
                rest.removeFirst(Self.byteOrderMark.count)
                offset = Self.byteOrderMark.count
            }
        }
        if format == .text {
            if isLast { documents.append(Document(source: path, content: .text(try text(rest[...], start: offset)))) }
            return documents
        }
        var start = 0
        while start < rest.count {
            let end = rest[max(start, searched)...].firstIndex(of: UInt8(ascii: "\n"))
            guard end != nil || isLast else { break }
            var line = rest[start..<(end ?? rest.count)]
            if line.last == UInt8(ascii: "\r") { line = line.dropLast() }
            lines += 1
            if let document = try document(line, start: offset + start) { documents.append(document) }
            start = min(rest.count, (end ?? rest.count) + 1)
        }
        rest.removeFirst(start)
        searched = rest.count
        offset += start
        if format == .fasta, isLast, let document = try fasta.finish(path: path) { documents.append(document) }
        return documents
    }

    private static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

    /// What a line is, or completes.
    private mutating func document(_ line: ArraySlice<UInt8>, start: Int) throws(FileError) -> Document? {
        let source = "\(path):\(lines)"
        switch format {
        case .text, .lines: return Document(source: source, content: .text(try text(line, start: start)))
        case .fasta: return try fasta.read(line, number: lines, path: path)
        case .jsonl:
            if isBlank(line) { return nil }
            let value = try json(line, source)
            guard let text = value[textField]?.string else {
                throw FileError(
                    .malformed, path: source,
                    value.object == nil
                        ? "holds \(value.kindName) where an object is needed; write one document a line, as {\"\(textField)\": …}"
                        : "has no text in a field '\(textField)'; name the field with --text-field")
            }
            let label = value["label"].flatMap { $0.isNull ? nil : $0 }
            let pair = value["text_pair"].flatMap { $0.isNull ? nil : $0 }
            guard pair == nil || pair?.string != nil else {
                throw FileError(
                    .malformed, path: source, "has \(pair?.kindName ?? "") in 'text_pair' where a string is needed")
            }
            return Document(source: source, content: .text(text), pair: pair?.string, label: label)
        case .ids:
            if isBlank(line) { return nil }
            let values = try json(line, source).array
            let ids = values?.compactMap { $0.int.flatMap { Int32(exactly: $0) } }
            guard let values, let ids, ids.count == values.count, !ids.isEmpty else {
                throw FileError(
                    .malformed, path: source, "is not a JSON array of token ids; write one as [101, 7592, 102]")
            }
            return Document(source: source, content: .ids(ids))
        }
    }

    private func isBlank(_ line: ArraySlice<UInt8>) -> Bool {
        line.allSatisfy { $0 == 0x20 || (0x09...0x0D).contains($0) }
    }

    private func json(_ line: ArraySlice<UInt8>, _ source: String) throws(FileError) -> JSON {
        do throws(FileError) { return try JSON.parse(Array(line), path: source) } catch {
            // Of all names, this one alone is given to other things than lines.
            guard path.lowercased().hasSuffix(".json") else { throw error }
            throw FileError(
                .malformed, path: source,
                "is no line of JSON (\(error.message)); write an object a line, or read the file as it stands with --input-format text"
            )
        }
    }

    private func text(_ bytes: ArraySlice<UInt8>, start: Int) throws(FileError) -> String {
        if let offset = UTF8Validation.firstInvalidByte(in: bytes) {
            throw FileError(
                .malformed, path: path,
                "byte \(start + offset) is not UTF-8; convert the file, for example with iconv -t utf-8")
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
