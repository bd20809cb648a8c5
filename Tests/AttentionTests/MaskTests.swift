// Masks by runs and by bits agree with their definition by pairs, and expressions with what they say.

import Attention
import TestSupport
import Testing
import Tiles

@Suite struct MaskTests {
    @Test func tilesAreExactForEveryMask() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SplitMix(seed: seed)
        for _ in 0..<150 {
            let whole = RandomCase.shape(&generator, longest: 900)
            let mask = RandomCase.mask(for: whole, &generator)
            #expect(mask.incompatibility(with: whole) == nil)
            let (pieces, within) = mask.pieces(of: whole)
            #expect(pieces.reduce(0) { $0 + $1.queries } == whole.queries)
            for shape in pieces {
                var total = 0
                for queryTile in 0..<TileGrid.count(length: shape.queries) {
                    let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
                    let visible = within.keyTiles(queryTile: queryTile, in: shape)
                    for keyTile in 0..<TileGrid.count(length: shape.keys) {
                        let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
                        var pairs = 0
                        for row in rows {
                            for key in keys
                            where mask.sees(row: row + shape.firstQuery, key: key + shape.firstKey, in: whole) {
                                pairs += 1
                            }
                        }
                        total += pairs
                        #expect(
                            visible.any.contains(keyTile) == (pairs > 0),
                            "any: \(mask), \(shape), tiles \(queryTile), \(keyTile), seed \(seed)")
                        #expect(
                            visible.all.contains(keyTile) == (pairs == rows.count * keys.count),
                            "all: \(mask), \(shape), tiles \(queryTile), \(keyTile), seed \(seed)")
                    }
                }
                #expect(within.visiblePairs(in: shape) == total, "\(mask), \(shape), seed \(seed)")
            }
        }
    }

    /// A document that ends where a tile does takes nothing of the next one, also where it is not cut out of its
    /// sequence.
    @Test func documentsThatEndWithATile() {
        let lengths = [256, 512, 0, 300, 212, 100]
        let mask = Mask.documents(DocumentMask(queries: lengths, keys: lengths))
        let shape = SequenceShape(length: lengths.reduce(0, +))
        let seen = (0..<TileGrid.count(length: shape.queries)).map { mask.keyTiles(queryTile: $0, in: shape) }
        #expect(seen.map(\.any) == [Runs(0..<1), Runs(1..<3), Runs(1..<3), Runs(3..<5), Runs(3..<5), Runs(5..<6)])
        #expect(seen.map(\.all) == [Runs(0..<1), Runs(1..<3), Runs(1..<3), Runs(3..<4), Runs(), Runs(5..<6)])
    }

    /// A window by its definition: so many keys to the left and to the right of the query's own, −1: all.
    @Test func aWindowIsWhatItSays() {
        let shape = SequenceShape(queries: 5, keys: 9)  // aligned at the end: row r stands at key r + 4
        for left in -1...3 {
            for right in -1...3 {
                for row in 0..<5 {
                    let seen = (0..<9).filter {
                        Mask.window(left: left, right: right).sees(row: row, key: $0, in: shape)
                    }
                    let first = left == -1 ? 0 : row + 4 - left
                    let last = right == -1 ? 8 : min(8, row + 4 + right)
                    #expect(seen == Array(first...last), "window(\(left),\(right)), row \(row)")
                }
            }
        }
    }

    /// What does not fit says so, and that two lists are needed only where queries and keys differ.
    @Test func whatDoesNotFitSaysWhy() {
        let documents = Mask.documents(DocumentMask(queries: [10, 10], keys: [10, 10]))
        #expect(
            documents.incompatibility(with: SequenceShape(length: 30))
                == "the documents' lengths sum to 20, and there are 30 queries")
        #expect(
            documents.incompatibility(with: SequenceShape(queries: 30, keys: 20))
                == "the documents' lengths sum to 20, and there are 30 queries; give two lists, documents(q…;k…)")
        #expect(
            documents.incompatibility(with: SequenceShape(queries: 20, keys: 30))
                == "the documents' lengths sum to 20, and there are 30 keys; give two lists, documents(q…;k…)")
        #expect(documents.incompatibility(with: SequenceShape(length: 20)) == nil)
    }

    private func parse(_ text: String) throws -> Mask {
        try Mask(parsing: text) { _, size in BlockMask(size: size, rows: 1, columns: 1, cells: [true]) }
    }

    /// However long an expression, its nesting is bounded, so that no input exhausts the parser's stack.
    @Test func nestingIsBoundedAfterManyNeighbours() throws {
        let neighbours = String(repeating: "causal & ", count: 300)
        func nested(_ depth: Int) -> String { String(repeating: "!", count: depth) + "causal" }
        #expect(throws: Never.self) { _ = try parse(neighbours + nested(150)) }
        #expect(throws: MaskSyntaxError.self) { _ = try parse(neighbours + nested(250)) }
    }

    /// What goes over a mask recurses once for each that is joined to another; so does its own end.
    @Test func masksOfManyPartsAreRefused() throws {
        func joined(_ count: Int, _ sign: String) -> String {
            Array(repeating: "causal", count: count).joined(separator: sign)
        }
        for sign in ["|", "&", " and not "] {
            #expect(throws: MaskSyntaxError.self) { _ = try parse(joined(100_000, sign)) }
            let mask = try parse(joined(1000, sign))
            let shape = SequenceShape(length: 3)
            #expect(
                (0..<9).map { mask.sees(row: $0 / 3, key: $0 % 3, in: shape) }
                    == (0..<9).map { sign != " and not " && $0 / 3 >= $0 % 3 })
        }
    }

    @Test func lengthsThatWouldOverflowAreRefused() {
        #expect(throws: MaskSyntaxError.self) {
            _ = try parse(
                "documents(" + Array(repeating: "281474976710656", count: 40_000).joined(separator: ",") + ")")
        }
    }

    @Test func expressionsMeanWhatTheySay() throws {
        let window = Mask.window(left: 3, right: -1)
        #expect(try parse("full") == .full)
        #expect(try parse("  causal ") == .causal)
        #expect(try parse("window(3,-1)") == window)
        #expect(try parse("!causal & window(3, -1) | full") == .or(.and(.not(.causal), window), .full))
        #expect(try parse("not causal and window(3,-1) or full") == .or(.and(.not(.causal), window), .full))
        #expect(try parse("causal | full & !full") == .or(.causal, .and(.full, .not(.full))))
        #expect(try parse("(causal|full)&full") == .and(.or(.causal, .full), .full))
        #expect(try parse("!!causal") == .not(.not(.causal)))
        #expect(try parse("documents(3,0,4)") == .documents(DocumentMask(queries: [3, 0, 4], keys: [3, 0, 4])))
        #expect(try parse("documents(3,4;5,6)") == .documents(DocumentMask(queries: [3, 4], keys: [5, 6])))
        #expect(try parse("prefix(7)") == .prefix(7))
        #expect(try parse("global(5, 2,3)") == .global(Runs([2..<4, 5..<6])))
        #expect(
            try parse("blocks(some file.npy, 64)") == .blocks(BlockMask(size: 64, rows: 1, columns: 1, cells: [true])))
    }

    @Test(arguments: [
        ("", 0, "expected a mask"), ("causl", 0, "'causl'"), ("causal &", 8, "expected a mask"),
        ("causal full", 7, "expected '&'"),
        ("window(3)", 8, "expected ','"), ("window(1-2,3)", 8, "expected ','"), ("prefix(x1)", 7, "whole number"),
        ("window(3,-2)", 9, "at least -1"), ("(causal", 7, "expected ')'"), ("prefix(-1)", 7, "at least 0"),
        ("documents(1,2;3)", 15, "2 documents"), ("global()", 7, "whole number"), ("blocks(f.npy,0)", 13, "at least 1"),
        ("blocks(,4)", 7, "file name"), ("causal)", 6, "expected '&'"),
        ("window(99999999999999999999,0)", 7, "whole number"),
        (String(repeating: "!", count: 100_000) + "causal", 200, "too deep"),
    ])
    func faultsAreShownWhereTheyStand(text: String, place: Int, reason: String) {
        do {
            _ = try parse(text)
            Issue.record("'\(text.prefix(40))' was accepted")
        } catch let error as MaskSyntaxError {
            #expect(error.place == place && error.reason.contains(reason), "\(error.place): \(error.reason)")
            #expect(error.description.split(separator: "\n").last?.count == place + 3)
        } catch {
            Issue.record("\(error)")
        }
    }
}
