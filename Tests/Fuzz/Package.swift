// swift-tools-version: 6.0
// Fuzzing of everything that reads what others wrote; Tests/Fuzz/run builds and runs it.

import PackageDescription

let package = Package(
    name: "fuzz",
    platforms: [.macOS(.v15)],
    dependencies: [.package(name: "annulus", path: "../..")],
    targets: [
        // The same sources as in the package of the project, whose tests replay the corpus.
        .target(
            name: "TestSupport", dependencies: [.product(name: "RingAttention", package: "annulus")],
            path: "TestSupport"),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "TestSupport", .product(name: "RingAttention", package: "annulus"),
                .product(name: "Transformers", package: "annulus"),
            ], path: "Targets"),
        .executableTarget(name: "fuzz", dependencies: ["FuzzTargets"], path: "Driver"),
    ],
    swiftLanguageModes: [.v6]
)
