#!/usr/bin/env python3
"""Runs two builds of the command side by side over some 200 invocations and names every difference in what a user gets.

  scripts/compare/builds.py OLD NEW               all of them
  scripts/compare/builds.py OLD NEW --only WORD   those whose name contains WORD
  scripts/compare/builds.py --list                their names

Of each are compared the files it writes, standard output, the lines of standard error that begin with `annulus:` and the status;
of `bench` its SHA-256. Every verb, dtype, wire, pooling, strategy and layout is among them, on 1, 2, 3 and 5 ranks, every small
model of the tests, and failures. The last line is: N the same, N different.

Models and texts are those of the tests and of the repository. Nothing is installed: mpirun and the builds are all it needs.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "Tests/TransformersTests/Goldens"
STRATEGIES = ["pass-kv", "pass-q", "all-gather", "head-exchange", "hybrid", "tree", "auto"]
LAYOUTS = ["contiguous", "zigzag", "balanced"]
POOLINGS = ["cls", "mean", "max", "mean-sqrt-len", "weighted-mean", "last-token", "none"]
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np"]


def arrays(path, seed, heads, key_heads, queries, keys, width, value_width, **more):
    """Writes q, k, v and what else is named to a .safetensors file."""
    numbers = random.Random(seed)
    shapes = {"q": [heads, queries, width], "k": [key_heads, keys, width], "v": [key_heads, keys, value_width], **more}
    header, data = {}, b""
    for name, shape in shapes.items():
        count = 1
        for extent in shape:
            count *= extent
        values = struct.pack(f"<{count}f", *(numbers.gauss(0, 1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def prepare(folder):
    """Writes the inputs that the invocations name."""
    folder.mkdir(parents=True)
    (folder / "models").symlink_to(GOLDENS)
    licence = (ROOT / "LICENSE").read_text().split()
    lines = [" ".join(licence[i : i + 3 + 7 * (i % 5)]) for i in range(0, 300, 25)]
    (folder / "short.txt").write_text("\n".join(lines[:3]) + "\n")
    (folder / "lines.jsonl").write_text("".join(json.dumps({"text": line, "label": i % 2}) + "\n" for i, line in enumerate(lines)))
    (folder / "docs.txt").write_text(" ".join(licence[:60]))
    (folder / "proteins.fasta").write_text(">a\nMKTAYIAKQRQISFVKSHFSRQ\n>b\nGLFDIIKKIAESI\n")
    (folder / "masked.txt").write_text("the [MASK] is here .\na [MASK] of the day\n")
    (folder / "questions.jsonl").write_text(json.dumps({"question": "who is liable", "context": " ".join(licence[:80])}) + "\n")
    (folder / "empty.txt").write_text("")
    numbers = random.Random(5)
    for name, lengths in [("ids", [1, 2, 30, 17, 64, 5]), ("long-ids", [300, 64])]:
        rows = [json.dumps([numbers.randrange(5, 40) for _ in range(length)]) for length in lengths]
        (folder / f"{name}.ids").write_text("\n".join(rows) + "\n")
    (folder / "wrong.ids").write_text("[5, 6, 9000000]\n")
    arrays(folder / "self.safetensors", 1, 4, 4, 600, 600, 32, 32)
    arrays(folder / "cross.safetensors", 2, 6, 2, 70, 530, 20, 72)
    arrays(folder / "modified.safetensors", 3, 4, 2, 300, 300, 16, 16, alibi_slopes=[4], sinks=[4], relative_bias=[4, 9])
    arrays(folder / "wide.safetensors", 4, 2, 2, 260, 260, 80, 80)
    arrays(folder / "odd.safetensors", 6, 4, 4, 300, 300, 16, 16, unknown=[3])
    kinds = [
        {"name": "thin", "nodes": 30, "ranks_per_node": 1, "gflops_per_rank": 900, "memory_gib": 64, "between": {"latency_us": 2, "gbit_per_s": 100}},
        {"name": "fat", "nodes": 6, "ranks_per_node": 4, "gflops_per_rank": 1200, "memory_gib": 256,
         "inside": {"latency_us": 0.6, "gbit_per_s": 80}, "between": {"latency_us": 2, "gbit_per_s": 200}},
    ]
    (folder / "cluster.json").write_text(json.dumps({"kinds": kinds}))


def invocations():
    """(name, ranks, arguments, standard input): `ranks` 0 is without mpirun."""
    cases = []

    def add(name, arguments, ranks=0, stdin=None):
        cases.append((f"{name} np {ranks}" if ranks else name, ranks, arguments, stdin))

    bert = ["-m", "models/tiny-bert"]
    # Raw attention: inputs × masks, then every strategy, layout, type and wire.
    masks = ["full", "causal", "window(100,20)", "prefix(70)", "causal | prefix(30)", "!causal", "window(64,-1) & causal"]
    for source in ["self", "cross", "modified", "wide"]:
        for mask in masks if source in ("self", "cross") else masks[:2]:
            add(f"attend {source} {mask}", ["attend", "-i", f"{source}.safetensors", "--mask", mask, "-o", "out.safetensors"])
    add("attend documents", ["attend", "-i", "self.safetensors", "--mask", "documents(100,1,399,100) & causal", "-o", "out.safetensors"], 3)
    add("attend softcap", ["attend", "-i", "modified.safetensors", "--softcap", "3", "--scale", "0.5", "-o", "out.safetensors"], 2)
    for index, strategy in enumerate(STRATEGIES):
        for ranks in (2, 3, 5):
            layout = LAYOUTS[(index + ranks) % 3]
            source = ["self", "cross", "modified"][(index + ranks) % 3]
            add(f"attend {source} {strategy} {layout}",
                ["attend", "-i", f"{source}.safetensors", "--mask", "causal", "--strategy", strategy, "--layout", layout, "-o", "out.safetensors"], ranks)
    for dtype in ("float32", "bfloat16"):
        for wire in ("float32", "bfloat16"):
            if (dtype, wire) == ("bfloat16", "float32"):
                continue
            for ranks in (0, 3):
                add(f"attend {dtype} over {wire}", ["attend", "-i", "cross.safetensors", "--dtype", dtype, "--wire", wire, "-o", "out.safetensors"], ranks)
    for virtual in (2, 5, 16):
        add(f"attend virtual {virtual}", ["attend", "-i", "self.safetensors", "--virtual-ranks", str(virtual), "--ranks-per-node", "2", "-o", "out.safetensors"])
    # Every small model, by ids, in both types.
    for model in sorted(path.name for path in GOLDENS.iterdir() if path.name.startswith("tiny-")):
        add(f"embed {model}", ["embed", "-m", f"models/{model}", "-i", "ids.ids", "--pooling", "none", "-o", "out.safetensors"])
        add(f"embed {model} bfloat16", ["embed", "-m", f"models/{model}", "-i", "ids.ids", "--dtype", "bfloat16", "-o", "out.npy"], 2)
        add(f"inspect {model}", ["inspect", "-m", f"models/{model}", "--tensors"])
        add(f"embed {model} spread", ["embed", "-m", f"models/{model}", "-i", "ids.ids", "--strategy", "head-exchange", "--pooling", "mean"], 3)
    for pooling in POOLINGS:
        suffix = "safetensors" if pooling == "none" else "npy"
        for ranks in (0, 3):
            add(f"embed {pooling}", ["embed", *bert, "-i", "short.txt", "--input-format", "lines", "--pooling", pooling, "-o", f"out.{suffix}"], ranks)
    add("embed normalize", ["embed", *bert, "-i", "short.txt", "--input-format", "lines", "--normalize", "--truncate-dim", "8"])
    add("embed sentence", ["embed", "-m", "models/tiny-bert-sentence", "-i", "lines.jsonl", "-o", "out.jsonl"], 2)
    add("embed passages", ["embed", *bert, "-i", "docs.txt", "--passage-tokens", "20", "-o", "out.safetensors"], 3)
    add("embed chunks", ["embed", *bert, "-i", "docs.txt", "--chunk-tokens", "16", "-o", "out.safetensors"], 5)
    add("embed stdin", ["embed", *bert], stdin="a line\nand another one\n")
    add("embed empty", ["embed", *bert, "-i", "empty.txt"])
    add("embed empty stdin", ["embed", *bert], stdin="")
    add("embed proteins", ["embed", "-m", "models/tasks-esm", "-i", "proteins.fasta"], 2)
    for strategy in STRATEGIES:
        add(f"embed {strategy}", ["embed", *bert, "-i", "ids.ids", "--strategy", strategy, "--layout", LAYOUTS[len(strategy) % 3], "-o", "out.npy"], 5)
    add("embed wire", ["embed", *bert, "-i", "ids.ids", "--wire", "bfloat16", "--strategy", "pass-kv", "--layout", "zigzag", "-o", "out.npy"], 3)
    # Tasks.
    tasks = ["-m", "models/tasks-bert"]
    for ranks in (0, 2):
        add("classify", ["classify", *tasks, "-i", "lines.jsonl"], ranks)
        add("ner", ["ner", *tasks, "-i", "short.txt", "--input-format", "lines"], ranks)
        add("fill-mask", ["fill-mask", *tasks, "-i", "masked.txt", "--input-format", "lines", "--top-k", "3"], ranks)
        add("answer", ["answer", *tasks, "-i", "questions.jsonl"], ranks)
        add("search", ["search", "who is liable", *bert, "-i", "docs.txt", "--passage-tokens", "16", "--top-k", "3"], ranks)
        add("tokenize", ["tokenize", *bert, "-i", "docs.txt"], ranks)
    add("ner esm", ["ner", "-m", "models/tasks-esm", "-i", "proteins.fasta"])
    add("verify", ["verify", *bert, "--lengths", "3,40", "--ranks", "1,2,3", "--quiet"])
    add("plan", ["plan", "--cluster", "cluster.json", "--length", "100000", "--heads", "8", "--head-dim", "64", "--format", "json"])
    add("plan shape", ["plan", "--cluster", "cluster.json", "--length", "65536", "--shape", "modernbert-base", "--format", "json"])
    add("plan causal", ["plan", "--cluster", "cluster.json", "--length", "30000", "--heads", "4", "--kv-heads", "2", "--head-dim", "64", "--mask", "causal", "--format", "csv"])
    for shape in ("minilm", "modernbert-base"):
        add(f"init {shape}", ["init", "--shape", shape, "--positions", "64", "-o", "made", "--quiet"])
    add("help", ["--help"])
    add("version", ["--version"])
    # Benchmarks, by their SHA-256.
    for strategy in STRATEGIES:
        for mask in ("full", "causal", "window(300,0)"):
            add(f"bench attention {strategy} {mask}",
                ["bench", "attention", "--length", "1500", "--heads", "4", "--kv-heads", "2", "--head-dim", "40", "--mask", mask, "--strategy", strategy,
                 "--repetitions", "1", "--format", "json"], 3)
    add("bench attention bfloat16", ["bench", "attention", "--length", "1500", "--heads", "2", "--dtype", "bfloat16", "--repetitions", "1", "--format", "json"], 2)
    for shape in ("minilm", "modernbert-base", "deberta-v3-xsmall"):
        add(f"bench encoder {shape}", ["bench", "encoder", "--shape", shape, "--length", "700", "--repetitions", "1", "--format", "json"], 2)
    # Failures.
    add("no verb", [])
    add("unknown verb", ["dance"])
    add("unknown option", ["embed", *bert, "--colour", "red"])
    add("no model", ["embed", "-m", "models/none", "-i", "short.txt"])
    add("no input", ["embed", *bert, "-i", "nothing.txt"], 2)
    add("too long", ["embed", *bert, "-i", "long-ids.ids"], 3)
    add("truncated", ["embed", *bert, "-i", "docs.txt", "--max-length", "9", "--truncate", "right"])
    add("a wrong id", ["embed", *bert, "-i", "wrong.ids"], 2)
    add("a wrong mask", ["attend", "-i", "self.safetensors", "--mask", "window(", "-o", "out.safetensors"])
    add("documents that do not sum", ["attend", "-i", "self.safetensors", "--mask", "documents(3,4)", "-o", "out.safetensors"], 2)
    add("a tensor too many", ["attend", "-i", "odd.safetensors", "-o", "out.safetensors"])
    add("an output in the way", ["embed", *bert, "-i", "short.txt", "-o", "short.txt"])
    add("an output of no kind", ["embed", *bert, "-i", "short.txt", "-o", "out.xyz"])
    add("no such task", ["classify", *bert, "-i", "short.txt"])
    add("no such shape", ["init", "--shape", "gpt", "-o", "made"])
    add("a wrong cluster", ["plan", "--cluster", "short.txt", "--length", "100"])
    add("a wrong number", ["embed", *bert, "-i", "short.txt", "--threads", "0"])
    return cases


def plain(text):
    """Without what no two runs share."""
    return re.sub(r"process \d+|\d+(\.\d+)? (s|ms)\b", "", text)


def run(binary, folder, ranks, arguments, stdin):
    """What a user gets: status, standard output, lines of errors, and the SHA-256 of each new file."""
    before = set(folder.rglob("*"))
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "ANNULUS_CACHE": str(folder)}
    command = ([*MPIRUN, str(ranks)] if ranks else []) + [str(binary), *arguments]
    done = subprocess.run(command, cwd=folder, input=(stdin or "").encode(), capture_output=True, env=environment, timeout=600)
    output = done.stdout.decode(errors="replace")
    if arguments[:1] == ["bench"]:
        output = re.findall(r'"sha256":\s*"(\w*)"', output)
    files = {}
    for path in sorted(set(folder.rglob("*")) - before, key=lambda path: (len(path.parts), path)):
        if path.is_file() and "models" not in path.relative_to(folder).parts[:1]:
            files[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in set(folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    errors = [plain(line) for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("annulus: ")]
    return {"status": done.returncode, "output": output if isinstance(output, list) else plain(output), "errors": errors, "files": files}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="*", metavar="BUILD", help="the two binaries")
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    cases = [case for case in invocations() if options.only in case[0]]
    if options.list:
        print("\n".join(case[0] for case in cases))
        return 0
    if len(options.builds) != 2:
        parser.error("two builds are compared")
    old, new = (pathlib.Path(build).resolve() for build in options.builds)
    same, different = 0, 0
    with tempfile.TemporaryDirectory(prefix="annulus-compare-") as work:
        folder = pathlib.Path(work) / "here"
        prepare(folder)
        for name, ranks, arguments, stdin in cases:
            results = [run(binary, folder, ranks, arguments, stdin) for binary in (old, new)]
            if results[0] == results[1]:
                same += 1
                continue
            different += 1
            print(f"different: {name}")
            for part in results[0]:
                if results[0][part] != results[1][part]:
                    for label, result in zip(("old", "new"), results):
                        print(f"  {part}, {label}: {str(result[part])[:2000]}")
            sys.stdout.flush()
    print(f"{same} the same, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
