// Gradients of attention: a case run on any transport, gathered, and held against the float64 oracle.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

extension RingCase {
    /// The gradients of a case, and what was sent for them.
    public struct Gradients: Sendable {
        /// (tokens of all sequences, query heads, headDimension)
        public var queries: [Float]
        /// (tokens of all sequences, key/value heads, headDimension)
        public var keys: [Float]
        /// (tokens of all sequences, key/value heads, valueDimension)
        public var values: [Float]
        /// Those of sinks and relative biases, where there are any.
        public var modifiers: DifferentiableAttention.ModifierGradients
        /// Bytes that this rank sent; the attention before it is not counted.
        public var bytesSent: Int
        /// Messages that this rank sent.
        public var messagesSent: Int

        /// The bits of all gradients.
        public var bits: [[UInt32]] {
            [queries, keys, values, modifiers.sinks ?? [], modifiers.relativeBias ?? []].map { $0.map(\.bitPattern) }
        }
    }

    /// Queries, keys, values, and the gradient of what attention makes of them.
    public typealias GradientInputs = (queries: [Float], keys: [Float], values: [Float], outputGradients: [Float])

    /// Inputs with dO, (tokens of all sequences, query heads, valueDimension).
    public func gradientInputs() -> GradientInputs {
        let (queries, keys, values) = inputs()
        var generator = SplitMix(seed: seed &+ 78)
        let count = sequences.reduce(0) { $0 + $1.queries } * heads.queryHeads * heads.valueDimension
        return (queries, keys, values, (0..<count).map { _ in generator.unit() * 2 })
    }

    /// The job of the gradients over some ranks.
    public func gradientProblem(ranks: Int) -> AttentionProblem { problem(ranks: ranks).differentiated(modifiers) }

    /// Attends, then differentiates, and gathers the gradients on every rank.
    public func differentiate(
        on transport: any Transport, threads: Int = 1, kernels: KernelSet = .best, inputs given: GradientInputs? = nil
    ) throws -> Gradients {
        let inputs = given ?? gradientInputs()
        let attention = try DifferentiableAttention(
            problem(ranks: transport.size), strategy, modifiers: modifiers, transport: transport,
            threads: ThreadPool(threads: threads), kernels: kernels)
        attention.dropout = dropout
        pack(attention.keyValues, keys: inputs.keys, values: inputs.values)
        let problem = attention.problem
        let (queryWidth, outputWidth) = (
            heads.queryHeads * heads.headDimension, heads.queryHeads * heads.valueDimension
        )
        let (keyWidth, valueWidth) = (
            heads.keyValueHeads * heads.headDimension, heads.keyValueHeads * heads.valueDimension
        )
        let (rows, keys) = (
            problem.queries.tokenCount(of: transport.rank), problem.keys.tokenCount(of: transport.rank)
        )
        func filled(_ count: Int) -> AlignedBuffer {
            // Whatever is not written shows.
            let buffer = AlignedBuffer(count: count)
            withExtendedLifetime(buffer) { $0.pointer.update(repeating: 9.75e9, count: count) }
            return buffer
        }
        func rowsOf(_ buffer: AlignedBuffer, _ width: Int, _ heads: Int) -> HeadRows {
            HeadRows(buffer, tokenStride: width, headStride: width / heads)
        }
        let queries = rowsOf(
            mine(inputs.queries, width: queryWidth, problem.queries, transport.rank), queryWidth, heads.queryHeads)
        let output = rowsOf(filled(rows * outputWidth), outputWidth, heads.queryHeads)
        let results = (filled(rows * queryWidth), filled(keys * keyWidth), filled(keys * valueWidth))
        try attention.attend(queries: queries, scale: scale, output: output)
        let before = transport.traffic
        let ofModifiers = try attention.differentiate(
            queries: queries, scale: scale, output: output,
            outputGradient: rowsOf(
                mine(inputs.outputGradients, width: outputWidth, problem.queries, transport.rank), outputWidth,
                heads.queryHeads),
            into: .init(
                queries: rowsOf(results.0, queryWidth, heads.queryHeads),
                keys: rowsOf(results.1, keyWidth, heads.keyValueHeads),
                values: rowsOf(results.2, valueWidth, heads.keyValueHeads)))
        let sent = Self.sent(transport.traffic, since: before)
        func all(_ buffer: AlignedBuffer, _ width: Int, _ sharding: Sharding) throws -> [Float] {
            Self.assemble(
                try transport.allGather(withExtendedLifetime(buffer) { Array($0.bytes) }), width: width, sharding)
        }
        return Gradients(
            queries: try all(results.0, queryWidth, problem.queries), keys: try all(results.1, keyWidth, problem.keys),
            values: try all(results.2, valueWidth, problem.keys), modifiers: ofModifiers, bytesSent: sent.bytes,
            messagesSent: sent.messages)
    }

