// The panel product of one kernel set for either kind of element, under one signature.

import CKernels

/// C[rows][columns] = (adds ? C : 0) + A[rows][terms] · panels, as `panel_product` of the C kernels.
///
/// A and the panels are of the element's kind: pointers and strides count slots of four bytes, which hold a float or a
/// pair of bfloat16 (`ElementKind.slots`); `terms` counts elements.
public struct PanelProduct {
    private let element: ElementKind
    private let float32: annulus_kernels
    private let bfloat16: annulus_bfloat16_kernels

    /// The product of operands of that kind by these kernels.
    public init(element: ElementKind, kernels: KernelSet) {
        self.element = element
        float32 = kernels.functions
        bfloat16 = kernels.bfloat16Functions
    }

    /// Multiplies one block of rows by some panels, on the calling thread.
    /// - Parameters:
    ///   - a: A, (rows, terms), row-major.
    ///   - aStride: the slots from a row of A to the next.
    ///   - rows: of A and of C.
    ///   - panels: (terms, columns), packed as the C kernels have it, one panel right after the other.
    ///   - terms: elements of a row of A, and rows of a panel.
    ///   - columns: of the panels and of C: 16, 32, 48 or 64.
    ///   - c: C, (rows, columns), row-major, float32 whatever the element.
    ///   - cStride: the floats from a row of C to the next.
    ///   - adds: whether the product is added to what C holds.
    @inline(__always)
    public func callAsFunction(
        _ a: UnsafePointer<Float>, _ aStride: Int, _ rows: Int, _ panels: UnsafePointer<Float>, _ terms: Int,
        _ columns: Int,
        _ c: UnsafeMutablePointer<Float>, _ cStride: Int, adds: Bool
    ) {
        let mode = Int32(adds ? ANNULUS_ADD : ANNULUS_START)
        let stride = Int(ANNULUS_PANEL_WIDTH) * element.slots(terms)
        switch element {
        case .float32: float32.panel_product(a, aStride, rows, panels, terms, stride, columns, c, cStride, mode)
        case .bfloat16: bfloat16.panel_product(a, aStride, rows, panels, terms, stride, columns, c, cStride, mode)
        }
    }
}
