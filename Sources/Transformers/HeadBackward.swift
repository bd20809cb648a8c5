// The backward of task heads: from the gradients of logits to those of states, and of the head's parameters.

import Attention
import CKernels
import Matrices
import RingAttention
import Tiles

/// Some tiles' rows on their way through a head and back: what each step reads, and the gradient of what it gives.
private struct HeadPass {
    let head: TaskHead
    /// Of each tile that has rows, those rows.
    let tiles: [Range<Int>]
    /// values[i]: (rows, values of a row), what step i reads; the last are logits, and then their gradients.
    let values: [AlignedBuffer]
    /// gradients[i]: those of values[i].
    let gradients: [AlignedBuffer]
    /// By step, for norms: (tiles, 2, width), the sums of each tile.
    let normSums: [AlignedBuffer?]
    /// What is dropped, if anything.
    let dropout: Dropout?
    /// Of each row the document's place in the batch, and the token's in it.
    let places: [(document: Int, row: Int)]

    init(
        _ head: TaskHead, tiles: [Range<Int>], places: [(document: Int, row: Int)], dropout: Dropout?,
        memory: BufferPool
    ) {
        self.head = head
        self.tiles = tiles
        self.places = places
        self.dropout = dropout
        let rows = tiles.last?.upperBound ?? 0
        let widths = head.steps.widths
        values = widths.map { memory.buffer(count: rows * $0) }
        gradients = widths.dropLast().map { memory.buffer(count: rows * $0) } + [values[values.count - 1]]
        normSums = head.steps.steps.map { step in
            if case .norm(let norm) = step { memory.buffer(count: tiles.count * norm.sumFloats) } else { nil }
        }
    }

    /// Carries some tiles' rows through the steps, has logits turned into their gradients, and carries those back.
    func run(_ some: Range<Int>, kernels: KernelSet, loss: (_ row: Int, UnsafeMutablePointer<Float>) -> Void) {
        let first = tiles[some.lowerBound].lowerBound
        let count = tiles[some.upperBound - 1].upperBound - first
        let widths = head.steps.widths
        for (index, step) in head.steps.steps.enumerated() {
            let x = values[index].pointer + first * widths[index]
            let y = values[index + 1].pointer + first * widths[index + 1]
            switch step {
            case .dense(let dense): dense.forward(rows: count, x, into: y, kernels: kernels)
            case .activation(let activation):
                y.update(from: x, count: count * widths[index])
                activation.forward(
                    rows: count, columns: widths[index], y, stride: widths[index], bias: nil, kernels: kernels)
            case .dropout(let place):
                y.update(from: x, count: count * widths[index])
                drop(place, rows: first..<first + count, y, width: widths[index], kernels: kernels)
            case .norm(let norm): norm.forward(rows: count, x, into: y, kernels: kernels)
            case .logistic, .normalize, .residual: preconditionFailure("no step of a task's head")
            }
        }
        let outputs = widths[widths.count - 1]
        for row in first..<first + count { loss(row, values[widths.count - 1].pointer + row * outputs) }
        for (index, step) in head.steps.steps.enumerated().reversed() {
            let x = values[index].pointer + first * widths[index]
            let dx = gradients[index].pointer + first * widths[index]
            let dy = gradients[index + 1].pointer + first * widths[index + 1]
            switch step {
            case .dense(let dense): dense.backward(rows: count, dy, into: dx, kernels: kernels)
            case .activation(let activation):
                activation.backward(
                    rows: count, columns: widths[index], x, dy, into: dx, stride: widths[index], kernels: kernels)
            case .dropout(let place):
                dx.update(from: dy, count: count * widths[index])
                drop(place, rows: first..<first + count, dx, width: widths[index], kernels: kernels)
            case .norm(let norm):
                guard let sums = normSums[index] else { continue }
                for tile in some {
                    let leaf = sums.pointer + tile * norm.sumFloats
                    leaf.update(repeating: 0, count: norm.sumFloats)
                    let offset = (tiles[tile].lowerBound - first) * widths[index]
                    norm.backward(
                        rows: tiles[tile].count, x + offset, dy + offset, into: dx + offset, sums: leaf,
                        kernels: kernels)
                }
            case .logistic, .normalize, .residual: preconditionFailure("no step of a task's head")
            }
        }
    }

