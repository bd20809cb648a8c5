// The way back through an encoder: from the gradient of its last hidden states to those of its parameters.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

extension EncoderRun {
    /// (rows of this rank, hiddenSize): the gradient of the loss with respect to `hidden`, zero behind `run`. Heads add
    /// theirs to it, and `backward` reads and overwrites it.
    /// - Precondition: the run is a training's.
    public var hiddenGradient: AlignedBuffer { trainingTape.gradient }

    private var trainingTape: RunTape {
        guard let tape else { preconditionFailure("a run that is trained") }
        return tape
    }

    /// Goes back through all layers and the embeddings, after `run`. Collective.
    ///
    /// What is kept of the way forward is read, and overwritten where a layer is through: it can be called once. Layers
    /// below the lowest parameter that is wanted are left out.
    /// - Parameters:
    ///   - gradients: takes those of the encoder's parameters; its slots are the encoder's.
    ///   - step: where the batch's tiles stand among those over which gradients sum.
    /// - Throws: what the transport throws.
    public func backward(into gradients: Gradients, step: StepTiles) throws {
        let tape = trainingTape
        precondition(gradients.slots == encoder.gradientSlots, "the gradients are those of this encoder")
        attention?.releaseMemory()
        let leaves = step.leaves(tiles)
        let sums = TileSums(
            rows: tiles.map(\.rows), order: leaves.order, threads: threads, kernels: encoder.kernels, memory: memory)
        if let norm = encoder.finalNorm { backward(through: norm, tape, sums, into: gradients) }
        for index in encoder.layers.indices.reversed() {
            guard gradients.wantsAny(below: encoder.layerSlots(index).upperBound) else { return }
            try backward(throughLayer: index, tape, sums, into: gradients)
        }
        guard gradients.wantsAny(below: encoder.layerSlots(0).lowerBound) else { return }
        backwardThroughEmbeddings(tape, sums, leaves, into: gradients)
    }

    /// Calls `body` for each block of whole tiles, on all threads.
    private func forEachBackwardBlock(_ tape: RunTape, layer: Int?, _ body: (BackwardBlock) -> Void) {
        transport.timeline.span(.dense, "backward", number: layer.map { $0 + 1 } ?? -1) {
            threads.forEach(tape.blocks.count) { index, worker in
                let rows = tape.blocks[index]
                // Disjoint: each index has its own rows and tiles, each worker its own scratch.
                body(
                    BackwardBlock(
                        rows: rows, memory: tape.memory, scratch: tape.memory.scratch[worker],
                        dropout: layer.flatMap { tape.dropout($0, rows) }, kernels: encoder.kernels))
                progressed()
            }
        }
    }

    private func backward(through norm: Norm, _ tape: RunTape, _ sums: TileSums, into gradients: Gradients) {
        let width = encoder.configuration.hiddenSize
        let states = tape.states[encoder.layers.count]
        forEachBackwardBlock(tape, layer: nil) { block in
            let gradient = block.part(tape.gradient, width: width)
            block.backward(
                norm, block.part(states, width: width), gradient, into: gradient, sums: tape.memory.outputNorm)
        }
        norm.putGradients(tape.memory.outputNorm, sums, in: gradients, offset: 0)
    }

    private func backward(throughLayer index: Int, _ tape: RunTape, _ sums: TileSums, into gradients: Gradients)
        throws
    {
        let (block, pattern) = (encoder.layers[index], encoder.configuration.attention[index])
        let (width, offset, memory) = (encoder.configuration.hiddenSize, encoder.slotOffsets[index], tape.memory)
        let heads = pattern.heads
        let attendedWidth = heads.queryHeads * heads.valueDimension
        let (states, attended) = (tape.states[index], tape.attended[index])
        forEachBackwardBlock(tape, layer: index) { at in
            block.finishBackward(
                at, x: at.part(states, width: width), attended: at.part(attended, width: attendedWidth),
                gradient: at.part(tape.gradient, width: width))
        }
        block.putGradients(memory, attended: attended, sums, in: gradients, offset: offset)

        guard let attention, let group = layout.groups.first else { preconditionFailure("ranks go in step") }
        project(block, pattern, group, attention, from: states)
        try differentiate(index, pattern, tape, attention, sums, into: gradients)

        let rotation = pattern.rotaryBase.flatMap { rotations[$0] }
        let pairs = block.attention.rotaryPairs
        forEachBackwardBlock(tape, layer: index) { at in
            block.projectBackward(
                at, x: at.part(states, width: width),
                rotation: rotation.map { UnsafePointer(at.part($0, width: 2 * pairs)) },
                gradient: at.part(tape.gradient, width: width))
        }
        block.putProjectionGradients(memory, x: states, sums, in: gradients, offset: offset)
    }

