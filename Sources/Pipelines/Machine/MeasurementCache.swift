// Measurements kept from one job to the next, in a file for each kind of job on each host.

import Attention
import Crypto
import Files
import Foundation
import Plans

/// The file in which rank 0's host keeps what a job of the same ranks, hosts, kernels and head widths measured.
package struct MeasurementCache {
    package let path: String
    package var folder: String { (path as NSString).deletingLastPathComponent }
    private let rankCount: Int

    /// `${XDG_CACHE_HOME:-~/.cache}/annulus/measured/HOST-KERNEL-….json`; nil where there is no home.
    /// - Parameter hosts: the host of every rank, and what else tells jobs apart.
    init?(
        rankCount: Int, hosts: [String], kernel: String, threads: Int, element: String, heads: HeadShape,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) {
        func folder(_ name: String) -> String? { environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil } }
        guard let caches = folder("XDG_CACHE_HOME") ?? folder("HOME").map({ $0 + "/.cache" }) else { return nil }
        let key =
            ([Release.version, kernel, "\(threads)", element, "\(heads.headDimension)", "\(heads.valueDimension)"]
            + hosts)
            .joined(separator: "\n")
        let digest = SHA256.hash(data: Data(key.utf8)).prefix(8).map { String(format: "%02x", $0) }.joined()
        let host = String((hosts.first ?? "").map { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "." ? $0 : "_" })
        path = "\(caches)/annulus/measured/\(host)-\(kernel)-\(digest).json"
        self.rankCount = rankCount
    }

    /// What is kept, unless it is missing, damaged or over a day old.
    package func read() -> Measurements? {
        guard let changed = (try? FileManager.default.attributesOfItem(atPath: path))?[.modificationDate] as? Date,
            Date().timeIntervalSince(changed) < 86_400, let json = try? JSON.load(path: path),
            let flops = json["flops"]?.array?.compactMap(\.double), flops.count == rankCount,
            flops.allSatisfy({ $0 > 0 })
        else { return nil }
        func link(_ name: String) -> Cluster.Link? {
            guard let latency = json[name]?["latency"]?.double, let bandwidth = json[name]?["bandwidth"]?.double,
                latency >= 0, bandwidth > 0
            else { return nil }
            return Cluster.Link(latency: latency, bandwidth: bandwidth)
        }
        return Measurements(flops: flops, inside: link("inside"), between: link("between"))
    }

    /// Keeps measurements, if the folder lets it: a job does not fail for its cache. Written aside and renamed, so that
    /// a reader sees all of a file or none.
    package func write(_ measured: Measurements) {
        func link(_ name: String, _ link: Cluster.Link?) -> String {
            link.map { ", \"\(name)\": {\"latency\": \($0.latency), \"bandwidth\": \($0.bandwidth)}" } ?? ""
        }
        let text =
            "{\"flops\": [" + measured.flops.map { "\($0)" }.joined(separator: ", ") + "]"
            + link("inside", measured.inside) + link("between", measured.between) + "}\n"
        try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try? Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }
}
