#!/usr/bin/env python3
"""Interrupts jobs with --resume at random moments, continues them on other numbers of ranks, and compares the bytes.

  Tests/Faults/resume.py --trials 200 --results FILE     trials 0 to 199 of the series; a line of JSON for each goes into FILE
  Tests/Faults/resume.py --first 100 --trials 100 …      the next hundred
  Tests/Faults/resume.py --only 42                       one trial again
  Tests/Faults/resume.py --hosts …                       runs of 3 and 6 ranks are over three hosts, as hosts.py makes them
  Tests/Faults/resume.py --mutations 100                 damaged journals instead: each is refused with one line and status 65
  Tests/Faults/resume.py --ci                            twenty trials and twenty mutations; the last line: N passed, N failed

A trial's number is the seed of every choice in it. Its job is interrupted one to three times: a rank is killed outright, all are,
mpirun is, a rank or mpirun gets SIGTERM or SIGUSR1, or the disk is full (where this program may mount one of its own). Then the
same command runs until it is done, each time on another number of ranks. What is wanted: every interrupted run ends with the
status of what happened to it, the bytes in the end are those of a run that nothing disturbed, and only the output is left.
"""

import argparse
import array
import collections
import contextlib
import json
import math
import os
import pathlib
import random
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import jobs

GOLDENS = jobs.ROOT / "Tests/TransformersTests/Goldens"
# Tokens of the longest document, which is saved between its layers, and so are others.
LENGTH = 32_768
LAYERS = 4
FAULTS = ["SIGKILL", "all killed", "mpirun killed", "SIGTERM", "SIGUSR1", "mpirun SIGTERM", "mpirun SIGUSR1", "full disk"]
# Seconds that a run may take, on a machine however busy.
FINISH = 300
# How long mpirun may be there without a rank.
HANGING = 15


