// Weights that the ranks of a node share: each is read by one of them, and all run on what it made of it.

import Checkpoints
import Files
import Matrices
import Plans
import RingAttention
import Synchronization
import Testing
import Tiles
import Transformers

@Suite struct WeightStorageTests {
    /// A checkpoint that counts what is read of each matrix.
    private final class Witness: ParameterSource {
        let checkpoint: Checkpoint
        let read = Mutex<[String: Int]>([:])

        init(_ checkpoint: Checkpoint) { self.checkpoint = checkpoint }

        func has(_ name: String) -> Bool { checkpoint.has(name) }
        func check(_ name: String, shape: [Int]) throws(FileError) { try checkpoint.check(name, shape: shape) }
        func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
            throws(FileError)
        {
            if shape.count > 1 { read.withLock { $0[name, default: 0] += range.count } }
            try checkpoint.read(name, shape: shape, range: range, into: floats)
        }
    }

    /// A node's ranks together read every matrix as often as one rank does, and each rank's model is that of its own
    /// memory.
    @Test(
        arguments: ["tiny-bert", "tiny-albert", "tiny-modernbert", "tiny-nomic-bert", "tiny-deberta-v3"],
        [ElementKind.float32, .bfloat16])
    func aNodeReadsEveryMatrixOnce(name: String, element: ElementKind) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let configuration = try EncoderConfiguration(checkpoint.config, path: name)
        let alone = Witness(checkpoint)
        let own = try Encoder(configuration, parameters: alone, element: element, kernels: .best)
        // Every rank makes its layers' relative positions of this table.
        let everywhere = "encoder.rel_embeddings.weight"
        let once = alone.read.withLock { $0 }.filter { $0.key != everywhere }
        let ids = [(0..<270).map { Int32($0 * 7 % configuration.vocabularySize) }]
        let expected = try hiddenStates(own, ids)[0].map(\.bitPattern)
        for (ranks, nodes) in [(1, 1), (2, 1), (3, 1), (5, 2)] {
            let topology = Topology(hosts: (0..<ranks).map { $0 * nodes / ranks })
            let witness = Witness(checkpoint)
            let models = try VirtualRanks.run(count: ranks) { transport in
                let counting = WeightStorage.counting
                _ = try Encoder(configuration, parameters: witness, storage: counting, element: element, kernels: .best)
                let storage = try WeightStorage.shared(floats: counting.floats, over: transport, among: topology)
                let model = try Encoder(
                    configuration, parameters: witness, storage: storage, element: element, kernels: .best)
                try transport.barrier()
                try storage.publish()
                #expect(storage.floats == counting.floats)
                return model
            }
            #expect(
                witness.read.withLock { $0 }.filter { $0.key != everywhere } == once.mapValues { $0 * nodes },
                "\(ranks) ranks")
            for (rank, model) in models.enumerated() {
                #expect(try hiddenStates(model, ids)[0].map(\.bitPattern) == expected, "rank \(rank) of \(ranks)")
            }
        }
    }

    /// What is counted is what is taken: the panels of every dense layer, and the tables, each on cache lines of its
    /// own.
    @Test func countingTakesWhatLoadingTakes() throws {
        let configuration = try #require(PublishedShape.named("minilm")).configuration()
        let (width, inner) = (configuration.hiddenSize, configuration.intermediateSize)
        let tables = (configuration.vocabularySize + configuration.positionCount + configuration.tokenTypeCount) * width
        let layers = configuration.layerCount * (4 * width * width + 2 * width * inner)
        #expect(try configuration.weightBytes(.float32) == Double(4 * (tables + layers)))
        #expect(try configuration.weightBytes(.bfloat16) == Double(4 * tables + 2 * layers))
    }
}
