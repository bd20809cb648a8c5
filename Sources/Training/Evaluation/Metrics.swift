// How well a model does on examples that it did not learn from.

/// Metrics of an evaluation, as the field computes them.
public enum Metrics {
    /// The share of examples whose label was chosen.
    public static func accuracy(_ chosen: [Int], _ truth: [Int]) -> Double {
        chosen.isEmpty ? 0 : Double(zip(chosen, truth).count { $0 == $1 }) / Double(chosen.count)
    }

    /// The mean over the labels that occur of the harmonic mean of precision and recall (`f1_macro`).
    public static func macroF1(_ chosen: [Int], _ truth: [Int]) -> Double {
        let labels = Set(chosen + truth).sorted()
        if labels.isEmpty { return 0 }
        var sum = 0.0
        for label in labels {
            let right = zip(chosen, truth).count { $0 == label && $1 == label }
            let all = chosen.count { $0 == label } + truth.count { $0 == label }
            sum += 2 * Double(right) / Double(all)
        }
        return sum / Double(labels.count)
    }

    /// The same over all labels of all examples together (`f1_micro`).
    public static func microF1(_ chosen: [[Bool]], _ truth: [[Bool]]) -> Double {
        var (right, all) = (0, 0)
        for (chosen, truth) in zip(chosen, truth) {
            for (mine, yours) in zip(chosen, truth) {
                right += mine && yours ? 1 : 0
                all += (mine ? 1 : 0) + (yours ? 1 : 0)
            }
        }
        return all == 0 ? 0 : 2 * Double(right) / Double(all)
    }

    /// Spearman's rank correlation; equal values share the mean of their ranks. 0 where one side does not vary.
    public static func spearman(_ x: [Double], _ y: [Double]) -> Double { pearson(ranks(x), ranks(y)) }

    private static func ranks(_ values: [Double]) -> [Double] {
        let order = values.indices.sorted { (values[$0], $0) < (values[$1], $1) }
        var ranks = [Double](repeating: 0, count: values.count)
        var first = 0
        while first < order.count {
            var end = first + 1
            while end < order.count, values[order[end]] == values[order[first]] { end += 1 }
            for place in first..<end { ranks[order[place]] = Double(first + end - 1) / 2 }
            first = end
        }
        return ranks
    }

    private static func pearson(_ x: [Double], _ y: [Double]) -> Double {
        let count = Double(max(1, x.count))
        let (meanX, meanY) = (x.reduce(0, +) / count, y.reduce(0, +) / count)
        var (xy, xx, yy) = (0.0, 0.0, 0.0)
        for (a, b) in zip(x, y) {
            xy += (a - meanX) * (b - meanY)
            xx += (a - meanX) * (a - meanX)
            yy += (b - meanY) * (b - meanY)
        }
        return xx > 0 && yy > 0 ? xy / (xx * yy).squareRoot() : 0
    }

    /// The F1 of entities: those of the same tokens and kind are right (CoNLL's measure).
    /// - Parameters:
    ///   - chosen, truth: of each document, the labels of its tokens.
    public static func entityF1(_ chosen: [[String]], _ truth: [[String]]) -> Double {
        var (right, all) = (0, 0)
        for (chosen, truth) in zip(chosen, truth) {
            let (mine, yours) = (spans(chosen), spans(truth))
            right += mine.intersection(yours).count
            all += mine.count + yours.count
        }
        return all == 0 ? 0 : 2 * Double(right) / Double(all)
    }

    private struct EntitySpan: Hashable {
        let kind: Substring
        let tokens: Range<Int>
    }

    /// Runs of labels `B-x`, `I-x`, `I-x`; an `I-` behind another kind begins an entity too.
    private static func spans(_ labels: [String]) -> Set<EntitySpan> {
        var spans: Set<EntitySpan> = []
        var begun: (kind: Substring, first: Int)?
        for (index, label) in (labels + ["O"]).enumerated() {
            let parts = label.split(separator: "-", maxSplits: 1)
            let kind = parts.count == 2 ? parts[1] : label == "O" ? "" : Substring(label)
            let continues = parts.count == 2 && parts[0] == "I" && begun?.kind == kind
            if continues { continue }
            if let begun { spans.insert(EntitySpan(kind: begun.kind, tokens: begun.first..<index)) }
            begun = kind.isEmpty ? nil : (kind, index)
        }
        return spans
    }
}
