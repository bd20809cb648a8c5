// An encoder by its definition: whole sequences, plain loops, no tiles, no ranks, no packing.

import Attention
import CLibrary
import Files
import Matrices

/// The forward pass of any family in `Double` or `Float`, written for nothing but to be read: what `verify` holds the
/// encoder against.
///
/// It has its configuration, the names of parameters and the definitions of distances (buckets, slopes) in common with
/// ``Encoder``, and no arithmetic.
public struct ReferenceEncoder: Sendable {
    private let configuration: EncoderConfiguration
    private let names: ParameterNames
    private let parameters: any ParameterSource
    private let threads: ThreadPool

    /// An encoder that reads its parameters only while it computes states.
    /// - Parameters:
    ///   - configuration: the shape and the options of the layers.
    ///   - parameters: where their values come from, by the names that Hugging Face publishes.
    ///   - threads: what the rows of each document are spread over.
    public init(_ configuration: EncoderConfiguration, parameters: any ParameterSource, threads: ThreadPool) {
        self.configuration = configuration
        self.parameters = parameters
        self.threads = threads
        names = configuration.names
    }

    /// Arrays are read from it, and nothing is put into a storage.
    private var root: ParameterPath { ParameterPath(source: parameters, storage: .counting) }

    /// The hidden states of each document in float64: (tokens, hiddenSize). Parameters are read layer by layer.
    /// - Parameters:
    ///   - ids: the token ids of each document.
    ///   - typeIds: for each document, which of two texts each token is of, 0 or 1; the values count only where the
    ///     model distinguishes them.
    ///   - layerDone: told the number of layers done, and every document's states behind them.
    /// - Throws: what the source of the parameters throws.
    /// - Precondition: every token has its rows (``EncoderConfiguration/check(ids:typeIds:)``).
    public func exactStates(
        ids: [[Int32]], typeIds: [[Int32]], layerDone: (Int, _ states: [[Double]]) -> Void = { _, _ in }
    ) throws(FileError) -> [[Double]] {
        try states(ids, typeIds, layerDone)
    }

    /// The same in float32, rounding as plain loops do.
    public func plainStates(
        ids: [[Int32]], typeIds: [[Int32]], layerDone: (Int, _ states: [[Float]]) -> Void = { _, _ in }
    ) throws(FileError) -> [[Float]] {
        try states(ids, typeIds, layerDone)
    }

    // Generic within the module alone, where the compiler makes code for each of the two: many times faster.
    private func states<Scalar: ReferenceScalar>(
        _ ids: [[Int32]], _ typeIds: [[Int32]], _ layerDone: (Int, [[Scalar]]) -> Void
    ) throws(FileError) -> [[Scalar]] {
        var documents = try embeddings(ids, typeIds, Scalar.self)
        let bias = try distanceBias(Scalar.self)
        let table = try positionTable(Scalar.self)
        let rotary = try RotaryFrequencies(configuration, root)
        for index in 0..<configuration.layerCount {
            let path = root[names.layer(configuration.layerSources[index], configuration)]
            let pattern = configuration.attention[index]
            let layer = try ReferenceLayer<Scalar>(path, pattern.heads, configuration, names, isFirst: index == 0)
            var attention = ReferenceAttention<Scalar>(
                heads: pattern.heads,
                scale: 1 / Scalar(pattern.heads.headDimension * configuration.scoreTerms).squareRoot(),
                mask: pattern.mask, bias: bias)
            if let table, let shape = configuration.disentangled { try relate(table, shape, path, layer, &attention) }
            for document in documents.indices {
                let angles = pattern.rotaryBase.map { rotary.angles(base: $0) }
                documents[document] = layer.apply(documents[document], attention, angles, configuration, threads)
            }
            layerDone(index + 1, documents.map(\.values))
        }
        if configuration.hasFinalNorm {
            let norm = try self.norm(root[names.finalNorm], width: configuration.hiddenSize)
            documents = documents.map { norm.apply($0, threads) }
        }
        return documents.map(\.values)
    }

