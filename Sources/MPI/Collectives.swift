// Collective calls on bytes, for control traffic: nothing here ever adds numbers.

import CMPI

extension Communicator {
    /// Returns once every rank has called it. The corresponding C function is `MPI_Barrier` (MPI 3.1 §5.3).
    public func barrier() throws(MPIError) {
        try check(cmpi_barrier(handle), "MPI_Barrier")
    }

    /// Replaces `bytes` by those of `root`. Every rank passes the same count, below 2 GiB.
    /// The corresponding C function is `MPI_Bcast` (MPI 3.1 §5.4).
    public func broadcast(_ bytes: inout [UInt8], from root: Int) throws(MPIError) {
        let count = checkedCount(bytes.count)
        let root = checkedRank(root)
        let code = bytes.withUnsafeMutableBytes { cmpi_bcast($0.baseAddress, count, root, handle) }
        try check(code, "MPI_Bcast")
    }

    /// Every rank's bytes, end to end in rank order. Every rank passes the same count, below 2 GiB together.
    /// The corresponding C function is `MPI_Allgather` (MPI 3.1 §5.7).
    public func allGather(_ bytes: [UInt8]) throws(MPIError) -> [UInt8] {
        _ = checkedCount(bytes.count * size)
        var all = [UInt8](repeating: 0, count: bytes.count * size)
        let code = bytes.withUnsafeBytes { mine in
            all.withUnsafeMutableBytes { all in
                cmpi_allgather(mine.baseAddress, Int32(mine.count), all.baseAddress, handle)
            }
        }
        try check(code, "MPI_Allgather")
        return all
    }

    /// Every rank's bytes in rank order, of any lengths, `counts[r]` from rank r. Below 2 GiB together.
    /// The corresponding C function is `MPI_Allgatherv` (MPI 3.1 §5.7).
    public func allGather(_ bytes: [UInt8], counts: [Int]) throws(MPIError) -> [[UInt8]] {
        precondition(counts.count == size && counts[rank] == bytes.count, "counts must list what every rank passes")
        let (offsets, total) = layOut(counts)
        var all = [UInt8](repeating: 0, count: total)
        let code = bytes.withUnsafeBytes { mine in
            all.withUnsafeMutableBytes { all in
                cmpi_allgatherv(
                    mine.baseAddress, Int32(mine.count), all.baseAddress, counts.map { Int32($0) }, offsets, handle)
            }
        }
        try check(code, "MPI_Allgatherv")
        return zip(counts, offsets).map { count, offset in Array(all[Int(offset)..<Int(offset) + count]) }
    }

    /// On `root` every rank's bytes in rank order, of any lengths, `counts[r]` from rank r, below 2 GiB
    /// together; nil elsewhere. The corresponding C function is `MPI_Gatherv` (MPI 3.1 §5.5).
    public func gather(_ bytes: [UInt8], counts: [Int], to root: Int) throws(MPIError) -> [[UInt8]]? {
        precondition(counts.count == size && counts[rank] == bytes.count, "counts must list what every rank passes")
        let (offsets, total) = layOut(counts)
        let root = checkedRank(root)
        let isRoot = rank == Int(root)
        var all = [UInt8](repeating: 0, count: isRoot ? total : 0)
        let code = bytes.withUnsafeBytes { mine in
            all.withUnsafeMutableBytes { all in
                cmpi_gatherv(
                    mine.baseAddress, Int32(mine.count), all.baseAddress, counts.map { Int32($0) }, offsets, root,
                    handle)
            }
        }
        try check(code, "MPI_Gatherv")
        guard isRoot else { return nil }
        return zip(counts, offsets).map { count, offset in Array(all[Int(offset)..<Int(offset) + count]) }
    }

    private func layOut(_ counts: [Int]) -> (offsets: [Int32], total: Int) {
        var offsets: [Int32] = []
        var total = 0
        for count in counts {
            offsets.append(Int32(total))
            total += count
            _ = checkedCount(total)
        }
        return (offsets, total)
    }

    private func checkedCount(_ count: Int) -> Int32 {
        precondition(count >= 0 && count <= Int(Int32.max), "control traffic is limited to 2 GiB a call")
        return Int32(count)
    }
}
