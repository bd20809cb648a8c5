// JSON is read as RFC 8259 has it, and nothing that is not JSON gets through or brings the parser down.

import Files
import Testing

@Suite struct JSONTests {
    private func parse(_ text: String) throws -> JSON { try JSON.parse(Array(text.utf8), path: "t.json") }

    @Test func valuesAreWhatTheySay() throws {
        let json = try parse(
            #" {"a": [1, -2.5e3, true, false, null, "x\u00e9\ud83d\ude00\n\/"], "b": {}, "c": [], "n": 18446744073709551616} "#
        )
        #expect(json["a"]?[0]?.int == 1)
        #expect(json["a"]?[1]?.double == -2500)
        #expect(json["a"]?[1]?.int == -2500)
        #expect(json["a"]?[2]?.bool == true)
        #expect(json["a"]?[3]?.bool == false)
        #expect(json["a"]?[4]?.isNull == true)
        #expect(json["a"]?[5]?.string == "xé😀\n/")
        #expect(json["a"]?[6] == nil)
        #expect(json["b"]?.object?.count == 0)
        #expect(json["c"]?.array == [])
        #expect(json["n"]?.int == nil)
        #expect(json["n"]?.double == 0x1p64)
        #expect(try parse("9223372036854775807").int == Int.max)
        #expect(try parse("0") == .integer(0))
        #expect(try parse("-0.0").double?.sign == .minus)
        #expect(json.object?.members.map(\.key) == ["a", "b", "c", "n"])
    }

    @Test(arguments: [
        ("", 0), (" ", 1), ("{", 1), ("[1,]", 3), ("[1 2]", 3), ("{\"a\" 1}", 5), ("{\"a\":1,}", 7), ("{a:1}", 1),
        ("tru", 0), ("nul", 0),
        ("01", 0), ("-", 0), ("1.", 2), ("1e", 2), (".5", 0), ("+1", 0), ("1e999", 0), ("NaN", 0), ("Infinity", 0),
        ("'a'", 0), ("[1] 2", 4),
        ("\"a", 0), ("\"\n\"", 1), ("\"\\x\"", 1), ("\"\\u12\"", 1), ("\"\\ud800\"", 1), ("\"\\udc00\"", 1),
        ("\"\\ud800\\u0041\"", 1), ("\u{FEFF}1", 0),
        ("[\"a\", \"b\\", 8),
    ])
    func whatIsNotJSONIsRefusedWhereItGoesWrong(_ text: String, _ offset: Int) throws {
        let error = try #require(throws: FileError.self) { try parse(text) }
        #expect(error.kind == .malformed)
        #expect(error.description.hasPrefix("t.json: byte \(offset): "), "\(error)")
    }

    @Test(arguments: [[0x80], [0xC0, 0x80], [0xE2, 0x82], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xFF]])
    func bytesThatAreNotUTF8AreRefused(_ bad: [UInt8]) throws {
        for escape in ["", "\\n"] {
            let start = Array("[\"ok\(escape)é".utf8)
            let error = try #require(throws: FileError.self) {
                try JSON.parse(start + bad + Array("\"]".utf8), path: "t")
            }
            #expect(error.description.contains("byte \(start.count): "), "\(error)")
        }
    }

    @Test func nestingHasALimit() throws {
        #expect(try parse(String(repeating: "[", count: 128) + String(repeating: "]", count: 128)) != .null)
        for open in ["[", "{\"a\":"] {
            let error = try #require(throws: FileError.self) { try parse(String(repeating: open, count: 1_000_000)) }
            #expect(error.description.contains("nested"))
        }
    }

    @Test func ofEqualKeysTheLastWinsInTheFirstPlace() throws {
        let few = try parse(#"{"a":1,"b":2,"a":3}"#)
        #expect(few.object?.members.map(\.key) == ["a", "b"] && few["a"]?.int == 3)
        let many = try parse("{" + (0..<100).map { "\"k\($0 % 50)\":\($0)" }.joined(separator: ",") + "}")
        #expect(many.object?.count == 50)
        #expect((0..<50).allSatisfy { many["k\($0)"]?.int == $0 + 50 })
    }

    @Test func canonicallyEqualKeysStayApart() throws {
        let keys = #""\u00e9":1,"e\u0301":2"#
        let padding = (0..<20).map { ",\"p\($0)\":0" }.joined()
        for text in ["{\(keys)}", "{\(keys)\(padding)}"] {
            let json = try parse(text)
            #expect(json["\u{e9}"]?.int == 1 && json["e\u{301}"]?.int == 2)
        }
        #expect(try parse(#""\u00e9""#) != parse(#""e\u0301""#))
    }

    @Test func quotedTextReadsBackAsItself() throws {
        let every =
            String(String.UnicodeScalarView((0..<0x300).compactMap { Unicode.Scalar(UInt32($0)) })) + "😀\u{2028}"
        #expect(try parse(JSON.quoted(every)) == .string(every))
    }

    @Test func damagedBytesNeverBringTheParserDown() throws {
        var generator = SeededGenerator(state: UInt64.random(in: 0...UInt64.max))
        let seed = generator.state
        let valid = Array(#"{"a":[1,-2.5e-3,true,null,"x\u00e9\ud83d\ude00"],"é":{"b":"c","d":[[],{}]}}"#.utf8)
        var accepted = 0
        for _ in 0..<20_000 {
            var bytes = valid
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.remove(at: place)
                default: bytes.insert(bytes[Int.random(in: 0..<bytes.count, using: &generator)], at: place)
                }
            }
            if (try? JSON.parse(bytes, path: "t")) != nil {
                accepted += 1
                // Whatever is accepted is UTF-8 throughout: no byte of it lies outside a checked string.
                #expect(UTF8Validation.firstInvalidByte(in: bytes) == nil, "seed \(seed): \(bytes)")
            }
        }
        #expect(accepted > 0 && accepted < 20_000, "seed \(seed)")
    }

    @Test func utf8IsJudgedAsTheStandardLibraryDoes() {
        var generator = SeededGenerator(state: UInt64.random(in: 0...UInt64.max))
        let seed = generator.state
        let interesting: [UInt8] = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
            0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ]
        for _ in 0..<50_000 {
            let bytes = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                interesting.randomElement(using: &generator) ?? 0
            }
            let invalid = UTF8Validation.firstInvalidByte(in: bytes)
            #expect((invalid == nil) == (String(validating: bytes, as: UTF8.self) != nil), "seed \(seed): \(bytes)")
            if let invalid {
                #expect(
                    String(validating: bytes[..<invalid], as: UTF8.self) != nil, "seed \(seed): \(bytes) at \(invalid)")
            }
        }
    }
}
