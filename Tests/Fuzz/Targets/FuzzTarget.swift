// The targets of fuzzing by name. What a target does with an input may end in an error of the project's own; it must
// not trap, hang, or break what the reader promises.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Something that reads bytes which others wrote.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// JSON, printed and read again.
    case json
    /// A safetensors file, and the tensors in it.
    case safetensors
    /// `pytorch_model.bin`, and the tensors in it.
    case torch
    /// `tokenizer.json`, and behind a zero byte a text.
    case tokenizer
    /// A text for one of several tokenizers, which the first byte chooses.
    case text
    /// A regular expression, and behind a zero byte a text.
    case pattern
    /// `vocab.txt` of an ESM, and behind a zero byte a text.
    case vocabulary
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `vocab.txt`, zero bytes between them.
    case settingsOfTokenizer = "tokenizer-settings"
    /// A model of sentencepiece, for the tokenizer classes that read one.
    case pieces
    /// `config.json`.
    case configuration
    /// The files of sentence-transformers, zero bytes between them.
    case settings
    /// `config.json`, `model.safetensors.index.json` and a shard, zero bytes between them.
    case checkpoint
    /// A `.npy` file.
    case npy
    /// Documents in the format that the first byte chooses, read in pieces.
    case documents
    /// The description of a cluster that `plan` reads.
    case cluster
    /// Two lengths, a byte each, and a mask expression.
    case mask
    /// An attention and how it is spread.
    case plan
    /// A choice of tokens, a phrase and a text of a report, zero bytes between them.
    case report

    /// The target that a variable of the environment names.
    public static func named(environment variable: String) -> FuzzTarget? {
        getenv(variable).flatMap { FuzzTarget(rawValue: String(cString: $0)) }
    }

    /// Reads an input and checks what is promised of it.
    public func run(_ bytes: [UInt8]) {
        switch self {
        case .json: fuzzJSON(bytes)
        case .safetensors: fuzzSafetensors(bytes)
        case .torch: fuzzTorch(bytes)
        case .tokenizer: fuzzTokenizer(bytes)
        case .text: fuzzText(bytes)
        case .pattern: fuzzPattern(bytes)
        case .vocabulary: fuzzVocabulary(bytes)
        case .settingsOfTokenizer: fuzzTokenizerSettings(bytes)
        case .pieces: fuzzPieces(bytes)
        case .configuration: fuzzConfiguration(bytes)
        case .settings: fuzzSettings(bytes)
        case .checkpoint: fuzzCheckpoint(bytes)
        case .npy: fuzzNumpy(bytes)
        case .documents: fuzzDocuments(bytes)
        case .cluster: fuzzCluster(bytes)
        case .mask: fuzzMask(bytes)
        case .plan: fuzzPlan(bytes)
        case .report: fuzzReport(bytes)
        }
    }
}

/// Ends the process where something promised does not hold, in every build.
func check(_ holds: Bool, _ what: @autoclosure () -> String) {
    if !holds { preconditionFailure(what()) }
}

/// The parts of an input between zero bytes, at most so many; the last may hold zero bytes itself.
func parts(_ bytes: [UInt8], _ count: Int) -> [[UInt8]] {
    var parts = bytes.split(separator: 0, maxSplits: count - 1, omittingEmptySubsequences: false).map(Array.init)
    while parts.count < count { parts.append([]) }
    return parts
}

/// A folder for files of one input.
struct ScratchFolder: ~Copyable {
    let path: String
    private var names: [String] = []

    private init(path: String) { self.path = path }

    /// nil where no folder can be made.
    static func make() -> ScratchFolder? {
        let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(parent)/annulus-fuzz-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { return nil }
        return ScratchFolder(path: String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    /// Writes a file, in a folder of that name if it holds a slash.
    mutating func write(_ name: String, _ bytes: [UInt8]) {
        if let slash = name.firstIndex(of: "/") {
            let folder = String(name[..<slash])
            if mkdir(path + "/" + folder, 0o700) == 0 { names.append(folder) }
        }
        guard let file = fopen(path + "/" + name, "wb") else { return }
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
        names.append(name)
    }

    deinit {
        for name in names.reversed() { remove(path + "/" + name) }
        remove(path)
    }
}