    /// What the oracle says, of each sequence and query head.
    /// - Parameter exactScale: a scale that no float holds; nil: the case's own.
    public func gradientOracles(_ inputs: GradientInputs, exactScale: Double? = nil) -> [[Oracle.Gradients]] {
        var (firstQuery, firstKey) = (0, 0)
        return sequences.enumerated().map { number, shape in
            defer {
                firstQuery += shape.queries
                firstKey += shape.keys
            }
            let (rows, columns) = (firstQuery..<firstQuery + shape.queries, firstKey..<firstKey + shape.keys)
            return (0..<heads.queryHeads).map { head in
                let keyHead = head / heads.groupSize
                return Oracle.differentiate(
                    queries: Self.head(inputs.queries, rows, head, of: heads.queryHeads, width: heads.headDimension),
                    keys: Self.head(inputs.keys, columns, keyHead, of: heads.keyValueHeads, width: heads.headDimension),
                    values: Self.head(
                        inputs.values, columns, keyHead, of: heads.keyValueHeads, width: heads.valueDimension),
                    outputGradients: Self.head(
                        inputs.outputGradients, rows, head, of: heads.queryHeads, width: heads.valueDimension),
                    headDimension: heads.headDimension, valueDimension: heads.valueDimension, shape: shape, mask: mask,
                    scale: exactScale ?? Double(scale), modifiers: modifiers, head: head, element: element, wire: wire,
                    dropout: dropout, sequence: number)
            }
        }
    }

    /// Where gradients leave the oracle's bounds: a description of the first place, or nil.
    public func disagreement(_ gradients: Gradients, inputs: GradientInputs? = nil) -> String? {
        var (firstQuery, firstKey) = (0, 0)
        let (keyWidth, valueWidth) = (heads.headDimension, heads.valueDimension)
        let oracles = gradientOracles(inputs ?? gradientInputs())
        if let found = disagreement(of: gradients.modifiers, oracles) { return found }
        for (number, places) in oracles.enumerated() {
            /// Compares rows of one head with the oracle's.
            func differs(
                _ name: String, _ values: [Float], first: Int, head: Int, of heads: Int, width: Int,
                _ oracle: Oracle.Gradient
            ) -> String? {
                for element in oracle.exact.indices {
                    let (token, channel) = (element / width, element % width)
                    let value = Double(values[((first + token) * heads + head) * width + channel])
                    if !(abs(value - oracle.exact[element]) <= oracle.bound[element]) {
                        return
                            "\(name) of sequence \(number), head \(head), token \(token), channel \(channel): \(value), "
                            + "oracle \(oracle.exact[element]) ± \(oracle.bound[element])"
                    }
                }
                return nil
            }
            for (head, oracle) in places.enumerated() {
                if let found = differs(
                    "dQ", gradients.queries, first: firstQuery, head: head, of: heads.queryHeads, width: keyWidth,
                    oracle.queries)
                {
                    return found
                }
            }
            for head in 0..<heads.keyValueHeads {
                let group = places[head * heads.groupSize..<(head + 1) * heads.groupSize]
                if let found = differs(
                    "dK", gradients.keys, first: firstKey, head: head, of: heads.keyValueHeads, width: keyWidth,
                    .sum(group.map(\.keys)))
                    ?? differs(
                        "dV", gradients.values, first: firstKey, head: head, of: heads.keyValueHeads, width: valueWidth,
                        .sum(group.map(\.values)))
                {
                    return found
                }
            }
            firstQuery += sequences[number].queries
            firstKey += sequences[number].keys
        }
        return nil
    }

    /// Of sinks and relative biases, which all sequences share.
    private func disagreement(
        of found: DifferentiableAttention.ModifierGradients, _ oracles: [[Oracle.Gradients]]
    ) -> String? {
        for (name, values, part) in [
            ("sink", found.sinks, { $0.sink }), ("bias", found.relativeBias, { $0.relativeBias }),
        ] as [(String, [Float]?, (Oracle.Gradients) -> Oracle.Gradient)] {
            for head in 0..<heads.queryHeads {
                let oracle = Oracle.Gradient.sum(oracles.map { part($0[head]) })
                if oracle.exact.isEmpty != (values == nil) {
                    return "gradients of a \(name) that is not there, or none"
                }
                for (place, exact) in oracle.exact.enumerated() {
                    let value = Double(values?[head * oracle.exact.count + place] ?? .nan)
                    if !(abs(value - exact) <= oracle.bound[place]) {
                        return "\(name) \(place) of head \(head): \(value), oracle \(exact) ± \(oracle.bound[place])"
                    }
                }
            }
        }
        return nil
    }
}
