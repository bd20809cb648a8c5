// The shapes of published models, as the config.json that makes them: for benchmarks and for `init`.

import Files

/// The shape of a published model, which can be made without its checkpoint.
public struct PublishedShape: Sendable {
    /// What `init` and the benchmarks call it, for example `bert-base`.
    public let name: String
    /// The members of `config.json`, without the outer braces.
    private let members: String
    /// The member that holds the number of positions, and what it holds.
    private let positionKey: String
    private let positions: Int
    /// Rows of the position table that no document uses.
    private let firstRow: Int

    /// - Parameters:
    ///   - members: those of `config.json` but for the number of positions, one a line.
    ///   - positionKey, positions: the member that holds the number of positions, and what was published.
    ///   - firstRow: rows of the position table that no document uses.
    init(name: String, members: String, positionKey: String, positions: Int, firstRow: Int = 0) {
        self.name = name
        self.members = members
        self.positionKey = positionKey
        self.positions = positions
        self.firstRow = firstRow
    }

    /// `config.json`, for documents of so many tokens; the published number where nil.
    public func config(positions: Int? = nil) -> String {
        let count = positions.map { $0 + firstRow } ?? self.positions
        return "{\n"
            + (members.split(separator: "\n").joined(separator: ",\n") + ",\n\"\(positionKey)\": \(count)")
            .split(separator: "\n").map { "  " + $0 }.joined(separator: "\n") + "\n}\n"
    }

    /// The encoder that `config` describes.
    public func configuration(positions: Int? = nil) throws(FileError) -> EncoderConfiguration {
        let path = "shape \(name)"
        return try EncoderConfiguration(JSON.parse(Array(config(positions: positions).utf8), path: path), path: path)
    }

    /// The shape of that name, or nil.
    public static func named(_ name: String) -> PublishedShape? { all.first { $0.name == name } }

    /// The names of all shapes, for messages.
    public static var list: String { all.map(\.name).joined(separator: ", ") }

    /// Those of all families.
    public static let all: [PublishedShape] = ModelFamily.all.flatMap(\.shapes)

    /// The members that most families share.
    static func layers(
        _ type: String, _ architecture: String, _ hidden: Int, _ layers: Int, _ heads: Int, _ inner: Int,
        vocabulary: Int, epsilon: String
    ) -> String {
        """
        "model_type": "\(type)"
        "architectures": ["\(architecture)"]
        "hidden_size": \(hidden)
        "num_hidden_layers": \(layers)
        "num_attention_heads": \(heads)
        "intermediate_size": \(inner)
        "vocab_size": \(vocabulary)
        "layer_norm_eps": \(epsilon)
        """
    }
}
