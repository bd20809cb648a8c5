// Where results go.

/// How results are written.
package enum OutputFormat: Sendable {
    case numpy, safetensors, jsonLines

    package init?(path: String) {
        switch path.split(separator: ".", omittingEmptySubsequences: false).last {
        case "npy": self = .numpy
        case "safetensors": self = .safetensors
        case "jsonl": self = .jsonLines
        default: return nil
        }
    }
}

/// A file for results.
package struct OutputFile: Sendable {
    package let path: String
    /// Whether one of that name may be replaced.
    package var mayReplace: Bool
    /// How the job that writes it is saved and continued; nil: it is not.
    package let resume: ResumeRequest?

    package init(path: String, mayReplace: Bool, resume: ResumeRequest? = nil) {
        self.path = path
        self.mayReplace = mayReplace
        self.resume = resume
    }

    /// The format that its name asks for.
    package var format: OutputFormat { OutputFormat(path: path) ?? .jsonLines }
}
