// Numbers for the eye are as near as they say.

import Foundation
import Pipelines
import TestSupport
import Testing

@Suite struct QuantizedNumbersTests {
    private func draw(_ seed: UInt64, _ count: Int, _ make: (inout SplitMix) -> Float) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in make(&random) }
    }

    /// Half a step of 254 on a linear scale, and what float32 rounds in its ends.
    @Test func linearNumbersAreWithinHalfAStep() {
        for seed in UInt64(1)...20 {
            let values = draw(seed, 1001) { 1000 * $0.unit() * Float(seed) - 17 } + [.nan, .infinity, -.infinity]
            let numbers = QuantizedNumbers(linear: values)
            #expect(numbers.bytes.suffix(3) == [0, 0, 0], "seed \(seed)")
            let (low, high) = (Double(numbers.low), Double(numbers.high))
            for (index, value) in values.dropLast(3).enumerated() {
                let read = low + Double(Int(numbers.bytes[index]) - 1) * (high - low) / 254
                #expect(abs(read - Double(value)) <= (high - low) / 508 * 1.000_001, "seed \(seed), index \(index)")
            }
        }
    }

    /// Half a step of 253 in the exponent.
    @Test func logarithmicNumbersAreWithinHalfAStep() {
        for seed in UInt64(1)...20 {
            let values = draw(seed, 999) { exp2(10 * $0.unit()) } + [0, .nan]
            let numbers = QuantizedNumbers(logarithmic: values)
            #expect(numbers.bytes.suffix(2) == [1, 0], "seed \(seed)")
            let (low, high) = (Double(numbers.low), Double(numbers.high))
            for (index, value) in values.dropLast(2).enumerated() {
                let read = low * pow(high / low, Double(Int(numbers.bytes[index]) - 2) / 253)
                #expect(
                    abs(log2(read / Double(value))) <= log2(high / low) / 506 * 1.000_001,
                    "seed \(seed), index \(index)")
            }
        }
    }

    @Test func whatIsSmallerThanTheScaleHasItsLowestCode() {
        let numbers = QuantizedNumbers(logarithmic: [1e-30, 1, 4e-8, 0, -1])
        #expect(numbers.bytes == [2, 255, 2, 1, 1])
        #expect(numbers.low == Float(1.0 / 16_777_216))
    }

    @Test func listsOfOneValueAndOfNone() {
        #expect(QuantizedNumbers(linear: [3, 3]).bytes == [1, 1])
        #expect(QuantizedNumbers(logarithmic: [3, 3, 0]).bytes == [2, 2, 1])
        #expect(QuantizedNumbers(linear: [.nan]).bytes == [0])
        #expect(QuantizedNumbers(logarithmic: [0, 0]).bytes == [1, 1])
    }

    @Test func wholeNumbersOfEachWidth() {
        for (limit, width) in [(7, 2), (65_535, 2), (65_536, 3), (16_777_215, 3), (16_777_216, 4), (1 << 30, 4)] {
            let values = [0, -1, Int32(limit - 1), Int32(limit / 3)]
            let numbers = QuantizedNumbers(whole: values, below: limit)
            #expect(numbers.width == width)
            for (index, value) in values.enumerated() {
                let bytes = numbers.bytes[index * width..<(index + 1) * width]
                let read = bytes.reversed().reduce(0) { $0 << 8 | Int($1) }
                #expect(read == (value < 0 ? 1 << (8 * width) - 1 : Int(value)), "limit \(limit)")
            }
        }
    }

    @Test func binaryLogarithmAgreesWithTheSystems() {
        for seed in UInt64(0)..<2000 {
            var random = SplitMix(seed: seed)
            let value =
                Double.random(in: 1...2, using: &random) * exp2(Double.random(in: -300...300, using: &random).rounded())
            #expect(abs(binaryLogarithm(value) - log2(value)) <= 1e-12 * max(1, abs(log2(value))), "\(value)")
        }
        #expect(binaryLogarithm(8) == 3)
        #expect(binaryLogarithm(0) == -.infinity)
    }
}