def write_long_model(folder: pathlib.Path) -> None:
    """A narrow BERT of random weights with room for a long document."""
    hidden, inner = 32, 64
    config = json.loads((jobs.MODEL / "config.json").read_text()) | {
        "hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": 1, "num_hidden_layers": LAYERS,
        "max_position_embeddings": LENGTH, "vocab_size": 640}
    shapes = {
        "embeddings.word_embeddings.weight": [640, hidden], "embeddings.position_embeddings.weight": [LENGTH, hidden],
        "embeddings.token_type_embeddings.weight": [2, hidden], "embeddings.LayerNorm.weight": [hidden],
        "embeddings.LayerNorm.bias": [hidden]}
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{start}{name}.weight": [hidden, hidden], f"{start}{name}.bias": [hidden]}
        shapes |= {
            f"{start}intermediate.dense.weight": [inner, hidden], f"{start}intermediate.dense.bias": [inner],
            f"{start}output.dense.weight": [hidden, inner], f"{start}output.dense.bias": [hidden]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{start}{name}.weight": [hidden], f"{start}{name}.bias": [hidden]}
    chance, header, values = random.Random(1), {}, array.array("f")
    for name, shape in shapes.items():
        first, one = 4 * len(values), 1.0 if "LayerNorm.weight" in name else 0.0
        values.extend(one + chance.uniform(-0.2, 0.2) for _ in range(math.prod(shape)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [first, 4 * len(values)]}
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values.tobytes())


class Bench:
    """The jobs, what they make undisturbed and how long that takes."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, size: int, hosts=None):
        self.binary, self.folder, self.hosts = binary, folder, hosts
        self.hanging = 0
        self.counts = [1, 2, 3, 4, 5, 6] if hosts else [1, 2, 3, 4, 5]
        documents = folder / "documents.txt"
        jobs.write_documents(documents, 60 * size, 5, 400)
        # A model of few positions is soon through with a document.
        short = folder / "short.txt"
        jobs.write_documents(short, 600 * size, 5, 60)
        # CI has no time for long documents.
        longest = LENGTH if size >= 10 else LENGTH // 4
        long_model = folder / "long-model"
        write_long_model(long_model)
        (folder / "long.ids").write_text("".join(
            json.dumps([3 + i * i % 600 for i in range(length)]) + "\n" for length in (longest, longest // 3, 5, longest // 2)))
        lines = ["-i", str(documents), "--input-format", "lines"]
        embed = ["embed", "-m", str(jobs.MODEL), *lines, "--max-length", "8192"]
        long = ["embed", "-m", str(long_model), "-i", str(folder / "long.ids"), "--save-seconds", "0.2"]
        observe = ["observe", "-m", str(jobs.MODEL), *lines, "--max-length", "8192", "--layers", "0", "--heads", "1"]
        self.works = {
            "vectors.npy": embed,
            "vectors.safetensors": [*embed, "--chunk-tokens", "64"],
            "vectors.jsonl": embed,
            "passages.jsonl": [*embed, "--passage-tokens", "32"],
            "states.safetensors": [*embed, "--pooling", "none"],
            "classes.jsonl": ["classify", "-m", str(GOLDENS / "tasks-bert"), "-i", str(short), "--input-format", "lines", "--truncate", "right"],
            "answers.jsonl": [
                "answer", "What is cute?", "-m", str(GOLDENS / "tasks-bert"), "-i", str(documents), "--input-format", "lines",
                "--window-tokens", "40", "--stride", "12", "--top-k", "3"],
            "seen.safetensors": [*observe, "--block-map"],
            "seen.jsonl": [*observe, "--probe", "swap", "--probe-tokens", "2:5"],
            "long.npy": long,
            "long.safetensors": [*long, "--pooling", "none"],
        }
        self.right: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def measure(self, name: str) -> None:
        if name in self.right:
            return
        folder = self.folder / f"right-{name}"
        folder.mkdir()
        start = time.monotonic()
        status, errors = self.run(name, 1, folder, resume=False)
        self.seconds[name] = time.monotonic() - start
        if status != 0:
            sys.exit(f"{name}: status {status}: {errors}")
        self.right[name] = jobs.digest(folder / name)

    def start(self, name: str, ranks: int, folder: pathlib.Path, *, resume: bool = True, more: list[str] = []):
        launcher = [] if ranks == 1 else [*jobs.MPIRUN, "-np", str(ranks)]
        if self.hosts and ranks % 3 == 0:
            launcher = self.hosts.launcher(ranks)
        command = [*launcher, str(self.binary), *self.works[name], "-o", str(folder / name)]
        end = (["--resume"] if resume else []) + more
        if self.hosts and launcher and launcher[0] == str(self.hosts.agent):
            # The agent joins words, as ssh does.
            command, end = [*command[:2], shlex.join(command[2:] + end)], []
        self.token = f"{os.getpid()}-{time.monotonic_ns()}"
        environment = dict(os.environ) | {
            jobs.MARKER: self.token, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        with open(self.folder / "stderr", "wb") as stderr:
            return subprocess.Popen(
                command + end, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                env=environment, start_new_session=True)

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def run(self, name: str, ranks: int, folder: pathlib.Path, *, resume: bool = True, more: list[str] = []):
        process = self.start(name, ranks, folder, resume=resume, more=more)
        status = self.wait(process)
        return status, self.errors

    def wait(self, process: subprocess.Popen) -> int | None:
        """Waits until every process of the job has ended; None where that takes too long.

        Open MPI's mpirun now and then waits for ever after all its ranks were killed, which no rank can help (see
        trials.py): it is ended here, and counted.
        """
        deadline, last = time.monotonic() + FINISH, time.monotonic()
        while living := jobs.living(self.token, process.pid):
            process.poll()
            now = time.monotonic()
            if any(one.program == str(self.binary) for one in living):
                last = now
            if now > deadline or now - last > HANGING:
                break
            time.sleep(0.02)
        hangs = bool(living) and not any(one.program == str(self.binary) for one in living)
        self.hanging += hangs
        for one in living:
            try:
                os.kill(one.identifier, signal.SIGKILL)
            except ProcessLookupError:
                pass
        code = process.wait()
        return None if living and not hangs else 128 - code if code < 0 else code

    def ranks(self, process: subprocess.Popen, launched: bool) -> dict[int, int]:
        if not launched:
            return {0: process.pid} if process.poll() is None else {}
        return {one.rank: one.identifier for one in jobs.living(self.token, process.pid)
                if one.rank is not None and one.program == str(self.binary)}


def mount(folder: pathlib.Path, size: int, options: str = "") -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"{options}size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def interrupt(bench: Bench, name: str, fault: str, ranks: int, chance: random.Random, folder: pathlib.Path) -> dict:
    """One run that meets a fault; what was seen of it."""
    seen = {"fault": fault, "ranks": ranks}
    if fault == "full disk":
        used = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        size = used + chance.randrange(4096, max(8192, (bench.right_size[name])))
        if not mount(folder, size, "remount,"):
            return seen | {"fault": "none"}
        status, errors = bench.run(name, ranks, folder)
        mount(folder, 1 << 30, "remount,")
        return seen | {"status": status, "errors": errors[-1500:], "wanted": [0, 74]}
    process = bench.start(name, ranks, folder)
    # Half of them early: the kill may come amid the first journal.
    moment = chance.random() * bench.seconds[name] * chance.choice([0.3, 1.3])
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        pass
    found = bench.ranks(process, ranks > 1)
    # What was started may be an agent that enters a host.
    launchers = [one.identifier for one in jobs.living(bench.token, process.pid)
                 if pathlib.Path(one.program).name in ("mpirun", "orterun")] if ranks > 1 else []
    target = (launchers or [process.pid])[0] if fault.startswith("mpirun") else chance.choice(sorted(found.values()) or [process.pid])
    number = signal.Signals[fault.split()[-1]] if "SIG" in fault else signal.SIGKILL
    for identifier in sorted(found.values()) if fault == "all killed" else [target]:
        if process.poll() is None:
            try:
                os.kill(identifier, number)
            except ProcessLookupError:
                pass
    status = bench.wait(process)
    # A signal may come before its handler, and mpirun has statuses of its own.
    # A rank that ends while others are still starting has mpirun kill those, and tell of one of them.
    wanted = {"SIGUSR1": [0, 75, 138, 137], "SIGTERM": [0, 75, 143, 137, 1], "SIGKILL": [0, 137, 70, 1]}[number.name]
    return seen | {"moment": round(moment, 3), "status": status, "errors": bench.errors[-1500:], "wanted": wanted}


def trial(bench: Bench, number: int, can_mount: bool) -> dict:
    chance = random.Random(number)
    names = list(bench.works)
    name = names[number % len(names)]
    bench.measure(name)
    folder = bench.folder / f"trial-{number}"
    folder.mkdir()
    if can_mount:
        mount(folder, 1 << 30)
    bench.right_size = getattr(bench, "right_size", {})
    bench.right_size[name] = (bench.folder / f"right-{name}" / name).stat().st_size
    runs, complaints = [], []
    try:
        for _ in range(chance.choice([1, 1, 2, 3])):
            ranks = chance.choice(bench.counts)
            faults = [f for f in FAULTS if (can_mount or f != "full disk") and (ranks > 1 or not f.startswith("mpirun"))]
            runs.append(interrupt(bench, name, chance.choice(faults), ranks, chance, folder))
            if runs[-1].get("status") not in runs[-1].get("wanted", [None]):
                complaints.append(f"status {runs[-1].get('status')} after {runs[-1]['fault']}")
            # A signal may come when all is done.
            if (folder / name).exists() and not (folder / f"{name}.journal").exists():
                break
        else:
            ranks = chance.choice(bench.counts)
            status, errors = bench.run(name, ranks, folder)
            runs.append({"fault": "none", "ranks": ranks, "status": status, "errors": errors[-1500:]})
            if status != 0:
                complaints.append(f"status {status} in the end")
        if jobs.digest(folder / name) != bench.right[name]:
            complaints.append("other bytes")
        left = sorted(path.name for path in folder.iterdir() if path.name != name)
        if left:
            complaints.append("left: " + " ".join(left))
        resumed = sum("resuming:" in run.get("errors", "") for run in runs)
        return {"number": number, "name": name, "runs": runs, "resumed": resumed, "complaints": complaints}
    finally:
        if can_mount:
            subprocess.run(["umount", str(folder)], capture_output=True)
        if not complaints:
            shutil.rmtree(folder, ignore_errors=True)


def has_begun(journal: pathlib.Path) -> bool:
    """Whether a journal says that documents are done."""
    try:
        return json.loads(journal.read_text())["documents"] > 0
    except OSError:
        return False


def mutate(bench: Bench, number: int) -> str:
    """A damaged journal, which must be refused; what is wrong, or nothing."""
    chance = random.Random(number)
    kept = bench.folder / "interrupted"
    name = "vectors.jsonl"
    if not kept.exists():
        bench.measure(name)
        kept.mkdir()
        process = bench.start(name, 1, kept, more=["--save-seconds", "0"])
        while process.poll() is None and not has_begun(kept / f"{name}.journal"):
            time.sleep(0.002)
        process.send_signal(signal.SIGUSR1)
        if bench.wait(process) != 75:
            return f"could not be interrupted: {bench.errors}"
    folder = bench.folder / "mutated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    journal = folder / f"{name}.journal"
    data = bytearray(journal.read_bytes())
    kind = number % 6
    if kind == 0:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[chance.randrange(len(data)):]
    elif kind == 2:
        place = chance.randrange(len(data))
        data[place:place] = chance.randbytes(chance.randint(1, 20))
    elif kind == 3:
        data = bytearray(chance.randbytes(chance.randrange(2000)))
    elif kind == 4:
        # Another number, as somebody might write it who means well.
        text = data.decode()
        place = text.index('"documents": ') + 13
        data = bytearray((text[:place] + "1" + text[place:]).encode())
    else:
        # What the journal is of is cut short or changed.
        partial = folder / f"{name}.partial"
        content = bytearray(partial.read_bytes())
        done = json.loads(data)["bytes"]
        if chance.random() < 0.5:
            del content[chance.randrange(done):]
        else:
            content[chance.randrange(done)] ^= 1
        partial.write_bytes(content)
    journal.write_bytes(data)
    before = {path.name: jobs.digest(path) for path in folder.iterdir()}
    status, errors = bench.run(name, chance.choice([1, 1, 2]), folder)
    lines = [line for line in errors.splitlines() if line.startswith("annulus:")]
    if status != 65 or len(lines) != 1:
        return f"mutation {number} of kind {kind}: status {status}: {errors}"
    if kind != 5 and before != {path.name: jobs.digest(path) for path in folder.iterdir()}:
        return f"mutation {number}: something was changed"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=jobs.ROOT / ".build/release/annulus")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--mutations", type=int)
    parser.add_argument("--size", type=int, default=10, help="how much the jobs have to do")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--hosts", action="store_true", help="three hosts, in network namespaces")
    parser.add_argument("--ci", action="store_true")
    options = parser.parse_args()
    if not pathlib.Path("/proc/self/stat").exists():
        print("resume: this needs /proc")
        return 78
    jobs.with_private_shared_memory()
    # Hosts do not see what is mounted later.
    can_mount = jobs.HAS_PRIVATE_SHARED_MEMORY and not options.hosts
    passed = failed = 0
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="annulus-resume-") as folder, contextlib.ExitStack() as stack:
        hosts = None
        if options.hosts:
            import hosts as three

            (pathlib.Path(folder) / "hosts").mkdir()
            hosts = three.Hosts(pathlib.Path(folder) / "hosts")
            stack.callback(hosts.close)
        bench = Bench(options.binary.resolve(), pathlib.Path(folder), 6 if options.ci else options.size, hosts)
        numbers = [] if options.mutations else [options.only] if options.only is not None else range(
            options.first, options.first + options.trials)
        for number in numbers:
            result = trial(bench, number, can_mount)
            passed, failed = passed + (not result["complaints"]), failed + bool(result["complaints"])
            for run in result["runs"]:
                counts[run["fault"]] += 1
            counts["resumed"] += result["resumed"]
            words = ", ".join(f"{run['fault']} on {run['ranks']}: {run.get('status')}" for run in result["runs"])
            print(f"{'passed' if not result['complaints'] else 'FAILED'} {number} {result['name']}: {words}"
                  + "".join(f"; {text}" for text in result["complaints"]), flush=True)
            if result["complaints"]:
                print(json.dumps(result["runs"], indent=1), flush=True)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
        for number in range(options.mutations or (20 if options.ci else 0)):
            complaint = mutate(bench, number)
            passed, failed = passed + (not complaint), failed + bool(complaint)
            if complaint:
                print("FAILED", complaint, flush=True)
        for one in bench.folder.glob("trial-*"):
            subprocess.run(["umount", str(one)], capture_output=True)
    counts["mpirun hung"] = bench.hanging
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
