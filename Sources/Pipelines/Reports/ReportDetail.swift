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
    /// The longest document of which a page has everything, with that many heads and no more text.
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

    /// Bytes of numbers, before they are written in base64, of a page with little text.
    private static let numberBytes = 7_050_000
    /// The least of them, however long the text.
    private static let leastNumberBytes = 2_500_000
    /// Bytes of text, with its tokens, that take no room from numbers.
    private static let textBytes = 200_000
    /// The longest document of which everything may be kept: its keys have two bytes.
    private static let mostTokens = 65_535

    init(tokens all: [ReportToken], layers: Int, heads: Int, keysPerQuery: Int, queries chosen: [Int]) {
        let (tokens, headCount) = (all.count, layers * heads)
        (self.tokens, self.headCount, self.keysPerQuery) = (tokens, headCount, keysPerQuery)

        let text = all.reduce(0) { $0 + $1.bytesOnPage }
        let room = max(Self.leastNumberBytes, Self.numberBytes - max(0, text - Self.textBytes) * 3 / 4)

        let blocks = (tokens + BlockMap.size(tokens: tokens) - 1) / BlockMap.size(tokens: tokens)
        var reduction = 1
        func mapBytes() -> Int {
            let side = (blocks + reduction - 1) / reduction
            return headCount * side * side
        }
        while mapBytes() > room * 3 / 10 && reduction < blocks { reduction += 1 }
        mapReduction = reduction

        let fewKeys = min(keysPerQuery, 4)
        let complete = room * 7 / 10
        completeTokens = min(
            Self.mostTokens, complete / (headCount * (1 + Self.queryBytes(keys: fewKeys, keyBytes: 2))))
        profileSize = BlockMap.size(tokens: tokens)
        isComplete = tokens <= completeTokens
        if isComplete {
            var keys = keysPerQuery
            while keys > fewKeys && tokens * headCount * (1 + Self.queryBytes(keys: keys, keyBytes: 2)) > complete {
                keys -= 1
            }
            (keysKept, queries, keepsLayers) = (keys, Array(0..<tokens), true)
            return
        }

        keysKept = fewKeys
        keepsLayers = tokens * layers <= room / 4
        let taken = mapBytes() + tokens * (keepsLayers ? layers : 1) + 3 * headCount * blocks
        let query = headCount * Self.queryBytes(keys: fewKeys, keyBytes: tokens < 1 << 16 ? 2 : 3)
        queries = Self.queries(tokens: tokens, count: max(1, max(room / 8, room - taken) / query), chosen: chosen)
    }

    /// Bytes of one query of one head: entropy, distance and largest score, and its keys with their weights.
    private static func queryBytes(keys: Int, keyBytes: Int) -> Int { 3 + (keyBytes + 1) * keys }

    /// The chosen tokens, and others at even distances up to `count`.
    private static func queries(tokens: Int, count: Int, chosen: [Int]) -> [Int] {
        var isTaken = [Bool](repeating: false, count: tokens)
        for query in chosen { isTaken[query] = true }
        let missing = min(tokens, max(0, count - isTaken.count { $0 }))
        for sample in 0..<missing { isTaken[sample * tokens / missing] = true }
        return isTaken.indices.filter { isTaken[$0] }
    }
}
