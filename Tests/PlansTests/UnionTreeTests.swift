// A tree of unions answers as a list of sets does.

import Plans
import Testing
import Tiles

@Suite struct UnionTreeTests {
    @Test func itAnswersAsAListOfSetsDoes() {
        var generator = SystemRandomNumberGenerator()
        for count in [1, 2, 3, 7, 8, 21, 64] {
            let sets = (0..<count).map { _ in
                Runs(
                    (0..<Int.random(in: 0...2, using: &generator)).map { _ in
                        let start = Int.random(in: 0..<40, using: &generator)
                        return start..<start + Int.random(in: 1...3, using: &generator)
                    })
            }
            let tree = UnionTree(sets)
            #expect(tree.whole == Runs(sets.flatMap(\.ranges)))
            for _ in 0..<400 {
                let low = Int.random(in: 0...count, using: &generator)
                let places = low..<Int.random(in: low...count, using: &generator)
                let value = Int.random(in: 0..<43, using: &generator)
                let set = Runs(value..<value + 1)
                #expect(tree.union(places) == Runs(sets[places].flatMap(\.ranges)))
                #expect(
                    tree.first(in: places, meeting: set) == places.first { sets[$0].intersects(set) },
                    "\(sets) \(places) \(set)")
                #expect(
                    tree.last(in: places, meeting: set) == places.last { sets[$0].intersects(set) },
                    "\(sets) \(places) \(set)")
            }
        }
    }
}
