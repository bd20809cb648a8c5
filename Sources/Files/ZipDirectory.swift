// The list of what a zip archive holds, as far as archives of PyTorch go: members that are stored as they are.

/// The members of a zip archive (APPNOTE 6.3), by name.
///
/// Compressed and encrypted members, archives of several disks, and names that stand twice are refused.
struct ZipDirectory {
    /// Where the bytes of each member lie in the file.
    let members: [String: Range<Int>]
    /// The names in the order of the list.
    let names: [String]

    /// The first four bytes of an archive.
    static let magic: [UInt8] = [0x50, 0x4B, 0x03, 0x04]

    private let file: ReadableFile

    init(of file: ReadableFile) throws(FileError) {
        self.file = file
        let (list, count) = try Self.list(of: file)
        var members: [String: Range<Int>] = [:]
        var names: [String] = []
        let bytes = try file.bytes(list)
        var place = 0
        for _ in 0..<count {
            let entry = try Entry(bytes, at: &place, file, start: list.lowerBound)
            let range = try Self.range(of: entry, in: file, before: list.lowerBound)
            guard members.updateValue(range, forKey: entry.name) == nil else {
                throw Self.damaged(file, list.lowerBound, "'\(entry.name)' stands twice in the archive")
            }
            names.append(entry.name)
        }
        guard place == bytes.count else {
            throw Self.damaged(file, list.lowerBound, "the archive's list is longer than its members")
        }
        self.members = members
        self.names = names
    }

    static func damaged(_ file: ReadableFile, _ place: Int, _ text: String) -> FileError {
        FileError(
            .malformed, path: file.path, "byte \(place): \(text); the file is damaged or truncated, fetch it again")
    }

    /// A little-endian number.
    private static func number(_ bytes: [UInt8], _ place: Int, _ count: Int) -> UInt64 {
        bytes[place..<place + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The end record of 22 bytes, which stands last; behind it there may be a comment. Of archives beyond 4 GiB another
    /// record holds the numbers.
    private static func list(of file: ReadableFile) throws(FileError) -> (Range<Int>, count: Int) {
        let tail = try file.bytes(max(0, file.byteCount - 65_557)..<file.byteCount)
        let first = file.byteCount - tail.count
        guard
            let place = stride(from: tail.count - 22, through: 0, by: -1).first(where: {
                number(tail, $0, 4) == 0x0605_4B50 && $0 + 22 + Int(number(tail, $0 + 20, 2)) == tail.count
            })
        else { throw damaged(file, file.byteCount, "the archive has no end") }
        var (disk, listDisk) = (number(tail, place + 4, 2), number(tail, place + 6, 2))
        var (here, count) = (number(tail, place + 8, 2), number(tail, place + 10, 2))
        var (size, offset) = (number(tail, place + 12, 4), number(tail, place + 16, 4))
        var end = UInt64(first + place)
        if place >= 20, number(tail, place - 20, 4) == 0x0706_4B50 {
            let record = number(tail, place - 12, 8)
            guard record <= UInt64(file.byteCount - 56), number(tail, place - 4, 4) <= 1 else {
                throw damaged(file, first + place - 20, "the archive's end names a place outside it")
            }
            let bytes = try file.bytes(Int(record)..<Int(record) + 56)
            guard number(bytes, 0, 4) == 0x0606_4B50 else {
                throw damaged(file, Int(record), "the archive's end is not where its locator says")
            }
            (disk, listDisk) = (number(bytes, 16, 4), number(bytes, 20, 4))
            (here, count) = (number(bytes, 24, 8), number(bytes, 32, 8))
            (size, offset) = (number(bytes, 40, 8), number(bytes, 48, 8))
            end = record
        }
        guard disk == 0, listDisk == 0, here == count, size <= end, offset <= end - size, offset + size == end,
            count <= size / 46
        else { throw damaged(file, first + place, "the archive's end names a list that is not there") }
        return (Int(offset)..<Int(offset + size), Int(count))
    }

    /// A member as the list has it.
    private struct Entry {
        let name: String
        let size: UInt64
        let header: UInt64
        let nameBytes: [UInt8]

        init(_ bytes: [UInt8], at place: inout Int, _ file: ReadableFile, start: Int) throws(FileError) {
            let begin = place
            func damaged(_ text: String) -> FileError { ZipDirectory.damaged(file, start + begin, text) }
            guard bytes.count - place >= 46, number(bytes, place, 4) == 0x0201_4B50 else {
                throw damaged("the archive's list is cut or damaged")
            }
            let lengths = [28, 30, 32].map { Int(number(bytes, begin + $0, 2)) }
            guard bytes.count - place - 46 >= lengths.reduce(0, +) else { throw damaged("the archive's list is cut") }
            nameBytes = Array(bytes[place + 46..<place + 46 + lengths[0]])
            guard UTF8Validation.firstInvalidByte(in: nameBytes[...]) == nil, !nameBytes.contains(0) else {
                throw damaged("a member's name is no text")
            }
            name = String(decoding: nameBytes, as: UTF8.self)
            guard number(bytes, place + 8, 2) & 0x2061 == 0 else { throw damaged("'\(name)' is encrypted") }
            guard number(bytes, place + 10, 2) == 0 else {
                throw damaged("'\(name)' is compressed, as PyTorch compresses nothing")
            }
            guard number(bytes, place + 38, 4) & 0x10 == 0 else { throw damaged("'\(name)' is called a folder") }
            var values = [number(bytes, place + 24, 4), number(bytes, place + 20, 4), number(bytes, place + 42, 4)]
            // Fields that do not fit stand in an extra one, in this order.
            var extra = place + 46 + lengths[0]
            let end = extra + lengths[1]
            while end - extra >= 4 {
                let (kind, length) = (number(bytes, extra, 2), Int(number(bytes, extra + 2, 2)))
                guard length <= end - extra - 4 else { throw damaged("'\(name)' has a damaged entry") }
                if kind == 1 {
                    var next = extra + 4
                    for index in values.indices where values[index] == 0xFFFF_FFFF {
                        guard extra + 4 + length - next >= 8 else { throw damaged("'\(name)' has a damaged entry") }
                        values[index] = number(bytes, next, 8)
                        next += 8
                    }
                }
                extra += 4 + length
            }
            guard values[0] == values[1], number(bytes, place + 34, 2) == 0 else {
                throw damaged("'\(name)' has two sizes, or lies on another disk")
            }
            (size, header) = (values[0], values[2])
            place += 46 + lengths.reduce(0, +)
        }
    }

    /// Where the bytes of a member lie: behind a header of its own.
    private static func range(of entry: Entry, in file: ReadableFile, before list: Int) throws(FileError) -> Range<Int>
    {
        guard entry.header <= UInt64(list), list - Int(entry.header) >= 30 else {
            throw damaged(file, list, "'\(entry.name)' lies outside the archive")
        }
        let begin = Int(entry.header)
        let header = try file.bytes(begin..<begin + 30)
        let nameLength = Int(number(header, 26, 2))
        let start = begin + 30 + nameLength + Int(number(header, 28, 2))
        guard number(header, 0, 4) == 0x0403_4B50, number(header, 8, 2) == 0, start <= list,
            entry.size <= UInt64(list - start),
            try file.bytes(begin + 30..<begin + 30 + nameLength) == entry.nameBytes
        else { throw damaged(file, begin, "'\(entry.name)' is not where the archive's list has it") }
        return start..<start + Int(entry.size)
    }
}
