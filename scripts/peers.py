"""What scripts/bench-kernels runs: the drivers of the peers, the turns, and the table.

    peers.py list|requirements|measure …    for scripts/bench-kernels
    peers.py serve NAME JSON                one peer: prints "ready", then for every line of standard input one line
                                            with the seconds of one run

The measuring side needs nothing but Python; a peer's side needs the packages of REQUIREMENTS.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

REQUIREMENTS = ["numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.31.1", "torch==2.15.0", "transformers==5.23.0"]

# ---------------------------------------------------------------------------------------------------------------
# The peers. Each takes its options and returns a function that runs the work once and returns its seconds.


def timed(work):
    def run():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


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


def serve(name, options):
    """Answers each line of standard input with the seconds of one run; a ring's other ranks run until they are ended."""
    run = PEERS[name](**options)
    print("ready", flush=True)
    if options.get("rank", 0) > 0:
        while True:
            run()
    for _ in sys.stdin:
        print(run(), flush=True)


# ---------------------------------------------------------------------------------------------------------------
# The two sides of a row.


class Skipped(Exception):
    """The row cannot be measured here; the reason."""


class Failed(Exception):
    """A side ended with an error."""


class Ours:
    """`annulus bench …`, started anew for every turn; its own uncounted run comes first."""

    def __init__(self, arguments, ranks=1, threads=1, repetitions=1):
        self.arguments, self.ranks, self.threads = arguments, ranks, threads
        # Of one turn, for work of milliseconds: its median is the turn's figure.
        self.repetitions = repetitions

    def describe(self):
        launch = "mpirun -np %d, a core each: " % self.ranks if self.ranks > 1 else ""
        return "%sannulus bench %s --threads %d" % (launch, shlex.join(self.arguments), self.threads)

    def start(self, session):
        self.session = session
        if self.ranks * self.threads > session.cores:
            raise Skipped("needs %d cores, and %d may be used" % (self.ranks * self.threads, session.cores))

    def turn(self):
        launch = self.session.mpirun + ["-np", str(self.ranks)] if self.ranks > 1 else []
        command = launch + [self.session.annulus, "bench", *self.arguments, "--threads", str(self.threads)]
        ended = subprocess.run(
            command + ["--repetitions", str(self.repetitions), "--format", "json", "--quiet"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ended.returncode != 0:
            lines = [line for line in ended.stderr.splitlines() if line.startswith("annulus:")] or ended.stderr.splitlines()[-1:]
            reason = lines[0].split("; see `")[0] if lines else "annulus: status %d" % ended.returncode
            # A verb or an option that this build does not have.
            raise (Skipped if ended.returncode == 64 else Failed)("bench %s: %s" % (self.arguments[0], reason.removeprefix("annulus: ")))
        return json.loads(ended.stdout)

    def stop(self):
        pass


class Peer:
    """A peer that stays alive between its turns, stopped so that its threads cannot take a core from the other side."""

    def __init__(self, name, ranks=1, **options):
        self.name, self.ranks, self.options = name, ranks, options

    def describe(self):
        return "%s(%s)" % (self.name, ", ".join("%s %s" % pair for pair in self.options.items()))

    def start(self, session):
        self.processes = []
        if session.why_no_peers:
            raise Skipped(session.why_no_peers)
        needed = max(self.ranks, self.options.get("threads", 1))
        if needed > session.cores:
            raise Skipped("needs %d cores, and %d may be used" % (needed, session.cores))
        self.folder = tempfile.TemporaryDirectory(prefix="annulus-peers.")
        self.errors = open(os.path.join(self.folder.name, "errors"), "w+")
        for rank in range(self.ranks):
            options = dict(self.options)
            if self.ranks > 1:
                options.update(rank=rank, ranks=self.ranks, store=os.path.join(self.folder.name, "store"))
            environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", OMP_NUM_THREADS=str(options.get("threads", 1)))
            self.processes.append(subprocess.Popen(
                [session.python, os.path.abspath(__file__), "serve", self.name, json.dumps(options)], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True))
        for process in self.processes:
            self.read(process)
        self.signal(signal.SIGSTOP)

    def read(self, process):
        line = process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise Failed("%s ended: %s" % (self.name, lines[-1] if lines else "no message"))
        return line

    def signal(self, number):
        for process in self.processes:
            process.send_signal(number)

    def run(self):
        self.processes[0].stdin.write("\n")
        self.processes[0].stdin.flush()
        return float(self.read(self.processes[0]))

    def turn(self):
        self.signal(signal.SIGCONT)
        self.run()
        seconds = self.run()
        self.signal(signal.SIGSTOP)
        return {"seconds": seconds}

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        if self.processes:
            self.errors.close()
            self.folder.cleanup()


# ---------------------------------------------------------------------------------------------------------------
# The rows.


@dataclasses.dataclass
class Row:
    name: str
    work: str
    # "fraction" and "cost" read the first side's own field; "ratio" is the last side's seconds over the first's.
    kind: str
    target: float
    sides: list
    # What a turn's line says, for "fraction" and "cost".
    field: str = "fraction_of_peak"
    note: str = ""

    @property
    def needs_peer(self):
        return any(isinstance(side, Peer) for side in self.sides)

    def figure(self, turns):
        """From the lines of each side, by turn."""
        if self.kind == "ratio":
            middle = [statistics.median(line["seconds"] for line in lines) for lines in turns]
            return middle[-1] / middle[0]
        return statistics.median(line[self.field] for line in turns[0])

    def each(self, turns):
        if self.kind == "ratio":
            return [last["seconds"] / first["seconds"] for first, last in zip(turns[0], turns[-1])]
        return [line[self.field] for line in turns[0]]

    def peak_fractions(self, turns):
        """The part of the peak that the first side and a peer reach; None where that is not measured. Both do the same work,
        so the peer's follows from the ratio of their seconds."""
        if not (self.kind == "ratio" and self.needs_peer and all("fraction_of_peak" in line for line in turns[0])):
            return None
        ours = statistics.median(line["fraction_of_peak"] for line in turns[0])
        return ours, ours / self.figure(turns)

    def shown(self, figure):
        return "%.2fx" % figure if self.kind == "ratio" else "%.1f%%" % (100 * figure)

    def shown_target(self):
        sign = "<=" if self.kind == "cost" else ">="
        return "%s %s" % (sign, "%gx" % self.target if self.kind == "ratio" else "%g%%" % (100 * self.target))

    def met(self, figure):
        return figure <= self.target if self.kind == "cost" else figure >= self.target


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

    def dense(inputs, outputs, dtype="float32"):
        return Ours(["gemm", "--tokens", str(tokens), "--inputs", str(inputs), "--outputs", str(outputs)] + precision(dtype))

    def encoder(**spread):
        return Ours(["encoder", "--shape", "minilm", "--length", str(length)], **spread)

    shape = "%d tokens, %d heads" % (length, heads)
    rows = []
    for dimension, target in [(64, 0.9), (128, 0.9), (32, 0.8)]:
        rows.append(Row("attention-d%d" % dimension, "attention float32, full, %s, d = %d, one thread" % (shape, dimension),
                        "fraction", target, [attention(dimension)]))
    rows.append(Row("attention-causal", "attention float32, causal, %s, d = 64, one thread" % shape, "fraction", 0.8,
                    [attention(mask="causal")], note="visible work"))
    rows.append(Row("attention-window", "attention float32, window(%d,%d), %d tokens, %d heads, d = 64, one thread" % (reach, reach, long, heads),
                    "fraction", 0.8, [attention(mask="window(%d,%d)" % (reach, reach), tokens=long)], note="visible work"))
    for dimension in (64, 128):
        rows.append(Row("attention-bfloat16-d%d" % dimension, "attention bfloat16, full, %s, d = %d, one thread" % (shape, dimension),
                        "fraction", 0.75, [attention(dimension, dtype="bfloat16")], note="of the bfloat16 peak"))
    rows.append(Row("two-ranks", "attention, two ranks of one thread against one, %s" % shape, "ratio", 1.95,
                    [attention(ranks=2), attention()]))
    rows.append(Row("two-threads", "attention, one rank of two threads against one, %s" % shape, "ratio", 1.95,
                    [attention(threads=2), attention()]))
    layers = [(768, 3072), (3072, 768), (384, 1536)]
    for inputs, outputs in layers:
        rows.append(Row("dense-%d-%d" % (inputs, outputs), "dense layer %d x %d -> %d, float32, one thread" % (tokens, inputs, outputs),
                        "fraction", 0.92, [dense(inputs, outputs)]))
    for inputs, outputs in layers:
        name = "dense-bfloat16-%d-%d" % (inputs, outputs)
        work = "dense layer %d x %d -> %d, bfloat16, one thread" % (tokens, inputs, outputs)
        rows.append(Row(name, work, "fraction", 0.85, [dense(inputs, outputs, "bfloat16")], note="of the bfloat16 peak"))
        rows.append(Row(name + "-torch", work + ", against PyTorch (oneDNN)", "ratio", 1, [
            dense(inputs, outputs, "bfloat16"),
            Peer("torch-linear", threads=1, dtype="bfloat16", tokens=tokens, inputs=inputs, outputs=outputs)]))
    for dtype, target in [("float32", 2.5), ("bfloat16", 4)]:
        for threads in (1, 2):
            rows.append(Row(
                "torch-attention-%s-%d" % (dtype, threads),
                "attention %s, %s, d = 64, against PyTorch, threads: %d" % (dtype, shape, threads), "ratio", target,
                [attention(dtype=dtype, threads=threads),
                 Peer("torch-attention", threads=threads, dtype=dtype, length=length, heads=heads, dimension=64)]))
    for threads in (1, 2):
        rows.append(Row("onnx-attention-%d" % threads, "attention float32, %s, d = 64, against ONNX Runtime, threads: %d" % (shape, threads),
                        "ratio", 1.15, [attention(threads=threads), Peer("onnx-attention", threads=threads, length=length, heads=heads, dimension=64)]))
    for name, peer, target in [("onnx-encoder", "fused ONNX Runtime", 1.5), ("transformers-encoder", "transformers on PyTorch", 3)]:
        rows.append(Row(name, "encoder 6 x 384, %d tokens, two ranks, against %s on two threads" % (length, peer), "ratio", target,
                        [encoder(ranks=2), Peer(name, threads=2, length=length)]))
    rows.append(Row("torch-ring", "ring of two ranks, %s, d = 64, against PyTorch + gloo" % shape, "ratio", 2.5,
                    [attention(ranks=2), Peer("torch-ring", ranks=2, length=length, heads=heads, dimension=64)]))
    rows.append(Row("fixed-tree", "the fixed tree against a running softmax, %s, d = 64" % shape, "cost", 0.05,
                    [Ours(["merge", "--length", str(length), "--heads", str(heads), "--head-dim", "64"], repetitions=15)], field="cost",
                    note="the merges against the same tiles without any; a running softmax's rescaling counted as free, so an upper bound"))
    return rows


def chosen(options):
    rows = all_rows(options.quick)
    if options.only:
        for wanted in options.only.split(","):
            if not any(matches(row.name, wanted) for row in rows):
                sys.exit("bench-kernels: no row is called %r (see --list)" % wanted)
        rows = [row for row in rows if any(matches(row.name, wanted) for wanted in options.only.split(","))]
    return [row for row in rows if not (options.no_peers and row.needs_peer)]


def matches(name, wanted):
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


# ---------------------------------------------------------------------------------------------------------------
# Measuring.


@dataclasses.dataclass
class Session:
    annulus: str
    mpirun: list
    python: str
    why_no_peers: str
    cores: int


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(row, session, repetitions):
    """The lines of each side, by turn."""
    turns = [[] for _ in row.sides]
    started = []
    try:
        for side in row.sides:
            started.append(side)
            side.start(session)
        for _ in range(repetitions):
            for side, lines in zip(row.sides, turns):
                lines.append(side.turn())
    finally:
        for side in started:
            side.stop()
    return turns


def table(entries):
    columns = ["row", "work", "figure", "target", "met", "how it was measured"]
    lines = [columns] + [[entry[key] for key in ("row", "work", "shown", "shown_target", "verdict", "how")] for entry in entries]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns) - 1)]
    for number, line in enumerate(lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)) + "  " + line[-1])
        if number == 0:
            print("  ".join("-" * width for width in widths) + "  " + "-" * len(columns[-1]))


