// A page holds what it is given, whatever that is, and no more than fits.

import Files
import Foundation
import Pipelines
import TestSupport
import Testing
import report_samples

@Suite struct PageTests {
    // ---- Hostile text

    @Test func hostileTextChangesNoTag() throws {
        var plain = Samples.short(name: "plain", text: "Some words, and more.", layers: 2, heads: 3)
        plain.notes = ["a note"]
        plain.scores = [LabelScore(label: "a label", score: 0.5)]
        let hostile = hostileReport()
        let (expected, found) = (try tags(plain.page), try tags(hostile.page))
        #expect(expected.count > 100)
        #expect(found == expected)
    }

    @Test func aPageHoldsNoControlsAndItsHeadNoMarksOfDirection() throws {
        let page = hostileReport().page
        for scalar in page.unicodeScalars where scalar != "\n" {
            if scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || [0x2028, 0x2029].contains(scalar.value) {
                Issue.record("U+\(String(scalar.value, radix: 16))")
            }
        }
        let head = try #require(page.range(of: "</title>")).lowerBound
        #expect(!(page[..<head].unicodeScalars.contains { [0x202E, 0x2066].contains($0.value) }))
    }

    @Test func factsGiveTheTextBack() throws {
        let report = hostileReport()
        let facts = try facts(report.page)
        #expect(facts["document"] == .string(Hostile.name))
        #expect(facts["notes"]?[0] == .string(Hostile.name))
        #expect(facts["scores"]?[0]?[0] == .string(Hostile.name))
        var text = String.UnicodeScalarView()
        let befores = try #require(facts["befores"]?.array)
        for (index, part) in try #require(facts["texts"]?.array).enumerated() {
            let before = befores[index] == .integer(1) ? " " : befores[index].string ?? ""
            text.append(contentsOf: before.unicodeScalars)
            text.append(contentsOf: try #require(part.string).unicodeScalars)
        }
        #expect(Array(text) == Array(Hostile.text.unicodeScalars))
    }

    @Test func aTokenThatNeverEndsIsCutAndCounted() throws {
        var report = ObservationReport(
            document: "long", model: "none",
            tokens: [ReportToken(piece: "[UNK]", text: String(repeating: "x", count: 70_000), place: 0..<70_000)],
            layers: [0], heads: [0], keysPerQuery: 0)
        report.add(HeadStatistics(receivedMass: [1]), layer: 0, head: 0)
        let text = try #require(try facts(report.page)["texts"]?[0]?.string)
        #expect(text == String(repeating: "x", count: 1000) + "… (69000 more characters)")
    }

