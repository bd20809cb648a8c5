// Writes sample reports and pictures into a folder: `report-samples FOLDER TEXT-FILE`.

import Foundation
import Pipelines

guard CommandLine.arguments.count == 3,
    let text = try? String(contentsOfFile: CommandLine.arguments[2], encoding: .utf8)
else {
    FileHandle.standardError.write(Data("usage: report-samples FOLDER TEXT-FILE\n".utf8))
    exit(64)
}
let folder = CommandLine.arguments[1]

func write(_ name: String, _ bytes: Data) {
    guard FileManager.default.createFile(atPath: folder + "/" + name, contents: bytes) else {
        FileHandle.standardError.write(Data("\(folder)/\(name): cannot be written\n".utf8))
        exit(73)
    }
    print("\(name): \(bytes.count) bytes")
}

var licence = Samples.short(name: "LICENSE", text: text, layers: 12, heads: 12)
licence.scores = [LabelScore(label: "permissive", score: 0.9312), LabelScore(label: "copyleft", score: 0.0688)]
licence.rollouts = [
    Rollout(
        query: 0,
        weights: licence.tokens.indices.map { $0 == 0 ? 0.3 : 0.7 * Float($0 % 17) / Float(8 * licence.tokens.count) })
]
licence.probes = [
    Probe(
        edit: "mask", measure: "change of the logit of permissive",
        values: licence.tokens.indices.map {
            $0 < 2 ? .nan : (Float($0 * 7919 % 1009) / 1009 - 0.45) * (($0 * 31) % 97 == 0 ? 2 : 0.2)
        })
]
print(
    "\(licence.layers.count) × \(licence.heads.count) heads, 4 keys: everything up to \(licence.detail.completeTokens) tokens"
)
write("licence.html", Data(licence.page.utf8))
let long = Samples.long(tokens: 100_000, layers: 12, heads: 12, text: text)
write("long.html", Data(long.page.utf8))
var hostile = Samples.short(name: Hostile.name, text: Hostile.text, layers: 2, heads: 3)
hostile.notes = [Hostile.name]
hostile.scores = [LabelScore(label: Hostile.name, score: 0.5)]
write("hostile.html", Data(hostile.page.utf8))

let maps = (0..<12).map { layer in (0..<12).map { head in Samples.map(side: 100 + 13 * head, wave: layer % 5) } }
write("one.png", Data(BlockMapPicture.png(of: maps[1][8], title: "layer 1 head 8")))
write("small.png", Data(BlockMapPicture.png(of: Samples.map(side: 7, wave: 1), title: "layer 0 head 0")))
let all = (0..<12).map { layer in (0..<12).map { head in Samples.map(side: 236, wave: (layer + head) % 5) } }
write("all.png", Data(BlockMapPicture.png(of: all, layers: Array(0..<12), heads: Array(0..<12))))
