// Goldens of training, and small things that its tests share.

import Files
import Foundation
import Testing

/// What PyTorch in float64 and transformers give (`scripts/goldens/make.py training`).
enum Goldens {
    static let all: JSON = {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Goldens/training.json").path
        guard let bytes = try? FileBytes.read(path: path), let json = try? JSON.parse(bytes, path: path) else {
            return .null
        }
        return json
    }()

    static func cases(_ name: String) throws -> [JSON] { try #require(all[name]?.array) }
}

extension JSON {
    var doubles: [Double] { (array ?? []).compactMap(\.double) }
    var floats: [Float] { doubles.map { Float($0) } }
    func int(_ key: String) throws -> Int { try #require(self[key]?.int) }
    func number(_ key: String) throws -> Double { try #require(self[key]?.double) }
    func numbers(_ key: String) throws -> [Double] { try #require(self[key]).doubles }
}

/// Half a unit in the last place of 1, the relative error of one rounding.
let unit = 0x1p-24
