"""The rows of scripts/peers/bench-kernels: kernels, layers and the ring against the machine's peak and against their peers."""

import os
import time

from peers import Ours, Peer, Row, main, timed

# ---------------------------------------------------------------------------------------------------------------
# The peers. Each takes its options and returns a function that runs the work once and returns its seconds.


def torch_attention(threads, dtype, length, heads, dimension):
    """PyTorch's scaled_dot_product_attention, which is its CPU flash kernel here."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    queries, keys, values = (torch.randn(1, heads, length, dimension, dtype=getattr(torch, dtype)) for _ in range(3))
    return timed(lambda: torch.nn.functional.scaled_dot_product_attention(queries, keys, values))


def torch_linear(threads, dtype, tokens, inputs, outputs):
    """PyTorch's linear: oneDNN in bfloat16, MKL in float32."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    layer = torch.nn.Linear(inputs, outputs, bias=False, dtype=getattr(torch, dtype))
    rows = torch.randn(tokens, inputs, dtype=getattr(torch, dtype))
    return timed(lambda: layer(rows))


def onnx_session(nodes, weights, result, width, threads):
    """An ONNX Runtime session over a graph of ONNX and com.microsoft operators, float32 (1, n, width) in and out."""
    import onnxruntime
    from onnx import TensorProto, helper

    inputs = sorted({name for node in nodes for name in node.input if name.startswith("input")})
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n", width])
    graph = helper.make_graph(nodes, "graph", [value(name) for name in inputs], [value(result)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnx_attention(threads, length, heads, dimension):
    """ONNX Runtime's MultiHeadAttention, its CPU flash kernel."""
    import numpy
    from onnx import helper

    width = heads * dimension
    node = helper.make_node(
        "MultiHeadAttention", ["input_q", "input_k", "input_v"], ["output"], domain="com.microsoft", num_heads=heads)
    session = onnx_session([node], [], "output", width, threads)
    generator = numpy.random.default_rng(0)
    feed = {"input_" + name: generator.standard_normal((1, length, width), dtype=numpy.float32) for name in "qkv"}
    return timed(lambda: session.run(None, feed))


def onnx_encoder(threads, length, hidden=384, layers=6, heads=12, inner=1536):
    """A BERT-shaped encoder out of the operators that ONNX Runtime's own optimiser fuses to, random weights."""
    import numpy
    from onnx import helper, numpy_helper

    generator = numpy.random.default_rng(0)
    nodes, weights = [], []

    def tensor(*shape, value=None):
        array = numpy.full(shape, value, numpy.float32) if value is not None else (
            0.02 * generator.standard_normal(shape, dtype=numpy.float32))
        weights.append(numpy_helper.from_array(array, "weight%d" % len(weights)))
        return weights[-1].name

    def apply(operator, *inputs, **attributes):
        domain = "" if operator in ("MatMul", "Add") else "com.microsoft"
        output = "value%d" % len(nodes)
        nodes.append(helper.make_node(operator, list(inputs), [output], domain=domain, **attributes))
        return output

    def norm(states, residual):
        return apply("SkipLayerNormalization", states, residual, tensor(hidden, value=1), tensor(hidden), tensor(hidden), epsilon=1e-12)

    states = "input"
    for _ in range(layers):
        projections = [apply("Add", apply("MatMul", states, tensor(hidden, hidden)), tensor(hidden)) for _ in range(3)]
        attended = apply("MultiHeadAttention", *projections, num_heads=heads)
        states = norm(apply("MatMul", attended, tensor(hidden, hidden)), states)
        widened = apply("BiasGelu", apply("MatMul", states, tensor(hidden, inner)), tensor(inner))
        states = norm(apply("MatMul", widened, tensor(inner, hidden)), states)
    session = onnx_session(nodes, weights, states, hidden, threads)
    feed = {"input": generator.standard_normal((1, length, hidden), dtype=numpy.float32)}
    return timed(lambda: session.run(None, feed))


def transformers_encoder(threads, length):
    """transformers' BertModel in the shape of MiniLM-L6, positions extended to the length, random weights."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = BertModel(BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=max(512, length))).eval()
    ids = torch.randint(1000, 30000, (1, length))
    return timed(lambda: model(input_ids=ids))


def torch_ring(rank, ranks, store, length, heads, dimension):
    """One rank of the ring that a PyTorch user can build on CPUs: gloo between the ranks, the CPU flash kernel, which
    returns the log-sum-exp, on each, and the partial outputs merged by it. One thread a rank, each on its own core.
    Rank 0 times from barrier to barrier; the others follow it."""
    import torch
    import torch.distributed as distributed

    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[rank % len(allowed)]})
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=ranks)
    queries = torch.randn(1, heads, length // ranks, dimension)
    own = torch.randn(2, 1, heads, length // ranks, dimension)
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def ring():
        block, output, total = own, None, None
        for hop in range(ranks):
            requests = []
            if hop + 1 < ranks:
                arriving = torch.empty_like(block)
                requests = [distributed.isend(block, (rank + 1) % ranks), distributed.irecv(arriving, (rank - 1) % ranks)]
            part, logsumexp = attend(queries, block[0], block[1])
            logsumexp = logsumexp.unsqueeze(-1)
            if output is None:
                output, total = part, logsumexp
            else:
                output = torch.lerp(output, part, torch.sigmoid(logsumexp - total))
                total = torch.logaddexp(total, logsumexp)
            for request in requests:
                request.wait()
            if requests:
                block = arriving
        return output

    go = torch.zeros(1)

    def run():
        distributed.broadcast(go, 0)
        distributed.barrier()
        start = time.perf_counter()
        ring()
        distributed.barrier()
        return time.perf_counter() - start

    return run


PEERS = {
    "torch-attention": torch_attention, "torch-linear": torch_linear, "onnx-attention": onnx_attention,
    "onnx-encoder": onnx_encoder, "transformers-encoder": transformers_encoder, "torch-ring": torch_ring,
}


# ---------------------------------------------------------------------------------------------------------------
# The rows.


# The parts of the peak, by kernel set; `dense` is of 768 → 3072, 3072 → 768 and 384 → 1536, `onnx` a ratio.
TARGETS = {
    "avx2": {"d32": 0.79, "d64": 0.86, "d128": 0.87, "causal": 0.83, "window": 0.78, "bfloat16-d64": 0.76, "bfloat16-d128": 0.78,
             "dense": (0.92, 0.90, 0.94), "onnx": 1.15},
    "avx512": {"d32": 0.82, "d64": 0.90, "d128": 0.91, "causal": 0.86, "window": 0.82, "bfloat16-d64": 0.80, "bfloat16-d128": 0.84,
               "dense": (0.95, 0.93, 0.95), "onnx": 1.2},
}


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
        rows.append(Row("onnx-attention-%s" % kernel, "attention float32, %s, d = 64, against ONNX Runtime, one thread, %s" % (shape, kernel),
                        "ratio", targets["onnx"],
                        [attention(kernel=kernel, beside_peer=True),
                         Peer("onnx-attention", threads=1, length=length, heads=heads, dimension=64)]))
    rows.append(Row("two-ranks", "attention, two ranks of one thread against one, %s" % shape, "ratio", 1.95,
                    [attention(ranks=2), attention()]))
    rows.append(Row("two-threads", "attention, one rank of two threads against one, %s" % shape, "ratio", 1.95,
                    [attention(threads=2), attention()]))
    for inputs, outputs in layers:
        rows.append(Row("dense-bfloat16-%d-%d-torch" % (inputs, outputs),
                        "dense layer %d x %d -> %d, bfloat16, one thread, against PyTorch (oneDNN)" % (tokens, inputs, outputs), "ratio", 1, [
            dense(inputs, outputs, "bfloat16"),
            Peer("torch-linear", threads=1, dtype="bfloat16", tokens=tokens, inputs=inputs, outputs=outputs)]))
    for dtype, target in [("float32", 2.5), ("bfloat16", 4)]:
        for threads in (1, 2):
            rows.append(Row(
                "torch-attention-%s-%d" % (dtype, threads),
                "attention %s, %s, d = 64, against PyTorch, threads: %d" % (dtype, shape, threads), "ratio", target,
                [attention(dtype=dtype, threads=threads),
                 Peer("torch-attention", threads=threads, dtype=dtype, length=length, heads=heads, dimension=64)]))
    rows.append(Row("onnx-attention-2", "attention float32, %s, d = 64, against ONNX Runtime, threads: 2" % shape, "ratio", 1.15,
                    [attention(threads=2), Peer("onnx-attention", threads=2, length=length, heads=heads, dimension=64)]))
    for name, peer, target in [("onnx-encoder", "fused ONNX Runtime", 1.5), ("transformers-encoder", "transformers on PyTorch", 3)]:
        rows.append(Row(name, "encoder 6 x 384, %d tokens, two ranks, against %s on two threads" % (length, peer), "ratio", target,
                        [encoder(ranks=2), Peer(name, threads=2, length=length)]))
    rows.append(Row("torch-ring", "ring of two ranks, %s, d = 64, against PyTorch + gloo" % shape, "ratio", 2.5,
                    [attention(ranks=2), Peer("torch-ring", ranks=2, length=length, heads=heads, dimension=64)]))
    rows.append(Row("fixed-tree", "the fixed tree against a running softmax, %s, d = 64" % shape, "cost", 0.05,
                    [Ours(["merge", "--length", str(length), "--heads", str(heads), "--head-dim", "64"], repetitions=15)], field="cost",
                    note="the merges against the same tiles without any; a running softmax's rescaling counted as free, so an upper bound"))
    return rows


if __name__ == "__main__":
    main("bench-kernels", all_rows, PEERS)
