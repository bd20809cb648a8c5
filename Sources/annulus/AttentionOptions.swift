// The attention of `bench` and `plan`: its length, heads and mask.

import ArgumentParser
import Attention
import Matrices
import Pipelines
import Plans

/// One attention over a sequence: of its tokens, or of other queries to them.
struct AttentionOptions: ParsableArguments {
    @Option(help: "Tokens of the sequence: keys, and queries where --query-length does not say otherwise.")
    var length: Int = 8192

    @Option(help: "Queries, for cross-attention. Default: --length.")
    var queryLength: Int?

    @Option(help: "Query heads.")
    var heads: Int = 12

    @Option(help: "Key/value heads; default: as many as query heads.")
    var kvHeads: Int?

    @Option(help: "Width of a head.")
    var headDim: Int = 64

    @Option(help: "Width of a value. Default: --head-dim.")
    var valueDim: Int?

    @Option(help: ArgumentHelp(MaskInput.help))
    var mask: String = "full"

    @Flag(help: "The gradients of the attention, five products, after it was done once.")
    var backward = false

    mutating func validate() throws {
        try MaskInput.check(mask)
        // Sizes whose products stay far below the largest integer.
        for (name, value, most) in [
            ("--length", length, 1_000_000_000), ("--query-length", queryLength ?? 1, 1_000_000_000),
            ("--heads", heads, 4096), ("--kv-heads", kvHeads ?? 1, 4096), ("--head-dim", headDim, 16_384),
            ("--value-dim", valueDim ?? 1, 16_384),
        ] where !(1...most).contains(value) {
            throw ValidationError("\(name) takes 1 to \(most), not \(value)")
        }
        if heads % (kvHeads ?? heads) != 0 {
            throw ValidationError("--heads \(heads) is no multiple of --kv-heads \(kvHeads ?? heads)")
        }
    }

    var shape: HeadShape {
        HeadShape(
            queryHeads: heads, keyValueHeads: kvHeads ?? heads, headDimension: headDim,
            valueDimension: valueDim ?? headDim)
    }

    /// The sequence as it is attended: a packed one falls apart into its documents.
    /// - Throws: `MaskSyntaxError`, `FileError` and `JobError` where the mask cannot be applied.
    func sequence() throws -> (pieces: [SequenceShape], mask: Mask) {
        let whole = SequenceShape(queries: queryLength ?? length, keys: length)
        return try MaskInput.mask(mask, for: whole).pieces(of: whole)
    }

    /// The attention as the ranks of a job do it. Collective.
    /// - Throws: as `sequence`, agreed on by all ranks.
    func problem(_ session: Session) throws -> AttentionProblem {
        let (pieces, mask) = try session.agreeReading { try sequence() }
        return try session.problem(pieces, mask, shape)
    }

    /// What a rank holds beside keys and values.
    var footprint: Footprint {
        var result = Footprint()
        result.bytesPerToken = bytesPerToken
        return result
    }

    /// Bytes of a token's query and output; for gradients also of theirs, of m, ℓ, L and D, and of those of keys and values.
    private var bytesPerToken: Double {
        let width = headDim + (valueDim ?? headDim)
        return Double(4 * (backward ? heads * (2 * width + 4) + (kvHeads ?? heads) * width : heads * width))
    }

    /// What the rows of a benchmark or a plan say of it.
    var fields: [(name: String, value: BenchValue)] {
        [
            ("length", .integer(length)), ("query_length", .integer(queryLength ?? length)), ("heads", .integer(heads)),
            ("kv_heads", .integer(kvHeads ?? heads)), ("head_dim", .integer(headDim)),
            ("value_dim", .integer(valueDim ?? headDim)),
            ("mask", .text(mask)), ("backward", .truth(backward)),
        ]
    }
}
