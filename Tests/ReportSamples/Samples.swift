// Reports of documents with made-up attention, for tests and for looking at.

import Pipelines
import TestSupport

/// Attention of the kinds that trained heads show, by formula: what it lacks in meaning it has in every feature of a page.
package enum Samples {
    /// A document of which everything is shown; its weights are formed, softmax by softmax.
    package static func short(
        name: String, text: String, layers: Int, heads: Int, keysPerQuery: Int = 4, longest: Int = .max
    ) -> ObservationReport {
        let tokens = Array(words(of: text).prefix(longest - 2))
        var report = ObservationReport(
            document: name, model: "made-up weights", tokens: framed(tokens), layers: Array(0..<layers),
            heads: Array(0..<heads), keysPerQuery: keysPerQuery)
        for layer in 0..<layers {
            for head in 0..<heads {
                let kind = (layer * 7 + head * 3) % 6
                report.add(
                    statistics(report.tokens, kind: kind, sharpness: 1 + Float(layer) / 4, keysPerQuery: keysPerQuery),
                    layer: layer, head: head)
            }
        }
        return report
    }

    /// A document of any length, with statistics by formula: of rows that nobody forms.
    package static func long(tokens count: Int, layers: Int, heads: Int, keysPerQuery: Int = 4, text: String)
        -> ObservationReport
    {
        let some = words(of: text)
        let tokens = framed((0..<count - 2).map { some[$0 % some.count] })
        var report = ObservationReport(
            document: "a text over and over", model: "made-up weights", tokens: tokens, layers: Array(0..<layers),
            heads: Array(0..<heads), keysPerQuery: keysPerQuery, queries: [0, 12_345 % count, count - 1])
        report.notes = ["Random weights: this shows how a page of this length works, not what a model attends to."]
        for layer in 0..<layers {
            for head in 0..<heads {
                var random = SplitMix(seed: UInt64(layer * heads + head))
                report.add(
                    formulas(count, keysPerQuery: keysPerQuery, wave: Float(1 + (layer + head) % 5), &random),
                    layer: layer, head: head)
            }
        }
        return report
    }

    /// Words and marks with what is between them.
    private static func words(of text: String) -> [ReportToken] {
        var (tokens, word, before): ([ReportToken], String, String) = ([], "", "")
        var place = 0
        func end() {
            if word.isEmpty { return }
            let length = word.unicodeScalars.count
            // Long words come in two pieces, as they do from a vocabulary of pieces.
            if length > 9 {
                let (head, tail) = (String(word.prefix(6)), String(word.dropFirst(6)))
                tokens.append(
                    ReportToken(
                        piece: head.lowercased(), before: before, text: head, place: place - length..<place - length + 6
                    ))
                tokens.append(
                    ReportToken(piece: "##" + tail.lowercased(), text: tail, place: place - length + 6..<place))
            } else {
                tokens.append(
                    ReportToken(piece: word.lowercased(), before: before, text: word, place: place - length..<place))
            }
            (word, before) = ("", "")
        }
        for scalar in text.unicodeScalars {
            if scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) {
                word.unicodeScalars.append(scalar)
                place += 1
                continue
            }
            end()
            place += 1
            if scalar.properties.isWhitespace {
                before.unicodeScalars.append(scalar)
            } else {
                tokens.append(
                    ReportToken(piece: String(scalar), before: before, text: String(scalar), place: place - 1..<place))
                before = ""
            }
        }
        end()
        return tokens
    }

    private static func framed(_ tokens: [ReportToken]) -> [ReportToken] {
        [ReportToken(piece: "[CLS]", text: "", isSpecial: true)] + tokens
            + [ReportToken(piece: "[SEP]", text: "", isSpecial: true)]
    }

    private static func statistics(_ tokens: [ReportToken], kind: Int, sharpness: Float, keysPerQuery: Int)
        -> HeadStatistics
    {
        let count = tokens.count
        var random = SplitMix(seed: UInt64(kind * 1000) + UInt64(sharpness * 100))
        let noise = (0..<count).map { _ in 3 * random.nextFloat() }
        let size = BlockMap.size(tokens: count)
        let side = (count + size - 1) / size
        var sums = [Float](repeating: 0, count: side * side)
        var made = HeadStatistics()
        made.receivedMass = [Float](repeating: 0, count: count)
        var weights = [Float](repeating: 0, count: count)
        for query in 0..<count {
            var largest = -Float.infinity
            for key in 0..<count {
                let distance = Float(abs(query - key))
                var score = noise[key]
                switch kind {
                case 0: score += key == query - 1 ? 7 * sharpness : 0
                case 1: score += key == 0 ? 8 * sharpness : 0
                case 2: score += tokens[key].piece == tokens[query].piece ? 5 * sharpness : 0
                case 3: score -= distance / 8
                case 4: score += tokens[key].piece == "." || tokens[key].isSpecial ? 5 * sharpness : 0
                default: score += 0.3 * noise[(key + query) % count]
                }
                weights[key] = score
                largest = max(largest, score)
            }
            var total: Float = 0
            for key in 0..<count {
                weights[key] = exponential(weights[key] - largest)
                total += weights[key]
            }
            var (entropy, distance): (Float, Float) = (0, 0)
            for key in 0..<count {
                let weight = weights[key] / total
                weights[key] = weight
                made.receivedMass[key] += weight
                distance += weight * Float(abs(query - key))
                if weight > 0 { entropy -= weight * Float(binaryLogarithm(Double(weight)) * 0.693_147_180_56) }
                sums[query / size * side + key / size] += weight
            }
            made.entropy.append(entropy)
            made.meanDistance.append(distance)
            made.maxLogit.append(largest)
            let top = (0..<count).lazy.map { (weights[$0], $0) }.reduce(into: [(Float, Int)]()) { best, next in
                if best.count < keysPerQuery || next.0 > best[best.count - 1].0 {
                    let place = best.firstIndex { $0.0 < next.0 } ?? best.count
                    best.insert(next, at: place)
                    if best.count > keysPerQuery { best.removeLast() }
                }
            }
            for rank in 0..<keysPerQuery {
                made.topKeys.append(rank < top.count ? Int32(top[rank].1) : -1)
                made.topWeights.append(rank < top.count ? top[rank].0 : 0)
            }
        }
        let means = sums.indices.map { place in
            let pairs =
                min(size, count - place / side * size) * min(size, count - place % side * size)
            return sums[place] / Float(pairs)
        }
        made.blockMap = BlockMap(tokens: count, size: size, means: means)
        return made
    }

    /// A map with a diagonal and a first column.
    package static func map(side: Int, wave: Int) -> BlockMap {
        let size = side > 64 ? 9 : 1
        let tokens = side * size - size / 2
        var random = SplitMix(seed: UInt64(wave))
        let means = (0..<side * side).map { place in
            let (row, column) = (place / side, place % side)
            let near = exponential(-Float(abs(row - column)) / Float(1 + 2 * wave))
            return (0.2 + 20 * near + (column == 0 ? 30 : 0) + 0.3 * random.nextFloat()) / Float(tokens)
        }
        return BlockMap(tokens: tokens, size: size, means: means)
    }

    private static func formulas(_ count: Int, keysPerQuery: Int, wave: Float, _ random: inout SplitMix)
        -> HeadStatistics
    {
        var made = HeadStatistics()
        for token in 0..<count {
            let place = Float(token) / Float(count)
            let draw = random.nextFloat()
            made.receivedMass.append(
                token == 0 ? 900 : 0.05 + 2 * draw * draw * draw * (1 + wave * place * (1 - place)))
            made.entropy.append(8 - wave * 0.6 + draw + place)
            made.meanDistance.append(Float(count) * (0.02 * wave + 0.1 * draw))
            made.maxLogit.append(4 + wave * draw)
            var weight: Float = 0.4 * draw
            for rank in 0..<keysPerQuery {
                let key = rank == 0 ? max(0, token - 1) : Int(random.nextFloat() * Float(count - 1))
                made.topKeys.append(Int32(key))
                made.topWeights.append(weight)
                weight /= 2
            }
        }
        let size = BlockMap.size(tokens: count)
        let side = (count + size - 1) / size
        let means = (0..<side * side).map { place in
            let (row, column) = (place / side, place % side)
            let near = exponential(-Float(abs(row - column)) / (2 * wave))
            return (0.2 + 20 * near + (column == 0 ? 30 : 0) + 0.3 * random.nextFloat()) / Float(count)
        }
        made.blockMap = BlockMap(tokens: count, size: size, means: means)
        return made
    }
}

extension SplitMix {
    /// From 0 to below 1.
    fileprivate mutating func nextFloat() -> Float { Float(next() >> 40) / 16_777_216 }
}

/// eˣ for x ≤ 0, well enough for made-up weights, and alike on every machine.
private func exponential(_ x: Float) -> Float {
    if x < -40 { return 0 }
    var sum: Float = 1
    var power: Float = 1
    let small = x / 64
    for term in 1...6 {
        power *= small / Float(term)
        sum += power
    }
    for _ in 0..<6 { sum *= sum }
    return sum
}
