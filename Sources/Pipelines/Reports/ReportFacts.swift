// What a page is made of: its facts as JSON, and its numbers by name.

extension ObservationReport {
    /// The numbers of the page but for rollouts, by the names that its script uses; those that were not asked for are left
    /// out.
    var numbers: [(name: String, numbers: QuantizedNumbers)] {
        let all = kept.compactMap { $0 }
        var numbers: [(name: String, numbers: QuantizedNumbers)] = []
        func add(_ name: String, _ values: [Float], _ make: ([Float]) -> QuantizedNumbers) {
            if !values.isEmpty { numbers.append((name, make(values))) }
        }
        func joined(_ part: (KeptHead) -> [Float]) -> [Float] {
            // A head without them would shift the others.
            all.allSatisfy { !part($0).isEmpty } ? all.flatMap(part) : []
        }
        add("mass", joined(\.receivedMass), QuantizedNumbers.init(logarithmic:))
        add("layerMass", meanMass, QuantizedNumbers.init(logarithmic:))
        add("entropy", joined(\.queryEntropy), QuantizedNumbers.init(linear:))
        add("distance", joined(\.queryDistance), QuantizedNumbers.init(logarithmic:))
        add("logit", joined(\.queryLogit), QuantizedNumbers.init(linear:))
        if detail.keysKept > 0, all.allSatisfy({ !$0.topKeys.isEmpty }) {
            numbers.append(("topKeys", QuantizedNumbers(whole: all.flatMap(\.topKeys), below: tokens.count)))
            add("topWeights", all.flatMap(\.topWeights), QuantizedNumbers.init(logarithmic:))
        }
        add("massProfile", joined(\.massProfile), QuantizedNumbers.init(logarithmic:))
        add("entropyProfile", joined(\.entropyProfile), QuantizedNumbers.init(linear:))
        add("distanceProfile", joined(\.distanceProfile), QuantizedNumbers.init(logarithmic:))
        // As multiples of what each key would get if all were seen alike.
        add(
            "maps", joined { head in head.map.map { map in map.means.map { $0 * Float(map.tokens) } } ?? [] },
            QuantizedNumbers.init(logarithmic:))
        for (index, probe) in probes.enumerated() {
            add("probe\(index)", probe.values, QuantizedNumbers.init(linear:))
        }
        let known = pieceTable
        numbers.append(("pieces", QuantizedNumbers(whole: known.indices.map(Int32.init), below: known.pieces.count)))
        return numbers
    }

    /// The mass that tokens receive in the mean of a layer's heads, [layers, tokens], or of all, [1, tokens]; empty where each
    /// head's own is kept.
    private var meanMass: [Float] {
        if detail.isComplete || layerMass.allSatisfy({ $0 == 0 }) { return [] }
        if detail.keepsLayers { return layerMass.map { Float($0 / Double(heads.count)) } }
        return tokens.indices.map { token in
            var sum = 0.0
            for layer in layers.indices { sum += layerMass[layer * tokens.count + token] }
            return Float(sum / Double(detail.headCount))
        }
    }

    /// The strings of the vocabulary that occur, in order of appearance, and which of them each token is.
    private var pieceTable: (pieces: [String], indices: [Int]) {
        var (known, pieces): ([[UInt8]: Int], [String]) = ([:], [])
        let indices = tokens.map { token in
            // By bytes: strings that are canonically equal are different tokens.
            let bytes = Array(token.piece.utf8)
            if let index = known[bytes] { return index }
            known[bytes] = pieces.count
            pieces.append(token.piece)
            return pieces.count - 1
        }
        return (pieces, indices)
    }

    /// Everything of the page that is not a list of many numbers.
    /// - Parameters:
    ///   - numbers: the lists that there are.
    ///   - traced: the queries whose rollouts are among them.
    func facts(_ numbers: [(name: String, numbers: QuantizedNumbers)], traced: [Int]) -> String {
        let all = kept.compactMap { $0 }
        let maps = all.allSatisfy { $0.map != nil } ? all.first?.map : nil
        var places: [String] = []
        var next = 0
        for (index, token) in tokens.enumerated() {
            next += token.before.unicodeScalars.count
            guard let place = token.place else { continue }
            // Told where it does not follow from the texts before.
            if place.lowerBound != next { places.append("[\(index),\(place.lowerBound)]") }
            next = place.lowerBound + token.text.unicodeScalars.count
        }
        let members: [(String, String)] = [
            ("document", ReportEscaping.json(document)), ("model", ReportEscaping.json(model)),
            ("layers", "\(layers)"), ("heads", "\(heads)"), ("isComplete", "\(detail.isComplete)"),
            ("completeTokens", "\(detail.completeTokens)"), ("keysKept", "\(detail.keysKept)"),
            ("keysPerQuery", "\(detail.keysPerQuery)"), ("keepsLayers", "\(detail.keepsLayers)"),
            ("queries", detail.isComplete ? "null" : "\(detail.queries)"), ("profileSize", "\(detail.profileSize)"),
            ("mapSide", "\(maps?.side ?? 0)"), ("mapSize", "\(maps?.size ?? 0)"),
            ("notes", list(notes.map(ReportEscaping.json))),
            ("scores", list(scores.map { "[\(ReportEscaping.json($0.label)),\(number($0.score))]" })),
            ("rollouts", "\(traced)"), ("rolloutCount", "\(rollouts.count)"),
            ("probes", list(probes.map { "[\(ReportEscaping.json($0.edit)),\(ReportEscaping.json($0.measure))]" })),
            ("headEntropy", list(all.map { number($0.entropy) })),
            ("headDistance", list(all.map { number($0.meanDistance) })),
            ("headLogit", list(all.map { number($0.maxLogit) })),
            ("headFirst", list(all.map { number($0.firstShare) })),
            ("headSpecial", list(all.map { number($0.specialShare) })),
            ("headSink", list(all.map { number($0.sinkShare) })),
            ("ramp", "\"\(ColourRamp.hexadecimal)\""), ("special", "\(tokens.indices.filter { tokens[$0].isSpecial })"),
            ("places", list(places)),
            ("pieces", list(pieceTable.pieces.map { ReportEscaping.json(cut($0)) })),
            ("texts", list(tokens.map { ReportEscaping.json(cut($0.text)) })),
            (
                "befores",
                list(tokens.map { $0.before == " " ? "1" : $0.before.isEmpty ? "0" : ReportEscaping.json($0.before) })
            ),
            ("numbers", "{" + numbers.map { "\"\($0.name)\":\($0.numbers.description)" }.joined(separator: ",") + "}"),
        ]
        return "{" + members.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",\n") + "}"
    }

    private func list(_ members: [String]) -> String { "[" + members.joined(separator: ",") + "]" }

    /// A number that JSON can hold; null: there is none.
    private func number(_ value: Float) -> String { value.isFinite ? value.description : "null" }

    /// A text that a page can show: the rest of a very long one is counted.
    private func cut(_ text: String) -> String {
        let scalars = text.unicodeScalars
        guard scalars.count > ReportToken.longestText else { return text }
        return String(String.UnicodeScalarView(scalars.prefix(ReportToken.longestText)))
            + "… (\(scalars.count - ReportToken.longestText) more characters)"
    }
}
