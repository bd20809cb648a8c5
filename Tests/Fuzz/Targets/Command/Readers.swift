// Documents in every format, and the description of a cluster.

import Attention
import Files
import Plans
import Tiles

func fuzzDocuments(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let format = InputFormat.allCases[Int(first) % InputFormat.allCases.count]
    let content = Array(bytes.dropFirst())
    func documents(inPiecesOf size: Int) -> Result<[String], FileError> {
        var reader = DocumentReader(format: format, path: "input", textField: "text")
        var found: [String] = []
        var start = 0
        do throws(FileError) {
            while start < content.count {
                let end = min(content.count, start + size)
                found += try reader.read(Array(content[start..<end]), isLast: false).map { "\($0)" }
                start = end
            }
            found += try reader.read([], isLast: true).map { "\($0)" }
        } catch { return .failure(error) }
        return .success(found)
    }
    // However the bytes come, they are the same documents, or the same error.
    let whole = documents(inPiecesOf: max(1, content.count))
    for size in [1, 7] { check(documents(inPiecesOf: size) == whole, "other documents in pieces of \(size) bytes") }
}

func fuzzCluster(_ bytes: [UInt8]) {
    guard var folder = ScratchFolder.make() else { return }
    folder.write("cluster.json", bytes)
    guard let cluster = try? ClusterFile.read(path: folder.path + "/cluster.json") else { return }
    check(cluster.rankCount <= ClusterFile.mostRanks && cluster.rankCount > 0, "\(cluster.rankCount) ranks")
    check(cluster.speeds.allSatisfy { $0 > 0 && $0 <= 1 }, "speeds that are none")
    _ = cluster.topology
    // Fewer tiles than ranks, unless these are few.
    guard cluster.rankCount <= 256 else { return }
    let shape = SequenceShape(length: 5000),
        heads = HeadShape(queryHeads: 2, keyValueHeads: 1, headDimension: 8, valueDimension: 8)
    for (strategy, layout) in [
        (Strategy.passKeyValue, Layout.balanced), (.headExchange, .zigzag), (.tree, .contiguous),
    ] {
        checkPrices(on: cluster, strategy, layout) { layout in
            AttentionProblem(
                shapes: [shape], mask: .causal, heads: heads, layout: layout, rankCount: cluster.rankCount,
                speeds: cluster.speeds)
        }
    }
}
