// Gradients of a model on virtual ranks, merged by the definition of the fixed tree.

import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Testing
import Tiles

import Transformers

/// How a batch is spread.
struct Spread: Sendable {
    var ranks = 1
    var threads = 1
    var layout = Layout.contiguous
    var strategy = Strategy.passKeyValue
    var dropout: Dropout?
    var frozen: Set<String> = []
    /// Documents of each micro-batch; nil: all in one.
    var microBatches: [Range<Int>]?
}

/// SplitMix64's numbers from a seed, in [−1, 1) with 24 bits.
func splitmixFloats(seed: UInt64, count: Int) -> [Float] {
    var generator = SplitMix64(state: seed)
    return (0..<count).map { _ in Float(Double(generator.next() >> 40) * 0x1p-23 - 1) }
}

/// A part of a gradient, out of any rank's memory.
struct PartCopy: Sendable {
    var node: TreeNode
    var rows: [Int32]?
    var values: [Float]

    init(_ part: GradientPart) {
        (node, rows) = (part.node, part.rows)
        values = withExtendedLifetime(part.values) {
            Array(UnsafeBufferPointer(start: part.values.pointer, count: part.count))
        }
    }

    /// All floats of a slot, those of rows that do not occur nil.
    func floats(of slot: GradientSlot) -> [Float?] {
        guard let rows, let width = slot.rowWidth else { return values }
        var all = [Float?](repeating: nil, count: slot.floats.count)
        for (place, row) in rows.enumerated() {
            for column in 0..<width { all[Int(row) * width + column] = values[place * width + column] }
        }
        return all
    }
}

/// The sum over a step, by the definition: left before right, what is absent skipped.
func merged(_ parts: [PartCopy], of slot: GradientSlot) -> [Float] {
    func sum(_ node: TreeNode) -> [Float?]? {
        if let part = parts.first(where: { $0.node == node }) { return part.floats(of: slot) }
        guard node.level > 0 else { return nil }
        let left = sum(TreeNode(level: node.level - 1, index: 2 * node.index))
        let right = sum(TreeNode(level: node.level - 1, index: 2 * node.index + 1))
        guard let left, let right else { return left ?? right }
        return zip(left, right).map { a, b in
            guard let a, let b else { return a ?? b }
            return a + b
        }
    }
    return (sum(TreeNode(level: 12, index: 0)) ?? []).map { $0 ?? 0 }
}

/// The gradients of all parameters: the sums of their slots, in the order of the slots.
func parameterGradients(_ slots: [GradientSlot], _ parts: [[PartCopy]]) -> [String: [Float]] {
    var gradients: [String: [Float]] = [:]
    var isSet: [String: [Bool]] = [:]
    for (slot, parts) in zip(slots, parts) {
        let name = slot.parameter.name
        let count = slot.parameter.shape.reduce(1, *)
        var all = gradients[name] ?? [Float](repeating: 0, count: count)
        var set = isSet[name] ?? [Bool](repeating: false, count: count)
        if !parts.isEmpty {
            for (place, value) in merged(parts, of: slot).enumerated() {
                let at = slot.floats.lowerBound + place
                all[at] = set[at] ? all[at] + value : value
                set[at] = true
            }
        }
        (gradients[name], isSet[name]) = (all, set)
    }
    return gradients
}

/// What happens between forward and backward of a micro-batch on one rank: heads, and gradients of states.
typealias LossOfRun =
    @Sendable (
        _ run: EncoderRun, _ first: Int, _ step: StepTiles, _ transport: any Transport, _ heads: [Gradients]
    ) throws -> Void

