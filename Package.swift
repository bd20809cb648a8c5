// swift-tools-version: 6.0
// Annulus: exact sequence-parallel attention on CPU clusters.

import PackageDescription

// The MPI to build with, as pkg-config names it: ANNULUS_MPI=mpich for MPICH; without it, Open MPI.
let mpi = Context.environment["ANNULUS_MPI"] ?? "ompi-c"

let package = Package(
    name: "annulus",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "RingAttention", targets: ["RingAttention", "Plans", "Attention", "Tiles", "Matrices", "MPI"]),
        .library(name: "Transformers", targets: ["Transformers", "Checkpoints", "Files", "Tokenization"]),
        .library(name: "Pipelines", targets: ["Pipelines", "Checkpoints", "Files"]),
        .executable(name: "annulus", targets: ["annulus"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", "3.0.0"..<"5.0.0"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.36.0"),
    ],
    targets: [
        .systemLibrary(name: "CMPI", pkgConfig: mpi, providers: [.apt(["libopenmpi-dev"]), .brew(["open-mpi"])]),
        .target(name: "CLibrary"),
        .target(name: "CKernels"),
        .target(name: "CFiles"),
        // What a build knows of itself: `--version` tells it.
        .target(
            name: "CRelease",
            cSettings: Context.environment["ANNULUS_COMMIT"].map { [.define("ANNULUS_COMMIT", to: "\"\($0)\"")] }),
        .target(name: "MPI", dependencies: ["CLibrary", "CMPI"]),
        .target(name: "Matrices", dependencies: ["CKernels", "CLibrary"]),
        .target(name: "Tiles"),
        .target(name: "Attention", dependencies: ["CKernels", "CLibrary", "Matrices", "Tiles"]),
        .target(name: "Plans", dependencies: ["Attention", "Matrices", "Tiles"]),
        .target(name: "RingAttention", dependencies: ["Attention", "CLibrary", "MPI", "Matrices", "Plans", "Tiles"]),
        .target(name: "Files", dependencies: ["CFiles", "CLibrary"]),
        .target(name: "Checkpoints", dependencies: ["CLibrary", "Files"]),
        .target(
            name: "Tokenization",
            dependencies: ["Files", .product(name: "SwiftProtobuf", package: "swift-protobuf")],
            exclude: ["Sentencepiece/sentencepiece.proto"]),
        .target(
            name: "Transformers",
            dependencies: [
                "Attention", "CKernels", "CLibrary", "Checkpoints", "Files", "Matrices", "Plans", "RingAttention",
                "Tiles",
            ]),
        .target(
            name: "Training",
            dependencies: [
                "Attention", "Checkpoints", "Files", "Matrices", "Plans", "RingAttention", "Tiles", "Transformers",
            ]),
        .target(
            name: "Pipelines",
            dependencies: [
                "Attention", "CRelease", "Checkpoints", "Files", "MPI", "Matrices", "Plans", "RingAttention", "Tiles",
                "Tokenization", "Training", "Transformers",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Crypto", package: "swift-crypto"),
            ]),
        .executableTarget(
            name: "annulus",
            dependencies: [
                "Attention", "CMPI", "Checkpoints", "Files", "MPI", "Matrices", "Pipelines", "Plans", "RingAttention",
                "Tiles", "Tokenization", "Training", "Transformers",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Crypto", package: "swift-crypto"),
            ]),
        // Seeded cases and their references, shared by the test targets.
        .target(
            name: "TestSupport", dependencies: ["Attention", "Matrices", "Plans", "RingAttention", "Tiles"],
            path: "Tests/TestSupport"),
        .testTarget(name: "MatricesTests", dependencies: ["CKernels", "Matrices", "Tiles"]),
        .testTarget(name: "TilesTests", dependencies: ["TestSupport", "Tiles"]),
        .testTarget(
            name: "AttentionTests", dependencies: ["Attention", "Matrices", "RingAttention", "TestSupport", "Tiles"]),
        .testTarget(name: "PlansTests", dependencies: ["Attention", "Matrices", "Plans", "Tiles"]),
        .testTarget(
            name: "RingAttentionTests",
            dependencies: ["Attention", "Files", "Matrices", "Plans", "RingAttention", "TestSupport", "Tiles"],
            exclude: ["Goldens"]),
        .testTarget(name: "CheckpointsTests", dependencies: ["Checkpoints", "Files"]),
        .testTarget(name: "TokenizationTests", dependencies: ["Files", "Tokenization"], exclude: ["Goldens"]),
        .testTarget(
            name: "TransformersTests",
            dependencies: [
                "Attention", "Checkpoints", "Files", "Matrices", "Plans", "RingAttention", "Tiles", "Transformers",
            ],
            exclude: ["Goldens"]),
        .testTarget(
            name: "TrainingTests",
            dependencies: [
                "Checkpoints", "Files", "Matrices", "Plans", "RingAttention", "Tiles", "Training", "Transformers",
            ],
            exclude: ["Goldens"]),
        // Reports of made-up attention, written to be looked at; and tests of reports and pictures.
        .executableTarget(
            name: "report-samples", dependencies: ["Pipelines", "TestSupport"], path: "Tests/ReportSamples"),
        .testTarget(name: "ReportTests", dependencies: ["Files", "Pipelines", "TestSupport", "report-samples"]),
        // Runs the command.
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "Attention", "Checkpoints", "Files", "Matrices", "Pipelines", "TestSupport", "Transformers", "annulus",
            ],
            exclude: ["Goldens"]),
        // The programs of docs/library.md, and the test that they are and do what it says.
        .executableTarget(
            name: "attention-example", dependencies: ["Attention", "MPI", "Matrices", "Plans", "RingAttention"],
            path: "Tests/LibraryExample/Attention"),
        .executableTarget(
            name: "gradients-example", dependencies: ["Attention", "Matrices", "Plans", "RingAttention"],
            path: "Tests/LibraryExample/Gradients"),
        .executableTarget(
            name: "similarity-example",
            dependencies: ["Checkpoints", "Matrices", "Plans", "RingAttention", "Tokenization", "Transformers"],
            path: "Tests/LibraryExample/Similarity"),
        .executableTarget(
            name: "embedding-example", dependencies: ["Pipelines"], path: "Tests/LibraryExample/Embedding"),
        // Runs them.
        .testTarget(
            name: "LibraryExampleTests",
            dependencies: [
                "Checkpoints", "Files", "Pipelines", "RingAttention", "annulus", "attention-example",
                "embedding-example", "gradients-example", "similarity-example",
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/LibraryExample/Tests"),
        // What is fuzzed (Tests/Fuzz is a package of its own), and the test that replays the committed inputs.
        .target(
            name: "FuzzTargets",
            dependencies: [
                "Attention", "Checkpoints", "Files", "Matrices", "Plans", "RingAttention", "TestSupport", "Tiles",
                "Tokenization", "Transformers",
            ],
            path: "Tests/Fuzz/Targets"),
        .testTarget(name: "FuzzReplayTests", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Replay"),
        // Run under mpirun by scripts/test, with any number of ranks.
        .executableTarget(
            name: "distributed-tests",
            dependencies: [
                "Attention", "CMPI", "Checkpoints", "Files", "MPI", "Matrices", "Pipelines", "Plans", "RingAttention",
                "TestSupport", "Tiles", "Transformers",
            ],
            path: "Tests/DistributedTests", exclude: ["Misuse"]),
    ],
    swiftLanguageModes: [.v6]
)