    private func norm(_ path: ParameterPath, width: Int) throws(FileError) -> ReferenceNorm {
        try ReferenceNorm(path, width: width, configuration)
    }

    private func embeddings<Scalar: ReferenceScalar>(
        _ ids: [[Int32]], _ typeIds: [[Int32]], _: Scalar.Type
    ) throws(FileError) -> [ReferenceRows<Scalar>] {
        let width = configuration.embeddingSize
        let words = try root[names.words]["weight"].read(shape: [configuration.vocabularySize, width])
        let types =
            configuration.tokenTypeCount == 0
            ? nil : try root[names.tokenTypes]["weight"].read(shape: [configuration.tokenTypeCount, width])
        let positions =
            configuration.positions == .none
            ? nil : try root[names.positions]["weight"].read(shape: [configuration.positionRows, width])
        var sums: [ReferenceRows<Scalar>] = []
        for (ids, typeIds) in zip(ids, typeIds) {
            var rows = ReferenceRows<Scalar>(count: ids.count, width: width)
            let masked = configuration.maskedTokens.map { rule in ids.count { $0 == Int32(rule.maskId) } } ?? 0
            var counted = 0
            for (token, id) in ids.enumerated() {
                var row = token
                if case .afterPadding(let padding) = configuration.positions {
                    if id != Int32(padding) { counted += 1 }
                    row = id == Int32(padding) ? padding : padding + counted
                }
                for column in 0..<width {
                    var sum = Scalar(words[Int(id) * width + column])
                    if let rule = configuration.maskedTokens {
                        sum =
                            id == Int32(rule.maskId)
                            ? 0 : sum * (1 - Scalar(0.15) * Scalar(0.8)) / (1 - Scalar(masked) / Scalar(ids.count))
                    }
                    if let types {
                        sum += Scalar(
                            types[(configuration.distinguishesTypes ? Int(typeIds[token]) : 0) * width + column])
                    }
                    if let positions { sum += Scalar(positions[row * width + column]) }
                    rows.values[token * width + column] = sum
                }
            }
            sums.append(rows)
        }
        let projection =
            configuration.hasEmbeddingProjection
            ? try ReferenceDense<Scalar>(
                root[names.embeddingProjection], inputs: width, outputs: configuration.hiddenSize,
                hasBias: !configuration.normsProjectedEmbeddings) : nil
        let isLast = configuration.normsProjectedEmbeddings
        let norm =
            configuration.hasEmbeddingNorm
            ? try self.norm(root[names.embeddingNorm], width: isLast ? configuration.hiddenSize : width) : nil
        return sums.map { sum in
            var rows = sum
            if let norm, !isLast { rows = norm.apply(rows, threads) }
            if let projection { rows = projection.apply(rows, threads) }
            if let norm, isLast { rows = norm.apply(rows, threads) }
            return rows
        }
    }

    private func distanceBias<Scalar: ReferenceScalar>(_: Scalar.Type) throws(FileError)
        -> @Sendable (Int, Int, Int) -> Scalar
    {
        switch configuration.distanceBias {
        case nil: return { _, _, _ in 0 }
        case .alibi:
            let slopes = ScoreModifiers.alibiSlopes(heads: configuration.headCount)
            return { head, query, key in -Scalar(slopes[head]) * Scalar(abs(query - key)) }
        case .buckets(let count, let maximumDistance):
            let heads = configuration.headCount
            let table = try root[names.distanceBias]["weight"].read(shape: [count, heads])
            return { head, query, key in
                Scalar(
                    table[
                        ScoreModifiers.bucket(of: key - query, buckets: count, maximumDistance: maximumDistance) * heads
                            + head])
            }
        }
    }