    /// Drops values of some rows, or of their gradients.
    private func drop(
        _ place: Int, rows: Range<Int>, _ x: UnsafeMutablePointer<Float>, width: Int, kernels: KernelSet
    ) {
        guard let dropout, dropout.head > 0 else { return }
        for (number, row) in rows.enumerated() {
            dropout.applyToHead(
                place, document: places[row].document, row: places[row].row, x + number * width, width: width,
                kernels: kernels)
        }
    }

    /// Puts the gradients of the steps' parameters where they belong.
    func putGradients(_ sums: TileSums, in gradients: Gradients) {
        for (index, step) in head.steps.steps.enumerated() {
            switch step {
            case .dense(let dense) where dense.isWanted(gradients, offset: 0):
                let width = dense.weight.inputs
                let panels = sums.panels(values[index].pointer, stride: width, width: width)
                dense.putGradients(self.gradients[index + 1].pointer, panels: panels, sums, in: gradients, offset: 0)
            case .norm(let norm):
                if let leaves = normSums[index] { norm.putGradients(leaves, sums, in: gradients, offset: 0) }
            case .dense, .activation, .dropout, .logistic, .normalize, .residual: break
            }
        }
    }
}

extension RowSteps {
    /// Values of a row before each step, and behind the last.
    fileprivate var widths: [Int] {
        steps.reduce(into: [inputs]) { widths, step in
            if case .dense(let dense) = step {
                widths.append(dense.weight.outputs)
            } else {
                widths.append(widths[widths.count - 1])
            }
        }
    }
}

/// All of a slot's floats in memory of their own, which another part joins.
private struct DensePart: Mergeable {
    let part: GradientPart
    let kernels: KernelSet

    mutating func merge(right: DensePart) {
        kernels.gradientFunctions.add_rows(1, part.count, right.part.values.pointer, 0, part.values.pointer, 0)
    }
}

extension EncoderRun {
    /// Logits of a language model's head that are there at a time, on a rank: 64 MiB.
    public static var mostLogits: Int { 1 << 24 }

    /// Goes through a head and back, over some rows of each of this rank's tiles: adds the gradients of their states to
    /// `hiddenGradient`, and puts those of the head's parameters into `gradients`.
    ///
    /// Logits of a few tiles at a time are there, never those of a batch.
    /// - Parameters:
    ///   - head: one that is trained.
    ///   - wanted: the rows of a tile that have a loss, ascending, counted from its first token.
    ///   - gradients: its slots are the head's.
    ///   - step: where the batch's tiles stand among those over which gradients sum.
    ///   - loss: given a tile, a row as it was wanted and its logits, overwrites those with their gradients. Called once a
    ///     row, on any thread.
    public func backward(
        _ head: TaskHead, wanted: (LocalTile) -> [Int], into gradients: Gradients, step: StepTiles,
        loss: (_ tile: LocalTile, _ row: Int, _ logits: UnsafeMutablePointer<Float>) -> Void
    ) {
        let width = encoder.configuration.hiddenSize
        let target = hiddenGradient
        let leaves = step.leaves(tiles)
        let rows = tiles.map { (tile: $0, rows: wanted($0)) }
        backward(
            head, leaves.numbers.enumerated().map { ($1, rows[$0].rows.count) }, leaves, into: gradients,
            place: { tile, row in
                (rows[tile].tile.sequence, rows[tile].tile.tokens.lowerBound + rows[tile].rows[row])
            },
            read: { tile, row in
                UnsafePointer(hidden.pointer + (rows[tile].tile.firstRow + rows[tile].rows[row]) * width)
            },
            loss: { tile, row, logits in loss(rows[tile].tile, rows[tile].rows[row], logits) },
            write: { tile, row, gradient in
                let place = rows[tile].tile.firstRow + rows[tile].rows[row]
                encoder.kernels.gradientFunctions.add_rows(1, width, gradient, 0, target.pointer + place * width, 0)
            })
    }

