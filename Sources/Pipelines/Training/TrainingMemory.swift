// What a training takes of memory, told beforehand.

import Foundation
import Plans
import RingAttention
import Tiles
import Training
import Transformers

extension TrainedModel {
    /// Pages of the program, its libraries and a tokenizer, as `/usr/bin/time -v annulus tokenize` shows them.
    private static let programBytes = 32.0 * 0x1p20

    /// Bytes that a rank takes for a training beside its tokens, by the largest part of a step.
    ///
    /// Of the program its own. Of weights: the masters, the tables, and every step the packed panels of dense layers and of
    /// their transposes. Of gradients: a sum for each of the rank's maximal subtrees, and what it owns of the sums of all
    /// ranks and of the optimizer's means. Of a language model's head the logits of a pass, and the sums of passes that wait
    /// for each other on the tree. Of each thread what a block of rows needs.
    /// - Parameters:
    ///   - rows: tokens of the rank that has most, in one part of a step.
    ///   - subtrees: maximal ones that a rank's tiles fill.
    ///   - maskProbability: the share of tokens that a language model is to guess.
    func trainingBytes(rows: Int, subtrees: Int, ranks: Int, threads: Int, maskProbability: Double) -> Double {
        let configuration = start.configuration
        func floats(_ parameters: [Parameter], _ counts: (Parameter) -> Bool) -> Double {
            Double(parameters.filter(counts).reduce(0) { $0 + $1.shape.reduce(1, *) })
        }
        let isTable = { (parameter: Parameter) in
            parameter.shape.count == 2 && parameter.name.contains("embeddings") && parameter.name.hasSuffix("weight")
                && self.encoderNames.contains(parameter.name)
        }
        let (all, tables) = (floats(parameters) { _ in true }, floats(parameters, isTable))
        let trained = Double(blocks.count)
        // A tied decoder is packed like any dense layer, and has a gradient of its own.
        let decoders = tasks.filter { $0.kind == .maskedLanguage }.flatMap(\.head).filter {
            encoderNames.contains($0.name)
        }
        let tied = floats(decoders) { _ in true }
        let weights = 4 * trained + 4 * tables + 8 * (all - tables + tied)
        let parts = trained - min(trained, tables) + tied
        let gradients = 4 * parts * Double(subtrees) + (4 * (parts + trained) + 8 * trained) / Double(ranks)

        var (logits, waiting) = (0.0, 0.0)
        for task in tasks where task.kind == .maskedLanguage {
            let masked = max(1, maskProbability * Double(rows))
            let ofPass = Double(max(1, EncoderRun.mostLogits / configuration.vocabularySize))
            logits = min(masked, ofPass) * Double(configuration.vocabularySize)
            waiting += max(0, log2(masked / ofPass).rounded(.up)) * floats(task.head) { _ in true }
        }
        let (hidden, inner) = (
            configuration.hiddenSize, configuration.intermediateSize * (configuration.isGated ? 2 : 1)
        )
        let scratch = Double(threads * TileGrid.tileSize * (6 * hidden + 3 * inner))
        return Self.programBytes + weights + gradients + 4 * (logits + waiting + scratch)
    }
}

extension StepOrder {
    /// The lengths of the documents of a step's largest part.
    func largestPart(_ settings: TrainingSettings) -> [Int] {
        let longest = max(1, lengths.flatMap { $0 }.max() ?? 1)
        return Array(repeating: longest, count: max(1, settings.batchTokens / settings.accumulationSteps / longest))
    }
}
