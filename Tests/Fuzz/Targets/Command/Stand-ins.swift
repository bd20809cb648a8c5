// What the command's readers of documents lean on, without its options and files: the sources beside this one are the
// command's own.

import Files

/// The formats of `--input-format`.
package enum InputFormat: CaseIterable {
    case text, lines, jsonl, ids, fasta
}

/// Which documents.
package struct DocumentInput {
    var paths: [String] = []
    var format: InputFormat?
    var textField = "text"
}

/// No file: documents come out of the bytes of the input.
struct ReadableFile {
    init(path: String) throws(FileError) { throw FileError(.missing, path: path, "is not read here") }
    init(standardInputNamed name: String) {}

    var isReady: Bool { true }
    func readNext(limit: Int) throws(FileError) -> [UInt8] { [] }
}
