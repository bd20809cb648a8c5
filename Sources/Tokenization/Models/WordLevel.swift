// Whole words, each a token or unknown.

import Files

/// A vocabulary of whole words.
struct WordLevel: Sendable {
    let vocabulary: Vocabulary
    private let unknownId: Int32

    init(_ component: Component) throws(FileError) {
        vocabulary = try Vocabulary(component)
        unknownId = try vocabulary.unknownId(try component.string("unk_token"), component)
    }

    func token(_ scalars: UnsafeBufferPointer<UInt32>, _ word: Range<Int>) -> Int32 {
        vocabulary.id(of: scalars, word) ?? unknownId
    }
}
