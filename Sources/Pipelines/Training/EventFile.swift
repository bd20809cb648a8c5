// TensorBoard's event files: numbers by step, as its readers take them.

import Foundation

/// A file of events (tensorflow/core/util/event.proto), framed as TFRecords.
///
/// A record is its length in eight bytes, the masked CRC-32C of those, the bytes, and their masked CRC-32C, all little
/// endian. An event is a protobuf message of wall_time (1, double), step (2, varint), and file_version (3, string) or a
/// summary (5) of values (1) with tag (1, string) and simple_value (2, float). Event files carry times; nothing else that
/// a training writes does.
struct EventFile {
    private let path: String

    /// Begins a file in a folder, made where it is missing.
    /// - Throws: `JobError` with status 73 or 74.
    init(folder: String) throws {
        do {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        } catch {
            throw JobError(.cannotCreate, "\(folder): the folder cannot be made (\(error.localizedDescription))")
        }
        let now = Date().timeIntervalSince1970
        path = "\(folder)/events.out.tfevents.\(Int(now)).\(LocalHost.name).\(getpid()).0"
        guard FileManager.default.createFile(atPath: path, contents: nil) else {
            throw JobError(.cannotCreate, "\(path): cannot be created; name another --logging-dir")
        }
        try append(Self.event(time: now, step: 0, Self.field(3, Array("brain.Event:2".utf8))))
    }

    /// Adds numbers of a step.
    func add(_ values: [(tag: String, value: Double)], step: Int) throws {
        var summary: [UInt8] = []
        for (tag, value) in values {
            let bits = withUnsafeBytes(of: Float(value).bitPattern.littleEndian) { Array($0) }
            summary += Self.field(1, Self.field(1, Array(tag.utf8)) + Self.key(2, 5) + bits)
        }
        try append(Self.event(time: Date().timeIntervalSince1970, step: step, Self.field(5, summary)))
    }

    private func append(_ data: [UInt8]) throws {
        let length = withUnsafeBytes(of: UInt64(data.count).littleEndian) { Array($0) }
        let record = length + Self.maskedChecksum(length) + data + Self.maskedChecksum(data)
        do {
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            defer { try? handle.close() }
            try handle.seekToEnd()
            try handle.write(contentsOf: Data(record))
        } catch {
            throw JobError(.cannotWrite, "\(path): cannot be written (\(error.localizedDescription))")
        }
    }

    // MARK: - Protobuf

    private static func event(time: Double, step: Int, _ what: [UInt8]) -> [UInt8] {
        key(1, 1) + withUnsafeBytes(of: time.bitPattern.littleEndian) { Array($0) } + key(2, 0)
            + varint(UInt64(step)) + what
    }

    private static func key(_ field: UInt64, _ type: UInt64) -> [UInt8] { varint(field << 3 | type) }

    /// A field of bytes: a string or a message.
    private static func field(_ field: UInt64, _ bytes: [UInt8]) -> [UInt8] {
        key(field, 2) + varint(UInt64(bytes.count)) + bytes
    }

    private static func varint(_ value: UInt64) -> [UInt8] {
        var (left, bytes) = (value, [UInt8]())
        while left >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: left) | 0x80)
            left >>= 7
        }
        return bytes + [UInt8(left)]
    }

    // MARK: - CRC-32C (Castagnoli)

    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
    }

    static func checksum(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(~UInt32(0)) { table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] ^ $0 >> 8 }
    }

    private static func maskedChecksum(_ bytes: [UInt8]) -> [UInt8] {
        let sum = checksum(bytes)
        return withUnsafeBytes(of: ((sum >> 15 | sum << 17) &+ 0xA282_EAD8).littleEndian) { Array($0) }
    }
}
