"""The rows of scripts/peers/bench-kernels: kernels, layers and the ring against the machine's peak and against their peers."""

from kernel_peers import PEERS
from peers import Ours, Peer, Row, main

# By kernel set: the parts of the peak, `dense` of 768 → 3072, 3072 → 768 and 384 → 1536; then ratios to a peer's speed.
TARGETS = {
    "avx2": {"d32": 0.79, "d64": 0.86, "d128": 0.87, "causal": 0.83, "window": 0.78, "bfloat16-d64": 0.76, "bfloat16-d128": 0.78,
             "dense": (0.92, 0.90, 0.94), "onnx": 1.15, "onnx-neighbour": 1.05, "onnx-encoder": 1.2, "openblas": 1.1,
             "openblas-neighbour": 1},
    "avx512": {"d32": 0.82, "d64": 0.90, "d128": 0.91, "causal": 0.86, "window": 0.82, "bfloat16-d64": 0.80, "bfloat16-d128": 0.84,
               "dense": (0.95, 0.93, 0.95), "onnx": 1.2, "onnx-neighbour": 1.1, "onnx-encoder": 1.4, "openblas": 1.05,
               "openblas-neighbour": 1},
}

# Whose kernels OpenBLAS takes on the same instructions; what it would choose by itself depends on its age, and on the environment.
CORE_TYPES = {"avx2": "Haswell", "avx512": "SkylakeX"}


