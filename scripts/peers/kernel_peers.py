"""The peers of scripts/peers/bench-kernels: each takes its options and returns a function that runs the work once and returns its
seconds."""

import os
import time

import bert_graph
from peers import timed


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


def onnx_attention(threads, length, heads, dimension):
    """ONNX Runtime's MultiHeadAttention, its CPU flash kernel."""
    import numpy
    from onnx import helper

    width = heads * dimension
    node = helper.make_node(
        "MultiHeadAttention", ["input_q", "input_k", "input_v"], ["output"], domain="com.microsoft", num_heads=heads)
    session = bert_graph.session([node], [], {"input_" + name: (numpy.float32, [1, "n", width]) for name in "qkv"}, "output", threads)
    generator = numpy.random.default_rng(0)
    feed = {"input_" + name: generator.standard_normal((1, length, width), dtype=numpy.float32) for name in "qkv"}
    return timed(lambda: session.run(None, feed))


def onnx_encoder(threads, length, hidden=384, layers=6, heads=12, inner=1536):
    """A BERT-shaped encoder out of the operators that ONNX Runtime's own optimiser fuses to, random weights."""
    import numpy

    generator = numpy.random.default_rng(0)

    def weight(name, *shape):
        if name.endswith("LayerNorm.weight"):
            return numpy.ones(shape, numpy.float32)
        return 0.02 * generator.standard_normal(shape, dtype=numpy.float32)

    graph = bert_graph.Graph(weight)
    states = graph.encoder("input", hidden, layers, heads, inner)
    session = bert_graph.session(graph.nodes, graph.weights, {"input": (numpy.float32, [1, "n", hidden])}, states, threads)
    feed = {"input": generator.standard_normal((1, length, hidden), dtype=numpy.float32)}
    return timed(lambda: session.run(None, feed))


def openvino_attention(threads, length, heads, dimension):
    """OpenVINO's ScaledDotProductAttention, its CPU kernel, in float32."""
    import numpy
    import openvino
    from openvino import opset13

    inputs = [opset13.parameter([1, heads, -1, dimension], numpy.float32, name=name) for name in "qkv"]
    attended = opset13.scaled_dot_product_attention(*inputs, causal=False)
    model = openvino_compiled(openvino.Model([attended], inputs, "attention"), threads)
    generator = numpy.random.default_rng(0)
    feed = [generator.standard_normal((1, heads, length, dimension), dtype=numpy.float32) for _ in range(3)]
    return timed(lambda: model(feed, share_inputs=True))


def openvino_encoder(threads, length):
    """transformers' BertModel as OpenVINO converts it, in float32."""
    import openvino

    model, ids = minilm_shape(length)
    model = openvino_compiled(openvino.convert_model(model, example_input={"input_ids": ids[:, :8]}), threads)
    ids = ids.numpy()
    return timed(lambda: model({"input_ids": ids}))


def openvino_compiled(model, threads):
    import openvino

    # Left to itself it computes in bfloat16 where the processor has instructions for that.
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", settings)


def openblas(tokens, inputs, outputs):
    """OpenBLAS's sgemm on one thread; which processor's kernels it takes is for OPENBLAS_CORETYPE to say, before it starts."""
    import ctypes

    import numpy
    import scipy_openblas32

    library = ctypes.CDLL(os.path.join(scipy_openblas32.get_lib_dir(), "lib%s.so" % scipy_openblas32.get_library()))
    library.scipy_openblas_set_num_threads(1)
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    core, wanted = library.scipy_openblas_get_corename().decode(), os.environ["OPENBLAS_CORETYPE"]
    if core != wanted:
        raise SystemExit("OpenBLAS takes its kernels for %s, not those for %s" % (core, wanted))
    generator = numpy.random.default_rng(0)
    rows, weights = (generator.standard_normal((count, inputs), dtype=numpy.float32) for count in (tokens, outputs))
    result = numpy.empty((tokens, outputs), numpy.float32)
    # Pointers that keep their arrays.
    x, w, y = (array.ctypes.data_as(ctypes.c_void_p) for array in (rows, weights, result))
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    row_major, plain, transposed = 101, 111, 112

    def multiply():
        library.scipy_cblas_sgemm(row_major, plain, transposed, tokens, outputs, inputs, one, x, inputs, w, inputs, zero, y, outputs)

    multiply()
    if not numpy.allclose(result[-1], weights @ rows[-1], atol=1e-2):
        raise SystemExit("OpenBLAS's product is wrong")
    return timed(multiply)


def minilm_shape(length):
    """transformers' BertModel in the shape of MiniLM-L6, positions extended to the length, random weights; and random ids."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_grad_enabled(False)
    model = BertModel(BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=max(512, length))).eval()
    return model, torch.randint(1000, 30000, (1, length))


def transformers_encoder(threads, length):
    """transformers' BertModel in the shape of MiniLM-L6 on PyTorch."""
    import torch

    torch.set_num_threads(threads)
    model, ids = minilm_shape(length)
    return timed(lambda: model(input_ids=ids))


def zentorch_attention(threads, dtype, length, heads, dimension):
    """PyTorch's scaled_dot_product_attention as zentorch compiles it."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    queries, keys, values = (torch.randn(1, heads, length, dimension, dtype=getattr(torch, dtype)) for _ in range(3))
    attention = zentorch_compiled(lambda queries, keys, values: torch.nn.functional.scaled_dot_product_attention(queries, keys, values))
    return compiled_and_timed(lambda: attention(queries, keys, values))


def zentorch_linear(threads, dtype, tokens, inputs, outputs):
    """PyTorch's linear as zentorch compiles it."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    layer = zentorch_compiled(torch.nn.Linear(inputs, outputs, bias=False, dtype=getattr(torch, dtype)).eval())
    rows = torch.randn(tokens, inputs, dtype=getattr(torch, dtype))
    return compiled_and_timed(lambda: layer(rows))


def zentorch_encoder(threads, length):
    """transformers' BertModel as zentorch compiles it."""
    import torch

    torch.set_num_threads(threads)
    model, ids = minilm_shape(length)
    compiled = zentorch_compiled(model)
    return compiled_and_timed(lambda: compiled(input_ids=ids))


def zentorch_compiled(work):
    # Compilers in processes of their own would be running while the other side is timed.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch
    import zentorch  # noqa: F401  It registers itself as a backend.

    return torch.compile(work, backend="zentorch")


def compiled_and_timed(work):
    """The first run compiles, and what cannot be compiled here says so before the first turn."""
    work()
    return timed(work)


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
    "onnx-encoder": onnx_encoder, "openvino-attention": openvino_attention, "openvino-encoder": openvino_encoder,
    "openblas": openblas, "transformers-encoder": transformers_encoder, "zentorch-attention": zentorch_attention,
    "zentorch-linear": zentorch_linear, "zentorch-encoder": zentorch_encoder, "torch-ring": torch_ring,
}
