// What ranks and links are believed to do: kept, measured where it is not known, and corrected by what runs show.

import Attention
import Plans
import RingAttention
import Tiles

extension Session {
    /// What is believed of the ranks and links of a job like this: what is kept, or what is measured now. Collective.
    /// - Parameter isFresh: measure anew, and forget what was kept.
    package func machine(_ heads: HeadShape, isFresh: Bool = false) throws -> Measurements {
        let ranks = try ranksAndThreads()
        let cache = isRoot ? measurementCache(heads, ranks) : nil
        var known = MachineHistory(rankCount: transport.size)
        var missing = Missing.everything
        if isRoot, !isFresh, let kept = cache?.read() {
            known = kept
            missing = kept.linksAreDue(at: MeasurementCache.now) ? .links : .nothing
        }
        missing = Missing(rawValue: try transport.allGather([missing.rawValue])[0][0]) ?? .everything
        if missing != .nothing {
            let flops =
                missing == .everything ? try measureRanks(heads) : Array(repeating: 0, count: transport.size)
            let links = try measureLinks(hosts: ranks.map(\.host))
            if isRoot {
                known.add(
                    Measurements(flops: flops, inside: links.inside, between: links.between), at: MeasurementCache.now)
                cache?.write(known)
            }
        }
        // Rank 0's word counts: what it has kept, the others may not have.
        var mine = Message()
        if let believed = known.measurements { mine.write(believed) }
        var told = Message(try transport.allGather(mine.bytes)[0])
        return told.readMeasurements()
    }

    /// Corrects what is kept of the ranks of this job by what they have just computed, if it took long enough to tell.
    /// What was not kept for a job like this is left to be measured. Collective.
    /// - Parameter pace: how fast this rank has computed attention of such heads, whose scores nothing modified.
    /// - Returns: whether this rank's pace was told, and need not be told again.
    @discardableResult
    package func correct(_ heads: HeadShape, by pace: Pace) throws -> Bool {
        // Less is shorter than what is measured.
        let isLong = pace.seconds >= 0.25 * Double(threads.threads)
        let rates = try everyone(isLong ? pace.flop / pace.seconds * Double(threads.threads) : 0)
        guard rates.contains(where: { $0 > 0 }) else { return false }
        let ranks = try ranksAndThreads()
        if isRoot, let cache = measurementCache(heads, ranks), var known = cache.read() {
            known.add(Measurements(flops: rates), at: MeasurementCache.now)
            cache.write(known)
        }
        return isLong
    }

    private enum Missing: UInt8 { case nothing, links, everything }

    /// The host of every rank, and how many threads it has. Collective.
    private func ranksAndThreads() throws -> [(host: String, threads: Int)] {
        var mine = Message()
        mine.write(LocalHost.name)
        mine.write(threads.threads)
        return try transport.allGather(mine.bytes).map {
            var told = Message($0)
            return (told.readString(), told.readInt())
        }
    }

    private func measurementCache(_ heads: HeadShape, _ ranks: [(host: String, threads: Int)]) -> MeasurementCache? {
        MeasurementCache(
            ranks: ranks, isVirtual: group.isVirtual, kernel: kernels.name, element: settings.element.rawValue,
            heads: heads)
    }
}

extension Message {
    fileprivate mutating func write(_ measured: Measurements) {
        let links = [measured.inside, measured.between].map {
            $0.map { "\($0.latency) \($0.bandwidth) \($0.processing)" } ?? ""
        }
        for text in links + [measured.flops.map { "\($0)" }.joined(separator: " ")] { write(text) }
    }

    fileprivate mutating func readMeasurements() -> Measurements {
        func numbers() -> [Double] { readString().split(separator: " ").compactMap { Double($0) } }
        func link() -> Cluster.Link? {
            let values = numbers()
            return values.count == 3
                ? Cluster.Link(latency: values[0], bandwidth: values[1], processing: values[2]) : nil
        }
        let (inside, between) = (link(), link())
        return Measurements(flops: numbers(), inside: inside, between: between)
    }
}
