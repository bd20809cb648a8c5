// Regular expressions split as they do in the Python package, and what is not read is refused.

import Files
import Testing
import Tokenization

@Suite struct PatternTests {
    /// A tokenizer that splits at the matches of a pattern and does nothing else.
    private static func splitter(_ pattern: String) throws -> Tokenizer {
        var names = JSONObject()
        names.append("Regex", .string(pattern))
        var split = JSONObject()
        split.append("type", .string("Split"))
        split.append("pattern", .object(names))
        split.append("behavior", .string("Isolated"))
        split.append("invert", .bool(false))
        return try splitter(component: .object(split))
    }

    private static func splitter(component: JSON) throws -> Tokenizer {
        let model = #"{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}"#
        var tokenizer = JSONObject()
        tokenizer.append("model", try JSON.parse(Array(model.utf8), path: "t"))
        tokenizer.append("pre_tokenizer", component)
        return try Tokenizer(json: .object(tokenizer), path: "t")
    }

    @Test func splitsAgreeWithTheReference() throws {
        let goldens = try Goldens.load("patterns.json")
        let texts = goldens["texts"]?.array?.compactMap(\.string) ?? []
        let cases = goldens["cases"]?.array ?? []
        #expect(texts.count == 27 && cases.count >= 150)
        var refused = 0
        for entry in cases {
            let component = try #require(entry["component"])
            let pattern = component["pattern"]?["Regex"]?.string ?? ""
            let tokenizer: Tokenizer
            do {
                tokenizer = try Self.splitter(component: component)
            } catch let error as FileError {
                #expect(error.description.contains("not supported"), "\(pattern): \(error)")
                refused += 1
                continue
            }
            let digests = Goldens.digests(entry["digests"]?.string ?? "")
            #expect(digests.count == texts.count)
            for (text, expected) in zip(texts, digests) {
                let words = tokenizer.words(of: text)
                #expect(
                    Goldens.digest(words.joined(separator: "\u{1}").utf8) == expected,
                    "\(pattern) in \(text.debugDescription) gave \(words)")
            }
        }
        // Random patterns with what Oniguruma reads and this package does not.
        #expect(refused < cases.count / 6, "\(refused) of \(cases.count) patterns are refused")
    }

    @Test(arguments: [
        (#"(a)\1"#, "back-reference"), (#"\X"#, #"escape \X"#), (#"\G"#, #"escape \G"#),
        (#"\p{Klingon}"#, #"\p{Klingon}"#),
        ("(?<=ab)c", "lookbehind of more than one"), ("(?i:é)", "not ASCII"), ("(?i:ss)", "'ss'"),
        ("(?x: a)", "group (?x"),
        ("(?:a*)*", "may match nothing"), ("(?>(?:ab)*)c", "repeated group"), ("(a", "unmatched ("),
        ("a)", "unmatched )"),
        ("[a", "unfinished class"), ("*", "nothing before"), ("[b-a]", "before its start"), (#"\p{L"#, "unfinished"),
        (#"\xff"#, #"\x80"#), (#"\x{110000}"#, "no character"), ("a{3,2}", "before its start"),
        ("a{1001}", "count above"),
        ("a++++++++", "quantifiers in a row"), ("[[:nothing:]]", "[:nothing:]"),
        ("(?:(?:a{1000}b){1000}c){9}", "steps"), ("(?:|){500}", "steps"),
        ("a\\", "unfinished escape"), ("^*", "repeated anchor"), ("(?>(?:a|a){30}b)", "more than 12 alternatives"),
        (String(repeating: "(?=a{900})", count: 6), "lookaheads of more than"),
    ])
    func patternsThatAreNotReadAreRefusedByName(_ pattern: String, _ name: String) throws {
        let error = try #require(throws: FileError.self) { try Self.splitter(pattern) }
        #expect(error.description.contains(name) && error.description.contains("pre_tokenizer.pattern"), "\(error)")
    }

    @Test func deepPatternsAreRefused() throws {
        let count = 100_000
        for (open, close) in [("(", ")"), ("(?=", ")"), ("[", "]")] {
            let pattern = String(repeating: open, count: count) + "a" + String(repeating: close, count: count)
            #expect(throws: FileError.self) { try Self.splitter(pattern) }
        }
        #expect(throws: FileError.self) { try Self.splitter("a" + String(repeating: "?", count: count)) }
    }

    /// Backtracking without memory takes quadratic time and more for each of these.
    @Test(
        .timeLimit(.minutes(5)),
        arguments: [
            (#"x*y|x"#, "x"), (#"(?:x+x+)+y|x"#, "x"), (#"(?:x|xx)*y|x"#, "x"), (#"x(?=x*y)|x"#, "x"),
            (#"x*?y|x"#, "x"),
            (#"\s*\s*\s*y|\s+(?!\S)|\s+"#, " "), (#"\d{1,3}(?=(?:\d{3})*(?!\d))"#, "1"), (#"(?:a*b?)c|a"#, "a"),
            (#"(?:x{1,9}?x{1,9})+z|x"#, "x"),
        ])
    func longTextsTakeLinearTime(_ pattern: String, _ unit: String) throws {
        let count = 300_000
        let words = try Self.splitter(pattern).words(of: String(repeating: unit, count: count))
        #expect(words.joined().utf8.count == count)
    }
}