    /// The way back through attention itself, for whose layer queries, keys and values have been made again. Collective.
    private func differentiate(
        _ index: Int, _ pattern: AttentionPattern, _ tape: RunTape, _ attention: LayerAttention, _ sums: TileSums,
        into gradients: Gradients
    ) throws {
        let (heads, memory) = (pattern.heads, tape.memory)
        func rows(_ buffer: AlignedBuffer, from first: Int = 0, heads: Int, width: Int) -> HeadRows {
            HeadRows(buffer, offset: first * heads * width, tokenStride: heads * width, headStride: width)
        }
        let (width, valueWidth) = (heads.headDimension, heads.valueDimension)
        forEachBackwardBlock(tape, layer: nil) { at in
            let first = at.rows.firstRow
            HeadRows.dots(
                rows(memory.attendedGradient, from: first, heads: heads.queryHeads, width: valueWidth),
                rows(tape.attended[index], from: first, heads: heads.queryHeads, width: valueWidth), rows: at.count,
                heads: heads.queryHeads, width: valueWidth, into: tape.perRow(memory.outputDots, from: first),
                kernels: encoder.kernels)
        }
        // (tiles, heads, distances)
        let distances = encoder.modifiers.relativeBias.map { 2 * $0.reach + 1 } ?? 0
        let ofDistances = distances == 0 ? nil : self.memory.buffer(count: tiles.count * heads.queryHeads * distances)
        try attention.observer(pattern.kind, .differentiate(heads, encoder.modifiers)).run(
            .differentiate(
                queries: rows(queries, heads: heads.queryHeads, width: width),
                scale: encoder.layers[index].attention.scale,
                outputGradient: rows(memory.attendedGradient, heads: heads.queryHeads, width: valueWidth),
                rowMax: tape.perRow(tape.rowMax[index]), rowSum: tape.perRow(tape.rowSum[index]),
                outputDots: tape.perRow(memory.outputDots),
                queryGradient: rows(memory.queryGradient, heads: heads.queryHeads, width: width),
                keyGradient: rows(memory.keyGradient, heads: heads.keyValueHeads, width: width),
                valueGradient: rows(memory.valueGradient, heads: heads.keyValueHeads, width: valueWidth),
                biasGradients: ofDistances.map { rows($0, heads: heads.queryHeads, width: distances) },
                dropout: tape.pass.dropout?.weights(layer: index)),
            on: attention.layer(pattern.kind).keyValues)
        guard let ofDistances, case .buckets(let count, let reach) = encoder.configuration.distanceBias,
            gradients.wants(encoder.distanceBiasSlots[index])
        else { return }
        let floats = count * heads.queryHeads
        let leaves = self.memory.buffer(count: tiles.count * floats)
        threads.forEach(tiles.count) { tile, _ in
            // Disjoint: each index has its own tile.
            ScoreModifiers.bucketGradient(
                ofDistances.pointer + tile * heads.queryHeads * distances, heads: heads.queryHeads, buckets: count,
                maximumDistance: reach, into: leaves.pointer + tile * floats)
        }
        // What is lent stays lent while others are.
        withExtendedLifetime((ofDistances, leaves)) {
            gradients.put(
                sums.sums(ofLeaves: leaves.pointer, stride: floats, columns: floats),
                in: encoder.distanceBiasSlots[index])
        }
    }

