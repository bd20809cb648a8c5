// The fixed tree: any order of arrival gives one expression, left before right, absent nodes skipped.

import TestSupport
import Testing
import Tiles

/// Records the merges applied to it as an expression, so that two reductions can be compared exactly.
private struct Expression: Mergeable, Equatable {
    var text: String
    mutating func merge(right: Expression) { text = "(\(text) \(right.text))" }
}

/// The definition, written as a recursion: a node's value is its left child's merged with its right
/// child's; a child without tiles is left out.
private func definition(_ node: TreeNode, _ tiles: Set<Int>) -> String? {
    if tiles.isDisjoint(with: node.tiles) { return nil }
    if node.level == 0 { return "\(node.index)" }
    let left = definition(TreeNode(level: node.level - 1, index: 2 * node.index), tiles)
    let right = definition(TreeNode(level: node.level - 1, index: 2 * node.index + 1), tiles)
    if let left, let right { return "(\(left) \(right))" }
    return left ?? right
}

@Suite struct FixedTreeTests {
    @Test func mergingInAnyOrderGivesTheSameExpression() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SplitMix(seed: seed)
        for _ in 0..<300 {
            let count = Int.random(in: 1...40, using: &generator)
            let tiles = Set((0..<count).filter { _ in Bool.random(using: &generator) })
            guard let last = tiles.max() else { continue }
            var level = 0
            while 1 << level <= last { level += 1 }
            let expected = definition(TreeNode(level: level, index: 0), tiles)
            var forest = MergeForest<Expression>(tiles: Runs(tiles.map { $0..<$0 + 1 }))
            for tile in tiles.shuffled(using: &generator) {
                #expect(forest.root == nil, "complete too early, seed \(seed)")
                forest.insert(Expression(text: "\(tile)"), tile: tile)
            }
            #expect(forest.root?.text == expected, "seed \(seed)")
        }
    }

    @Test func twoRunsLeaveFewPartsWaiting() {
        for (first, second) in [(0..<100, 300..<400), (17..<61, 63..<64), (1..<255, 256..<511)] {
            var forest = MergeForest<Expression>(tiles: Runs(0..<512))
            var most = 0
            for tile in Array(first) + Array(second) {
                forest.insert(Expression(text: ""), tile: tile)
                most = max(most, forest.pendingCount)
            }
            #expect(most <= 2 * 2 * 9)
            #expect(forest.pendingCount <= 2 * 9 * 2)
        }
    }

    @Test func aSubtreeCountsAsItsTiles() {
        var byTile = MergeForest<Expression>(tiles: Runs(0..<7))
        for tile in 0..<7 { byTile.insert(Expression(text: "\(tile)"), tile: tile) }
        var bySubtree = MergeForest<Expression>(tiles: Runs(0..<7))
        bySubtree.insert(Expression(text: "6"), tile: 6)
        bySubtree.insert(Expression(text: "((0 1) (2 3))"), at: TreeNode(level: 2, index: 0))
        bySubtree.insert(Expression(text: "(4 5)"), at: TreeNode(level: 1, index: 2))
        #expect(byTile.root?.text == bySubtree.root?.text)
    }

    @Test func maximalSubtreesAreWhereAForestStands() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SplitMix(seed: seed)
        for _ in 0..<500 {
            let count = Int.random(in: 1...40, using: &generator)
            let tiles = (0..<count).filter { _ in Int.random(in: 0..<4, using: &generator) > 0 }
            let arrived = tiles.filter { _ in Int.random(in: 0..<3, using: &generator) > 0 }
            let tree = Runs(tiles.map { $0..<$0 + 1 })
            var forest = MergeForest<Expression>(tiles: tree)
            for tile in arrived.shuffled(using: &generator) { forest.insert(Expression(text: "\(tile)"), tile: tile) }
            // Tiles outside the tree do not count.
            let nodes = TreeNode.maximal(in: Runs(arrived.map { $0..<$0 + 1 } + [count..<count + 3]), of: tree)
            #expect(
                nodes == forest.parts.map(\.node).sorted { $0.tiles.lowerBound < $1.tiles.lowerBound }, "seed \(seed)")
        }
    }

    @Test(arguments: [0, 1, 2, 255, 256, 257, 4099]) func theGridCoversEveryTokenOnce(length: Int) {
        let tiles = 0..<TileGrid.count(length: length)
        #expect(tiles.flatMap { Array(TileGrid.tokens(of: $0, length: length)) } == Array(0..<length))
        #expect(TileGrid.tiles(covering: 0..<length) == tiles)
    }

    @Test func tilesAreNumberedOverSequences() {
        let numbering = TileNumbering(lengths: [0, 1, 256, 0, 257, 1000, 0])
        #expect(numbering.tileCount == 1 + 1 + 2 + 4)
        var seen: [[Int]] = Array(repeating: [], count: 7)
        for tile in 0..<numbering.tileCount {
            let sequence = numbering.sequence(of: tile)
            #expect(numbering.tiles(of: sequence).contains(tile))
            seen[sequence] += Array(numbering.tokens(of: tile))
        }
        #expect(seen == numbering.lengths.map { Array(0..<$0) })
    }
}
