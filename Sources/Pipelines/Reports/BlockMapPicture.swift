// Block maps as PNG files, with axes and a legend.

/// Pictures of block maps.
///
/// A colour is the logarithm of a block's mean weight, in multiples of the weight that each key has for a query that sees
/// all keys alike; blocks of weight zero have the darkest.
public enum BlockMapPicture {
    /// The PNG file of one head's map.
    /// - Parameters:
    ///   - map: the head's weights, block by block.
    ///   - title: what the picture is of, in small letters and digits, as `layer 3 head 5`.
    public static func png(of map: BlockMap, title: String) -> [UInt8] {
        let scale = WeightScale([map])
        let pixel = max(1, 512 / map.side)
        let plot = map.side * pixel
        let (left, top) = (100, 78)
        // A short document's plot is narrower than the words below it.
        var picture = IndexedPicture(width: left + max(plot, 512) + 20, height: top + plot + 78)
        picture.write(title, x: left, top: 12)
        picture.write("keys", x: left + plot / 2, top: 36, .middle)
        picture.write("queries", x: left - 10, top: 36, .right)
        picture.paint(map, scale, left: left, top: top, pixel: pixel)
        for token in ticks(map.tokens) {
            let place = token * plot / (map.side * map.size)
            picture.write("\(token)", x: left + place, top: top - 22, token == 0 ? .left : .middle)
            picture.fill(left + place..<left + place + 2, top - 6..<top, IndexedPicture.ink)
            picture.write("\(token)", x: left - 10, top: top + max(0, place - 7), .right)
            picture.fill(left - 6..<left, top + place..<top + place + 2, IndexedPicture.ink)
        }
        picture.legend(scale, left: left, top: top + plot + 20)
        return picture.png
    }

    /// The PNG file of all heads' maps in small, layers downwards and heads to the right, on one scale.
    /// - Parameters:
    ///   - maps: of each layer's heads; all of the same document.
    ///   - layers: the layers' numbers.
    ///   - heads: the heads' numbers.
    public static func png(of maps: [[BlockMap]], layers: [Int], heads: [Int]) -> [UInt8] {
        precondition(!maps.isEmpty && maps.count == layers.count && maps.allSatisfy { $0.count == heads.count })
        let scale = WeightScale(maps.flatMap { $0 })
        let side = maps[0][0].side
        let reduction = (side + 63) / 64
        let pixel = max(1, 48 / side)
        let small = (side + reduction - 1) / reduction * pixel
        let (left, top, step) = (100, 78, small + 6)
        var picture = IndexedPicture(
            width: left + max(heads.count * step, 512) + 20, height: top + layers.count * step + 78)
        picture.write("heads", x: left, top: 12)
        picture.write("layers", x: left - 10, top: 36, .right)
        let every = (3 * IndexedPicture.letterWidth + step - 1) / step
        for (column, head) in heads.enumerated() where column % every == 0 {
            picture.write("\(head)", x: left + column * step + small / 2, top: top - 20, .middle)
        }
        for (row, layer) in layers.enumerated() {
            picture.write("\(layer)", x: left - 10, top: top + row * step + small / 2 - 7, .right)
            for (column, map) in maps[row].enumerated() {
                picture.paint(
                    map.reduced(by: reduction), scale, left: left + column * step, top: top + row * step, pixel: pixel)
            }
        }
        picture.legend(scale, left: left, top: top + layers.count * step + 14)
        return picture.png
    }

    /// Round numbers of tokens, four at most beside zero.
    private static func ticks(_ tokens: Int) -> [Int] {
        var step = 1
        while tokens / step > 4 {
            // 1, 2, 5, 10, 20, …
            step = "\(step)".hasPrefix("2") ? step / 2 * 5 : step * 2
        }
        return Array(stride(from: 0, to: tokens - step / 4, by: step))
    }
}

/// From weights to shades.
private struct WeightScale {
    /// In powers of two of the weight that all keys have alike.
    let low, high: Double

    /// From the lowest to the highest weight that is not zero, over at most 20 powers of two.
    init(_ maps: [BlockMap]) {
        var (least, most) = (Double.infinity, -Double.infinity)
        for map in maps {
            for mean in map.means where mean > 0 && mean.isFinite {
                // No weight is larger than 1.
                let multiple = Double(min(mean, 1)) * Double(map.tokens)
                (least, most) = (min(least, multiple), max(most, multiple))
            }
        }
        let end = most > 0 ? binaryLogarithm(most) : 0
        let start = most > 0 ? binaryLogarithm(least) : 0
        // Of one value there is no scale: it is put in the middle.
        (low, high) = end - start < 0.001 ? (end - 1, end + 1) : (max(start, end - 20), end)
    }

    func shade(_ multiple: Double) -> UInt8 {
        guard multiple > 0 else { return 0 }
        let share = (binaryLogarithm(multiple) - low) / (high - low)
        return UInt8((min(max(share, 0), 1) * Double(IndexedPicture.shades - 1)).rounded())
    }
}

extension IndexedPicture {
    /// Draws a map, each block a square of `pixel` by `pixel`; a block without a finite mean stays paper.
    fileprivate mutating func paint(_ map: BlockMap, _ scale: WeightScale, left: Int, top: Int, pixel: Int) {
        for row in 0..<map.side {
            for column in 0..<map.side {
                let mean = map.means[row * map.side + column]
                if !mean.isFinite { continue }
                fill(
                    left + column * pixel..<left + (column + 1) * pixel, top + row * pixel..<top + (row + 1) * pixel,
                    scale.shade(Double(mean) * Double(map.tokens)))
            }
        }
    }

    /// A bar of all shades with numbers below.
    fileprivate mutating func legend(_ scale: WeightScale, left: Int, top: Int) {
        let length = 2 * Self.shades
        for shade in 0..<Self.shades { fill(left + 2 * shade..<left + 2 * shade + 2, top..<top + 10, UInt8(shade)) }
        for tick in 0...3 {
            let power = scale.low + (scale.high - scale.low) * Double(tick) / 3
            write(
                Self.written(power) + "×", x: left + length * tick / 3, top: top + 16,
                tick == 0 ? .left : tick == 3 ? .right : .middle)
        }
        write("mean weight, times uniform attention", x: left, top: top + 38)
    }

    /// 2 to a power, with two digits.
    private static func written(_ power: Double) -> String {
        // By halves and square roots, which round alike everywhere.
        var (value, rest) = (1.0, power)
        while rest >= 1 { (value, rest) = (value * 2, rest - 1) }
        while rest < 0 { (value, rest) = (value / 2, rest + 1) }
        var root = 2.0
        for _ in 0..<40 {
            root = root.squareRoot()
            rest *= 2
            if rest >= 1 { (value, rest) = (value * root, rest - 1) }
        }
        if value >= 9.95 { return "\(Int(value.rounded()))" }
        var digits = 1
        var scaled = value
        while scaled < 1, digits < 8 { (scaled, digits) = (scaled * 10, digits + 1) }
        var unit = 1
        for _ in 0..<digits { unit *= 10 }
        let whole = Int((value * Double(unit)).rounded())
        let fraction = String(whole % unit)
        return "\(whole / unit)." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
