// Where the goldens lie and how they are read. `scripts/goldens/make.py tokenizers` makes them.

import Files
import Foundation
import Tokenization

enum Goldens {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Goldens")
        .path

    static func load(_ name: String) throws -> JSON { try JSON.load(path: folder + "/" + name) }

    static func strings(_ name: String) throws -> [String] { try load(name).array?.compactMap(\.string) ?? [] }

    /// 32-bit FNV-1a, carried on from `value`.
    static func digest(_ bytes: some Sequence<UInt8>, from value: UInt32 = 0x811C_9DC5) -> UInt32 {
        bytes.reduce(value) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
    }

    /// The digest of all that an encoding says of its tokens.
    static func digest(of encoding: Encoding) -> UInt32 {
        var digest = digest([])
        for token in 0..<encoding.count {
            let numbers = [
                encoding.ids[token], Int32(encoding.offsets[token].lowerBound),
                Int32(encoding.offsets[token].upperBound),
                encoding.specialTokensMask[token] ? 1 : 0, encoding.typeIds[token], encoding.words[token],
                Int32(encoding.sequences[token]),
            ]
            for number in numbers {
                digest = Self.digest((0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }, from: digest)
            }
        }
        return digest
    }

    /// Digests written as 8 hexadecimal digits each.
    static func digests(_ text: String) -> [UInt32] {
        let digits = Array(text.utf8)
        return stride(from: 0, to: digits.count, by: 8).map {
            UInt32(String(decoding: digits[$0..<$0 + 8], as: UTF8.self), radix: 16) ?? 0
        }
    }

    /// The folder that `scripts/fetch-minilm` fills.
    static let minilm: String = {
        let environment = ProcessInfo.processInfo.environment
        let cache = environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "") + "/.cache"
        return cache + "/annulus/all-MiniLM-L6-v2"
    }()

    static let hasMinilm = FileBytes.exists(minilm + "/tokenizer.json")
}

extension JSONObject {
    mutating func append(_ key: String, _ value: JSON) { set(key, value) }
}
