// The figures of the ladder in dispatch.c, printed on request: they depend on the machine and assert nothing.
//
//     ANNULUS_KERNEL_BENCHMARK=1 swift test -c release --filter KernelBenchmark

import CKernels
import Foundation
import Matrices
import Testing

#if canImport(Glibc)
import Glibc
#endif

@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment["ANNULUS_KERNEL_BENCHMARK"] != nil))
struct KernelBenchmark {
    /// Median and best ratio to the peak measured right before and after each of `repetitions` runs.
    static func ratio(
        _ set: KernelSet, _ element: ElementKind, operations: Double, repetitions: Int = 101, _ work: () -> Void
    ) -> String {
        // The thread's own time: the machine may be running other things.
        func threadSeconds() -> Double {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
        }
        let peak = element == .float32 ? set.functions.peak : set.bfloat16Functions.peak
        func peakRate() -> Double {
            var best = 0.0, sink: Float = 0.5
            for _ in 0..<4 {
                let start = threadSeconds()
                let done = peak?(3000, &sink) ?? 0
                best = max(best, done / (threadSeconds() - start))
            }
            return best
        }
        let ratios = (0..<repetitions).map { _ in
            let before = peakRate()
            let start = threadSeconds()
            work()
            let seconds = threadSeconds() - start
            let after = peakRate()
            return operations / seconds / max(before, after)
        }.sorted()
        return String(format: "%.3f %.3f", ratios[repetitions / 2], ratios[repetitions * 9 / 10])
    }

    /// What is worth measuring: the reference is not, nor bfloat16 whose results are compared.
    static let kinds = kernelSets.dropFirst().flatMap { set in
        ElementKind.allCases.filter { $0 == .float32 || set.bfloat16Products != .compared }.map { (set.name, $0) }
    }

    @Test(arguments: kinds)
    func denseLayers(name: String, element: ElementKind) throws {
        let set = try #require(KernelSet.named(name))
        var random = RandomNumbers(seed: 1)
        for (inputs, outputs) in [(768, 3072), (3072, 768), (384, 1536)] {
            let rows = 192
            let x = random.floats(rows * inputs)
            let y = AlignedBuffer(count: rows * outputs)
            let matrix = random.floats(inputs * outputs).withUnsafeBufferPointer {
                PackedMatrix(weights: $0, inputs: inputs, outputs: outputs, element: element, kernels: set)
            }
            let ratio = Self.ratio(set, element, operations: 2 * Double(rows * inputs * outputs)) {
                x.withUnsafeBufferPointer {
                    if let x = $0.baseAddress {
                        matrix.multiply(rows: rows, x: x, xStride: inputs, y: y.pointer, yStride: outputs, kernels: set)
                    }
                }
            }
            print("\(name) \(element) dense \(inputs) → \(outputs): \(ratio) of peak (median, 90th percentile)")
        }
    }

    /// A panel's product with rows that are in the first-level cache, as it is: what beginning and ending a register block costs.
    @Test(arguments: kernelSets.dropFirst().map(\.name))
    func products(name: String) throws {
        let set = try #require(KernelSet.named(name))
        let (rows, columns) = (24, Int(ANNULUS_PANEL_WIDTH))
        for depth in [32, 64, 128] {
            var random = RandomNumbers(seed: 1)
            let x = random.floats(rows * depth), panel = random.floats(depth * columns)
            let y = AlignedBuffer(count: rows * columns)
            let ratio = Self.ratio(set, .float32, operations: 2 * Double(100 * rows * depth) * Double(columns)) {
                for _ in 0..<100 {
                    set.functions.panel_product(
                        x, depth, rows, panel, depth, 16 * depth, columns, y.pointer, columns, 0)
                }
            }
            print("\(name) product of \(depth) terms: \(ratio) of peak (median, 90th percentile)")
        }
    }

    @Test(arguments: kinds)
    func attention(name: String, element: ElementKind) throws {
        let set = try #require(KernelSet.named(name)), functions = set.functions, bfloat16 = set.bfloat16Functions
        let keys = 256, rows = 256, tiles = 16
        for depth in [32, 64, 128] {
            let q = AlignedBuffer(count: rows * depth), k = AlignedBuffer(count: tiles * keys * depth)
            let v = AlignedBuffer(count: tiles * keys * depth), o = AlignedBuffer(count: rows * depth)
            let rowMax = AlignedBuffer(count: rows), rowSum = AlignedBuffer(count: rows)
            let scratch = AlignedBuffer(count: scratchRows * keys)
            var random = RandomNumbers(seed: 1)
            for buffer in [q, k, v] {
                // For either kind: as pairs, two numbers of ordinary size.
                for index in 0..<buffer.count { buffer[index] = random.float() }
                if element == .bfloat16 {
                    let numbers = Array(UnsafeBufferPointer(start: buffer.pointer, count: buffer.count))
                    bfloat16.round_rows(numbers, 0, 1, buffer.count, 1, buffer.pointer, 0)
                    buffer.pointer.advanced(by: buffer.count / 2).update(from: buffer.pointer, count: buffer.count / 2)
                }
            }
            let ratio = Self.ratio(set, element, operations: 4 * Double(rows * tiles * keys * depth)) {
                for tile in 0..<tiles {
                    let first = tile * keys * element.slots(depth)
                    switch element {
                    case .float32:
                        functions.attend_tile(
                            q.pointer, depth, rows, k.pointer + first, depth, v.pointer + first, depth, keys,
                            rowMax.pointer, rowSum.pointer, o.pointer, depth, scratch.pointer,
                            k.pointer + (tile + 1 < tiles ? first + keys * depth : 0))
                    case .bfloat16:
                        bfloat16.attend_tile(
                            q.pointer, depth / 2, rows, k.pointer + first, depth, v.pointer + first, depth, keys, 1,
                            rowMax.pointer, rowSum.pointer, o.pointer, depth, scratch.pointer)
                    }
                }
            }
            print("\(name) \(element) attention tile d = \(depth): \(ratio) of peak (median, 90th percentile)")
        }
    }
}
