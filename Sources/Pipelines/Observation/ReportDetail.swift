// What fits on the page of a report.

/// How much of what was observed a page keeps, so that it opens at once.
///
/// A function of the document and of how many numbers there are, so that a program can ask before it computes any.
public struct ReportDetail: Sendable, Equatable {
    /// The most bytes of a page, where the document's own text leaves room for the least of everything else.
    public static let largestPage = 10_000_000

    /// Tokens of the document.
    public let tokens: Int
    /// How many heads there are in all: layers × heads of a layer.
    public let headCount: Int
    /// How many top keys each query comes with.
    public let keysPerQuery: Int
    /// The longest document of which a page has everything, with that many heads.
    public let completeTokens: Int
    /// Whether statistics are kept of every head and token.
    public let isComplete: Bool
    /// How many top keys the page keeps of each query.
    public let keysKept: Int
    /// The queries whose statistics are kept, ascending: all tokens, or the chosen ones and others at even distances.
    public let queries: [Int]
    /// Whether the mean of a layer's heads is kept for each layer, or only that of all layers: the mass that tokens
    /// receive, where it is not kept head by head.
    public let keepsLayers: Bool
    /// Tokens of a block of statistics by block, where they are not kept token by token.
    public let profileSize: Int
    /// How many blocks of a block map, on either side, are one block of the page.
    public let mapReduction: Int

    /// Bytes of a text, with its tokens, beside which a page has room for ``numberBytes``.
    private static let textBytes = 1_500_000
    /// Bytes of numbers, before they are written in base64.
    private static let numberBytes = 6_000_000
    /// The least bytes of numbers, however long the text.
    private static let leastNumberBytes = 2_500_000

    init(tokens all: [ReportToken], layers: Int, heads: Int, keysPerQuery: Int, queries chosen: [Int]) {
        let (tokens, headCount) = (all.count, layers * heads)
        (self.tokens, self.headCount, self.keysPerQuery) = (tokens, headCount, keysPerQuery)

        let text = all.reduce(0) { $0 + $1.bytesOnPage }
        let room = max(Self.leastNumberBytes, Self.numberBytes - max(0, text - Self.textBytes) * 3 / 4)

        let side = (tokens + BlockMap.size(tokens: tokens) - 1) / BlockMap.size(tokens: tokens)
        var reduction = 1
        while headCount * ((side + reduction - 1) / reduction) * ((side + reduction - 1) / reduction) > room * 3 / 8 {
            reduction += 1
        }
        mapReduction = reduction

        let fewKeys = min(keysPerQuery, 4)
        let complete = Self.numberBytes * 5 / 8
        completeTokens = complete / (headCount * (1 + Self.queryBytes(keys: fewKeys)))
        profileSize = BlockMap.size(tokens: tokens)
        isComplete = tokens <= completeTokens && room == Self.numberBytes
        if isComplete {
            var keys = keysPerQuery
            while tokens * headCount * (1 + Self.queryBytes(keys: keys)) > complete { keys -= 1 }
            (keysKept, queries, keepsLayers) = (keys, Array(0..<tokens), true)
            return
        }

        keysKept = fewKeys
        keepsLayers = tokens * layers <= room / 4
        let shading = tokens * (keepsLayers ? layers : 1)
        let left = max(room / 8, room * 5 / 8 - shading)
        queries = Self.queries(
            tokens: tokens, count: max(1, left / (headCount * Self.queryBytes(keys: fewKeys))), chosen: chosen)
    }

    /// Bytes of one query of one head: entropy, distance and largest score, and its keys with their weights.
    private static func queryBytes(keys: Int) -> Int { 3 + 4 * keys }

    /// The chosen tokens, and others at even distances up to `count`.
    private static func queries(tokens: Int, count: Int, chosen: [Int]) -> [Int] {
        var isTaken = [Bool](repeating: false, count: tokens)
        for query in chosen { isTaken[query] = true }
        let missing = min(tokens, max(0, count - isTaken.count { $0 }))
        for sample in 0..<missing { isTaken[sample * tokens / missing] = true }
        return isTaken.indices.filter { isTaken[$0] }
    }
}
