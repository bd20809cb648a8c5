// `annulus observe`: what a model attends to.

import ArgumentParser
import Pipelines

struct Observe: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what a model attends to.",
        discussion: """
            Exact, of every head and token, without the matrix of weights ever being formed. For document D and layer L, both \
            counted from 0, a .safetensors holds D.layer.L.NAME, [heads, tokens] unless it says otherwise: log_sum_exp; entropy, \
            in nats; max_logit and max_key (int32), the largest score after scale and biases, and its key; mean_distance, \
            Σ p·|i − j|, in tokens; received_mass, what each token receives of all queries; first_token_share and \
            special_token_share, [heads], of all that is received; with --top-k top_keys (int32) and top_weights, [heads, tokens, \
            k], by descending score, then ascending key, −1 and 0 where a token sees fewer; with --queries or --keys scores (−∞ where masked) \
            and weights, [heads, queries, keys]; with --block-map block_map, [heads, blocks, blocks], the mean weight in each of at most \
            256 × 256 blocks of ⌈tokens / 256⌉ tokens. Beside the layers D.ids (int32), [tokens]; with --rollout D.rollout, \
            [queries, tokens]; with --probe D.probe, [tokens]. JSON lines hold the same by name, a line a document and layer.

            --rollout traces chosen tokens of the last layer back to the first: r becomes r·(I + A)/2 in each, A being the mean of the \
            heads' weights (Abnar & Zuidema 2020). --probe edits one token at a time and runs the document again: of a classifier the value is \
            the change of the logit of the label that the document had, of any other model 1 − the cosine of the vectors that embed \
            gives; NaN where nothing can be edited.

            An .html is a report of one document, whose page has at most 10 MB: everything up to a length that it states, beyond it \
            the tokens of --queries, others at even distances, and the rest by block. A .png shows the block maps of all heads.

            What it will take is said beforehand. Tokens A:B are those from A to before B, as tokenize numbers them; A: goes to the end.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions

    @Option(
        name: [.short, .long],
        help: ArgumentHelp(
            "Output file: .safetensors or .jsonl; .html, a report of one document; .png, a picture of its block maps. Default: JSON lines on standard output. \(OutputOptions.underMPIRun)"
        ))
    var output: String?

    @Flag(help: "Overwrite an output that exists.")
    var force = false

    @Option(help: "Layers, counted from 0: numbers and ranges A:B, with commas. Default: all.")
    var layers: NumberRanges?

    @Option(help: "Heads, likewise. Default: all.")
    var heads: NumberRanges?

    @Option(help: "Give scores and weights of these queries: A:B. Default with --keys or --key-phrase: all.")
    var queries: TokenRange?

    @Option(help: "Give scores and weights of these keys: A:B. Default with --queries or --query-phrase: all.")
    var keys: TokenRange?

    @Option(help: "The queries are the tokens of the first place where this text stands.")
    var queryPhrase: String?

    @Option(help: "The keys are the tokens of the first place where this text stands.")
    var keyPhrase: String?

    @Option(help: "Tell the keys of most weight of each token, this many.")
    var topK: Int?

    @Flag(help: "Give block means of the weights.")
    var blockMap = false

    @Option(help: "Give the attention rollout of these tokens: A:B. Each takes a second pass over every layer.")
    var rollout: TokenRange?

    @Option(
        help: """
            Edit one token at a time: mask (the mask token takes its place), drop, swap (with the next one), or noise (another \
            token, by --seed).
            """)
    var probe: ProbeEdit?

    @Option(help: "Edit these tokens: A:B. Default: all but special ones.")
    var probeTokens: TokenRange?

    @Option(help: "What noise depends on.")
    var seed: UInt64 = 1

    @OptionGroup var runOptions: RunOptions

    mutating func validate() throws {
        if let output {
            if ![".safetensors", ".jsonl", ".html", ".png"].contains(where: { output.hasSuffix($0) }) {
                throw ValidationError(
                    "--output '\(output)' needs a name that ends in .safetensors, .jsonl, .html or .png")
            }
            if output.hasSuffix(".png"), rollout != nil || probe != nil {
                throw ValidationError("a .png shows block maps alone: write a .safetensors or .html")
            }
            if output.hasSuffix(".html") || output.hasSuffix(".png"), keys != nil || keyPhrase != nil {
                throw ValidationError("scores and weights of --keys go into a .safetensors or .jsonl")
            }
            if output.hasSuffix(".png"), queries != nil || queryPhrase != nil {
                throw ValidationError("a .png shows block maps alone: write a .safetensors or .html")
            }
        }
        if let topK, !(1...4096).contains(topK) { throw ValidationError("--top-k takes 1 to 4096, not \(topK)") }
        for (name, phrase, range) in [("query", queryPhrase, queries), ("key", keyPhrase, keys)] {
            if phrase != nil, range != nil {
                throw ValidationError(
                    "--\(name)-phrase and --\(name == "query" ? "queries" : "keys") both choose: leave one out")
            }
            if phrase?.isEmpty == true { throw ValidationError("--\(name)-phrase is empty") }
        }
        if probeTokens != nil, probe == nil { throw ValidationError("--probe-tokens needs --probe") }
    }

    func run() throws {
        var options = ObservationOptions()
        options.layers = layers?.numbers
        options.heads = heads?.numbers
        options.queries = queryPhrase.map { .phrase($0) } ?? queries?.choice
        options.keys = keyPhrase.map { .phrase($0) } ?? keys?.choice
        options.topKeys = topK
        options.hasMaps = blockMap
        options.rollout = rollout?.choice
        options.probe = probe
        options.probed = probeTokens?.choice
        options.seed = seed
        let (name, documents) = (model.model, input.documents)
        let file = output.map { OutputFile(path: $0, mayReplace: force) }
        let streams = input.streams + (output == nil ? [.output] : [])
        try Session.run(self, runOptions, needs: streams) { [options] session in
            if let file {
                try ParallelFile.checkWritable(file.path, force: file.mayReplace, transport: session.transport)
            }
            try Observation(options).run(model: name, input: documents, to: LineDestination(file), session)
        }
    }
}

/// Numbers and ranges A:B, with commas.
struct NumberRanges: ExpressibleByArgument {
    let numbers: [Int]
    private let text: String

    init?(argument: String) {
        var numbers: [Int] = []
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            guard case .range(let first, let end?)? = TokenChoice(range: String(part)), end - first <= 100_000 else {
                return nil
            }
            numbers += first..<end
        }
        self.numbers = numbers
        text = argument
    }

    var defaultValueDescription: String { text }
}

/// Tokens A:B.
struct TokenRange: ExpressibleByArgument {
    let choice: TokenChoice
    private let text: String

    init?(argument: String) {
        guard let choice = TokenChoice(range: argument) else { return nil }
        self.choice = choice
        text = argument
    }

    var defaultValueDescription: String { text }
}

extension ProbeEdit: ExpressibleByArgument {}
