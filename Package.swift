// swift-tools-version: 6.0
// Annulus: exact sequence-parallel attention on CPU clusters.

import PackageDescription

let package = Package(
    name: "annulus",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "RingAttention", targets: ["RingAttention", "Plans", "Attention", "Tiles", "Matrices", "MPI"]),
        .library(name: "Transformers", targets: ["Transformers", "Checkpoints", "Tokenization"]),
        .executable(name: "annulus", targets: ["annulus"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", "3.0.0"..<"5.0.0"),
    ],
    targets: [
        .systemLibrary(name: "CMPI", pkgConfig: "ompi-c", providers: [.apt(["libopenmpi-dev"]), .brew(["open-mpi"])]),
        .target(name: "CAttentionKernels"),
        .target(name: "CFiles"),
        .target(name: "MPI", dependencies: ["CMPI"]),
        .target(name: "Matrices", dependencies: ["CAttentionKernels"]),
        .target(name: "Tiles"),
        .target(name: "Attention", dependencies: ["CAttentionKernels", "Matrices", "Tiles"]),
        .target(name: "Plans", dependencies: ["Matrices", "Tiles", "Attention"]),
        .target(name: "RingAttention", dependencies: ["MPI", "Matrices", "Tiles", "Attention", "Plans"]),
        .target(name: "Checkpoints", dependencies: ["CFiles"]),
        .target(name: "Tokenization", dependencies: ["Checkpoints"]),
        .target(name: "Transformers", dependencies: ["RingAttention", "Checkpoints", "Tokenization"]),
        .executableTarget(
            name: "annulus",
            dependencies: [
                "Transformers",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Crypto", package: "swift-crypto"),
            ]),
        // Seeded cases and their references, shared by the test targets.
        .target(name: "TestSupport", dependencies: ["RingAttention"], path: "Tests/TestSupport"),
        .testTarget(name: "MatricesTests", dependencies: ["Matrices"]),
        .testTarget(name: "TilesTests", dependencies: ["Tiles", "TestSupport"]),
        .testTarget(name: "AttentionTests", dependencies: ["Attention", "TestSupport"]),
        .testTarget(name: "PlansTests", dependencies: ["Plans"]),
        .testTarget(
            name: "RingAttentionTests", dependencies: ["RingAttention", "TestSupport", "Checkpoints"], exclude: ["Goldens"]),
        .testTarget(name: "CheckpointsTests", dependencies: ["Checkpoints"]),
        .testTarget(name: "TokenizationTests", dependencies: ["Tokenization"], exclude: ["Goldens"]),
        .testTarget(name: "TransformersTests", dependencies: ["Transformers"], exclude: ["Goldens"]),
        .testTarget(name: "CommandTests", dependencies: ["annulus", "TestSupport", "Checkpoints"]),
        // The programs of README.md, and the test that they are and do what it says.
        .executableTarget(
            name: "attention-example", dependencies: ["RingAttention"], path: "Tests/LibraryExample/Attention"),
        .executableTarget(
            name: "similarity-example", dependencies: ["RingAttention", "Transformers"], path: "Tests/LibraryExample/Similarity"),
        .testTarget(
            name: "LibraryExampleTests", dependencies: ["attention-example", "similarity-example", "Checkpoints"],
            path: "Tests/LibraryExample/Tests"),
        // What is fuzzed (Tests/Fuzz is a package of its own), and the test that replays the committed inputs.
        .target(name: "FuzzTargets", dependencies: ["RingAttention", "Transformers", "TestSupport"], path: "Tests/Fuzz/Targets"),
        .testTarget(name: "FuzzReplayTests", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Replay"),
        // Run under mpirun by scripts/test, with any number of ranks.
        .executableTarget(
            name: "distributed-tests", dependencies: ["RingAttention", "TestSupport", "Transformers", "Checkpoints"], path: "Tests/DistributedTests",
            exclude: ["Misuse"]),
    ],
    swiftLanguageModes: [.v6]
)