    /// The embeddings of relative positions: (2·span, hiddenSize).
    private func positionTable<Scalar: ReferenceScalar>(_: Scalar.Type) throws(FileError) -> ReferenceRows<Scalar>? {
        guard let shape = configuration.disentangled else { return nil }
        let width = configuration.hiddenSize
        var rows = ReferenceRows<Scalar>(count: 2 * shape.span, width: width)
        rows.values = try root[names.relativePositions]["weight"].read(shape: [2 * shape.span, width]).map {
            Scalar($0)
        }
        return shape.hasNorm
            ? try ReferenceNorm(root[names.relativePositionNorm], width: width, configuration, hasBias: true).apply(
                rows, threads) : rows
    }

    /// What relative positions are to one layer.
    private func relate<Scalar: ReferenceScalar>(
        _ table: ReferenceRows<Scalar>, _ shape: DisentangledPositions, _ path: ParameterPath,
        _ layer: ReferenceLayer<Scalar>,
        _ attention: inout ReferenceAttention<Scalar>
    ) throws(FileError) {
        func projection(_ shared: ReferenceDense<Scalar>, _ own: String) throws(FileError) -> ReferenceRows<Scalar> {
            let width = configuration.hiddenSize
            let dense =
                shape.sharesProjections ? shared : try ReferenceDense<Scalar>(path[own], inputs: width, outputs: width)
            return dense.apply(table, threads)
        }
        if shape.hasKeys { attention.positionKeys = try projection(layer.key, names.positionKey) }
        if shape.hasQueries { attention.positionQueries = try projection(layer.query, names.positionQuery) }
        attention.positionRow = { shape.row($0) }
    }
}

/// The weights of one layer, and what it does to a document.
struct ReferenceLayer<Scalar: ReferenceScalar>: Sendable {
    let query: ReferenceDense<Scalar>
    let key: ReferenceDense<Scalar>
    private let value: ReferenceDense<Scalar>
    private let attentionOutput: ReferenceDense<Scalar>
    private let attentionNorm: ReferenceNorm?
    private let queryNorm: ReferenceNorm?
    private let keyNorm: ReferenceNorm?
    /// One dense layer, or where it is gated the activated one and the one that multiplies it.
    private let inner: [ReferenceDense<Scalar>]
    private let output: ReferenceDense<Scalar>
    private let outputNorm: ReferenceNorm

    init(
        _ path: ParameterPath, _ heads: HeadShape, _ configuration: EncoderConfiguration, _ names: ParameterNames,
        isFirst: Bool
    ) throws(FileError) {
        let (hidden, width, biases) = (configuration.hiddenSize, configuration.intermediateSize, configuration.biases)
        func norm(_ name: String, _ width: Int) throws(FileError) -> ReferenceNorm {
            try ReferenceNorm(path[name], width: width, configuration)
        }
        /// Layers of so many outputs from one parameter, or from as many.
        func layers(_ list: [String], _ outputs: [Int], hasBias: Bool) throws(FileError) -> [ReferenceDense<Scalar>] {
            var result: [ReferenceDense<Scalar>] = []
            let parts = outputs.count / list.count
            for (place, name) in list.enumerated() {
                let counts = outputs[place * parts..<(place + 1) * parts]
                let all = counts.reduce(0, +)
                let rows = try path[name]["weight"].read(shape: [all, hidden])
                let bias = hasBias ? try path[name]["bias"].read(shape: [all]) : nil
                var first = 0
                for count in counts {
                    result.append(
                        ReferenceDense(
                            rows: rows[first * hidden..<(first + count) * hidden],
                            bias: bias.map { Array($0[first..<first + count]) }, inputs: hidden,
                            outputs: count))
                    first += count
                }
            }
            return result
        }
        let (queries, keys) = (heads.queryHeads * heads.headDimension, heads.keyValueHeads * heads.headDimension)
        let projections = try layers(
            names.projections, [queries, keys, heads.keyValueHeads * heads.valueDimension], hasBias: biases.attention)
        (query, key, value) = (projections[0], projections[1], projections[2])
        let perHead = configuration.queryKeyNorms == .eachHead
        queryNorm =
            configuration.queryKeyNorms == nil
            ? nil : try norm(names.queryNorm, perHead ? heads.headDimension : queries)
        keyNorm =
            configuration.queryKeyNorms == nil ? nil : try norm(names.keyNorm, perHead ? heads.headDimension : keys)
        attentionOutput = try ReferenceDense(
            path[names.attentionOutput], inputs: heads.queryHeads * heads.valueDimension, outputs: hidden,
            hasBias: biases.attention)
        attentionNorm = isFirst && configuration.skipsFirstNorm ? nil : try norm(names.attentionNorm, hidden)
        inner = try layers(
            names.inner, Array(repeating: width, count: configuration.isGated ? 2 : 1), hasBias: biases.inner)
        output = try ReferenceDense(path[names.output], inputs: width, outputs: hidden, hasBias: biases.output)
        outputNorm = try norm(names.outputNorm, hidden)
    }

