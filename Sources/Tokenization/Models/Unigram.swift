// The unigram language model: the likeliest way to cut a word into pieces.

import Files

/// The unigram model (Kudo, 2018): each piece has a logarithmic probability, and of all ways to cut a word the one with
/// the largest sum is taken, found by Viterbi's algorithm in float64.
struct Unigram: Sendable {
    let vocabulary: Vocabulary
    let unknownId: Int32
    private let pieces: PieceTrie
    /// By id.
    private let scores: [Double]
    private let unknownScore: Double
    /// Ids of the tokens `<0x00>` to `<0xFF>`, which spell what is not in the vocabulary; −1 where there is none.
    private let byteIds: [Int32]?

    /// How much less likely than the least likely piece an unknown scalar is.
    private static let unknownPenalty = 10.0

    /// - Parameter hasExactScores: whether scores are what is written; otherwise what the reference implementation makes of
    ///   that when it reads a file.
    init(_ component: Component, hasExactScores: Bool = false) throws(FileError) {
        guard let list = component.json["vocab"]?.array else { throw component.malformed("has no list 'vocab'") }
        guard list.count <= Vocabulary.limit else {
            throw component.malformed("has \(list.count) tokens, more than can be addressed")
        }
        var vocabulary = Vocabulary(capacity: list.count)
        var pieces = PieceTrie()
        var scores: [Double] = []
        for (number, entry) in list.enumerated() {
            guard let piece = entry[0]?.string, let score = entry[1]?.double, entry.array?.count == 2 else {
                throw component.malformed("vocab.\(number) is not a token and its score")
            }
            vocabulary.add(piece, id: Int32(number))
            guard pieces.add(piece.unicodeScalars.map(\.value), id: Int32(number)) else {
                throw component.malformed("vocab has more scalars than can be addressed")
            }
            scores.append(hasExactScores ? score : DecimalNumber.asReferenceReads(score))
        }
        guard let value = component.json["unk_id"], !value.isNull else {
            throw component.malformed("has no unk_id, so text with an unknown character could not be encoded")
        }
        unknownId = try component.id("unk_id")
        guard unknownId < list.count else { throw component.malformed("unk_id \(unknownId) is not in the vocabulary") }
        unknownScore = (scores.min() ?? 0) - Self.unknownPenalty
        byteIds = try component.bool("byte_fallback", default: false) ? vocabulary.byteIds : nil
        self.vocabulary = vocabulary
        self.pieces = pieces
        self.scores = scores
    }

    /// Buffers for one word, kept between words.
    struct Lattice {
        /// By place in the word: the best sum of scores of a path that ends there, its last piece and where that
        /// starts.
        fileprivate var best: [(score: Double, id: Int32, start: Int32)] = []
        fileprivate var path: [(id: Int32, range: Range<Int>)] = []
    }

    /// Tokens of one word, a range of `scalars`. Time is at most the word's length times the longest piece's.
    func tokenize(
        _ scalars: UnsafeBufferPointer<UInt32>, _ word: Range<Int>, _ lattice: inout Lattice,
        _ emit: (Int32, Range<Int>) -> Void
    ) {
        guard !word.isEmpty else { return }
        score(scalars, word, &lattice)
        lattice.path.removeAll(keepingCapacity: true)
        var end = word.count
        while end > 0 {
            let last = lattice.best[end]
            let start = Int(last.start)
            if last.id == unknownId, let next = lattice.path.last, next.id == unknownId {
                // Neighbours that are unknown are one token.
                lattice.path[lattice.path.count - 1].range = word.lowerBound + start..<next.range.upperBound
            } else {
                lattice.path.append((last.id, word.lowerBound + start..<word.lowerBound + end))
            }
            end = start
        }
        for (id, range) in lattice.path.reversed() {
            if id == unknownId { emitUnknown(scalars, range, emit) } else { emit(id, range) }
        }
    }

    /// Fills `lattice.best`: of equal scores the one found first stays, from the leftmost start, the shortest piece.
    private func score(_ scalars: UnsafeBufferPointer<UInt32>, _ word: Range<Int>, _ lattice: inout Lattice) {
        lattice.best.removeAll(keepingCapacity: true)
        lattice.best.append(contentsOf: repeatElement((score: 0, id: 0, start: -1), count: word.count + 1))
        lattice.best.withUnsafeMutableBufferPointer { best in
            for start in 0..<word.count {
                let before = best[start].score
                func offer(_ id: Int32, _ score: Double, end: Int) {
                    let sum = score + before
                    if best[end].start < 0 || sum > best[end].score { best[end] = (sum, id, Int32(start)) }
                }
                var node = PieceTrie.root
                var end = start
                var isSingleKnown = false
                while end < word.count, let child = pieces.child(of: node, scalars[word.lowerBound + end]) {
                    node = child
                    end += 1
                    guard let id = pieces.id(at: node) else { continue }
                    offer(id, scores[Int(id)], end: end)
                    if end == start + 1 { isSingleKnown = true }
                }
                if !isSingleKnown { offer(unknownId, unknownScore, end: start + 1) }
            }
        }
    }

    /// What is unknown may be in the vocabulary all the same once neighbours are one; otherwise bytes spell it.
    private func emitUnknown(
        _ scalars: UnsafeBufferPointer<UInt32>, _ range: Range<Int>, _ emit: (Int32, Range<Int>) -> Void
    ) {
        if let id = vocabulary.id(of: scalars, range) { return emit(id, range) }
        guard let byteIds, forEachByte(scalars[range], { byteIds[Int($0)] >= 0 }) else { return emit(unknownId, range) }
        _ = forEachByte(scalars[range]) { byte in
            emit(byteIds[Int(byte)], range)
            return true
        }
    }

    /// Calls `body` with every byte of UTF-8 until it returns false; whether it never did.
    private func forEachByte(_ scalars: Slice<UnsafeBufferPointer<UInt32>>, _ body: (UInt8) -> Bool) -> Bool {
        scalars.allSatisfy { Unicode.Scalar($0).flatMap { UTF8.encode($0) }?.allSatisfy(body) ?? true }
    }
}
