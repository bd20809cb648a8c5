// Batches one after another in the same memory.

import Checkpoints
import Matrices
import Plans
import RingAttention
import Testing
import Tiles
import Transformers

@Suite struct BatchMemoryTests {
    @Test(
        "what earlier batches left changes no bit, nor does company in a group or in another",
        arguments: [ElementKind.float32, .bfloat16], ["tiny-bert", "tiny-modernbert"])
    func leftovers(element: ElementKind, name: String) throws {
        let encoder = try Encoder(Checkpoint(folder: golden(name)), element: element, kernels: .best)
        let width = encoder.configuration.hiddenSize
        let batches = [[5, 300, 33], [257, 1], [700, 300, 700, 513, 64, 650], [300, 64, 5]].map { lengths in
            lengths.map { length in
                (0..<length).map { Int32($0 * 7 + length) % Int32(encoder.configuration.vocabularySize) }
            }
        }
        let states = try VirtualRanks.run(count: 1, seed: 1) { transport in
            let memory = BufferPool()
            // Earlier work, the worst possible: every buffer that a run takes is full of NaN.
            let sizes = [10, 80, 600, 3000].flatMap { Array(repeating: $0 * 4 * width, count: 12) }
            for buffer in sizes.map({ memory.buffer(count: $0) }) {
                buffer.pointer.update(repeating: .nan, count: buffer.count)
            }
            return try batches.map { ids in
                let run = try EncoderRun(
                    encoder: encoder, sharding: Sharding(lengths: ids.map(\.count), layout: .contiguous, rankCount: 1),
                    transport: transport, threads: ThreadPool(threads: 1), memory: memory)
                try run.run(ids: ids)
                return Array(UnsafeBufferPointer(start: run.hidden.pointer, count: ids.joined().count * width))
            }
        }[0]
        for (ids, found) in zip(batches, states) {
            let expected = try ids.flatMap { try hiddenStates(encoder, [$0])[0] }
            #expect(found.map(\.bitPattern) == expected.map(\.bitPattern), "\(ids.map(\.count))")
        }
    }

    @Test("a pool lends nothing twice, and keeps no more buffers than were in use at a time")
    func lending() {
        let pool = BufferPool()
        var held = [pool.buffer(count: 10), pool.buffer(count: 0), pool.buffer(count: 10)]
        #expect(Set(held.map { ObjectIdentifier($0) }).count == 3)
        let places = Set(held.map(\.pointer))
        held.removeAll()
        held = [pool.buffer(count: 10), pool.buffer(count: 9)]
        #expect(Set(held.map(\.pointer)).count == 2 && places.isSuperset(of: held.map(\.pointer)))
        weak var free = held[0]
        held.removeFirst()
        #expect(free != nil)
        var larger: AlignedBuffer? = pool.buffer(count: 1000)
        #expect(larger.map { $0.count >= 1000 } == true && free == nil, "the free buffer made way")
        // What is small beside a buffer does not hold it, what is half as large does.
        let place = larger?.pointer
        larger = nil
        let small = pool.buffer(count: 20)
        #expect(small.pointer != place)
        #expect(pool.buffer(count: 500).pointer == place)
    }
}
