// Compression for pictures, in one small file.
//
// Swift's toolchain brings no zlib, and a cluster's users would need one more system package for pictures alone. Flat
// pictures need little: runs of a colour and rows like the row above. Fixed codes and one candidate a place find both.

/// DEFLATE (RFC 1951) with the fixed Huffman codes, in a zlib stream (RFC 1950).
package enum Deflate {
    /// The zlib stream of some bytes.
    package static func zlib(_ bytes: [UInt8]) -> [UInt8] {
        // A window of 32 KiB; the header's 16 bits are a multiple of 31.
        var writer = BitWriter(bytes: [0x78, 0x01])
        writer.write(1, bits: 1)
        writer.write(1, bits: 2)
        compress(bytes, &writer)
        writer.symbol(256)
        var stream = writer.finished()
        let sum = adler32(bytes)
        for shift in [24, 16, 8, 0] as [UInt32] { stream.append(UInt8(truncatingIfNeeded: sum >> shift)) }
        return stream
    }

    /// Adler-32 (RFC 1950, 8.2).
    package static func adler32(_ bytes: [UInt8]) -> UInt32 {
        var (low, high): (UInt32, UInt32) = (1, 0)
        for byte in bytes {
            low = (low + UInt32(byte)) % 65_521
            high = (high + low) % 65_521
        }
        return high << 16 | low
    }

    /// Lengths 3 … 258: the least of each code from 257 on, and its extra bits (3.2.5).
    static let lengths: [(least: Int, extra: Int)] = [
        (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 1), (13, 1), (15, 1), (17, 1), (19, 2),
        (23, 2), (27, 2), (31, 2), (35, 3), (43, 3), (51, 3), (59, 3), (67, 4), (83, 4), (99, 4), (115, 4), (131, 5),
        (163, 5), (195, 5), (227, 5), (258, 0),
    ]

    /// Distances 1 … 32,768: the least of each of 30 codes, and its extra bits.
    static let distances: [(least: Int, extra: Int)] = {
        var (least, codes): (Int, [(Int, Int)]) = (1, [])
        for code in 0..<30 {
            let extra = max(0, code / 2 - 1)
            codes.append((least, extra))
            least += 1 << extra
        }
        return codes
    }()

    private static func compress(_ bytes: [UInt8], _ writer: inout BitWriter) {
        // The last place of each three bytes, by their hash; −1: none yet.
        var last = [Int](repeating: -1, count: 1 << 15)
        func slot(_ place: Int) -> Int {
            let three = UInt32(bytes[place]) << 16 | UInt32(bytes[place + 1]) << 8 | UInt32(bytes[place + 2])
            return Int((three &* 2_654_435_761) >> 17)
        }
        var place = 0
        while place < bytes.count {
            var length = 0
            if place + 3 <= bytes.count {
                let candidate = last[slot(place)]
                if candidate >= 0, place - candidate <= 32_768 {
                    while length < 258, place + length < bytes.count, bytes[candidate + length] == bytes[place + length]
                    {
                        length += 1
                    }
                    if length >= 3 { writer.match(length: length, distance: place - candidate) }
                }
            }
            let step = length >= 3 ? length : 1
            if step == 1 { writer.symbol(Int(bytes[place])) }
            for passed in place..<min(place + step, max(place, bytes.count - 2)) { last[slot(passed)] = passed }
            place += step
        }
    }
}

/// Bits, the least of a byte first.
private struct BitWriter {
    var bytes: [UInt8]
    private var pending: UInt32 = 0
    private var count = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    mutating func write(_ value: Int, bits: Int) {
        pending |= UInt32(value) << UInt32(count)
        count += bits
        while count >= 8 {
            bytes.append(UInt8(truncatingIfNeeded: pending))
            pending >>= 8
            count -= 8
        }
    }

    /// A Huffman code: its first bit is its highest.
    private mutating func code(_ value: Int, bits: Int) {
        var reversed = 0
        for bit in 0..<bits where value & 1 << bit != 0 { reversed |= 1 << (bits - 1 - bit) }
        write(reversed, bits: bits)
    }

    /// A byte, the end (256) or a length, in the fixed code (3.2.6).
    mutating func symbol(_ symbol: Int) {
        switch symbol {
        case 0..<144: code(0x30 + symbol, bits: 8)
        case 144..<256: code(0x190 + symbol - 144, bits: 9)
        case 256..<280: code(symbol - 256, bits: 7)
        default: code(0xC0 + symbol - 280, bits: 8)
        }
    }

    mutating func match(length: Int, distance: Int) {
        let lengthCode = Deflate.lengths.lastIndex { $0.least <= length } ?? 0
        symbol(257 + lengthCode)
        write(length - Deflate.lengths[lengthCode].least, bits: Deflate.lengths[lengthCode].extra)
        let distanceCode = Deflate.distances.lastIndex { $0.least <= distance } ?? 0
        code(distanceCode, bits: 5)
        write(distance - Deflate.distances[distanceCode].least, bits: Deflate.distances[distanceCode].extra)
    }

    mutating func finished() -> [UInt8] {
        if count > 0 { bytes.append(UInt8(truncatingIfNeeded: pending)) }
        return bytes
    }
}
