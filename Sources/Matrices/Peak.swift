// What the machine could do at best: the roofline that benchmarks are measured against.

import Synchronization

/// What rounds of multiply-adds tell.
public enum PeakStatistic: Sendable {
    /// The fastest round: what the core can reach, undisturbed, at its highest clock.
    case best
    /// The round in the middle: what the core keeps up at the clock that it has now, where others use it for less than half of the
    /// time.
    case median
    /// All rounds together: what the thread gets of a core that others use too.
    case mean
}

/// The fused multiply-add peak of `kernels` for operands of kind `element` on each thread of `pool` while all of them
/// run, in GFLOP/s.
///
/// Each thread runs independent chains out of registers for `seconds`, in rounds of about a millisecond. Without a pool, the
/// calling thread alone is measured.
/// - Parameters:
///   - kernels: the set of instructions whose peak is measured.
///   - element: the kind of the operands.
///   - seconds: how long each thread runs, at least one round.
///   - pool: the threads that run at the same time; nil: the calling thread alone.
///   - statistic: what a thread reports of its rounds.
public func peak(
    kernels: KernelSet, element: ElementKind = .float32, seconds: Double, pool: ThreadPool? = nil,
    statistic: PeakStatistic = .best
) -> [Double] {
    let run = element == .float32 ? kernels.functions.peak : kernels.bfloat16Functions.peak
    let threads = pool?.threads ?? 1
    let rates = AlignedBuffer(count: threads)
    let measure = { (index: Int, _: Int) in
        let clock = ContinuousClock()
        var sink: Float = 0.5
        var iterations = 16
        var rounds: [Double] = []
        var total = 0.0
        let start = clock.now
        while clock.now - start < .seconds(seconds) || rounds.isEmpty {
            let roundStart = clock.now
            let operations = run?(iterations, &sink) ?? 0
            let time = clock.now - roundStart
            let elapsed = inSeconds(time)
            total += operations
            if elapsed < 5e-4 {
                iterations *= 2
            } else {
                rounds.append(operations / elapsed * 1e-9)
            }
        }
        switch statistic {
        case .best: rates[index] = Float(rounds.max() ?? 0)
        case .median: rates[index] = Float(rounds.sorted()[rounds.count / 2])
        case .mean: rates[index] = Float(total / inSeconds(clock.now - start) * 1e-9)
        }
    }
    if let pool {
        pool.forEach(threads, measure)
    } else {
        measure(0, 0)
    }
    return (0..<threads).map { Double(rates[$0]) }
}

private func inSeconds(_ time: Duration) -> Double {
    Double(time.components.seconds) + Double(time.components.attoseconds) * 1e-18
}
