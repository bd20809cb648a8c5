// `annulus observe`: what a model attends to.

import ArgumentParser
import Pipelines

struct Observe: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what a model attends to.",
        discussion: """
            Exact, of every head and token, without the matrix of weights ever being formed; what it takes is said beforehand.

              annulus observe -m MODEL -i text.txt -o seen.html          a report to look at
              annulus observe -m MODEL -i text.txt -o seen.safetensors   the numbers

            A .safetensors holds D.layer.L.NAME of document D and layer L, both counted from 0, [heads, tokens] where no shape is \
            given; JSON lines hold the same by name, a line a document and layer.

              log_sum_exp            ln Σ exp(score) over the keys that a token sees
              entropy                of a token's weights, in nats
              max_logit, max_key     its largest score, after scale and biases, and whose key that is (int32)
              mean_distance          Σ p·|i − j|, in tokens
              received_mass          Σ p over all queries: what a token receives
              first_token_share      [heads] what the first token has of all that is received
              special_token_share    [heads] what special tokens have
              top_keys, top_weights  [heads, tokens, k] --top-k: by descending score, then ascending key (int32); \
            −1 and 0 where a token sees fewer
              scores, weights        [heads, queries, keys] --queries, --keys: −∞ and 0 where masked
              block_map              [heads, blocks, blocks] --block-map: mean weights of at most 256 × 256 blocks
              probe_mass_distance    [heads, probed] --probe: how far received mass moves, from 0, nothing, to 1
              probe_entropy_change   [heads, probed] --probe: the mean change of the tokens' entropy

            and of the document

              D.ids                  [tokens] (int32)
              D.rollout              [queries, tokens] --rollout
              D.probe                [probed] --probe; NaN where nothing can be edited
              D.probe_ids            [probed] --probe noise: what took each token's place (int32)

            --rollout traces chosen tokens of the last layer back to the first: r becomes r·(I + A)/2 in each, A being the mean of the \
            heads' weights (Abnar & Zuidema 2020). --probe edits one token at a time and runs the document again: of a classifier \
            D.probe is the change of the logit of the label that the document had, of any other model 1 − the cosine of the vectors \
            that embed gives.

            An .html is a report of one document, whose page has at most 10 MB: everything up to a length that it states, beyond it \
            the tokens of --queries, others at even distances, and the rest by block. A .png shows the block maps of all heads.

            Tokens A:B are those from A to before B, as tokenize numbers them; A: goes to the end, and A is one token.
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

    @OptionGroup var resuming: ResumeOptions
    @OptionGroup var runOptions: RunOptions

    mutating func validate() throws {
        try resuming.check(output: output, input: input.input)
        if let output {
            if resuming.resume, output.hasSuffix(".html") || output.hasSuffix(".png") {
                throw ValidationError(
                    "--resume keeps finished documents, and a report or picture is of one: leave --resume out, or write a .safetensors or .jsonl"
                )
            }
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
        let resume = resuming.request(self, inputs: [("the input", input.input)])
        let file = output.map { OutputFile(path: $0, mayReplace: force, resume: resume) }
        let streams = input.streams + (output == nil ? [.output] : [])
        try Session.run(self, runOptions, needs: streams) { [options] session in
            // Of a job that is continued, the output may be there.
            if let file, resume == nil {
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
