"""The rows of scripts/peers/bench-encoders: whole encoders beside the libraries that people run them with, and their memory."""

import atexit
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import documents
from peers import Failed, Ours, Peer, Row, Skipped, failure, main, timed

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# What the sides of a row share; made by the first of them, gone when the script ends.
WORK = os.path.join(tempfile.gettempdir(), "annulus-bench-encoders.%d" % os.getpid())

# ---------------------------------------------------------------------------------------------------------------
# The peers. Each takes its options and returns a function that runs the work once and returns its seconds.


def transformers_checkpoint(threads, folder, length, dtype="float32"):
    """A checkpoint in transformers, with the attention that it chooses, on one document of random ids."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = torch.randint(1000, model.config.vocab_size, (1, length))
    return timed(lambda: model(input_ids=ids))


def sentence_transformers(threads, folder, texts, batch_size, vectors):
    """sentence-transformers on the texts of a jsonl file, from text to normalised vectors; it sorts them by length and pads
    the batches. The vectors are compared with those of a file: both sides must have done the same work."""
    import numpy
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    # Its own limit for this model is 256 tokens; what is beyond would be cut.
    model.max_seq_length = 512
    with open(texts, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]

    def run():
        start = time.perf_counter()
        found = model.encode(texts, batch_size=batch_size, show_progress_bar=False)
        seconds = time.perf_counter() - start
        difference = float(numpy.abs(found - numpy.load(vectors)).max())
        if not difference <= 1e-5:
            sys.exit("its vectors differ from those of annulus by %g" % difference)
        return seconds

    return run


def torch_training(threads, folder, length, documents):
    """A step of masked-language-model training in transformers and PyTorch: documents of equal length, so that nothing is padded, 15%
    of the tokens masked, no dropout, scaled_dot_product_attention, clipping by the global norm and fused AdamW."""
    import torch
    from transformers import AutoModelForMaskedLM

    torch.set_num_threads(threads)
    model = AutoModelForMaskedLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(1000, model.config.vocab_size, (documents, length))
    labels = torch.where(torch.rand(documents, length) < 0.15, ids, torch.full_like(ids, -100))
    mask = torch.ones_like(ids)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return timed(step)


PEERS = {"transformers-checkpoint": transformers_checkpoint, "torch-training": torch_training, "sentence-transformers": sentence_transformers, **documents.PEERS}

# ---------------------------------------------------------------------------------------------------------------
# What the sides work on.


def in_work(name):
    return os.path.join(WORK, name)


def make_work():
    if not os.path.isdir(WORK):
        os.mkdir(WORK)
        atexit.register(shutil.rmtree, WORK, ignore_errors=True)


def annulus(session, *arguments):
    """What annulus prints."""
    ended = subprocess.run([session.annulus, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode != 0:
        raise failure(ended, arguments[0])
    return ended.stdout


def checkpoint(shape, positions):
    """A function that makes a checkpoint of random weights, once, and its folder."""
    folder = in_work("%s-%d" % (shape, positions))

    def make(session):
        make_work()
        if not os.path.isdir(folder):
            annulus(session, "init", "--shape", shape, "--positions", str(positions), "-o", folder, "--quiet")

    return make, folder


def minilm(session):
    """Puts all-MiniLM-L6-v2 under the name that both sides use."""
    make_work()
    if not os.path.islink(in_work("minilm")):
        fetched = subprocess.run([os.path.join(ROOT, "scripts", "fetch-minilm")], stdout=subprocess.PIPE, text=True)
        if fetched.returncode != 0:
            raise Skipped("all-MiniLM-L6-v2 cannot be had here; see scripts/fetch-minilm")
        os.symlink(fetched.stdout.strip(), in_work("minilm"))


def prose():
    """Long English texts that are on the machine."""
    folder = "/usr/share/common-licenses"
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    # The links name the newest version of a licence, which is there under its own name.
    files = [os.path.join(folder, name) for name in names if not os.path.islink(os.path.join(folder, name))]
    return files or [os.path.join(ROOT, name) for name in ("LICENSE", "README.md")]


def short_documents(session, path, count, lengths, seed=1):
    """Writes a jsonl file of pieces of prose, of so many tokens as the model's tokenizer makes of them, special ones included."""
    texts = []
    for file in prose():
        with open(file, encoding="utf-8", errors="replace") as opened:
            texts.append(opened.read())
    with open(in_work("prose.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)

    def offsets(path):
        printed = annulus(session, "tokenize", "-m", in_work("minilm"), "-i", path, "--quiet")
        return [json.loads(line)["offsets"] for line in printed.splitlines()]

    # Where a piece may begin: at the first token of a word.
    known = [(text, found[1:-1]) for text, found in zip(texts, offsets(in_work("prose.jsonl")))]
    known = [(text, found, [n for n, (start, _) in enumerate(found) if start == 0 or text[start - 1].isspace()]) for text, found in known]
    longest = max(lengths)
    known = [entry for entry in known if len(entry[1]) > longest]
    generator = random.Random(seed)
    wanted = [generator.choice(lengths) for _ in range(count)]
    with open(path, "w", encoding="utf-8") as file:
        for length in wanted:
            text, found, begins = generator.choices(known, [len(entry[1]) for entry in known])[0]
            first = generator.choice([begin for begin in begins if begin + length - 2 <= len(found)])
            piece = text[found[first][0] : found[first + length - 3][1]]
            file.write(json.dumps({"text": piece}) + "\n")
    counts = [len(document) for document in offsets(path)]
    outside = sum(count not in lengths for count in counts)
    if outside > count / 100:
        raise Failed("%d of %d documents have not the length that was asked for" % (outside, count))
    return counts


# ---------------------------------------------------------------------------------------------------------------
# The sides that a bench verb has not.


class EmbedDocuments:
    """`annulus embed` on short documents, timed from outside: the whole command's seconds less those of the same command on
    one short document, which are what starting the ranks and loading the model takes."""

    def __init__(self, folder, prepare, documents, one, vectors, options=(), ranks=1, threads=1, kernel=None):
        """prepare: given the session, writes the documents and the one, and gives the lengths of the former."""
        self.folder, self.prepare, self.documents, self.one, self.vectors = folder, prepare, documents, one, vectors
        self.options, self.ranks, self.threads, self.kernel = list(options), ranks, threads, kernel
        self.tokens = 0

    def describe(self):
        launch = "mpirun -np %d, a core each: " % self.ranks if self.ranks > 1 else ""
        return "%sannulus embed --threads %d on %d tokens less the same on one document" % (launch, self.threads, self.tokens)

    def start(self, session):
        session.require(self.ranks * self.threads, self.kernel, beside_peer=self.kernel is not None)
        self.session = session
        counts = self.prepare(session)
        self.tokens = sum(counts)
        # Multiplications and additions of MiniLM's six layers: dense ones, and attention.
        self.flop = 6 * sum(2 * n * (4 * 384 * 384 + 2 * 384 * 1536) + 4 * n * n * 384 for n in counts)
        self.turn()

    def command(self, *arguments):
        launch = self.session.mpirun + ["-np", str(self.ranks)] if self.ranks > 1 else []
        ended = subprocess.run(launch + [self.session.annulus, *arguments, "--threads", str(self.threads), "--quiet"],
                               stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ended.returncode != 0:
            raise failure(ended, arguments[0])
        return ended.stdout

    def embed(self, documents, vectors):
        start = time.perf_counter()
        self.command("embed", "-m", self.folder, "-i", documents, "-o", vectors, "--force", *self.options)
        return time.perf_counter() - start

    def turn(self):
        loading = self.embed(self.one, in_work("one.npy"))
        seconds = self.embed(self.documents, self.vectors) - loading
        # What the same ranks could do in a second, if they did nothing but multiply and add.
        peak = json.loads(self.command("bench", "peak", "--format", "json"))["peak_gflops"] * 1e9
        return {"seconds": seconds, "loading_seconds": loading, "fraction_of_peak": self.flop / seconds / peak}

    def stop(self):
        pass


class EmbedLong:
    """`annulus embed` on one long document of token ids, each rank's memory seen from outside, and what `plan` says of it."""

    STRATEGY = ["--strategy", "pass-kv", "--layout", "contiguous"]

    def __init__(self, shape, length, ranks):
        self.shape, self.length, self.ranks = shape, length, ranks
        self.make, self.folder = checkpoint(shape, length)
        self.said = ""

    def describe(self):
        return "mpirun -np %d, a core each: annulus embed%s" % (self.ranks, self.said)

    def start(self, session):
        if self.ranks > session.cores:
            raise Skipped("needs %d cores, and %d may be used" % (self.ranks, session.cores))
        self.session = session
        self.make(session)
        generator = random.Random(2)
        with open(in_work("long.ids"), "w") as file:
            file.write(json.dumps([101] + [generator.randrange(1000, 30522) for _ in range(self.length - 1)]) + "\n")
        link = {"latency_us": 1, "gbit_per_s": 32}
        node = {"nodes": 1, "ranks_per_node": self.ranks, "gflops_per_rank": 100, "memory_gib": 1024, "inside": link}
        with open(in_work("cluster.json"), "w") as file:
            json.dump({"kinds": [node]}, file)
        printed = annulus(session, "plan", "--cluster", in_work("cluster.json"), "--shape", self.shape, "--length", str(self.length),
                          *self.STRATEGY, "--format", "json")
        # What the ranks of the host share is in there once.
        self.predicted = json.loads(printed)["memory_per_node"] / self.ranks

    def turn(self):
        peaks = in_work("peaks")
        os.mkdir(peaks)
        start = time.perf_counter()
        ended = subprocess.run(
            self.session.mpirun + ["-np", str(self.ranks), sys.executable, os.path.join(HERE, "rank_peak.py"), peaks, self.session.annulus,
                                   "embed", "-m", self.folder, "-i", in_work("long.ids"), "-o", in_work("long.npy"), "--threads", "1",
                                   *self.STRATEGY, "--force", "--quiet"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if ended.returncode != 0:
            raise failure(ended, "embed")
        held = []
        for rank in range(self.ranks):
            with open(os.path.join(peaks, str(rank))) as file:
                held.append(int(file.read().split()[1]))
        self.said = ", peaks %s MiB, predicted %.0f MiB;" % (" and ".join("%.0f" % (peak / 2**20) for peak in held), self.predicted / 2**20)
        return {"seconds": seconds, "peaks": held, "share": max(held) / self.predicted}

    def stop(self):
        pass


@dataclasses.dataclass
class MemoryRow(Row):
    """The fullest rank's memory over what was predicted: no further from 1 than the target."""

    def shown(self, figure):
        return "%.1f%%" % (100 * figure)

    def shown_target(self):
        return "%g%% to %g%%" % (100 * (1 - self.target), 100 * (1 + self.target))

    def met(self, figure):
        return abs(figure - 1) <= self.target


# ---------------------------------------------------------------------------------------------------------------
# The rows.


def all_rows(quick):
    length = 1024 if quick else 8192
    make, folder = checkpoint("modernbert-base", 8192)
    count, lengths = 20 if quick else 1000, range(20, 401)
    texts, vectors = in_work("texts.jsonl"), in_work("texts.npy")
    long = 4096 if quick else 131072

    def modernbert(name, dtype):
        return Row(name, "ModernBERT-base in %s, a document of %d tokens, two ranks of one thread against transformers on two threads" % (dtype, length),
                   "ratio", 4, [Ours(["encoder", "-m", folder, "--length", str(length), "--dtype", dtype], ranks=2, prepare=make),
                                Peer("transformers-checkpoint", threads=2, folder=folder, length=length, dtype=dtype)])

    def texts_for_minilm(session):
        minilm(session)
        with open(in_work("word.jsonl"), "w", encoding="utf-8") as file:
            file.write(json.dumps({"text": "word"}) + "\n")
        return short_documents(session, texts, count, lengths)

    make_minilm, minilm_folder = checkpoint("minilm", 512)
    ids, ids_vectors, ids_count = in_work("ids.jsonl"), in_work("ids.npy"), 20 if quick else 300

    def ids_for_minilm(session):
        make_minilm(session)
        documents.write(in_work("one.jsonl"), 1, [8])
        return documents.write(ids, ids_count, lengths)

    def training(name, length, documents, target):
        make, folder = checkpoint("minilm", max(512, length))
        return Row("train-" + name, "a training step of MiniLM's shape, %d documents of %d tokens, two ranks of one thread against PyTorch on two "
                   "threads" % (documents, length), "ratio", target,
                   [Ours(["train", "--shape", "minilm", "--length", str(length), "--documents", str(documents)], ranks=2, prepare=make),
                    Peer("torch-training", threads=2, folder=folder, length=length, documents=documents)],
                   note="masked language model, 15% of the tokens; forward, backward, clipping and AdamW")

    def minilm_documents(name, peer, packages, target, kernel):
        return Row("%s-documents-%s" % (name, kernel),
                   "MiniLM's shape, %d documents of %d to %d tokens, two threads, against %s in float32 on two, %s" % (
                       ids_count, lengths[0], lengths[-1], peer, kernel), "ratio", target,
                   [EmbedDocuments(minilm_folder, ids_for_minilm, ids, in_work("one.jsonl"), ids_vectors, ["--input-format", "ids", "--normalize"],
                                   threads=2, kernel=kernel),
                    Peer(name + "-documents", packages=packages, threads=2, folder=minilm_folder, documents=ids, vectors=ids_vectors)],
                   note="ids to vectors, models loaded on both sides, the peer's best batch size; the vectors differ by at most 1e-5")

    # The target is to be met beside the faster of the two.
    rows = [minilm_documents(*peer, target, kernel) for kernel, target in [("avx2", 1.15), ("avx512", 1.4)]
            for peer in [("onnx", "ONNX Runtime", "peers"), ("openvino", "OpenVINO", "openvino")]]
    return rows + [
        training("long", length, 1, 2),
        training("short", 210, 8 if quick else 40, 1.5),
        modernbert("modernbert-base", "float32"),
        modernbert("modernbert-base-bfloat16", "bfloat16"),
        MemoryRow("long-document", "MiniLM's shape, a document of %d tokens, two ranks: peak memory of the fuller rank, of what plan predicts" % long,
                  "share", 0.15, [EmbedLong("minilm", long, ranks=2)], field="share", repetitions=1),
        Row("short-documents", "all-MiniLM-L6-v2, %d documents of %d to %d tokens, two ranks of one thread against sentence-transformers on two "
            "threads" % (count, lengths[0], lengths[-1]), "ratio", 2,
            [EmbedDocuments(in_work("minilm"), texts_for_minilm, texts, in_work("word.jsonl"), vectors, ranks=2),
             Peer("sentence-transformers", threads=2, folder=in_work("minilm"), texts=texts, batch_size=32, vectors=vectors)],
            note="text to vectors, models loaded on both sides; the vectors differ by at most 1e-5"),
    ]


if __name__ == "__main__":
    main("bench-encoders", all_rows, PEERS)