    /// Goes through the head of a sequence and back, over pooled vectors that are at home on this rank. A vector counts in
    /// the tile that holds its span's first token.
    /// - Parameters:
    ///   - head: the head.
    ///   - vectors: as `pool` gave them.
    ///   - spans: as they were pooled.
    ///   - gradients: takes those of the head's parameters.
    ///   - step: where this batch's tiles stand in the step.
    ///   - loss: given a span's number and its logits, overwrites those with their gradients. Called once a span, on any
    ///     thread.
    /// - Returns: for each vector its gradient, which `backward(throughPooling:)` takes.
    public func backward(
        _ head: TaskHead, vectors: [(span: Int, vector: [Float])], of spans: [Span], into gradients: Gradients,
        step: StepTiles, loss: (_ span: Int, _ logits: UnsafeMutablePointer<Float>) -> Void
    ) -> [(span: Int, gradient: [Float])] {
        let width = encoder.configuration.hiddenSize
        let leaves = step.leaves(tiles)
        let places = Dictionary(uniqueKeysWithValues: tiles.map { ($0.number, $0.place) })
        var ofTiles: [[Int]] = tiles.map { _ in [] }
        for (index, entry) in vectors.enumerated() {
            let span = spans[entry.span]
            let tile =
                sharding.numbering.firstTile[span.sequence] + span.tokens.lowerBound / TileGrid.tileSize
            guard let place = places[tile] else { preconditionFailure("a vector is at home with its first token") }
            ofTiles[place].append(index)
        }
        let read = AlignedBuffer(count: vectors.count * width)
        let written = AlignedBuffer(count: vectors.count * width)
        for (index, entry) in vectors.enumerated() {
            (read.pointer + index * width).update(from: entry.vector, count: width)
        }
        backward(
            head, leaves.numbers.enumerated().map { ($1, ofTiles[$0].count) }, leaves, into: gradients,
            place: { tile, row in
                let span = spans[vectors[ofTiles[tile][row]].span]
                return (span.sequence, span.tokens.lowerBound)
            },
            read: { tile, row in UnsafePointer(read.pointer + ofTiles[tile][row] * width) },
            loss: { tile, row, logits in loss(vectors[ofTiles[tile][row]].span, logits) },
            write: { tile, row, gradient in
                (written.pointer + ofTiles[tile][row] * width).update(from: gradient, count: width)
            })
        return withExtendedLifetime(written) {
            vectors.indices.map { index in
                (
                    vectors[index].span,
                    Array(UnsafeBufferPointer(start: written.pointer + index * width, count: width))
                )
            }
        }
    }

    /// - Parameters:
    ///   - counts: for each of this rank's tiles its number in the step, and how many rows it has.
    ///   - place: the document of a tile's row, and which token of it the row is.
    ///   - read: what a tile's row reads, by the places of tile and row.
    ///   - write: takes the gradient of that.
    private func backward(
        _ head: TaskHead, _ counts: [(number: Int, rows: Int)], _ leaves: StepLeaves, into gradients: Gradients,
        place: (_ tile: Int, _ row: Int) -> (document: Int, row: Int),
        read: (_ tile: Int, _ row: Int) -> UnsafePointer<Float>,
        loss: (_ tile: Int, _ row: Int, _ logits: UnsafeMutablePointer<Float>) -> Void,
        write: (_ tile: Int, _ row: Int, _ gradient: UnsafePointer<Float>) -> Void
    ) {
        precondition(gradients.slots == head.gradientSlots && !gradients.slots.isEmpty, "the gradients of this head")
        let width = encoder.configuration.hiddenSize
        let (kernels, threads) = (encoder.kernels, threads)
        let contributing = Runs(counts.filter { $0.rows > 0 }.map { $0.number..<$0.number + 1 })
        var forests = HeadForests(gradients, leaves: leaves, contributing: contributing, kernels)
        for chunk in Self.subtrees(counts, mostRows: max(1, Self.mostLogits / head.outputs)) {
            let places = chunk.filter { counts[$0].rows > 0 }
            if places.isEmpty { continue }
            var tileRows: [Range<Int>] = []
            for place in places {
                let first = tileRows.last?.upperBound ?? 0
                tileRows.append(first..<first + counts[place].rows)
            }
            let pass = HeadPass(
                head, tiles: tileRows,
                places: places.flatMap { tile in (0..<counts[tile].rows).map { place(tile, $0) } },
                dropout: tape?.pass.dropout, memory: memory)
            // Whole tiles to each thread, many rows to each reading of the weights.
            var units: [Range<Int>] = []
            for tile in tileRows.indices {
                if let last = units.last, tileRows[tile].upperBound - tileRows[last.lowerBound].lowerBound <= 128 {
                    units[units.count - 1] = last.lowerBound..<tile + 1
                } else {
                    units.append(tile..<tile + 1)
                }
            }
            threads.forEach(units.count) { index, _ in
                let tiles = units[index]
                // Disjoint: each index has its own tiles, and so its own rows of every buffer.
                var owner: [Int] = []
                for tile in tiles {
                    for row in 0..<tileRows[tile].count {
                        (pass.values[0].pointer + (tileRows[tile].lowerBound + row) * width).update(
                            from: read(places[tile], row), count: width)
                        owner.append(tile)
                    }
                }
                let first = tileRows[tiles.lowerBound].lowerBound
                pass.run(tiles, kernels: kernels) { row, logits in
                    let tile = owner[row - first]
                    loss(places[tile], row - tileRows[tile].lowerBound, logits)
                }
                for tile in tiles {
                    for row in 0..<tileRows[tile].count {
                        write(
                            places[tile], row,
                            pass.gradients[0].pointer + (tileRows[tile].lowerBound + row) * width)
                    }
                }
                progressed()
            }
            let numbers = places.map { counts[$0].number }
            let order = MergeOrder(
                tiles: numbers, owned: Runs(chunk.map { counts[$0].number..<counts[$0].number + 1 }), step: leaves.step)
            let sums = TileSums(rows: tileRows, order: order, threads: threads, kernels: kernels, memory: memory)
            withExtendedLifetime(pass) { pass.putGradients(sums, in: gradients) }
            forests.takeParts()
        }
        forests.finish()
    }

