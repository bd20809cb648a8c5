// The units of work of a step, computed by all threads: by rows, or where keys get something, by columns.

import Attention
import Matrices
import Plans
import Tiles

extension RingCall {
    /// Computes some units, on all threads.
    func compute(_ units: [Units], poll: () -> Void) {
        if columnResults == nil { computeByRows(units, poll: poll) } else { computeByColumns(units, poll: poll) }
    }

    /// Each query tile and head goes over the key tiles.
    private func computeByRows(_ units: [Units], poll: () -> Void) {
        guard let rowResults else { return }
        var work: [(reduction: Reduction, keys: Runs)] = []
        for units in units {
            rowResults.forEach(units.queries, units.heads, meeting: units.keys) {
                work.append((rowResults.reduction(of: $0, head: $1), units.keys))
            }
        }
        if work.isEmpty { return }
        withoutActuallyEscaping(poll) { poll in
            executor.threads.forEach(work.count, poll: poll) { index, worker in
                // Disjoint: each index has its own reduction, and its rows and head of the results.
                compute(
                    work[index].reduction, with: work[index].keys, executor.workers[worker], executor.clocks[worker],
                    poll: worker == 0 ? poll : {})
            }
        }
    }

    private func compute(
        _ reduction: Reduction, with keyTiles: Runs, _ worker: any TileWorker, _ clock: UnitClock, poll: () -> Void
    ) {
        guard let pool = executor.rowPool else { return }
        let (tile, head) = (reduction.tile, reduction.head)
        let numbers = Array(tile.meets.any.intersection(keyTiles))
        clock.start(tile, meeting: numbers)
        worker.load(rows(of: tile, head: head), of: call)
        let keyHead = head / problem.heads.groupSize
        for (place, number) in numbers.enumerated() {
            let result = PartialResult(rows: tile.count, from: pool)
            // A head's tiles come from the third-level cache, again for each query tile. Another query tile comes
            // after the last.
            let next = columns.tile(numbers[place + 1 < numbers.count ? place + 1 : 0], head: keyHead)
            worker.run(pair(tile, number, keyHead: keyHead, next: next), rows: result, columns: nil, adds: false)
            insert(result, of: reduction, at: number - tile.firstOther, worker)
            executor.progressed()
            poll()
        }
        clock.stop(tile, meeting: numbers, of: problem)
    }

    private func pair(_ tile: SideTile, _ keyTile: Int, keyHead: Int, next: UnsafePointer<Float>? = nil) -> TilePair {
        TilePair(
            queryTile: tile.index, keyTile: keyTile - tile.firstOther, in: tile.sequence,
            number: tile.sequenceNumber, isWhole: tile.meets.all.contains(keyTile),
            columns: columns.tile(keyTile, head: keyHead), capacity: problem.keys.numbering.capacity(of: keyTile),
            next: next)
    }

    private func insert(_ result: PartialResult, of reduction: Reduction, at keyTile: Int, _ worker: any TileWorker) {
        reduction.insert(result, at: TreeNode(tile: keyTile)) { finishRows($0, of: reduction, worker) }
    }

    /// Writes what the rows of a query tile of this rank, and the tile itself, have got.
    func finishRows(_ whole: PartialResult, of reduction: Reduction, _ worker: any TileWorker) {
        let (tile, head) = (reduction.tile, reduction.head)
        worker.finishRows(whole, first: tile.own?.lowerBound ?? 0, head: head, of: call)
        if let target = call.tileResults, let place = tile.place {
            target.row(place, head).update(from: whole.ofTile, count: problem.operation.tileResults)
        }
    }

    /// What a thread computes by columns: a key tile, a head of its results, and query tiles, with the reductions
    /// of their rows.
    private struct ColumnWork {
        let reduction: Reduction
        let queryHeads: Range<Int>
        let queries: [SideTile]
        /// For each query head, those of each query tile; none where rows get nothing.
        let rows: [[Reduction]]
    }

    /// Each key tile and head goes over the query tiles, so that what keys get stays with one thread.
    private func computeByColumns(_ units: [Units], poll: () -> Void) {
        guard let columnResults else { return }
        var work: [ColumnWork] = []
        for units in units {
            columnResults.forEach(units.keys, problem.columnResultHeads(of: units.heads), meeting: units.queries) {
                tile, head in
                let size = problem.heads.groupSize
                let queryHeads =
                    problem.operation.columnResultHeads == .query
                    ? head..<head + 1 : head * size..<(head + 1) * size
                let queries = tile.meets.any.intersection(units.queries).map { queryTile($0) }
                let rows = rowResults.map { results in
                    queryHeads.map { head in queries.map { results.reduction(of: $0, head: head) } }
                }
                work.append(
                    ColumnWork(
                        reduction: columnResults.reduction(of: tile, head: head), queryHeads: queryHeads,
                        queries: queries, rows: rows ?? []))
            }
        }
        if work.isEmpty { return }
        withoutActuallyEscaping(poll) { poll in
            executor.threads.forEach(work.count, poll: poll) { index, worker in
                // Reductions take one thread at a time; each index has its own key tile and head of the results.
                compute(work[index], executor.workers[worker], poll: worker == 0 ? poll : {})
            }
        }
    }

    private func compute(_ work: ColumnWork, _ worker: any TileWorker, poll: () -> Void) {
        guard let pool = executor.columnPool else { return }
        let (tile, keyHead) = (work.reduction.tile, work.queryHeads.lowerBound / problem.heads.groupSize)
        worker.load(
            columns: columns.tile(tile.number, head: keyHead), keys: tile.count,
            capacity: problem.keys.numbering.capacity(of: tile.number))
        for (place, query) in work.queries.enumerated() {
            let result = PartialResult(rows: tile.count, from: pool)
            for (offset, head) in work.queryHeads.enumerated() {
                worker.load(rows(of: query, head: head), of: call)
                let rowResult = executor.rowPool.map { PartialResult(rows: query.count, from: $0) }
                worker.run(
                    pair(query, tile.number, keyHead: keyHead), rows: rowResult, columns: result, adds: offset > 0)
                if let rowResult { insert(rowResult, of: work.rows[offset][place], at: tile.index, worker) }
            }
            work.reduction.insert(result, at: TreeNode(tile: query.index)) {
                worker.finishColumns($0, first: tile.own?.lowerBound ?? 0, head: work.reduction.head, of: call)
            }
            executor.progressed()
            poll()
        }
    }

    /// The results of this rank's rows that see no key, and of its keys that no row sees.
    func finishUnmet() {
        guard let worker = executor.workers.first else { return }
        if rowResults != nil {
            for tile in executor.queryTiles.values where tile.tree.isEmpty {
                guard let rows = tile.own else { continue }
                for head in 0..<problem.heads.queryHeads {
                    worker.finishUnseeing(rows: rows, head: head, of: call)
                    if let target = call.tileResults, let place = tile.place {
                        target.row(place, head).update(repeating: 0, count: problem.operation.tileResults)
                    }
                }
            }
        }
        if columnResults != nil {
            for tile in executor.keyTiles.values where tile.tree.isEmpty {
                guard let keys = tile.own else { continue }
                for head in problem.columnResultHeads(of: 0..<problem.heads.queryHeads) {
                    worker.finishUnseen(keys: keys, head: head, of: call)
                }
            }
        }
    }
}
