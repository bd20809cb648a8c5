// Attention with statistics: a case run on any transport, gathered, and held against the float64 oracle.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

extension RingCase {
    /// What a run with statistics gave, (tokens of all sequences, heads) unless it says otherwise.
    public struct Observed: Sendable {
        /// Attention's own results, and what was sent.
        public var outcome: Outcome
        /// In nats.
        public var entropy: [Float]
        /// After modifiers.
        public var largestScore: [Float]
        /// −1 where there is none.
        public var largestKey: [Int32]
        /// In tokens.
        public var meanDistance: [Float]
        /// The weight of the sink.
        public var sinkShare: [Float]
        /// (tokens of all sequences, heads, topKeys)
        public var topKeys: [Int32]
        /// (tokens of all sequences, heads, topKeys)
        public var topWeights: [Float]

        /// The bits of all statistics.
        public var bits: [[UInt32]] {
            [entropy, largestScore, meanDistance, sinkShare, topWeights].map { $0.map(\.bitPattern) }
                + [largestKey, topKeys].map { $0.map { UInt32(bitPattern: $0) } }
        }
    }

    /// Attends with statistics, and gathers all on every rank.
    public func observe(
        on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best, topKeys: Int,
        inputs given: (queries: [Float], keys: [Float], values: [Float])? = nil
    ) throws -> Observed {
        let (allQueries, keys, values) = given ?? inputs()
        let setup = try AttentionSetup(
            [problem(ranks: transport.size)], strategy, transport: transport, threads: ThreadPool(threads: threads),
            kernels: kernels
        ) {
            .observe(
                heads: heads, element: element, mask: $0.mask, modifiers: modifiers, topKeys: topKeys, kernels: kernels)
        }
        let problem = setup.executors[0].plan.problem
        pack(setup.keyValues, keys: keys, values: values)
        let (count, width, outputWidth) = (
            heads.queryHeads, heads.queryHeads * heads.headDimension, heads.queryHeads * heads.valueDimension
        )
        let queries = mine(allQueries, width: width, problem.queries, transport.rank)
        let rows = problem.queries.tokenCount(of: transport.rank)
        let widths = [outputWidth] + Array(repeating: count, count: 6) + Array(repeating: count * topKeys, count: 2)
        let buffers = widths.map { AlignedBuffer(count: rows * $0) }
        func perRow(_ index: Int) -> HeadRows {
            HeadRows(buffers[index], tokenStride: widths[index], headStride: widths[index] / count)
        }
        var statistics = RowStatistics()
        statistics.entropy = perRow(2)
        statistics.largestScore = perRow(3)
        statistics.largestKey = perRow(4)
        statistics.meanDistance = perRow(5)
        statistics.sinkShare = perRow(6)
        statistics.topKeys = perRow(7)
        statistics.topWeights = perRow(8)
        let before = transport.traffic
        try setup.executors[0].run(
            .observe(
                queries: HeadRows(queries, tokenStride: width, headStride: heads.headDimension), scale: scale,
                output: perRow(0), logSumExp: perRow(1), statistics: statistics),
            on: setup.keyValues)
        let sent = Self.sent(transport.traffic, since: before)
        let all = try zip(buffers, widths).map { buffer, width in
            Self.assemble(
                try transport.allGather(withExtendedLifetime(buffer) { Array($0.bytes) }), width: width,
                problem.queries)
        }
        func keyNumbers(_ floats: [Float]) -> [Int32] { floats.map { Int32(bitPattern: $0.bitPattern) } }
        return Observed(
            outcome: Outcome(
                output: all[0], logSumExp: all[1], bytesSent: sent.bytes, messagesSent: sent.messages),
            entropy: all[2], largestScore: all[3], largestKey: keyNumbers(all[4]), meanDistance: all[5],
            sinkShare: all[6], topKeys: keyNumbers(all[7]), topWeights: all[8])
    }

    /// Where statistics leave the oracle's bounds: a description of the first place, or nil.
    public func disagreement(_ observed: Observed) -> String? {
        let (queries, keys, _) = inputs()
        var (firstQuery, firstKey) = (0, 0)
        for (number, shape) in sequences.enumerated() {
            let (rows, columns) = (firstQuery..<firstQuery + shape.queries, firstKey..<firstKey + shape.keys)
            for head in 0..<heads.queryHeads {
                let oracle = Oracle.observe(
                    queries: Self.head(queries, rows, head, of: heads.queryHeads, width: heads.headDimension),
                    keys: Self.head(
                        keys, columns, head / heads.groupSize, of: heads.keyValueHeads, width: heads.headDimension),
                    headDimension: heads.headDimension, shape: shape, mask: mask, scale: Double(scale),
                    modifiers: modifiers, head: head, element: element, wire: wire)
                for (row, exact) in oracle.rows.enumerated() {
                    let place = (firstQuery + row) * heads.queryHeads + head
                    if let found = disagreement(observed, at: place, exact) {
                        return "sequence \(number), head \(head), row \(row): \(found)"
                    }
                }
            }
            firstQuery += shape.queries
            firstKey += shape.keys
        }
        return nil
    }

    private func disagreement(_ observed: Observed, at place: Int, _ exact: Oracle.Observed.Row) -> String? {
        for (name, value, oracle) in [
            ("entropy", observed.entropy[place], exact.entropy),
            ("mean distance", observed.meanDistance[place], exact.meanDistance),
            ("sink share", observed.sinkShare[place], exact.sinkShare),
        ] where !oracle.holds(value) {
            return "\(name) \(value), oracle \(oracle.exact) ± \(oracle.bound)"
        }
        let count = observed.topKeys.count / observed.entropy.count
        let range = place * count..<(place + 1) * count
        let top = Array(observed.topKeys[range])
        if let found = exact.disagreement(keys: top, weights: Array(observed.topWeights[range])) { return found }
        if top[0] != observed.largestKey[place] { return "largest key \(observed.largestKey[place]), first of \(top)" }
        if top[0] < 0 {
            return observed.largestScore[place] == -.infinity ? nil : "largest score \(observed.largestScore[place])"
        }
        guard let key = exact.keys.firstIndex(of: Int(top[0])), exact.scores[key].holds(observed.largestScore[place])
        else { return "largest score \(observed.largestScore[place]) of key \(top[0])" }
        return nil
    }
}
