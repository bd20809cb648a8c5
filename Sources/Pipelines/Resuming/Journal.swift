// What a job that can be resumed has done, as it stands beside the job's output.

import Crypto
import Files
import Foundation

/// The journal of a job: what it is, so that no other goes on in its place, and what of it is done.
///
/// It is a line of JSON. Its checksum is over all that follows it, and a journal is the only text for what it holds: any
/// other byte makes it a damaged one.
package struct Journal: Equatable, Sendable {
    /// Something that changes the job's output, by its name.
    package struct Fact: Equatable, Sendable {
        package var name: String
        package var value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    /// Layers of a batch that are done, whose states are saved.
    package struct Layers: Equatable, Sendable {
        package var done: Int
        package var of: Int
        /// The batch: so many items behind those that are done, and so many tokens.
        package var items: Int
        package var tokens: Int
        /// Which of the two places in the file of states they are in.
        package var place: Int
        package var digest: UInt64

        package init(done: Int, of: Int, items: Int, tokens: Int, place: Int, digest: UInt64) {
            self.done = done
            self.of = of
            self.items = items
            self.tokens = tokens
            self.place = place
            self.digest = digest
        }
    }

    /// What the job is: the verb and its options, digests of what it reads, kernels and program.
    package var facts: [Fact]
    /// Whether the job may replace an output that exists.
    package var mayReplace: Bool
    /// Documents that are done.
    package var documents = 0
    /// Passages that are done of the document behind them.
    package var passages = 0
    /// What those have given, where their verb gathers it: rows of three numbers.
    package var carried: [[Int]] = []
    /// How many documents there are, where that is known.
    package var total: Int?
    /// Bytes of lines that are written; 0 for an output of another kind.
    package var bytes = 0
    /// A digest of the output as far as it is done.
    package var digest = ""
    /// Of the batch behind what is done.
    package var layers: Layers?
    /// Whether all is done and the output whole, but perhaps not under its name.
    package var isComplete = false

    package init(facts: [Fact], mayReplace: Bool) {
        self.facts = facts
        self.mayReplace = mayReplace
    }

    /// Whether anything is done.
    package var isEmpty: Bool { documents == 0 && passages == 0 && layers == nil && !isComplete }

    /// Where the journal of an output is.
    package static func path(for output: String) -> String { output + ".journal" }

    // MARK: - Text

    private static let start = "{\"annulus_journal\": 1, \"checksum\": \""

    /// The journal as it is written.
    package var text: String {
        let facts = facts.map { "\(JSON.quoted($0.name)): \(JSON.quoted($0.value))" }.joined(separator: ", ")
        let layers = layers.map {
            "{\"done\": \($0.done), \"of\": \($0.of), \"items\": \($0.items), \"tokens\": \($0.tokens), \"place\": \($0.place), "
                + "\"digest\": \"\(hexadecimal($0.digest))\"}"
        }
        let body =
            "\"job\": {\(facts)}, \"may_replace\": \(mayReplace), \"documents\": \(documents), \"passages\": \(passages), "
            + "\"carried\": \(carried), "
            + "\"total\": \(total.map { "\($0)" } ?? "null"), \"bytes\": \(bytes), \"digest\": \(JSON.quoted(digest)), "
            + "\"layers\": \(layers ?? "null"), \"complete\": \(isComplete)}\n"
        return Self.start + "\(Self.checksum(body))\", " + body
    }

    private static func checksum(_ text: String) -> String {
        SHA256.hash(data: Array(text.utf8)).map { hexadecimal(UInt64($0), digits: 2) }.joined()
    }

    /// Reads a journal.
    /// - Throws: `JobError` with status `badInput` where it is none, or not whole.
    package init(_ bytes: [UInt8], path: String) throws(JobError) {
        func damaged(_ what: String) -> JobError {
            JobError(
                .badInput,
                "\(path): \(what); what it stood for cannot be continued: begin anew with --force, or name another output"
            )
        }
        guard bytes.count <= 1 << 26, let json = try? JSON.parse(bytes, path: path),
            let version = json["annulus_journal"]?.int
        else { throw damaged("is no journal of annulus, or a damaged one") }
        guard version == 1 else { throw damaged("is a journal of version \(version), and this program writes 1") }
        func number(_ value: JSON?) -> Int? { value?.int.flatMap { $0 >= 0 ? $0 : nil } }
        guard let job = json["job"]?.object, let mayReplace = json["may_replace"]?.bool,
            let documents = number(json["documents"]), let passages = number(json["passages"]),
            let total = json["total"], let bytesDone = number(json["bytes"]), let digest = json["digest"]?.string,
            let layers = json["layers"], let isComplete = json["complete"]?.bool
        else { throw damaged("is a damaged journal") }
        self.init(
            facts: job.members.map { Fact($0.key, $0.value.string ?? "") }, mayReplace: mayReplace)
        (self.documents, self.passages, self.bytes, self.digest) = (documents, passages, bytesDone, digest)
        (self.isComplete, self.total) = (isComplete, number(total))
        carried = (json["carried"]?.array ?? []).map { row in (row.array ?? []).compactMap(\.int) }
        if carried.contains(where: { $0.count != 3 }) { throw damaged("is a damaged journal") }
        if !layers.isNull, let done = number(layers["done"]), let of = number(layers["of"]),
            let items = number(layers["items"]), let tokens = number(layers["tokens"]),
            let place = number(layers["place"]), place < 2, done <= of,
            let digest = layers["digest"]?.string.flatMap({ UInt64($0, radix: 16) })
        {
            self.layers = Layers(done: done, of: of, items: items, tokens: tokens, place: place, digest: digest)
        }
        // Whatever was left out or read loosely, and whatever the checksum is not of, comes out as another text.
        guard Array(text.utf8) == bytes else { throw damaged("is a damaged journal") }
    }

    // MARK: - What the job is

    /// Why a job of these facts is not the one that the journal is of; nil where it is.
    package func difference(from facts: [Fact], path: String) -> String? {
        func shown(_ value: String?) -> String { value.map { $0.isEmpty ? "not given" : "'\($0)'" } ?? "not given" }
        let names =
            self.facts.map(\.name) + facts.map(\.name).filter { name in !self.facts.contains { $0.name == name } }
        for name in names {
            let before = self.facts.first { $0.name == name }?.value
            let now = facts.first { $0.name == name }?.value
            if before == now { continue }
            let isDigest = Self.digested.contains(name)
            let words = isDigest ? "\(name) has changed since" : "\(name) was \(shown(before)) and is \(shown(now))"
            return "\(path): \(words); go on with what the job was begun with, or begin anew with --force"
        }
        return nil
    }

    /// What it tells, row by row.
    package var summary: [(String, String)] {
        var rows = [("done", isComplete ? "all" : progress)]
        if bytes > 0 { rows.append(("written", "\(bytes) bytes of lines")) }
        if mayReplace { rows.append(("replaces", "an output of that name (--force)")) }
        return rows + facts.map { ($0.name, $0.value.isEmpty ? "not given" : $0.value) }
    }

    /// What is done, in words.
    package var progress: String {
        var words = "\(documents)"
        if let total { words += " of \(total)" }
        words += " document\(total ?? documents == 1 ? "" : "s")"
        if passages > 0 { words += ", and \(passages) passages of the next" }
        if let layers { words += ", and \(layers.done) of \(layers.of) layers of the next" }
        return words
    }

    /// Facts that are known by a digest.
    package static let digested: Set<String> = ["the program", "the model", "the tokenizer", "the input", "--labels"]
}

/// The lower digits of a number.
func hexadecimal(_ number: UInt64, digits: Int = 16) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}
