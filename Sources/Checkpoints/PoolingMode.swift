// How the states of a document's tokens become one vector.

/// How the hidden states of a document become one vector.
///
/// The names are those of the command line; sentence-transformers spells some of them otherwise.
public enum PoolingMode: String, Sendable, CaseIterable {
    /// The first token's state.
    case cls
    /// The mean over all tokens.
    case mean
    /// The greatest value of each component.
    case max
    /// The sum over all tokens divided by the square root of their number.
    case meanSquareRootLength = "mean-sqrt-len"
    /// The mean weighted by 1, 2, 3, … from the document's first token on.
    case weightedMean = "weighted-mean"
    /// The last token's state.
    case lastToken = "last-token"

    /// What sentence-transformers calls them, and the truth value that stood for each before its version 5.4, in the order
    /// in which the vectors of several are put side by side.
    static let published: [(flag: String, name: String, mode: PoolingMode)] = [
        ("pooling_mode_cls_token", "cls", .cls),
        ("pooling_mode_max_tokens", "max", .max),
        ("pooling_mode_mean_tokens", "mean", .mean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", .meanSquareRootLength),
        ("pooling_mode_weightedmean_tokens", "weightedmean", .weightedMean),
        ("pooling_mode_lasttoken", "lasttoken", .lastToken),
    ]
}