def run_measurements(options):
    # A signal ends this through the `finally` of each row, and with it the peers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    session = Session(options.annulus, shlex.split(options.mpirun), options.python, options.why_no_peers, cores)
    began = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = []
    for row in chosen(options):
        print("bench-kernels: %s" % row.name, file=sys.stderr)
        entry = {"session": began, "row": row.name, "work": row.work, "kind": row.kind, "target": row.target,
                 "shown_target": row.shown_target(), "processor": processor(), "quick": options.quick}
        entries.append(entry)
        try:
            turns = measure(row, session, options.repetitions)
            figure, each = row.figure(turns), row.each(turns)
            spread = "%s to %s" % (row.shown(min(each)), row.shown(max(each))) if len(each) > 1 else "one turn"
            seconds = ["%.4g s" % statistics.median(line["seconds"] for line in lines) for lines in turns]
            how = "median of %d: %s (%s); %s" % (
                options.repetitions, " against ".join("%s %s" % pair for pair in zip((side.describe() for side in row.sides), seconds)),
                spread, "A and B in turn" if len(row.sides) > 1 else "a process each")
            if row.note:
                how += "; " + row.note
            met = row.met(figure)
            verdict = "met" if met else "NOT MET"
            fractions = row.peak_fractions(turns)
            if fractions:
                ours, theirs = fractions
                how += "; %.0f%% of the peak against %.0f%%, so nothing on this machine could reach more than %.2fx" % (
                    100 * ours, 100 * theirs, 1 / theirs)
                if not met and row.target * theirs > 1:
                    verdict = "BEYOND THE PEAK"
            entry.update(figure=figure, each=each, met=met, shown=row.shown(figure), how=how, peak_fractions=fractions,
                         verdict="(quick)" if options.quick else verdict,
                         sides=[{"side": side.describe(), "turns": lines} for side, lines in zip(row.sides, turns)])
        except Skipped as reason:
            entry.update(figure=None, met=None, shown="-", verdict="skipped", how=str(reason))
        except Failed as reason:
            entry.update(figure=None, met=False, shown="-", verdict="FAILED", how=str(reason))
        if options.output:
            with open(options.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
    print("%s, %d cores, %s" % (processor(), cores, began))
    table(entries)
    failed = any(entry["verdict"] in ("NOT MET", "FAILED") for entry in entries)
    sys.exit(1 if failed else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("list", "measure"):
        options = verbs.add_parser(verb)
        options.add_argument("--only", default="")
        options.add_argument("--quick", action="store_true")
        options.add_argument("--no-peers", action="store_true")
    for name in ("--annulus", "--python", "--why-no-peers", "--output", "--mpirun"):
        options.add_argument(name, default="")
    options.add_argument("--repetitions", type=int, default=5)
    verbs.add_parser("requirements")
    server = verbs.add_parser("serve")
    server.add_argument("name", choices=sorted(PEERS))
    server.add_argument("options", type=json.loads)
    options = parser.parse_args()
    if options.verb == "requirements":
        print("\n".join(REQUIREMENTS))
    elif options.verb == "serve":
        serve(options.name, options.options)
    elif options.verb == "list":
        for row in chosen(options):
            print("%-32s %-5s %-8s %s" % (row.name, "peer" if row.needs_peer else "", row.shown_target(), row.work))
    else:
        run_measurements(options)


if __name__ == "__main__":
    main()
