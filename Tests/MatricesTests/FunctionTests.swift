// exp, log, erf, tanh and GELU over the whole float range, in ulp against float64.

import CKernels
import Foundation
import Matrices
import Testing

struct FunctionTests {
    enum Function: String, CaseIterable, Sendable {
        case exp, log, erf, tanh, gelu, geluTanh, silu

        /// The bound that the kernels' comments state.
        var bound: Double {
            switch self {
            case .exp: 1
            case .log: 1
            case .erf: 1.5
            case .tanh: 1.5
            case .gelu: 7
            case .silu: 3.5
            case .geluTanh: .infinity  // has a bound of its own, below
            }
        }

        func exact(_ x: Double) -> Double {
            switch self {
            case .exp: Foundation.exp(x)
            case .log: Foundation.log(x)
            case .erf: Foundation.erf(x)
            case .tanh: Foundation.tanh(x)
            case .gelu: x == -.infinity ? 0 : 0.5 * x * Foundation.erfc(-x * 0.5.squareRoot())
            case .silu: x == -.infinity ? 0 : x / (1 + Foundation.exp(-x))
            case .geluTanh:
                x == -.infinity
                    ? 0 : x / (1 + Foundation.exp(-2 * (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
            }
        }

        func run(_ kernels: KernelSet, _ x: [Float]) -> [Float] {
            var y = [Float](repeating: guardValue, count: x.count)
            let functions = kernels.functions
            switch self {
            case .exp: functions.exp(x, &y, x.count)
            case .log: functions.log(x, &y, x.count)
            case .erf: functions.erf(x, &y, x.count)
            case .tanh: functions.tanh(x, &y, x.count)
            case .gelu:
                y = x
                functions.gelu_bias(1, x.count, &y, x.count, nil)
            case .geluTanh:
                y = x
                functions.gelu_tanh_bias(1, x.count, &y, x.count, nil)
            case .silu:
                y = x
                functions.silu_bias(1, x.count, &y, x.count, nil)
            }
            return y
        }
    }

    /// Every `step`-th of all 2³² floats, in blocks.
    static func sweep(step: UInt32, _ body: ([Float]) -> Void) {
        var pattern: UInt64 = 0
        while pattern < 1 << 32 {
            var block: [Float] = []
            block.reserveCapacity(1 << 14)
            while pattern < 1 << 32 && block.count < 1 << 14 {
                block.append(Float(bitPattern: UInt32(pattern)))
                pattern += UInt64(step)
            }
            body(block)
        }
    }

    @Test("within its bound over the whole float range", arguments: Function.allCases)
    func sweepOfBounds(function: Function) {
        var worst = 0.0, at: Float = 0, samples = 0, failures = 0
        let kernels = KernelSet.best
        Self.sweep(step: isDebug ? 100_003 : 83) { x in
            let y = function.run(kernels, x)
            for i in x.indices {
                let exact = function.exact(Double(x[i]))
                var error = ulps(y[i], exact)
                if function == .geluTanh, exact.isFinite {
                    // The exponential magnifies the rounding of its argument 2u = x·(…): a relative error of |2u|
                    // roundings.
                    let twice = 1.6 * abs(Double(x[i])) * (1 + 0.0448 * Double(x[i]) * Double(x[i]))
                    let bound = abs(exact) * (4 * twice * 0x1p-24 + 4 * 0x1p-23) + 16 * 0x1p-149
                    error = abs(Double(y[i]) - exact) <= bound ? 0 : .infinity
                }
                // A denormal factor of a result is less exact than the result could be.
                if function == .silu, abs(exact) < 0x1p-119 {
                    error = abs(Double(y[i]) - exact) <= 0x1p-140 ? 0 : .infinity
                }
                // The tail ends where results stop being normal numbers.
                if function == .gelu, x[i] < -13 {
                    error = abs(exact) > 0x1p-125 ? error : abs(Double(y[i]) - exact) < 0x1p-126 ? 0 : .infinity
                }
                samples += 1
                if error > worst {
                    worst = error
                    at = x[i]
                }
                let bound = function.bound.isFinite ? function.bound : 0
                if !(error <= bound) { failures += 1 }
            }
        }
        print("\(function.rawValue): worst \(worst) ulp at \(at) of \(samples) floats, \(kernels.name)")
        #expect(failures == 0, "worst \(worst) ulp at \(at)")
    }

    @Test("the same bits in every kernel set, over the whole float range", arguments: Function.allCases)
    func sameBits(function: Function) {
        Self.sweep(step: isDebug ? 200_003 : 4_099) { x in
            let expected = function.run(kernelSets[0], x)
            for set in kernelSets.dropFirst() {
                let y = function.run(set, x)
                for i in x.indices where y[i].bitPattern != expected[i].bitPattern && !(y[i].isNaN && expected[i].isNaN)
                {
                    Issue.record("\(set.name): \(y[i]) at \(x[i]), reference \(expected[i])")
                    return
                }
            }
        }
    }

    @Test("special values", arguments: kernelSets.map(\.name))
    func specialValues(name: String) throws {
        let set = try #require(KernelSet.named(name))
        let x: [Float] = [
            0, -0.0, .infinity, -.infinity, .nan, 1, -1, .leastNonzeroMagnitude, 88.72283, 88.7229, -104, -103.9,
        ]
        let e = Function.exp.run(set, x)
        #expect(e[0] == 1 && e[1] == 1 && e[2] == .infinity && e[3].bitPattern == 0 && e[4].isNaN)
        #expect(e[8].isFinite && e[9] == .infinity && e[10].bitPattern == 0 && e[11] == .leastNonzeroMagnitude)
        let l = Function.log.run(set, x)
        #expect(l[0] == -.infinity && l[1] == -.infinity && l[2] == .infinity && l[3].isNaN && l[4].isNaN)
        #expect(l[5].bitPattern == 0 && l[6].isNaN && abs(l[7] + 103.27893) < 1e-4)
        for function in [Function.erf, .tanh] {
            let y = function.run(set, x)
            #expect(y[0].bitPattern == 0 && y[1].bitPattern == Float(-0.0).bitPattern)
            #expect(y[2] == 1 && y[3] == -1 && y[4].isNaN && y[5] == -y[6])
        }
        for function in [Function.gelu, .geluTanh] {
            let y = function.run(set, x)
            #expect(y[0] == 0 && y[2] == .infinity && y[3] == 0 && y[4].isNaN)
        }
    }

    @Test("every length, and nothing written past it")
    func lengths() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let x = random.floats(70, -4...4)
        for set in kernelSets {
            let whole = Function.exp.run(set, x)
            for n in 0...67 {
                var y = [Float](repeating: guardValue, count: 70)
                set.functions.exp(x, &y, n)
                #expect(Array(y[0..<n]).bitPatterns == Array(whole[0..<n]).bitPatterns, "\(set.name), \(n)")
                #expect(y[n...].allSatisfy { $0 == guardValue }, "\(set.name), \(n)")
            }
        }
    }
}