    /// - Parameter angles: by how much a position turns each pair of channels.
    func apply(
        _ x: ReferenceRows<Scalar>, _ attention: ReferenceAttention<Scalar>, _ angles: [Float]?,
        _ configuration: EncoderConfiguration,
        _ threads: ThreadPool
    ) -> ReferenceRows<Scalar> {
        let isBefore = configuration.norms == .beforeSublayer
        let input = isBefore ? attentionNorm?.apply(x, threads) ?? x : x
        var (q, k) = (query.apply(input, threads), key.apply(input, threads))
        if let queryNorm { q = queryNorm.apply(q, threads) }
        if let keyNorm { k = keyNorm.apply(k, threads) }
        if let angles {
            q = Self.turned(q, angles, heads: attention.heads.queryHeads)
            k = Self.turned(k, angles, heads: attention.heads.keyValueHeads)
        }
        var y = x + attentionOutput.apply(attention.apply(q, k, value.apply(input, threads), threads), threads)
        if !isBefore, let attentionNorm { y = attentionNorm.apply(y, threads) }
        var wide = inner[0].apply(isBefore ? outputNorm.apply(y, threads) : y, threads)
        for index in wide.values.indices { wide.values[index] = configuration.activation.value(wide.values[index]) }
        if inner.count == 2 {
            let gate = inner[1].apply(isBefore ? outputNorm.apply(y, threads) : y, threads)
            for index in wide.values.indices { wide.values[index] *= gate.values[index] }
        }
        let sum = y + output.apply(wide, threads)
        return isBefore ? sum : outputNorm.apply(sum, threads)
    }

    /// Channel c and the one half the turned channels further are a point in the plane.
    private static func turned(_ x: ReferenceRows<Scalar>, _ angles: [Float], heads: Int) -> ReferenceRows<Scalar> {
        var y = x
        for position in 0..<x.count {
            for (pair, angle) in angles.enumerated() {
                let (cosine, sine) = (
                    Scalar(cos(Double(angle) * Double(position))), Scalar(sin(Double(angle) * Double(position)))
                )
                for head in 0..<heads {
                    let first = position * x.width + head * (x.width / heads) + pair
                    let second = first + angles.count
                    y.values[first] = x.values[first] * cosine - x.values[second] * sine
                    y.values[second] = x.values[second] * cosine + x.values[first] * sine
                }
            }
        }
        return y
    }
}

extension ReferenceDense {
    init(_ path: ParameterPath, inputs: Int, outputs: Int, hasBias: Bool = true) throws(FileError) {
        self.init(
            rows: try path["weight"].read(shape: [outputs, inputs])[...],
            bias: hasBias ? try path["bias"].read(shape: [outputs]) : nil,
            inputs: inputs, outputs: outputs)
    }
}
