// Gradients of every family's parameters against PyTorch's in float64, and the same bits however they are spread.

import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Testing
import Tiles

import Transformers

/// Encoders that cannot be trained are refused; the others.
private let trainedNames = FamilyTests.names.filter { !$0.contains("deberta") }

/// Holds gradients against a file of goldens: at most the larger of twice PyTorch's own float32 error and 1e-6 of the
/// gradient's norm, a tensor at a time, in L2.
///
/// A bias has the sum of its weight's gradient without the inputs, and its addends may cancel, to zero even: no bias of
/// keys moves a softmax. Roundings are of the addends' size, so the norm that counts is not less than the weight's.
///
/// ALBERT repeats a layer until its tokens are nearly alike. There D = Σ dO∘O is a difference of its own size from Σ P·dP,
/// and as exact as O, which is one chain over the keys of a tile: six draws of documents were off by up to 2.9 times
/// what PyTorch is, and three times is allowed.
func expectGradients(_ found: [String: [Float]], _ file: TensorFile, prefix: String, _ name: String) throws {
    func numbers(_ key: String) throws -> [String: Double] {
        let json = try JSON.parse(Array(try #require(file.metadata[key]).utf8), path: key)
        var numbers: [String: Double] = [:]
        for member in try #require(json.object).members {
            switch member.value {
            case .number(let number): numbers[member.key] = number
            case .integer(let number): numbers[member.key] = Double(number)
            default: break
            }
        }
        return numbers
    }
    let (norms, errors) = (try numbers("norms"), try numbers("float32_errors"))
    var seen: Set<String> = []
    var worst = (share: 0.0, name: "")
    for (parameter, gradient) in found {
        let key = [parameter, prefix + parameter].first { norms[$0] != nil }
        guard let key, let norm = norms[key], let own = errors[key] else {
            #expect(gradient.allSatisfy { $0 == 0 }, "\(name): \(parameter) has no gradient there")
            continue
        }
        seen.insert(key)
        let exact = try file.readFloat32("gradient." + key)
        #expect(exact.count == gradient.count, "\(name): \(key)")
        let error = zip(gradient, exact).reduce(0.0) { $0 + pow(Double($1.0) - Double($1.1), 2) }.squareRoot()
        let weights = norms[String(key.dropLast(4)) + "weight"] ?? 0
        let size = key.hasSuffix("bias") ? max(norm, weights) : norm
        let allowed = max((name.contains("albert") ? 3 : 2) * own, 1e-6 * size)
        if error / allowed > worst.share { worst = (error / allowed, key) }
        #expect(error <= allowed, "\(name): \(key) is off by \(error), PyTorch by \(own), of \(norm)")
    }
    #expect(seen == Set(norms.keys), "\(name): without a gradient: \(Set(norms.keys).subtracting(seen))")
    print("\(name): at most \(worst.share) of what is allowed (\(worst.name))")
}

private func documents(_ file: TensorFile) throws -> [[Int32]] {
    try (0..<3).map { place in try file.readIntegers("\(place).input_ids").map { Int32($0) } }
}

@Suite struct GradientTests {
    @Test(arguments: trainedNames) func gradientsEqualPyTorch(name: String) throws {
        let folder = golden(name)
        let checkpoint = try Checkpoint(folder: folder)
        let file = try TensorFile(path: folder + "/gradients.safetensors")
        let encoder = try Encoder(
            EncoderConfiguration(checkpoint.config, path: "config.json"), parameters: checkpoint, trains: true,
            kernels: .best)
        try expectGradients(
            try gradients(encoder, try documents(file)), file, prefix: checkpoint.prefix, name)
    }

    @Test(arguments: trainedNames) func gradientsHaveTheSameBitsHoweverTheyAreSpread(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let encoder = try Encoder(
            EncoderConfiguration(checkpoint.config, path: "config.json"), parameters: checkpoint, trains: true,
            kernels: .best)
        let vocabulary = Int32(encoder.configuration.vocabularySize)
        // Documents of one and of several tiles, all ids, and more ranks than some have tiles.
        let ids = [300, 1, 257, 2, 70, 600].map { length in
            (0..<length).map { Int32(($0 * 7 + length) % length) % vocabulary }
        }
        let longest = encoder.configuration.positionCount
        let batch = ids.map { Array($0.prefix(longest)) }
        for dropout in [
            nil, Dropout(probability: 0.2, attention: 0.3, seed: 5, step: 2, documents: [4, 7, 1, 0, 99, 3]),
        ] {
            var spread = Spread()
            spread.dropout = dropout
            let alone = try gradients(encoder, batch, spread)
            #expect(alone.values.contains { $0.contains { $0 != 0 } })
            for (ranks, layout, strategy, threads, parts) in [
                (1, Layout.contiguous, Strategy.passKeyValue, 2, [0..<2, 2..<3, 3..<6]),
                (2, .zigzag, .passQueries, 1, nil), (3, .contiguous, .passKeyValue, 2, [0..<4, 4..<6]),
                (5, .zigzag, .allGather, 1, nil),
            ] as [(Int, Layout, Strategy, Int, [Range<Int>]?)] {
                spread.ranks = ranks
                spread.layout = layout
                spread.strategy = strategy
                spread.threads = threads
                spread.microBatches = parts
                let found = try gradients(encoder, batch, spread)
                #expect(found.keys.sorted() == alone.keys.sorted())
                for (parameter, values) in alone {
                    #expect(
                        found[parameter]?.map(\.bitPattern) == values.map(\.bitPattern),
                        "\(name), \(parameter), \(ranks) ranks, \(layout), dropout \(dropout != nil)")
                }
            }
        }
    }

    /// PyTorch's `padding_idx`: without it the padding token's row has a gradient as any other, and nothing else differs.
    @Test(arguments: trainedNames) func thePaddingTokenLearnsFromNoPlaceWhereItStands(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        var configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let padding = try #require(configuration.paddingId, "\(name)")
        #expect(padding == checkpoint.config["pad_token_id"]?.int ?? (name.contains("mpnet") ? 1 : 0))
        var ids: [Int32] = (0..<300).map { 2 + Int32($0 * 7 % 30) }
        for place in [0, 5, 270] { ids[place] = Int32(padding) }
        func found() throws -> [String: [Float]] {
            let encoder = try Encoder(configuration, parameters: checkpoint, trains: true, kernels: .best)
            return try gradients(encoder, [Array(ids.prefix(configuration.positionCount)), [Int32(padding)]])
        }
        let spared = try found()
        configuration.paddingId = nil
        let all = try found()
        let width = configuration.embeddingSize
        let differing = spared.filter { all[$0.key] != $0.value }
        #expect(differing.count == 1 && all.count == spared.count, "\(name): \(differing.keys)")
        for (parameter, values) in differing {
            var expected = try #require(all[parameter])
            let row = padding * width..<(padding + 1) * width
            #expect(expected[row].contains { $0 != 0 } && values.count == configuration.vocabularySize * width)
            expected.replaceSubrange(row, with: repeatElement(0, count: width))
            #expect(values == expected, "\(name): \(parameter)")
        }
        guard case .afterPadding = configuration.positions else { return }
        let positions = try #require(all.first { $0.key.contains("position_embeddings") }).value
        let rows = stride(from: 0, to: positions.count, by: width).map { first in
            positions[first..<first + width].contains { $0 != 0 }
        }
        #expect(rows.firstIndex(of: true) == padding + 1, "\(name)")
    }

    @Test func disentangledAttentionIsRefused() throws {
        let checkpoint = try Checkpoint(folder: golden("tiny-deberta-v3"))
        let error = #expect(throws: FileError.self) {
            try Encoder(
                EncoderConfiguration(checkpoint.config, path: "config.json"), parameters: checkpoint, trains: true,
                kernels: .best)
        }
        #expect(error?.description.contains("deberta") == true)
    }

    @Test func frozenParametersGetNothingAndTheOthersTheSame() throws {
        let checkpoint = try Checkpoint(folder: golden("tiny-roberta"))
        let encoder = try Encoder(
            EncoderConfiguration(checkpoint.config, path: "config.json"), parameters: checkpoint, trains: true,
            kernels: .best)
        let ids = [Int32](5..<45)
        let all = try gradients(encoder, [ids])
        var spread = Spread()
        spread.frozen = Set(
            encoder.gradientSlots.map(\.parameter.name).filter {
                $0.hasPrefix("embeddings") || $0.hasPrefix("encoder.layer.0")
            })
        #expect(!spread.frozen.isEmpty)
        for (name, values) in try gradients(encoder, [ids], spread) {
            if spread.frozen.contains(name) {
                #expect(values.allSatisfy { $0 == 0 }, "\(name)")
            } else {
                #expect(values == all[name], "\(name)")
            }
        }
    }
}
