// The tokens of a model that have a meaning of their own.

import Files

/// The tokens of a model that have a meaning of their own, as its tokenizer's files and its class name them.
package struct NamedTokens: Sendable {
    private let names: [String: String]

    package init(folder: String) throws(FileError) { names = try TokenizerFile(folder: folder).tokens }

    /// The id of `mask_token`, …; where the files do not name it, that of the usual spellings.
    package func id(_ key: String, _ tokenizer: Tokenizer, usual: [String]) -> Int32? {
        if let name = names[key] { return tokenizer.id(of: name) }
        return usual.lazy.compactMap { tokenizer.id(of: $0) }.first
    }
}
