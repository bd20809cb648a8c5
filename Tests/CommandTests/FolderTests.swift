// Model folders as people have them, run as a user does, against what sentence-transformers and transformers make of them
// (scripts/goldens/folder_goldens.py).

import Files
import Foundation
import Testing

@Suite struct FolderTests {
    private static let goldens = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Goldens/folders").path
    static let names = (try? FileManager.default.contentsOfDirectory(atPath: goldens))?.sorted() ?? []

    @Test func thereAreFolders() { #expect(Self.names.count >= 40) }

    @Test(arguments: names) func folderGivesWhatItsReferenceGives(_ name: String) throws {
        let folder = Self.goldens + "/" + name
        for (number, check) in try #require(try JSON.load(path: folder + "/checks.json").array).enumerated() {
            try run(check, folder, "\(name), check \(number)")
        }
    }

    private func run(_ check: JSON, _ folder: String, _ place: String) throws {
        func words(_ key: String) -> [String] { check[key]?.array?.compactMap(\.string) ?? [] }
        var arguments = words("arguments").map { word in
            word == "MODEL" ? folder + "/model" : word.replacingOccurrences(of: "HERE/", with: folder + "/")
        }
        let input = try #require(check["input"]?.string)
        if input.hasPrefix("{"), !arguments.contains("--input-format") { arguments += ["--input-format", "jsonl"] }
        let spread = check["ranks"]?.int.map { Spread.mpirun($0) } ?? .alone
        let run = try CommandRun.annulus(arguments, spread, input: input)
        let place = "\(place): \(arguments.joined(separator: " ")) \(run.errors)"
        #expect(Int(run.status) == check["status"]?.int ?? 0, "\(place)")
        for said in words("says") {
            #expect(run.errorLines.count == 1 && run.errorLines.contains { $0.contains(said) }, "\(said): \(place)")
        }
        for noted in words("notes") { #expect(run.errors.contains(noted), "\(noted): \(place)") }
        let output = try String(decoding: run.output, as: UTF8.self).split(separator: "\n").map {
            try JSON.parse(Array($0.utf8), path: place)
        }
        if let wanted = check["lines"]?.array {
            #expect(output.count == wanted.count, "\(place)")
            for (found, wanted) in zip(output, wanted) {
                if let difference = difference(found, wanted) { Issue.record("\(difference): \(place)") }
            }
        }
        // Somewhere in the list that the first line is.
        for wanted in check["has"]?.array ?? [] {
            #expect(output.first?.array?.contains { difference($0, wanted) == nil } == true, "\(wanted): \(place)")
        }
    }

    /// Where a value is another than what is wanted; nil where it is that, and may be more.
    private func difference(_ found: JSON, _ wanted: JSON, at place: String = "") -> String? {
        if let members = wanted.object?.members {
            for member in members {
                guard let value = found[member.key] else { return "\(place).\(member.key) is missing" }
                if let difference = difference(value, member.value, at: place + "." + member.key) { return difference }
            }
            return nil
        }
        if let elements = wanted.array {
            guard let values = found.array, values.count == elements.count else {
                return "\(place): \(found.array?.count ?? -1) elements for \(elements.count)"
            }
            return zip(values, elements).enumerated().lazy.compactMap { index, pair in
                difference(pair.0, pair.1, at: "\(place)[\(index)]")
            }.first
        }
        if let number = wanted.double, let value = found.double {
            // Both are computed in float32 from weights of a few units.
            return abs(value - number) <= 2e-5 * max(1, abs(number)) ? nil : "\(place): \(value) for \(number)"
        }
        return found == wanted ? nil : "\(place): \(found) for \(wanted)"
    }
}