/// The parts of the encoder's gradients, then those of some heads, of all ranks together.
/// - Parameters:
///   - loss: given the first of the micro-batch's documents, adds to the run's gradient.
///   - heads: slots of heads.
func gradientParts(
    _ encoder: Encoder, _ ids: [[Int32]], _ spread: Spread, heads: [[GradientSlot]] = [],
    loss: @escaping LossOfRun
) throws -> (slots: [GradientSlot], parts: [[PartCopy]]) {
    let batches = spread.microBatches ?? [0..<ids.count]
    let counts = ids.map { TileGrid.count(length: $0.count) }
    let all = try VirtualRanks.run(count: spread.ranks, seed: UInt64(spread.ranks)) { transport in
        var parts: [[PartCopy]] = Array(repeating: [], count: encoder.gradientSlots.count + heads.joined().count)
        let threads = ThreadPool(threads: spread.threads)
        for batch in batches {
            let documents = Array(ids[batch])
            let sharding = Sharding(
                lengths: documents.map(\.count), layout: spread.layout, rankCount: spread.ranks)
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, strategy: spread.strategy, transport: transport,
                threads: threads, training: TrainingPass(dropout: spread.dropout?.of(batch)))
            try run.run(ids: documents)
            let step = StepTiles(first: counts[..<batch.lowerBound].reduce(0, +), count: counts.reduce(0, +))
            let ofHeads = heads.map { Gradients($0, frozen: spread.frozen) }
            try loss(run, batch.lowerBound, step, transport, ofHeads)
            let gradients = Gradients(encoder.gradientSlots, frozen: spread.frozen)
            try run.backward(into: gradients, step: step)
            var place = 0
            for gradients in [gradients] + ofHeads {
                for slot in gradients.slots.indices {
                    parts[place] += gradients.takeParts(of: slot).map { PartCopy($0) }
                    place += 1
                }
            }
        }
        return parts
    }
    let slots = encoder.gradientSlots + heads.joined()
    return (slots, slots.indices.map { slot in all.flatMap { $0[slot] } })
}

/// Σ of last hidden states times numbers of SplitMix64 from the document's place.
let weightedStates: LossOfRun = { run, first, _, _, _ in
    let width = run.encoder.configuration.hiddenSize
    for tile in run.tiles {
        let weights = splitmixFloats(
            seed: UInt64(first + tile.sequence), count: run.sharding.numbering.lengths[tile.sequence] * width)
        for place in 0..<tile.tokens.count * width {
            run.hiddenGradient[tile.firstRow * width + place] += weights[tile.tokens.lowerBound * width + place]
        }
    }
}

/// Σ of states times numbers, the gradients of all parameters.
func gradients(_ encoder: Encoder, _ ids: [[Int32]], _ spread: Spread = Spread()) throws -> [String: [Float]] {
    let (slots, parts) = try gradientParts(encoder, ids, spread, loss: weightedStates)
    return parameterGradients(slots, parts)
}

/// Parameters of which one is moved.
private struct ShiftedParameters: ParameterSource {
    let checkpoint: any ParameterSource
    let moved: String
    let movement: [Float]

    func has(_ name: String) -> Bool { checkpoint.has(name) }
    func check(_ name: String, shape: [Int]) throws(FileError) { try checkpoint.check(name, shape: shape) }

    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        try checkpoint.read(name, shape: shape, range: range, into: floats)
        if name == moved { for (place, index) in range.enumerated() { floats[place] += movement[index] } }
    }
}

/// Expects that each parameter, moved along its gradient, changes the loss by the gradient's norm, but for a hundredth that
/// the curve and float32 take: central differences. Gradients that are nearly 0 are roundings, and left out.
/// - Parameters:
///   - least: how many parameters are to have a gradient at least.
///   - loss: that of a model with these parameters.
func expectChanges(
    alongGradients gradients: [String: [Float]], of checkpoint: any ParameterSource, atLeast least: Int, _ name: String,
    loss: (any ParameterSource) throws -> Double
) throws {
    var checked = 0
    for (parameter, gradient) in gradients {
        let norm = gradient.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
        guard norm > 1e-2 else { continue }
        let step = Float(2e-3 / norm)
        func moved(_ sign: Float) throws -> Double {
            try loss(
                ShiftedParameters(
                    checkpoint: checkpoint, moved: parameter, movement: gradient.map { sign * step * $0 }))
        }
        let change = try (moved(1) - moved(-1)) / 4e-3
        #expect(abs(change - norm) <= 1e-2 * norm + 1e-2, "\(name): \(parameter) by \(change), gradient \(norm)")
        checked += 1
    }
    #expect(checked >= least, "\(name)")
}
