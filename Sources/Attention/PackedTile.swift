// How the keys and values of one tile and head lie in memory.

import CKernels
import Matrices
import Tiles

/// The panels of one key tile and head, in memory and on their way: K transposed in panels of keys, then V in panels of
/// channels (see `annulus_kernels.h`).
///
/// Everything in it stands where the tile's *capacity* puts it: the keys that the tile has room for. Where a tile's
/// length is known that is its length, so that short documents take no more memory and no more bytes; a tile that grows
/// has room for `TileGrid.tileSize`, and what is appended later moves nothing.
public struct PackedTile: Sendable, Hashable {
    /// The columns of a panel.
    public static let panelWidth = Int(ANNULUS_PANEL_WIDTH)
    /// The columns of several panels that one product takes at most, and the keys of a word of a mask.
    public static let productColumns = Int(ANNULUS_PRODUCT_COLUMNS)

    /// The width of a key, in elements.
    public let headDimension: Int
    /// The width of a value, in elements.
    public let valueDimension: Int
    /// What keys and values are stored in. In bfloat16 a float's place holds a pair along the depth of the product: two
    /// channels of a key, or two keys of a channel of values.
    public let element: ElementKind

    /// How tiles of one key/value head are packed, for heads of these widths.
    public init(_ heads: HeadShape, _ element: ElementKind = .float32) {
        headDimension = heads.headDimension
        valueDimension = heads.valueDimension
        self.element = element
    }

    /// A number of columns rounded up to whole panels.
    func padded(_ columns: Int) -> Int { (columns + Self.panelWidth - 1) / Self.panelWidth * Self.panelWidth }

    /// The columns of the product that begins with a key, or a channel, of so many.
    func width(at column: Int, of columns: Int) -> Int { padded(min(Self.productColumns, columns - column)) }

    /// From one panel of K to the next, in floats.
    var keyPanelStride: Int { Self.panelWidth * element.slots(headDimension) }

    /// From one panel of V to the next, in floats, in a tile with room for `capacity` keys.
    func valuePanelStride(capacity: Int) -> Int { Self.panelWidth * element.slots(capacity) }

    /// From one row of query operands to the next, in floats.
    var queryStride: Int { element.slots(headDimension) }

    /// The floats of the K panels of a tile with room for `capacity` keys.
    public func keyFloats(capacity: Int) -> Int { padded(capacity) * element.slots(headDimension) }

    /// The floats of its V panels.
    func valueFloats(capacity: Int) -> Int { element.slots(capacity) * padded(valueDimension) }

    /// The floats of both, rounded up so that every tile starts on a cache line.
    public func floats(capacity: Int) -> Int { keyFloats(capacity: capacity) + padded(valueFloats(capacity: capacity)) }

    /// The floats of what an operation needs of a tile: its first ones.
    public func floats(of columns: OperationShape.Columns, capacity: Int) -> Int {
        switch columns {
        case .keysAndValues: floats(capacity: capacity)
        case .keys: keyFloats(capacity: capacity)
        }
    }

    /// Packs some consecutive keys of a tile.
    /// - Parameters:
    ///   - rows: which keys of the tile: from the start of a panel on, to the start of another or to the last that is
    ///     there.
    ///   - capacity: the keys that the tile has room for.
    ///   - keys: (rows, headDimension), row-major, the first row being `rows.lowerBound`.
    ///   - keyStride: floats from a row of keys to the next.
    ///   - values: (rows, valueDimension), row-major, the first row being `rows.lowerBound`.
    ///   - valueStride: floats from a row of values to the next.
    ///   - tile: the packed tile, `floats(capacity:)` floats.
    ///   - kernels: those that pack.
    public func pack(
        rows: Range<Int>, capacity: Int,
        keys: UnsafePointer<Float>, keyStride: Int, values: UnsafePointer<Float>, valueStride: Int,
        into tile: UnsafeMutablePointer<Float>, kernels: KernelSet
    ) {
        precondition(
            rows.lowerBound % Self.panelWidth == 0 && rows.upperBound <= capacity, "a tile is packed panel by panel")
        packKeys(
            rows: rows.count, keys, stride: keyStride, into: tile + rows.lowerBound * element.slots(headDimension),
            kernels: kernels)
        let panels =
            tile + keyFloats(capacity: capacity) + element.slots(rows.lowerBound) * Self.panelWidth
        let panelStride = valuePanelStride(capacity: capacity)
        switch element {
        case .float32:
            kernels.functions.pack_columns(values, valueStride, rows.count, valueDimension, panels, panelStride)
        case .bfloat16:
            kernels.bfloat16Functions.pack_columns(
                values, valueStride, rows.count, valueDimension, panels, panelStride)
        }
    }

    /// Packs keys alone, from the start of a panel on.
    func packKeys(
        rows: Int, _ keys: UnsafePointer<Float>, stride: Int, into panels: UnsafeMutablePointer<Float>,
        kernels: KernelSet
    ) {
        switch element {
        case .float32: kernels.functions.pack_transposed(keys, stride, rows, headDimension, panels, keyPanelStride)
        case .bfloat16:
            kernels.bfloat16Functions.pack_transposed(keys, stride, rows, headDimension, panels, keyPanelStride)
        }
    }
}
