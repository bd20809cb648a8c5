// Documents out of files and standard input, with errors that name the file, line and byte.

import Checkpoints
import Foundation

/// One document as it was read.
struct Document: Sendable {
    enum Content: Sendable {
        case text(String)
        case ids([Int32])
    }

    /// Where it came from, as error messages and `search` name it: a path, or path:line.
    var source: String
    var content: Content
    /// The second text of a pair (`text_pair` of a jsonl object), if there is one.
    var pair: String?
    /// What is said of its label (`label` of a jsonl object). Rank 0 alone knows it.
    var label: JSON?
}

enum Documents {
    /// Reads all documents of the given files in order.
    /// - Throws: `FileError`.
    static func read(_ options: InputOptions) throws(FileError) -> [Document] {
        var documents: [Document] = []
        for path in options.input {
            let name = path == "-" ? "standard input" : path
            let bytes = path == "-" ? try readStandardInput() : try FileBytes.read(path: path)
            if bytes.isEmpty { throw FileError(.malformed, path: name, "is empty; give it at least one document") }
            let format = options.inputFormat ?? format(of: path)
            switch format {
            case .text: documents.append(Document(source: name, content: .text(try text(bytes[...], start: 0, path: name))))
            case .lines, .jsonl, .ids:
                try readLines(bytes, format: format, path: name, textField: options.textField, into: &documents)
            }
        }
        return documents
    }

    private static func format(of path: String) -> InputFormat {
        if path == "-" { return .lines }
        if path.hasSuffix(".jsonl") || path.hasSuffix(".ndjson") { return .jsonl }
        return path.hasSuffix(".ids") ? .ids : .text
    }

    private static func readStandardInput() throws(FileError) -> [UInt8] {
        do {
            return try FileHandle.standardInput.readToEnd().map { Array($0) } ?? []
        } catch {
            throw FileError(.inputOutput, path: "standard input", "cannot be read (\(error)); give a file with --input")
        }
    }

    /// Every line is a document, an empty one too; a last line needs no end.
    private static func readLines(
        _ bytes: [UInt8], format: InputFormat, path: String, textField: String, into documents: inout [Document]
    ) throws(FileError) {
        var start = 0
        var number = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
            number += 1
            var line = bytes[start..<end]
            if line.last == UInt8(ascii: "\r") { line = line.dropLast() }
            let source = "\(path):\(number)"
            switch format {
            case .text, .lines:
                documents.append(Document(source: source, content: .text(try text(line, start: start, path: path))))
            case .jsonl:
                let value = try JSON.parse(Array(line), path: source)
                guard let text = value[textField]?.string else {
                    throw FileError(.malformed, path: source, "has no text in a field '\(textField)'; name the field with --text-field")
                }
                let label = value["label"].flatMap { $0.isNull ? nil : $0 }
                documents.append(Document(source: source, content: .text(text), pair: value["text_pair"]?.string, label: label))
            case .ids:
                let values = try JSON.parse(Array(line), path: source).array
                let ids = values?.compactMap { $0.int.flatMap { Int32(exactly: $0) } }
                guard let values, let ids, ids.count == values.count, !ids.isEmpty else {
                    throw FileError(.malformed, path: source, "is not a JSON array of token ids; write one as [101, 7592, 102]")
                }
                documents.append(Document(source: source, content: .ids(ids)))
            }
            start = end + 1
        }
    }

    private static func text(_ bytes: ArraySlice<UInt8>, start: Int, path: String) throws(FileError) -> String {
        if let offset = UTF8Validation.firstInvalidByte(in: bytes) {
            throw FileError(.malformed, path: path, "byte \(start + offset) is not UTF-8; convert the file, for example with iconv -t utf-8")
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