    @Test func aPageAsksNobody() throws {
        let page = hostileReport().page
        #expect(page.contains("content=\"default-src 'none'; style-src 'sha256-"))
        let script = try #require(page.range(of: "<script>", options: .backwards)).upperBound
        let style = try #require(page.range(of: "<style>")).upperBound
        let own = page[script...] + page[style..<(try #require(page.range(of: "</style>")).lowerBound)]
        for word in [
            "fetch(", "XMLHttpRequest", "import(", "@import", "url(", "@font-face", "innerHTML", "eval(",
            "document.write",
        ] {
            #expect(!own.contains(word), "\(word)")
        }
        // The one address is the name of SVG's elements.
        #expect(own.components(separatedBy: "://").count == 2)
    }

    // ---- Size and detail

    @Test func aHundredThousandTokensAreLessThanTenMegabytes() throws {
        let text = String(
            repeating: "Redistribution and use in source and binary forms, with or without changes.\n", count: 40)
        let report = Samples.long(tokens: 100_000, layers: 12, heads: 12, text: text)
        #expect(report.page.utf8.count < ReportDetail.largestPage)
        #expect(!report.detail.isComplete)
        #expect(report.detail.keepsLayers)
        #expect([0, 12_345, 99_999].allSatisfy(report.detail.queries.contains))
        #expect(report.detail.queries.count > 500)
    }

    @Test func twoThousandTokensOfTwelveByTwelveAreWhole() {
        for (layers, heads, tokens) in [(12, 12, 2048), (6, 12, 4096), (1, 1, 65_535)] {
            let report = ObservationReport(
                document: "", model: "", tokens: Array(repeating: ReportToken(piece: "a", text: ""), count: tokens),
                layers: Array(0..<layers), heads: Array(0..<heads), keysPerQuery: 4)
            #expect(report.detail.isComplete, "\(tokens)")
        }
    }

    /// The most of everything: as many tokens as are kept whole, one more, and shapes with many heads.
    @Test func pagesOfManyShapesFit() {
        for (layers, heads, keys, tokens) in [
            (12, 12, 4, 2141), (12, 12, 4, 2142), (24, 16, 8, 797), (24, 16, 8, 3000), (6, 12, 16, 2000),
            (2, 2, 1, 60_000),
        ] {
            var report = ObservationReport(
                document: "", model: "",
                tokens: Array(repeating: ReportToken(piece: "word", before: " ", text: "word"), count: tokens),
                layers: Array(0..<layers), heads: Array(0..<heads), keysPerQuery: keys)
            let values = [Float](repeating: 1, count: tokens)
            let size = BlockMap.size(tokens: tokens)
            let side = (tokens + size - 1) / size
            let statistics = HeadStatistics(
                receivedMass: values, entropy: values, meanDistance: values, maxLogit: values,
                topKeys: [Int32](repeating: 0, count: tokens * keys),
                topWeights: [Float](repeating: 0.1, count: tokens * keys),
                blockMap: BlockMap(tokens: tokens, size: size, means: [Float](repeating: 1, count: side * side)))
            for layer in 0..<layers { for head in 0..<heads { report.add(statistics, layer: layer, head: head) } }
            #expect(
                report.page.utf8.count < ReportDetail.largestPage,
                "\(layers) × \(heads), \(keys) keys, \(tokens) tokens")
        }
    }

    @Test func asManyRolloutsAsThereIsRoomFor() throws {
        for (tokens, given) in [(30, 200), (100_000, 60)] {
            var report = Samples.long(tokens: tokens, layers: 12, heads: 12, text: "Some words and more. ")
            let weights = [Float](repeating: 1 / Float(tokens), count: tokens)
            report.rollouts = (0..<given).map { Rollout(query: $0 % tokens, weights: weights) }
            let page = report.page
            let facts = try facts(page)
            #expect(page.utf8.count < ReportDetail.largestPage)
            #expect(facts["rolloutCount"] == .integer(given))
            let kept = try #require(facts["rollouts"]?.array).count
            #expect(tokens == 30 ? kept == given : kept >= 1 && kept < given, "\(kept)")
            _ = try numbers("rollout\(kept - 1)", page)
        }
    }

    // ---- What is kept

    @Test func headsInAnyOrderGiveTheSameBytes() {
        for tokens in [9, 5000] {
            var pages: [String] = []
            for seed in UInt64(1)...3 {
                var report = ObservationReport(
                    document: "d", model: "m",
                    tokens: Array(repeating: ReportToken(piece: "a", text: "a"), count: tokens),
                    layers: [2, 5, 6], heads: Array(0..<30), keysPerQuery: 2)
                var random = SplitMix(seed: seed)
                let places = (0..<90).shuffled(using: &random)
                for place in places {
                    report.add(made(tokens, seed: UInt64(place)), layer: [2, 5, 6][place / 30], head: place % 30)
                }
                pages.append(report.page)
            }
            #expect(Set(pages).count == 1, "\(tokens) tokens")
        }
    }

    @Test func longDocumentsKeepTheMeanMassOfALayersHeads() throws {
        let tokens = 70_001
        var report = ObservationReport(
            document: "d", model: "m", tokens: Array(repeating: ReportToken(piece: "a", text: "a"), count: tokens),
            layers: [0, 3], heads: [0, 1, 4], keysPerQuery: 2)
        var means = [Double](repeating: 0, count: 2 * tokens)
        for row in 0..<2 {
            for head in [0, 1, 4] {
                let statistics = made(tokens, seed: UInt64(row * 10 + head))
                for token in 0..<tokens { means[row * tokens + token] += Double(statistics.receivedMass[token]) / 3 }
                report.add(statistics, layer: [0, 3][row], head: head)
            }
        }
        let (codes, low, high) = try numbers("layerMass", report.page)
        #expect(codes.count == 2 * tokens)
        for place in codes.indices where means[place] > 1e-3 {
            let read = low * pow(high / low, Double(Int(codes[place]) - 2) / 253)
            #expect(abs(log2(read / means[place])) <= log2(high / low) / 506 + 1e-3, "place \(place)")
        }
    }

    @Test func reducedMapsKeepTheirMass() {
        for (tokens, size) in [(1, 1), (7, 1), (100, 7), (2127, 9), (100_000, 391)] {
            let side = (tokens + size - 1) / size
            var random = SplitMix(seed: UInt64(tokens))
            let map = BlockMap(tokens: tokens, size: size, means: (0..<side * side).map { _ in abs(random.unit()) })
            func mass(_ map: BlockMap) -> Double {
                map.means.enumerated().reduce(0.0) { sum, next in
                    func length(_ block: Int) -> Int { min(map.size, tokens - block * map.size) }
                    return sum + Double(next.element)
                        * Double(length(next.offset / map.side) * length(next.offset % map.side))
                }
            }
            for factor in [1, 2, 3, 5, side, side + 3] {
                // Each mean is rounded to float32 once.
                #expect(abs(mass(map.reduced(by: factor)) - mass(map)) <= mass(map) * 6e-8, "\(tokens), \(factor)")
            }
        }
    }

    @Test func tokensOfATextShowItOnce() {
        let text = "a😀b  c"
        // Two tokens share the emoji's place, as bytes of it do.
        let tokens = ReportToken.tokens(
            of: text, pieces: ["[CLS]", "a", "ð", "Ł", "b", "c"], offsets: [0..<0, 0..<1, 1..<2, 1..<2, 2..<3, 5..<6],
            special: [true, false, false, false, false, false])
        #expect(tokens.map(\.text) == ["", "a", "😀", "", "b", "c"])
        #expect(tokens.map(\.before) == ["", "", "", "", "", "  "])
        #expect(ReportToken.tokens(of: nil, pieces: ["7"], offsets: [], special: [false]).map(\.piece) == ["7"])
    }

    // ---- Reading pages

    private func hostileReport() -> ObservationReport {
        var report = Samples.short(name: Hostile.name, text: Hostile.text, layers: 2, heads: 3)
        report.notes = [Hostile.name]
        report.scores = [LabelScore(label: Hostile.name, score: 0.5)]
        return report
    }

    private func made(_ tokens: Int, seed: UInt64) -> HeadStatistics {
        var random = SplitMix(seed: seed)
        func values() -> [Float] { (0..<tokens).map { _ in abs(random.unit()) } }
        return HeadStatistics(
            receivedMass: values(), entropy: values(), meanDistance: values(), maxLogit: values(),
            topKeys: [Int32](repeating: -1, count: 2 * tokens), topWeights: [Float](repeating: 0, count: 2 * tokens))
    }

    /// The tags of a page with their attributes, as a browser's tokenizer finds them: what scripts, styles and the title hold
    /// ends where their end tag first appears. A script's digest and a number list's contents are left out.
    private func tags(_ page: String) throws -> [String] {
        let bytes = Array(page.utf8)
        var (tags, place): ([String], Int) = ([], 0)
        while let open = bytes[place...].firstIndex(of: UInt8(ascii: "<")) {
            let close = try #require(bytes[open...].firstIndex(of: UInt8(ascii: ">")))
            let tag = String(decoding: bytes[open...close], as: UTF8.self)
            tags.append(tag)
            place = close + 1
            for name in ["script", "style", "title"] where tag.lowercased().hasPrefix("<" + name) {
                let end = Array("</\(name)".utf8)
                while !(bytes[place] == end[0] && bytes[place..<place + end.count].elementsEqual(end)) { place += 1 }
            }
        }
        return tags
    }

    private func contents(_ id: String, _ page: String) throws -> String {
        let start = try #require(page.range(of: "id=\"\(id)\">")).upperBound
        return String(
            page[start..<(try #require(page.range(of: "</script>", range: start..<page.endIndex))).lowerBound])
    }

    private func facts(_ page: String) throws -> JSON {
        try JSON.parse(Array(try contents("facts", page).utf8), path: "facts")
    }

    private func numbers(_ name: String, _ page: String) throws -> (codes: [UInt8], low: Double, high: Double) {
        let form = try #require(try facts(page)["numbers"]?[name])
        let data = try #require(Data(base64Encoded: try contents("numbers-" + name, page)))
        return (Array(data), try #require(form["low"]?.double), try #require(form["high"]?.double))
    }
}
