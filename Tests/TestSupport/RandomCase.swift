// Random cases of masks, modifiers, shapes and layouts, from a seed.

import Attention
import Plans
import Tiles

/// Draws cases: the same generator state, or seed, gives the same case.
public enum RandomCase {
    /// Queries and keys: often equal, often about a tile boundary, sometimes empty.
    public static func shape(_ generator: inout SplitMix, longest: Int) -> SequenceShape {
        func length() -> Int {
            switch Int.random(in: 0..<8, using: &generator) {
            case 0: Int.random(in: 0...3, using: &generator)
            case 1: min(longest, 255 + Int.random(in: 0...2, using: &generator))
            case 2: min(longest, 511 + Int.random(in: 0...2, using: &generator))
            default: Int.random(in: 1...longest, using: &generator)
            }
        }
        let queries = length()
        return SequenceShape(queries: queries, keys: Int.random(in: 0..<3, using: &generator) > 0 ? queries : length())
    }

    /// Any mask that fits the shape, compound ones included.
    public static func mask(for shape: SequenceShape, _ generator: inout SplitMix, depth: Int = 0) -> Mask {
        func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }
        switch number(0...(depth < 2 ? 12 : 8)) {
        case 0: return .full
        case 1, 2: return .causal
        case 3, 4:
            return .window(
                left: number(0...4) == 0 ? -1 : number(0...300),
                right: [-1, 0, number(0...300), number(0...300)][number(0...3)])
        case 5:
            var queriesLeft = shape.queries
            var keysLeft = shape.keys
            var queries: [Int] = []
            var keys: [Int] = []
            let isSelf = shape.queries == shape.keys
            while queriesLeft > 0 || keysLeft > 0 {
                let isLast = number(0...4) == 0
                let q = isLast ? queriesLeft : number(0...queriesLeft)
                let k = isSelf ? q : isLast ? keysLeft : number(0...keysLeft)
                queries.append(q)
                keys.append(k)
                queriesLeft -= q
                keysLeft -= k
            }
            return .documents(DocumentMask(queries: queries, keys: keys))
        case 6: return .prefix(number(0...shape.keys + 10))
        case 7:
            guard shape.queries == shape.keys, shape.keys > 0 else { return .causal }
            return .global(
                Runs(
                    (0..<number(1...4)).map { _ in
                        let token = number(0...shape.keys - 1)
                        return token..<token + 1
                    }))
        case 8:
            let size = [1, 16, 64, 100, 256, 300][number(0...5)]
            let rows = (shape.queries + size - 1) / size
            let columns = (shape.keys + size - 1) / size
            let density = number(1...9)
            return .blocks(
                BlockMask(
                    size: size, rows: rows, columns: columns,
                    cells: (0..<rows * columns).map { _ in number(0...9) < density }))
        case 9: return .not(mask(for: shape, &generator, depth: depth + 1))
        case 10, 11:
            return .and(mask(for: shape, &generator, depth: depth + 1), mask(for: shape, &generator, depth: depth + 1))
        default:
            return .or(mask(for: shape, &generator, depth: depth + 1), mask(for: shape, &generator, depth: depth + 1))
        }
    }

    /// Any set of modifiers, none in half of the cases.
    public static func modifiers(heads: HeadShape, _ generator: inout SplitMix) -> ScoreModifiers {
        var modifiers = ScoreModifiers()
        if Bool.random(using: &generator) { return modifiers }
        func list(_ count: Int, _ range: ClosedRange<Float>) -> [Float] {
            (0..<count).map { _ in Float.random(in: range, using: &generator) }
        }
        if Bool.random(using: &generator) { modifiers.softcap = Float.random(in: 0.5...30, using: &generator) }
        if Bool.random(using: &generator) { modifiers.alibiSlopes = list(heads.queryHeads, 0...0.2) }
        if Bool.random(using: &generator) {
            let reach = Int.random(in: 0...40, using: &generator)
            modifiers.relativeBias = .init(table: list(heads.queryHeads * (2 * reach + 1), -2...2), reach: reach)
        }
        if Bool.random(using: &generator) { modifiers.sinks = list(heads.queryHeads, -3...3) }
        return modifiers
    }

    /// Any case: one sequence of any mask, or a batch of several.
    public static func ringCase(seed: UInt64, longest: Int = 620) -> RingCase {
        var generator = SplitMix(seed: seed)
        let keyValueHeads = Int.random(in: 1...2, using: &generator)
        let heads = HeadShape(
            queryHeads: keyValueHeads * Int.random(in: 1...2, using: &generator), keyValueHeads: keyValueHeads,
            headDimension: Int.random(in: 1...20, using: &generator),
            valueDimension: Int.random(in: 1...20, using: &generator))
        var shapes = [shape(&generator, longest: longest)]
        var mask = mask(for: shapes[0], &generator)
        if Int.random(in: 0..<4, using: &generator) == 0 {
            // A batch: masks that fit every length.
            shapes += (0..<Int.random(in: 1...4, using: &generator)).map { _ in shape(&generator, longest: longest / 3)
            }
            mask =
                [.full, .causal, .window(left: 100, right: 20), .and(.causal, .prefix(90))].randomElement(
                    using: &generator) ?? .full
        }
        var result = RingCase(
            shapes, heads: heads, mask: mask, layout: Layout.allCases.randomElement(using: &generator) ?? .contiguous,
            seed: seed,
            sharpness: [0.1, 1, 8].randomElement(using: &generator) ?? 1)
        result.modifiers = modifiers(heads: heads, &generator)
        result.strategy = Strategy.allCases.randomElement(using: &generator) ?? .passKeyValue
        if Int.random(in: 0..<4, using: &generator) == 0 { result.element = .bfloat16 }
        if Int.random(in: 0..<4, using: &generator) == 0, result.element == .float32 { result.wire = .bfloat16 }
        result.ranksPerNode = [1, 1, 2, 3, 4, 16].randomElement(using: &generator) ?? 1
        return result
    }
}