    /// Cuts a rank's tiles into subtrees of the fixed tree, none of more rows than that unless it is one tile: places.
    private static func subtrees(_ counts: [(number: Int, rows: Int)], mostRows: Int) -> [Range<Int>] {
        var chunks: [Range<Int>] = []
        var first = 0
        while first < counts.count {
            let number = counts[first].number
            var size = 1
            var end = first + 1
            // The subtree that begins here grows as long as it can, and its rows and tiles are this rank's.
            while number % (2 * size) == 0 {
                var next = end
                while next < counts.count, counts[next].number < number + 2 * size { next += 1 }
                let isWhole = next - first == 2 * size || next == counts.count
                if !isWhole || counts[first..<next].reduce(0, { $0 + $1.rows }) > mostRows { break }
                size *= 2
                end = next
                if next == counts.count { break }
            }
            chunks.append(first..<end)
            first = end
        }
        return chunks
    }
}

/// The parts of a head's gradients while one subtree after the other comes.
private struct HeadForests {
    private let gradients: Gradients
    private let nodes: [TreeNode]
    private let kernels: KernelSet
    /// By slot, then by this rank's maximal subtree.
    private var forests: [[MergeForest<DensePart>]]

    init(_ gradients: Gradients, leaves: StepLeaves, contributing: Runs, _ kernels: KernelSet) {
        self.gradients = gradients
        self.kernels = kernels
        nodes = TreeNode.maximal(in: leaves.owned, of: leaves.step)
        let empty = nodes.map { MergeForest<DensePart>(tiles: contributing.intersection($0.tiles)) }
        forests = gradients.slots.map { _ in empty }
    }

    /// Takes the parts of one subtree out of the gradients, merging them with those before it.
    mutating func takeParts() {
        for slot in gradients.slots.indices {
            for part in gradients.takeParts(of: slot) {
                guard let place = nodes.firstIndex(where: { $0.tiles.contains(part.node.tiles.lowerBound) }) else {
                    continue
                }
                forests[slot][place].insert(DensePart(part: part, kernels: kernels), at: part.node)
            }
        }
    }

    /// Puts what has become of them back.
    func finish() {
        for slot in gradients.slots.indices {
            var parts: [GradientPart] = []
            for (node, forest) in zip(nodes, forests[slot]) {
                guard let whole = forest.parts.first?.value.part else { continue }
                precondition(forest.pendingCount == 1, "every subtree has come")
                parts.append(GradientPart(node: node, values: whole.values, count: whole.count))
            }
            gradients.put(parts, in: slot)
        }
    }
}