def all_rows(quick):
    length = 1024 if quick else 8192
    tokens = 512 if quick else 4096
    long, reach = (4096, 128) if quick else (32768, 512)
    heads = 12

    def attention(dimension=64, mask="full", dtype="float32", tokens=length, **spread):
        arguments = ["attention", "--length", str(tokens), "--heads", str(heads), "--head-dim", str(dimension)]
        if mask != "full":
            arguments += ["--mask", mask]
        return Ours(arguments + precision(dtype), **spread)

    def precision(dtype):
        return ["--dtype", dtype] if dtype != "float32" else []

    def dense(inputs, outputs, dtype="float32", **spread):
        arguments = ["gemm", "--tokens", str(tokens), "--inputs", str(inputs), "--outputs", str(outputs)]
        return Ours(arguments + precision(dtype), **spread)

    def encoder(**spread):
        return Ours(["encoder", "--shape", "minilm", "--length", str(length)], **spread)

    shape = "%d tokens, %d heads" % (length, heads)
    layers = [(768, 3072), (3072, 768), (384, 1536)]
    rows = []
    for kernel, targets in TARGETS.items():
        def add(name, work, target, side, note=""):
            rows.append(Row("%s-%s" % (name, kernel), work + ", one thread, " + kernel, "fraction", target, [side], note=note))

        for dimension in (32, 64, 128):
            add("attention-d%d" % dimension, "attention float32, full, %s, d = %d" % (shape, dimension), targets["d%d" % dimension],
                attention(dimension, kernel=kernel))
        add("attention-causal", "attention float32, causal, %s, d = 64" % shape, targets["causal"],
            attention(mask="causal", kernel=kernel), note="visible work")
        add("attention-window", "attention float32, window(%d,%d), %d tokens, %d heads, d = 64" % (reach, reach, long, heads), targets["window"],
            attention(mask="window(%d,%d)" % (reach, reach), tokens=long, kernel=kernel), note="visible work")
        for dimension in (64, 128):
            add("attention-bfloat16-d%d" % dimension, "attention bfloat16, full, %s, d = %d" % (shape, dimension),
                targets["bfloat16-d%d" % dimension], attention(dimension, dtype="bfloat16", kernel=kernel),
                note="of the peak of the set's bfloat16 products, which without instructions of their own is float32's")
        for (inputs, outputs), target in zip(layers, targets["dense"]):
            add("dense-%d-%d" % (inputs, outputs), "dense layer %d x %d -> %d, float32" % (tokens, inputs, outputs), target,
                dense(inputs, outputs, kernel=kernel))
            add("dense-bfloat16-%d-%d" % (inputs, outputs), "dense layer %d x %d -> %d, bfloat16" % (tokens, inputs, outputs), 0.85,
                dense(inputs, outputs, "bfloat16", kernel=kernel), note="of the peak of the set's bfloat16 products")
        for name, side in [("attention", attention), ("dense", lambda **spread: dense(768, 3072, **spread))]:
            rows.append(Row("bfloat16-%s-%s" % (name, kernel), "%s in bfloat16 against float32, one thread, %s" % (
                "attention, %s, d = 64," % shape if name == "attention" else "dense layer %d x 768 -> 3072" % tokens, kernel), "ratio", 0.85,
                [side(dtype="bfloat16", kernel=kernel), side(kernel=kernel)]))
        for beside, words in [("", ""), ("-neighbour", ", beside a neighbour")]:
            rows.append(Row("onnx-attention%s-%s" % (beside, kernel),
                            "attention float32, %s, d = 64, against ONNX Runtime, one thread, %s%s" % (shape, kernel, words),
                            "ratio", targets["onnx" + beside],
                            [attention(kernel=kernel, beside_peer=True),
                             Peer("onnx-attention", threads=1, length=length, heads=heads, dimension=64)], neighbour=bool(beside)))
            for inputs, outputs in layers:
                # Of tens of milliseconds: a turn is the median of five.
                openblas = Peer("openblas", packages="openblas", repetitions=5, environment={"OPENBLAS_CORETYPE": CORE_TYPES[kernel]},
                                tokens=tokens, inputs=inputs, outputs=outputs)
                rows.append(Row("openblas%s-%d-%d-%s" % (beside, inputs, outputs, kernel),
                                "dense layer %d x %d -> %d, float32, against OpenBLAS, one thread, %s%s" % (tokens, inputs, outputs, kernel, words),
                                "ratio", targets["openblas" + beside], [dense(inputs, outputs, kernel=kernel, repetitions=5), openblas],
                                neighbour=bool(beside)))
        rows.append(Row("onnx-encoder-%s" % kernel,
                        "encoder 6 x 384, %d tokens, two ranks, against fused ONNX Runtime on two threads, %s" % (length, kernel), "ratio",
                        targets["onnx-encoder"], [encoder(ranks=2, kernel=kernel, beside_peer=True), Peer("onnx-encoder", threads=2, length=length)]))
    rows.append(Row("two-ranks", "attention, two ranks of one thread against one, %s" % shape, "ratio", 1.95,
                    [attention(ranks=2), attention()]))
    rows.append(Row("two-threads", "attention, one rank of two threads against one, %s" % shape, "ratio", 1.95,
                    [attention(threads=2), attention()]))
    for inputs, outputs in layers:
        rows.append(Row("dense-bfloat16-%d-%d-torch" % (inputs, outputs),
                        "dense layer %d x %d -> %d, bfloat16, one thread, against PyTorch (oneDNN)" % (tokens, inputs, outputs), "ratio", 1, [
            dense(inputs, outputs, "bfloat16"),
            Peer("torch-linear", threads=1, dtype="bfloat16", tokens=tokens, inputs=inputs, outputs=outputs)]))
        for dtype in ("float32", "bfloat16"):
            rows.append(Row("zentorch-dense-%s-%d-%d" % (dtype, inputs, outputs),
                            "dense layer %d x %d -> %d, %s, one thread, against zentorch" % (tokens, inputs, outputs, dtype), "ratio", 1, [
                dense(inputs, outputs, dtype, repetitions=5),
                Peer("zentorch-linear", packages="zentorch", repetitions=5, threads=1, dtype=dtype, tokens=tokens, inputs=inputs, outputs=outputs)]))
    for dtype, target in [("float32", 2.5), ("bfloat16", 4)]:
        for threads in (1, 2):
            rows.append(Row(
                "torch-attention-%s-%d" % (dtype, threads),
                "attention %s, %s, d = 64, against PyTorch, threads: %d" % (dtype, shape, threads), "ratio", target,
                [attention(dtype=dtype, threads=threads),
                 Peer("torch-attention", threads=threads, dtype=dtype, length=length, heads=heads, dimension=64)]))
    rows.append(Row("onnx-attention-2", "attention float32, %s, d = 64, against ONNX Runtime, threads: 2" % shape, "ratio", 1.15,
                    [attention(threads=2), Peer("onnx-attention", threads=2, length=length, heads=heads, dimension=64)]))
    rows.append(Row("openvino-attention", "attention float32, %s, d = 64, one thread, against OpenVINO" % shape, "ratio", 1,
                    [attention(), Peer("openvino-attention", packages="openvino", threads=1, length=length, heads=heads, dimension=64)]))
    for dtype in ("float32", "bfloat16"):
        rows.append(Row("zentorch-attention-%s" % dtype, "attention %s, %s, d = 64, one thread, against zentorch" % (dtype, shape), "ratio", 1,
                        [attention(dtype=dtype),
                         Peer("zentorch-attention", packages="zentorch", threads=1, dtype=dtype, length=length, heads=heads, dimension=64)]))
    for name, packages, peer, target in [("transformers-encoder", "peers", "transformers on PyTorch", 3),
                                         ("openvino-encoder", "openvino", "OpenVINO", 1), ("zentorch-encoder", "zentorch", "zentorch", 1)]:
        rows.append(Row(name, "encoder 6 x 384, %d tokens, two ranks, against %s on two threads" % (length, peer), "ratio", target,
                        [encoder(ranks=2), Peer(name, packages=packages, threads=2, length=length)]))
    rows.append(Row("torch-ring", "ring of two ranks, %s, d = 64, against PyTorch + gloo" % shape, "ratio", 2.5,
                    [attention(ranks=2), Peer("torch-ring", ranks=2, length=length, heads=heads, dimension=64)]))
    rows.append(Row("fixed-tree", "the fixed tree against a running softmax, %s, d = 64" % shape, "cost", 0.03,
                    [Ours(["merge", "--length", str(length), "--heads", str(heads), "--head-dim", "64"], repetitions=15)], field="cost",
                    note="the merges against the same tiles without any; a running softmax's rescaling counted as free, so an upper bound"))
    return rows


if __name__ == "__main__":
    main("bench-kernels", all_rows, PEERS)
