// Runs behave as the sets of integers they stand for.

import TestSupport
import Testing
import Tiles

@Suite struct RunsTests {
    /// A random set of integers below 60 as runs and as a `Set`.
    private func random(_ generator: inout some RandomNumberGenerator) -> (Runs, Set<Int>) {
        let ranges = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
            let low = Int.random(in: 0..<60, using: &generator)
            return low..<min(60, low + Int.random(in: 0...9, using: &generator))
        }
        return (Runs(ranges), Set(ranges.flatMap { Array($0) }))
    }

    @Test func setAlgebraAgreesWithSetsOfIntegers() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SplitMix(seed: seed)
        for _ in 0..<500 {
            let (a, setA) = random(&generator)
            let (b, setB) = random(&generator)
            let universe = 5..<51
            func same(_ runs: Runs, _ set: Set<Int>, _ what: Comment) {
                #expect(runs.ranges.flatMap { Array($0) } == set.sorted(), what)
                #expect(zip(runs.ranges, runs.ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound }, what)
                #expect(runs.count == set.count, what)
                #expect(Array(runs) == set.sorted(), what)
            }
            same(a, setA, "seed \(seed)")
            same(a.union(b), setA.union(setB), "union, seed \(seed)")
            same(a.intersection(b), setA.intersection(setB), "intersection, seed \(seed)")
            same(a.intersection(universe), setA.intersection(universe), "range, seed \(seed)")
            same(a.subtracting(b), setA.subtracting(setB), "difference, seed \(seed)")
            same(a.complement(in: universe), Set(universe).subtracting(setA), "complement, seed \(seed)")
            same(a.shifted(by: 7), Set(setA.map { $0 + 7 }), "shift, seed \(seed)")
            for value in 0..<60 { #expect(a.contains(value) == setA.contains(value)) }
            let start = Int.random(in: 0..<60, using: &generator)
            for probe in [start..<60, start..<start, start..<Int.random(in: start...60, using: &generator)] {
                #expect(a.intersects(probe) == !setA.isDisjoint(with: probe), "\(probe), seed \(seed)")
                #expect(a.count(in: probe) == setA.intersection(probe).count, "\(probe), seed \(seed)")
                same(a.intersection(probe), setA.intersection(probe), "\(probe), seed \(seed)")
            }
        }
    }
}
