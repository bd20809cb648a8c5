// Byte-pair encoding: pairs of neighbouring symbols merge, the pair learned first before all others.

import Files

/// Byte-pair encoding (Gage, 1994; for words Sennrich, Haddow and Birch, 2016).
///
/// The symbols of a word are at first its scalars. Of all neighbours that may merge, those of the lowest rank do, the
/// leftmost first, until none may. A heap finds them, so a word of n scalars takes time n log n.
struct BytePairEncoding: Sendable {
    let vocabulary: Vocabulary
    /// What symbols but the first of a word begin with in the vocabulary.
    let continuationPrefix: [UInt32]
    /// What the last symbol of a word ends with in the vocabulary.
    private let endSuffix: [UInt32]
    private let merges: MergeTable
    /// nil: scalars that are not in the vocabulary are left out, as the reference implementation does.
    private let unknownId: Int32?
    /// Whether neighbours that are not in the vocabulary become one token.
    private let fusesUnknown: Bool
    /// Ids of the tokens `<0x00>` to `<0xFF>`, which spell what is not in the vocabulary; −1 where there is none.
    private let byteIds: [Int32]?
    /// Whether a word that is in the vocabulary is a token, merges or not.
    private let prefersWholeWords: Bool

    init(_ component: Component) throws(FileError) {
        if let dropout = component.json["dropout"], !dropout.isNull, dropout.double != 0 {
            throw component.unsupported("dropout", supported: ["a dropout of 0"])
        }
        func optional(_ key: String) throws(FileError) -> String? {
            if let value = component.json[key], !value.isNull { try component.string(key) } else { nil }
        }
        func flag(_ key: String) throws(FileError) -> Bool {
            if let value = component.json[key], !value.isNull { try component.bool(key) } else { false }
        }
        continuationPrefix = try (optional("continuing_subword_prefix") ?? "").unicodeScalars.map(\.value)
        endSuffix = try (optional("end_of_word_suffix") ?? "").unicodeScalars.map(\.value)
        vocabulary = try Vocabulary(component)
        unknownId =
            if let unknown = try optional("unk_token") { try vocabulary.unknownId(unknown, component) } else { nil }
        fusesUnknown = try flag("fuse_unk")
        prefersWholeWords = try flag("ignore_merges")
        byteIds = try flag("byte_fallback") ? vocabulary.byteIds : nil
        if byteIds != nil, !continuationPrefix.isEmpty || !endSuffix.isEmpty {
            throw component.unsupported(
                "byte_fallback together with continuing_subword_prefix or end_of_word_suffix",
                supported: ["either alone"])
        }
        merges = try MergeTable(component, vocabulary, continuationPrefix: continuationPrefix)
    }

    /// A symbol of a word under way.
    fileprivate struct Symbol {
        var id: Int32
        /// Bytes of the text in UTF-8; 0 for one that is merged into the symbol before it.
        var length: Int32
        /// Places of the neighbours, −1 for none.
        var previous: Int32
        var next: Int32
    }

    /// Buffers for one word, kept between words.
    struct Merging {
        fileprivate var symbols: [Symbol] = []
        /// Merges that may come, as rank · 2³² + place of the left symbol.
        fileprivate var queue = MinimumHeap()

        fileprivate mutating func add(_ id: Int32, length: Int32) {
            let place = Int32(symbols.count)
            if place > 0 { symbols[symbols.count - 1].next = place }
            symbols.append(Symbol(id: id, length: length, previous: place - 1, next: -1))
        }

        fileprivate mutating func enqueue(_ place: Int32, _ merges: MergeTable) {
            let symbol = symbols[Int(place)]
            guard symbol.next >= 0, let rank = merges.rank(symbol.id, symbols[Int(symbol.next)].id) else { return }
            queue.push(UInt64(rank) << 32 | UInt64(place))
        }
    }

    /// Tokens of one word, a range of `scalars`.
    func tokenize(
        _ scalars: UnsafeBufferPointer<UInt32>, _ word: Range<Int>, _ merging: inout Merging,
        _ emit: (Int32, Range<Int>) -> Void
    ) {
        if prefersWholeWords, let id = vocabulary.id(of: scalars, word) { return emit(id, word) }
        merging.symbols.removeAll(keepingCapacity: true)
        spell(scalars, word, &merging)
        merge(&merging)
        // Where scalars were left out, the bytes of what follows are counted without them, as in the reference
        // implementation: offsets then point before the token.
        var bytes = ByteCursor(scalars, start: word.lowerBound)
        for symbol in merging.symbols where symbol.length > 0 { emit(symbol.id, bytes.take(Int(symbol.length))) }
    }

    /// The symbols of a word before any merge.
    private func spell(_ scalars: UnsafeBufferPointer<UInt32>, _ word: Range<Int>, _ merging: inout Merging) {
        // Bytes of an unknown symbol that may still grow.
        var unknownLength: Int32 = 0
        for index in word {
            let length = Int32(UTF8Length.of(scalars[index]))
            if let id = id(of: scalars, index, word) {
                if let unknownId, unknownLength > 0 { merging.add(unknownId, length: unknownLength) }
                unknownLength = 0
                merging.add(id, length: length)
            } else if spellBytes(scalars[index], &merging) {
                continue
            } else if let unknownId {
                if unknownLength > 0, !fusesUnknown {
                    merging.add(unknownId, length: unknownLength)
                    unknownLength = 0
                }
                unknownLength += length
            }
        }
        if let unknownId, unknownLength > 0 { merging.add(unknownId, length: unknownLength) }
    }

    /// The token of one scalar at its place in the word.
    private func id(of scalars: UnsafeBufferPointer<UInt32>, _ index: Int, _ word: Range<Int>) -> Int32? {
        let prefix = index > word.lowerBound ? continuationPrefix : []
        let suffix = index + 1 == word.upperBound ? endSuffix : []
        if prefix.isEmpty, suffix.isEmpty { return vocabulary.id(of: scalars, index..<index + 1) }
        return vocabulary.id(of: prefix + [scalars[index]] + suffix)
    }

    /// Spells a scalar as bytes, if there is a token for each.
    private func spellBytes(_ scalar: UInt32, _ merging: inout Merging) -> Bool {
        guard let byteIds, let scalar = Unicode.Scalar(scalar) else { return false }
        let bytes = UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter
        guard bytes.allSatisfy({ byteIds[Int($0)] >= 0 }) else { return false }
        for byte in bytes { merging.add(byteIds[Int(byte)], length: 1) }
        return true
    }

    private func merge(_ merging: inout Merging) {
        merging.queue.removeAll()
        for place in merging.symbols.indices { merging.enqueue(Int32(place), merges) }
        while let entry = merging.queue.pop() {
            let place = Int32(truncatingIfNeeded: entry & 0xFFFF_FFFF)
            let left = merging.symbols[Int(place)]
            guard left.length > 0, left.next >= 0 else { continue }
            let right = merging.symbols[Int(left.next)]
            // An entry is out of date when another merge took part of the pair: what is there now must give the same
            // token.
            let merged = merges.mergedId(Int32(truncatingIfNeeded: entry >> 32))
            guard let rank = merges.rank(left.id, right.id), merges.mergedId(rank) == merged else { continue }
            merging.symbols[Int(left.next)].length = 0
            merging.symbols[Int(place)].id = merged
            merging.symbols[Int(place)].length += right.length
            merging.symbols[Int(place)].next = right.next
            if right.next >= 0 { merging.symbols[Int(right.next)].previous = place }
            if left.previous >= 0 { merging.enqueue(left.previous, merges) }
            merging.enqueue(place, merges)
        }
    }
}
