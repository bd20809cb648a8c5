// A sentencepiece model: the pieces of a tokenizer with their scores.

import Files
import SwiftProtobuf

/// The pieces of a sentencepiece model (Kudo and Richardson 2018), and how texts are normalised before they are cut.
///
/// Refused are models that the sentencepiece library refuses: of no piece or an empty one, of one twice, of no unknown piece
/// or several, and of bytes that are not there or not meant.
package struct SentencepieceModel: Sendable {
    /// What a piece is for.
    package enum Kind: String, Sendable {
        case normal, unknown, control, userDefined, unused, byte
    }

    /// A piece, its number being its place.
    package struct Piece: Sendable {
        package let text: String
        package let score: Float
        package let kind: Kind
    }

    package let pieces: [Piece]
    /// Whether words are cut by the scores of their pieces (Kudo 2018), else by merges.
    let isUnigram: Bool
    /// The number of the unknown piece, as the trainer had it.
    let unknownId: Int
    /// The character map of the normalizer; empty: none.
    let characters: [UInt8]

    /// Reads a model.
    /// - Throws: `FileError` where it is none, or is one that cannot be used.
    package init(path: String) throws(FileError) {
        try self.init(FileBytes.read(path: path), path: path)
    }

    package init(_ bytes: [UInt8], path: String) throws(FileError) {
        func damaged(_ text: String) -> FileError {
            FileError(.malformed, path: path, text + "; the file is damaged or no sentencepiece model, fetch it again")
        }
        let file: Annulus_SentencepieceFile
        do { file = try Annulus_SentencepieceFile(serializedBytes: bytes) } catch {
            throw damaged("is not what protocol buffers write (\(error))")
        }
        guard [.unigram, .bpe].contains(file.trainerSpec.modelType) else {
            throw FileError(
                .malformed, path: path,
                "is a sentencepiece model of words or characters, and only unigram and BPE are supported")
        }
        guard !file.trainerSpec.treatWhitespaceAsSuffix else {
            throw FileError(
                .malformed, path: path, "marks spaces behind words (treat_whitespace_as_suffix), which is not supported"
            )
        }
        guard file.pieces.count < 1 << 28 else { throw damaged("has \(file.pieces.count) pieces") }
        var pieces: [Piece] = []
        pieces.reserveCapacity(file.pieces.count)
        var (seen, reserved): (Set<ExactString>, Set<ExactString>) = ([], [])
        var unknown: Int?
        var bytesFound = 0
        for (id, entry) in file.pieces.enumerated() {
            let text = entry.piece
            guard !text.isEmpty else { throw damaged("piece \(id) is empty") }
            let kind = Kind(entry.type)
            let isNew =
                switch kind {
                case .normal, .userDefined, .unused: seen.insert(ExactString(text)).inserted
                case .unknown, .control, .byte: reserved.insert(ExactString(text)).inserted
                }
            guard entry.score.isFinite else { throw damaged("piece \(id), '\(text)', has a score that is no number") }
            guard isNew else { throw damaged("piece \(id), '\(text)', stands twice") }
            if kind == .unknown {
                guard unknown == nil else { throw damaged("piece \(id) is a second unknown one") }
                unknown = id
            }
            if kind == .byte {
                guard file.trainerSpec.byteFallback, Self.byte(text) != nil else {
                    throw damaged("piece \(id), '\(text)', is no byte, or bytes are not meant")
                }
                bytesFound += 1
            }
            pieces.append(Piece(text: text, score: entry.score, kind: kind))
        }
        guard unknown != nil else { throw damaged("has no unknown piece") }
        guard !file.trainerSpec.byteFallback || bytesFound == 256 else {
            throw damaged("has pieces for \(bytesFound) of the 256 bytes")
        }
        let characters = Array(file.normalizerSpec.precompiledCharsmap)
        guard characters.isEmpty || Self.isSound(characters: characters) else {
            throw damaged("has a character map that leads outside itself")
        }
        self.pieces = pieces
        isUnigram = file.trainerSpec.modelType == .unigram
        unknownId = Int(file.trainerSpec.unkID)
        self.characters = characters
    }

    /// Whether no unit of a character map's trie leads outside it, and no value outside the replacements; see
    /// ``PrecompiledNormalizer`` for what lies where.
    private static func isSound(characters: [UInt8]) -> Bool {
        func unit(_ place: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(characters[place + $1]) << UInt32(8 * $1) }
        }
        guard characters.count > 4 else { return false }
        let size = Int(unit(0))
        guard size % 4 == 0, size > 0, size < characters.count - 4, characters.last == 0 else { return false }
        let (count, replacements) = (size / 4, characters.count - 4 - size)
        return (0..<count).allSatisfy { index in
            let value = unit(4 + 4 * index)
            if value >> 31 == 1 { return Int(value & 0x7FFF_FFFF) < replacements }
            let offset = Int(value >> 10) << Int((value & 1 << 9) >> 6)
            let children = index ^ offset
            // Where a key ends, its value comes first of all children.
            return children | 0xFF < count && (value >> 8 & 1 == 0 || unit(4 + 4 * children) >> 31 == 1)
        }
    }

    /// The byte that a piece as `<0x0A>` stands for.
    private static func byte(_ text: String) -> UInt8? {
        guard text.utf8.count == 6, text.hasPrefix("<0x"), text.hasSuffix(">") else { return nil }
        let digits = text.dropFirst(3).dropLast()
        guard digits.allSatisfy({ $0.isNumber || ("A"..."F").contains($0) }) else { return nil }
        return UInt8(digits, radix: 16)
    }
}

extension SentencepieceModel.Kind {
    fileprivate init(_ type: Annulus_SentencepieceFile.Piece.Kind) {
        switch type {
        case .normal: self = .normal
        case .unknown: self = .unknown
        case .control: self = .control
        case .userDefined: self = .userDefined
        case .unused: self = .unused
        case .byte: self = .byte
        }
    }
}
