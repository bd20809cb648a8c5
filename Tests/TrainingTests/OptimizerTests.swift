// Schedules and AdamW against transformers and PyTorch in float64.

import Files
import Matrices
import RingAttention
import Testing
import Tiles
import Training
import Transformers

@Suite struct OptimizerTests {
    /// Where nothing is said of it, the rate falls in the last tenth of all steps.
    @Test func theDecayIsATenth() {
        for (steps, decay) in [(50, 5), (57, 5), (3, 1)] {
            let schedule = Schedule(kind: .warmupStableDecay, warmupSteps: 0, steps: steps)
            #expect(schedule.decaySteps == decay)
            #expect((0..<steps).count { schedule.factor($0) == 1 } == steps - decay + 1)
        }
    }

    @Test func schedulesAreTransformers() throws {
        let cases = try Goldens.cases("schedules")
        #expect(cases.count == 15)
        for golden in cases {
            let name = try #require(golden["name"]?.string)
            let schedule = Schedule(
                kind: try #require(Schedule.Kind(rawValue: name)), warmupSteps: try golden.int("warmup"),
                steps: try golden.int("steps"), decaySteps: try golden.int("decay"))
            for (done, factor) in try golden.numbers("factors").enumerated() {
                #expect(abs(schedule.factor(done) - factor) <= 1e-15, "\(name), step \(done)")
            }
        }
    }

    /// Some values by the names of parameters.
    private struct Values: ParameterSource {
        let values: [String: [Float]]

        func has(_ name: String) -> Bool { values[name] != nil }
        func check(_ name: String, shape: [Int]) {}
        func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>) {
            for (place, index) in range.enumerated() { floats[place] = values[name]?[index] ?? 0 }
        }
    }

    @Test func adamIsTorchs() throws {
        let golden = try #require(Goldens.all["optimizer"])
        let names = ["a.weight", "b.bias", "c.weight"]
        @Sendable func values(_ json: JSON?) -> [String: [Double]] {
            Dictionary(uniqueKeysWithValues: names.map { ($0, json?[$0]?.doubles ?? []) })
        }
        // Listed in another order than that of their names.
        let parameters = try names.reversed().map { name in
            Parameter(name: name, shape: try #require(golden["shapes"]?[name]).doubles.map { Int($0) })
        }
        let steps = try golden.int("steps")
        let blocks = ParameterBlocks(parameters)
        #expect(blocks.entries.map(\.parameter.name) == names)
        #expect(blocks.entries.map(\.decays) == [true, false, false])
        let start = values(golden["start"]).mapValues { $0.map { Float($0) } }
        let masters = try MasterWeights(blocks, from: Values(values: start))
        let adam = AdamW(beta2: 0.98, epsilon: 1e-6, weightDecay: 0.1)
        let schedule = Schedule(kind: .linear, warmupSteps: 5, steps: steps)
        let (threads, norms) = (ThreadPool(threads: 2), try golden.numbers("norms"))
        _ = try VirtualRanks.run(count: 1) { transport in
            let shard = OptimizerShard(adam, blocks, rank: Rank(0), of: 1)
            let gradient = AlignedBuffer(count: blocks.count)
            for (done, given) in try #require(golden["gradients"]?.array).enumerated() {
                for entry in blocks.entries {
                    for (place, value) in (given[entry.parameter.name]?.floats ?? []).enumerated() {
                        gradient.pointer[entry.range.lowerBound + place] = value
                    }
                }
                let norm = try GradientNorm.norm(gradient, blocks, over: transport, threads: threads)
                #expect(abs(norm - norms[done]) <= 1e-13 * norms[done], "step \(done)")
                let rate = 1e-2 * schedule.factor(done)
                shard.update(
                    masters, gradient: gradient, factor: GradientNorm.factor(norm: norm, most: 1), rate: rate,
                    headRate: rate, threads: threads)
            }
            let (end, mean, square) = (values(golden["end"]), values(golden["mean"]), values(golden["square"]))
            for entry in blocks.entries {
                let name = entry.parameter.name
                for (place, index) in entry.range.enumerated() {
                    // A mean gathers three roundings a step, of numbers that are at most 1 and fade; a square four.
                    let (m, v) = (Double(shard.mean.pointer[index]), Double(shard.square.pointer[index]))
                    #expect(abs(m - mean[name]![place]) <= 4 / (1 - 0.9) * unit, "\(name)[\(place)]")
                    #expect(
                        abs(v - square[name]![place]) <= 5 / (1 - 0.98) * unit * square[name]![place],
                        "\(name)[\(place)]")
                    // A step's own size is at most about 1e-2, off by a mean's error over the root of its square, and a
                    // weight is rounded three times a step.
                    let exact = end[name]![place]
                    let root = max(square[name]![place].squareRoot(), 1e-3)
                    let bound = Double(steps) * unit * (3 * (abs(exact) + 0.4) + 1e-2 * (40 / root + 200))
                    let error = abs(Double(masters.floats[index]) - exact)
                    #expect(error <= bound, "\(name)[\(place)]: \(error) > \(bound)")
                }
            }
        }
    }

    /// Blocks reach to the end of the parameters, and none lies behind them.
    @Test func blocksEndWithTheParameters() {
        let size = ParameterBlocks.blockSize
        for (count, blocks) in [(1, 1), (size - 1, 1), (size, 1), (size + 1, 2), (3 * size, 3)] {
            #expect(ParameterBlocks([Parameter(name: "w", shape: [count])]).blockCount == blocks, "\(count) floats")
        }
    }

    /// Any part of a parameter, wherever it stands among the others.
    @Test func mastersAreReadByName() throws {
        let values: [String: [Float]] = ["a": [1, 2, 3, 4, 5, 6], "b": [7, 8, 9]]
        let blocks = ParameterBlocks([Parameter(name: "b", shape: [3]), Parameter(name: "a", shape: [2, 3])])
        let masters = try MasterWeights(blocks, from: Values(values: values))
        for (name, shape, range) in [
            ("a", [2, 3], 0..<6), ("a", [2, 3], 2..<5), ("b", [3], 0..<3), ("b", [3], 1..<2),
        ] {
            var found = [Float](repeating: 0, count: range.count)
            try found.withUnsafeMutableBufferPointer {
                try masters.read(name, shape: shape, range: range, into: #require($0.baseAddress))
            }
            #expect(found == values[name].map { Array($0[range]) }, "\(name), \(range)")
        }
    }

    @Test func aHeadHasItsOwnRate() throws {
        let parameters = [Parameter(name: "body", shape: [3, 2]), Parameter(name: "head", shape: [2, 2])]
        let blocks = ParameterBlocks(parameters, heads: ["head"])
        let ones = Values(values: ["body": Array(repeating: 1, count: 6), "head": Array(repeating: 1, count: 4)])
        let masters = try MasterWeights(blocks, from: ones)
        let shard = OptimizerShard(AdamW(), blocks, rank: Rank(0), of: 1)
        let gradient = AlignedBuffer(count: blocks.count)
        for index in 0..<blocks.count { gradient.pointer[index] = 0.5 }
        shard.update(
            masters, gradient: gradient, factor: 1, rate: 0.25, headRate: 0.125, threads: ThreadPool(threads: 1))
        // The first step is the rate, whatever the gradient's size.
        for index in 0..<6 { #expect(abs(masters.floats[index] - 0.75) < 1e-6) }
        for index in 6..<10 { #expect(abs(masters.floats[index] - 0.875) < 1e-6) }
    }
}
