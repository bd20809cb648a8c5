// Pictures read back as they were drawn.

import Pipelines
import TestSupport
import Testing

/// Pictures are read back by a reader of our own, which knows the formats from their standards alone.
@Suite struct PictureTests {
    @Test func checksumsOfKnownTexts() {
        #expect(IndexedPicture.crc32(Array("123456789".utf8)) == 0xCBF4_3926)
        #expect(IndexedPicture.crc32(Array("IEND".utf8)) == 0xAE42_6082)
        #expect(Deflate.adler32(Array("Wikipedia".utf8)) == 0x11E6_0398)
        #expect(Deflate.adler32([]) == 1)
    }

    @Test func streamsInflateToWhatWasDeflated() throws {
        var cases: [[UInt8]] = [[], [0], [255], [1, 2], Array(repeating: 7, count: 100_000)]
        for seed in UInt64(1)...30 {
            var random = SplitMix(seed: seed)
            let alphabet = UInt8.random(in: 0...255, using: &random)
            let count = Int.random(in: 0...70_000, using: &random)
            var bytes: [UInt8] = []
            while bytes.count < count {
                if bytes.count > 40, Bool.random(using: &random) {
                    let start = Int.random(in: 0..<bytes.count - 32, using: &random)
                    bytes += bytes[start..<start + Int.random(in: 1...32, using: &random)]
                } else {
                    bytes.append(UInt8.random(in: 0...alphabet, using: &random))
                }
            }
            cases.append(bytes)
        }
        for (index, bytes) in cases.enumerated() {
            #expect(try Inflater.zlib(Deflate.zlib(bytes)) == bytes, "case \(index)")
        }
        #expect(Deflate.zlib(cases[4]).count < 1000)
    }

    @Test func randomPicturesReadBack() throws {
        for seed in UInt64(1)...20 {
            var random = SplitMix(seed: seed)
            var picture = IndexedPicture(
                width: Int.random(in: 1...300, using: &random), height: Int.random(in: 1...200, using: &random))
            for _ in 0..<200 {
                let (x, y) = (Int.random(in: -5...300, using: &random), Int.random(in: -5...200, using: &random))
                let size = Int.random(in: 0...40, using: &random)
                picture.fill(x..<x + size, y..<y + size, UInt8.random(in: 0...255, using: &random))
            }
            let read = try PNGReader(picture.png)
            #expect(read.width == picture.width)
            #expect(read.height == picture.height)
            #expect(read.palette == IndexedPicture.palette.map { [$0.red, $0.green, $0.blue] })
            #expect(read.pixels == picture.pixels, "seed \(seed)")
        }
    }

    @Test func aLargerWeightIsLighter() throws {
        for side in [1, 2, 3, 7, 100, 256] {
            let tokens = side > 10 ? side * 3 - 1 : side
            let size = side > 10 ? 3 : 1
            let means = (0..<side * side).map { Float($0 + 1) / Float(side * side * tokens) }
            let map = BlockMap(tokens: tokens, size: size, means: means)
            let read = try PNGReader(BlockMapPicture.png(of: map, title: "layer 0 head 0"))
            let pixel = max(1, 512 / side)
            let shades = (0..<side * side).map { place in
                read.pixels[(78 + place / side * pixel) * read.width + 100 + place % side * pixel]
            }
            #expect(shades == shades.sorted(), "side \(side)")
            if side > 1 { #expect([shades[0], shades[side * side - 1]] == [0, 253], "side \(side)") }
        }
    }

    @Test func picturesOfNothingOfZeroAndOfNaN() throws {
        for value in [Float(0), .nan, .infinity, 1e-38, 3e38] {
            let map = BlockMap(tokens: 5, size: 2, means: Array(repeating: value, count: 9))
            #expect(throws: Never.self) { try PNGReader(BlockMapPicture.png(of: map, title: "layer 0")) }
            #expect(throws: Never.self) {
                try PNGReader(BlockMapPicture.png(of: [[map, map], [map, map]], layers: [0, 11], heads: [3, 40]))
            }
        }
    }

