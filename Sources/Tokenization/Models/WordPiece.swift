// WordPiece: the longest piece of the vocabulary, again and again.

import Files

/// Greedy longest-match-first pieces of words, as in BERT (Devlin and others, 2019).
struct WordPiece: Sendable {
    let vocabulary: Vocabulary
    private let unknownId: Int32
    /// What pieces inside a word begin with in the vocabulary.
    let continuationPrefix: [UInt32]
    private let continuationHash: Vocabulary.Hash
    /// Longer words are unknown as a whole.
    private let wordLimit: Int

    /// Buffers for one word, kept between words.
    struct Pieces {
        fileprivate var found: [(id: Int32, range: Range<Int>)] = []
        fileprivate var hashes: [Vocabulary.Hash] = []
    }

    init(_ component: Component) throws(FileError) {
        let unknown = try component.string("unk_token", default: "[UNK]")
        continuationPrefix = try component.string("continuing_subword_prefix", default: "##").unicodeScalars.map(
            \.value)
        var hash = Vocabulary.Hash()
        for scalar in continuationPrefix { hash.add(scalar) }
        continuationHash = hash
        let limit = component.json["max_input_chars_per_word"] ?? .integer(100)
        guard let limit = limit.int, limit >= 0 else {
            throw component.malformed("'max_input_chars_per_word' is not a count")
        }
        wordLimit = limit

        vocabulary = try Vocabulary(component)
        unknownId = try vocabulary.unknownId(unknown, component)
    }

    /// Tokens of one word, a range of `scalars`. Time is at most the word's length, which is limited, times the
    /// longest token's.
    func tokenize(
        _ scalars: UnsafeBufferPointer<UInt32>, _ word: Range<Int>, _ pieces: inout Pieces,
        _ emit: (Int32, Range<Int>) -> Void
    ) {
        guard word.count <= wordLimit else { return emit(unknownId, word) }
        pieces.found.removeAll(keepingCapacity: true)
        var start = word.lowerBound
        while start < word.upperBound {
            let isFirst = start == word.lowerBound
            guard
                let (id, end) = longestPiece(
                    scalars, from: start, to: word.upperBound, isFirst: isFirst, &pieces.hashes)
            else {
                return emit(unknownId, word)
            }
            pieces.found.append((id, start..<end))
            start = end
        }
        for (id, range) in pieces.found { emit(id, range) }
    }

    private func longestPiece(
        _ scalars: UnsafeBufferPointer<UInt32>, from start: Int, to end: Int, isFirst: Bool,
        _ hashes: inout [Vocabulary.Hash]
    ) -> (id: Int32, end: Int)? {
        let prefix = isFirst ? [] : continuationPrefix
        var hash = isFirst ? Vocabulary.Hash() : continuationHash
        hashes.removeAll(keepingCapacity: true)
        let longest = min(end - start, max(vocabulary.longest - prefix.count, 0))
        for offset in 0..<longest {
            hash.add(scalars[start + offset])
            hashes.append(hash)
        }
        for length in stride(from: longest, to: 0, by: -1) {
            if let id = vocabulary.id(hash: hashes[length - 1], prefix: prefix, scalars, start..<start + length) {
                return (id, start + length)
            }
        }
        return nil
    }
}
