// Whether a mask fits a sequence, and how a packed one falls apart into its documents.

import Tiles

extension Mask {
    /// Why the mask cannot be applied to a sequence; nil where it can.
    public func incompatibility(with shape: SequenceShape) -> String? {
        switch self {
        case .full, .causal, .window, .prefix: return nil
        case .documents(let documents):
            if documents.queryCount != shape.queries {
                return "the documents' lengths sum to \(documents.queryCount), and there are \(shape.queries) queries"
                    + (shape.queries == shape.keys ? "" : "; give two lists, documents(q…;k…)")
            }
            if documents.keyCount != shape.keys {
                return
                    "the documents' lengths sum to \(documents.keyCount), and there are \(shape.keys) keys; give two lists, documents(q…;k…)"
            }
            return nil
        case .global(let tokens):
            if shape.queries != shape.keys {
                return "global is for self-attention, and there are \(shape.queries) queries and \(shape.keys) keys"
            }
            if let last = tokens.ranges.last, last.upperBound > shape.keys {
                return "global names token \(last.upperBound - 1), and there are \(shape.keys)"
            }
            return nil
        case .blocks(let blocks):
            let rows = (shape.queries + blocks.size - 1) / blocks.size
            let columns = (shape.keys + blocks.size - 1) / blocks.size
            if (rows, columns) != (blocks.rows, blocks.columns) {
                return
                    "the block matrix is \(blocks.rows) × \(blocks.columns), and \(shape.queries) queries and \(shape.keys) keys in blocks "
                    + "of \(blocks.size) need \(rows) × \(columns)"
            }
            return nil
        case .not(let mask): return mask.incompatibility(with: shape)
        case .and(let left, let right), .or(let left, let right):
            return left.incompatibility(with: shape) ?? right.incompatibility(with: shape)
        }
    }

    /// The pieces of a sequence between which nothing is visible, and the mask within each: where `documents` is the
    /// mask, or one side of a conjunction, every document is a piece with a tile grid of its own, so that it has the
    /// bits it has alone.
    public func pieces(of shape: SequenceShape) -> (pieces: [SequenceShape], mask: Mask) {
        let (documents, rest) = splittingDocuments()
        guard let documents else { return ([shape], self) }
        let pieces = (0..<documents.count).map {
            SequenceShape(queries: documents.queries(of: $0), keys: documents.keys(of: $0), of: shape)
        }
        return (pieces, rest ?? .full)
    }

    /// Takes the first `documents` out of a conjunction; what is left, nil for nothing.
    private func splittingDocuments() -> (documents: DocumentMask?, rest: Mask?) {
        switch self {
        case .documents(let documents): return (documents, nil)
        case .and(let left, let right):
            let (inLeft, restLeft) = left.splittingDocuments()
            if let inLeft { return (inLeft, restLeft.map { .and($0, right) } ?? right) }
            let (inRight, restRight) = right.splittingDocuments()
            if let inRight { return (inRight, restRight.map { .and(left, $0) } ?? left) }
            return (nil, self)
        default: return (nil, self)
        }
    }
}