    /// The lightness of CIE 1976, from D65 luminance, rises by steps that differ by less than a third.
    @Test func coloursGrowLighterEvenly() {
        func lightness(_ colour: Colour) -> Double {
            let linear = [colour.red, colour.green, colour.blue].map { value in
                let share = Double(value) / 255
                return share <= 0.040_45 ? share / 12.92 : power((share + 0.055) / 1.055)
            }
            let luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
            return luminance <= 0.008_856 ? 903.3 * luminance : 116 * luminance.cubeRoot - 16
        }
        let all = ColourRamp.colours.map(lightness)
        #expect(all.count == 256)
        for step in 1..<256 { #expect(all[step] > all[step - 1] - 0.1, "step \(step)") }
        let eighths = (0...8).map { all[$0 * 255 / 8] }
        let mean = (eighths[8] - eighths[0]) / 8
        for step in 1...8 { #expect(abs(eighths[step] - eighths[step - 1] - mean) <= mean / 3, "\(eighths)") }
    }
}

extension Double {
    fileprivate var cubeRoot: Double {
        var root = 1.0
        for _ in 0..<60 { root = (2 * root + self / (root * root)) / 3 }
        return root
    }
}

/// x to the 2.4th: x² · ⁵√(x²).
private func power(_ x: Double) -> Double {
    var root = 1.0
    for _ in 0..<200 { root = (4 * root + x * x / (root * root * root * root)) / 5 }
    return x * x * root
}

struct PictureError: Error { let message: String }

/// Inflates stored blocks and blocks of fixed codes (RFC 1951), bit by bit.
struct Inflater {
    private let bytes: [UInt8]
    private var bit = 0

    static func zlib(_ stream: [UInt8]) throws -> [UInt8] {
        guard stream.count >= 6, (Int(stream[0]) * 256 + Int(stream[1])) % 31 == 0, stream[0] & 15 == 8 else {
            throw PictureError(message: "no zlib stream")
        }
        var inflater = Inflater(bytes: Array(stream[2..<stream.count - 4]))
        let output = try inflater.blocks()
        var (a, b) = (1, 0)
        for byte in output { (a, b) = ((a + Int(byte)) % 65_521, (b + a + Int(byte)) % 65_521) }
        let sum = stream.suffix(4).reduce(0) { $0 << 8 | Int($1) }
        guard sum == b << 16 | a else { throw PictureError(message: "Adler-32 differs") }
        return output
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private mutating func next() throws -> Int {
        guard bit < 8 * bytes.count else { throw PictureError(message: "the stream ends early") }
        defer { bit += 1 }
        return Int(bytes[bit / 8] >> UInt8(bit % 8) & 1)
    }

    private mutating func number(_ count: Int) throws -> Int {
        var value = 0
        for place in 0..<count { value |= try next() << place }
        return value
    }

    private mutating func code(_ count: Int) throws -> Int {
        var value = 0
        for _ in 0..<count { value = value << 1 | (try next()) }
        return value
    }

    /// A literal, a length or the end: codes of 7 bits from 0, of 8 from 0x30 and 0xC0, of 9 from 0x190.
    private mutating func symbol() throws -> Int {
        var value = try code(7)
        if value < 0x18 { return 256 + value }
        value = value << 1 | (try next())
        if value < 0xC0 { return value - 0x30 }
        if value < 0xC8 { return 280 + value - 0xC0 }
        value = value << 1 | (try next())
        return 144 + value - 0x190
    }

    private mutating func blocks() throws -> [UInt8] {
        var output: [UInt8] = []
        var isLast = false
        while !isLast {
            isLast = try next() == 1
            switch try number(2) {
            case 0:
                bit = (bit + 7) / 8 * 8
                let length = try number(16)
                guard try number(16) == length ^ 0xFFFF else { throw PictureError(message: "a stored length") }
                for _ in 0..<length { output.append(UInt8(try number(8))) }
            case 1:
                while true {
                    let symbol = try symbol()
                    if symbol == 256 { break }
                    if symbol < 256 {
                        output.append(UInt8(symbol))
                        continue
                    }
                    let length = try length(symbol - 257)
                    let distanceCode = try code(5)
                    let extra = max(0, distanceCode / 2 - 1)
                    let least = distanceCode < 2 ? distanceCode + 1 : 1 + (2 + distanceCode % 2) << extra
                    let distance = least + (try number(extra))
                    guard distance <= output.count else { throw PictureError(message: "a distance before the start") }
                    for _ in 0..<length { output.append(output[output.count - distance]) }
                }
            default: throw PictureError(message: "a kind of block that this does not read")
            }
        }
        return output
    }

    /// Eight lengths without extra bits, then four of each number of them; the last is 258.
    private mutating func length(_ code: Int) throws -> Int {
        if code < 8 { return 3 + code }
        if code == 28 { return 258 }
        let extra = code / 4 - 1
        return 3 + (4 + code % 4) << extra + (try number(extra))
    }
}

/// A PNG of indexed colour, 8 bits, no filter.
struct PNGReader {
    let width: Int
    let height: Int
    let palette: [[UInt8]]
    let pixels: [UInt8]

    init(_ file: [UInt8]) throws {
        guard file.prefix(8) == [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A] else {
            throw PictureError(message: "no signature")
        }
        var chunks: [(name: String, contents: [UInt8])] = []
        var place = 8
        func number(_ at: Int) -> Int { file[at..<at + 4].reduce(0) { $0 << 8 | Int($1) } }
        while place < file.count {
            let length = number(place)
            let checked = file[place + 4..<place + 8 + length]
            var crc: UInt32 = 0xFFFF_FFFF
            for byte in checked {
                crc ^= UInt32(byte)
                for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
            }
            guard number(place + 8 + length) == Int(~crc) else { throw PictureError(message: "CRC differs") }
            chunks.append((String(decoding: checked.prefix(4), as: UTF8.self), Array(checked.dropFirst(4))))
            place += 12 + length
        }
        guard chunks.map(\.name) == ["IHDR", "PLTE", "IDAT", "IEND"] else { throw PictureError(message: "chunks") }
        let header = chunks[0].contents
        guard header.count == 13, header[8...] == [8, 3, 0, 0, 0] else { throw PictureError(message: "header") }
        (width, height) = (number(16), number(20))
        let colours = chunks[1].contents
        palette = stride(from: 0, to: colours.count, by: 3).map { Array(colours[$0..<$0 + 3]) }
        let lines = try Inflater.zlib(chunks[2].contents)
        guard lines.count == (width + 1) * height else { throw PictureError(message: "size") }
        var pixels: [UInt8] = []
        for row in 0..<height {
            guard lines[row * (width + 1)] == 0 else { throw PictureError(message: "a filter") }
            pixels += lines[row * (width + 1) + 1..<(row + 1) * (width + 1)]
        }
        self.pixels = pixels
    }
}