    /// From the gradient of the embeddings to those of the tables, and of what stands behind their sum.
    private func backwardThroughEmbeddings(
        _ tape: RunTape, _ sums: TileSums, _ leaves: StepLeaves, into gradients: Gradients
    ) {
        guard let tokens = tape.tokens else { preconditionFailure("a run that went forward") }
        let (tables, configuration, kernels) = (encoder.embeddings, encoder.configuration, encoder.kernels)
        let (width, hidden) = (configuration.embeddingSize, configuration.hiddenSize)
        // (rows, width): the gradients of the tables' sums, and what the projection read.
        let sumGradient = memory.buffer(count: layout.rowCount * width)
        let projected = memory.buffer(count: tables.projection == nil ? 0 : layout.rowCount * width)
        let normSums = memory.buffer(count: tiles.count * 2 * max(width, hidden))
        // What is lent stays lent while others are.
        defer { withExtendedLifetime((sumGradient, projected, normSums)) {} }
        forEachBackwardBlock(tape, layer: 0) { at in
            let gradient = at.part(tape.gradient, width: hidden)
            let target = at.part(sumGradient, width: width)
            let (sum, normed) = (at.scratch.first.pointer, at.scratch.second.pointer)
            tables.sum(at.rows, of: tokens, width: width, into: sum)
            guard let projection = tables.projection else {
                at.dropout?.apply(.embeddings, gradient, width: width, kernels: kernels)
                if let norm = tables.norm {
                    at.backward(norm, sum, gradient, into: target, sums: normSums)
                } else {
                    target.update(from: gradient, count: at.count * width)
                }
                return
            }
            let input = at.part(projected, width: width)
            if tables.normIsLast {
                input.update(from: sum, count: at.count * width)
                at.dropout?.apply(.embeddings, gradient, width: hidden, kernels: kernels)
                if let norm = tables.norm {
                    projection.forward(rows: at.count, input, into: normed, kernels: kernels)
                    at.backward(norm, normed, gradient, into: gradient, sums: normSums)
                }
                projection.backward(rows: at.count, gradient, into: target, kernels: kernels)
            } else {
                if let norm = tables.norm {
                    norm.forward(rows: at.count, sum, into: input, kernels: kernels)
                } else {
                    input.update(from: sum, count: at.count * width)
                }
                at.dropout?.apply(.embeddings, input, width: width, kernels: kernels)
                projection.backward(rows: at.count, gradient, into: target, kernels: kernels)
                at.dropout?.apply(.embeddings, target, width: width, kernels: kernels)
                if let norm = tables.norm { at.backward(norm, sum, target, into: target, sums: normSums) }
            }
        }
        if let projection = tables.projection, projection.isWanted(gradients, offset: 0) {
            let panels = sums.panels(projected.pointer, stride: width, width: width)
            projection.putGradients(tape.gradient.pointer, panels: panels, sums, in: gradients, offset: 0)
        }
        tables.norm?.putGradients(normSums, sums, in: gradients, offset: 0)

        let readings: [(slot: Int?, read: (LocalTile, Int) -> (row: Int, factor: Float?)?)] = [
            (
                tables.wordSlot,
                { tile, token in
                    let position = tile.tokens.lowerBound + token
                    let (word, factor) = (
                        tokens.word(tile.sequence, position), tokens.wordScale(tile.sequence, position)
                    )
                    // The word of a token that is dropped takes no part, nor does the padding token's.
                    return factor == 0 || word == configuration.paddingId ? nil : (word, factor)
                }
            ),
            (tables.tokenTypeSlot, { (tokens.type($0.sequence, $0.tokens.lowerBound + $1), nil) }),
            (
                tables.positionSlot,
                { tile, token in
                    let row = tokens.positionRow(tile.sequence, tile.tokens.lowerBound + token)
                    // What lies before the first row is the padding token's.
                    return row < configuration.positions.firstRow ? nil : (row, nil)
                }
            ),
        ]
        for (slot, read) in readings {
            guard let slot, gradients.wants(slot) else { continue }
            var leavesOfTable: [(tile: Int, rows: TableRows)?] = tiles.map { _ in nil }
            leavesOfTable.withUnsafeMutableBufferPointer { target in
                threads.forEach(tiles.count) { index, _ in
                    let tile = tiles[index]
                    var reads: [(token: Int, row: Int, factor: Float?)] = []
                    for token in 0..<tile.tokens.count {
                        if let (row, factor) = read(tile, token) { reads.append((token, row, factor)) }
                    }
                    // Disjoint: each index has its own tile.
                    target[index] = (
                        leaves.numbers[index],
                        TableRows(reads: reads, gradients: sumGradient.pointer + tile.firstRow * width, width: width)
                    )
                }
            }
            gradients.put(
                TableRows.parts(leavesOfTable.compactMap { $0 }, owned: leaves.owned, step: leaves.step), in: slot)
        }
    }
}

/// The tiles of a rank by their numbers in a step.
struct StepLeaves {
    /// Ascending.
    let numbers: [Int]
    let owned: Runs
    let step: Runs

    /// How the leaves of all of them merge.
    var order: MergeOrder { MergeOrder(tiles: numbers, owned: owned, step: step) }
}

extension StepTiles {
    /// A rank's tiles of the batch among those of the step.
    func leaves(_ tiles: [LocalTile]) -> StepLeaves {
        let numbers = tiles.map { first + $0.number }
        precondition(numbers.last.map { $0 < count } ?? true, "a batch lies in its step")
        return StepLeaves(numbers: numbers, owned: Runs(numbers.map { $0..<$0 + 1 }), step: Runs(0..<count))
    }
}
