"""How figures are measured beside peers: the sides, the turns and the table; the rows are in modules of their own.

    kernel_rows.py, encoder_rows.py list|packages|requirements|measure|ladder …
                                            for scripts/peers/bench-kernels and scripts/peers/bench-encoders
    kernel_rows.py, encoder_rows.py serve NAME JSON
                                            one peer: prints a line of JSON with the versions of what it is made of and what it
                                            chose, then for every line of standard input one line with the seconds of one run

The measuring side needs nothing but Python; a peer's side needs its packages of REQUIREMENTS.
"""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import ladder
import neighbour

# By what a row asks for. All go into one environment, in steps because not every system has openvino and openblas; but zentorch,
# which is made for one version of PyTorch, has its own.
REQUIREMENTS = {
    "peers": [
        "numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0", "sentence-transformers==6.2.0", "torch==2.15.0", "transformers==5.24.0",
    ],
    "openvino": ["numpy==2.4.6", "openvino==2026.4.1", "torch==2.15.0", "transformers==5.24.0"],
    "openblas": ["numpy==2.4.6", "scipy-openblas32==0.3.34.481.3"],
    "zentorch": ["numpy==2.4.6", "torch==2.13.0", "transformers==5.24.0", "zentorch==2.13.0.2"],
}
# What a peer's answer tells the version of, where it is loaded.
TOLD = ["torch", "transformers", "sentence_transformers", "onnxruntime", "openvino", "zentorch", "scipy_openblas32"]
# The script that was started: it holds the rows, and serves their peers.
SCRIPT = os.path.abspath(sys.argv[0])


def timed(work):
    def run():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


def serve(peers, name, options):
    """Answers each line of standard input with the seconds of one run; a ring's other ranks run until they are ended."""
    run = peers[name](**options)
    print(json.dumps({"versions": versions(), "chosen": getattr(run, "chosen", {})}), flush=True)
    if options.get("rank", 0) > 0:
        while True:
            run()
    for _ in sys.stdin:
        print(run(), flush=True)


def versions():
    import importlib.metadata

    return {name: importlib.metadata.version(name.replace("_", "-")) for name in TOLD if name in sys.modules}


# ---------------------------------------------------------------------------------------------------------------
# The two sides of a row.


class Skipped(Exception):
    """The row cannot be measured here; the reason."""


class Failed(Exception):
    """A side ended with an error."""


def failure(ended, verb):
    """The error for a command of annulus that has ended with another status than 0."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("annulus:")] or ended.stderr.splitlines()[-1:]
    reason = lines[0].split("; see `")[0] if lines else "annulus: status %d" % ended.returncode
    # A verb or an option that this build does not have.
    return (Skipped if ended.returncode == 64 else Failed)("%s: %s" % (verb, reason.removeprefix("annulus: ")))


class Ours:
    """`annulus bench …`, started anew for every turn; its own uncounted run comes first."""

    def __init__(self, arguments, ranks=1, threads=1, repetitions=1, prepare=None, kernel=None, beside_peer=False):
        self.arguments, self.ranks, self.threads = arguments, ranks, threads
        # The kernel set; none: the machine's best. Beside a peer only the best is fair, for the peer takes no other.
        self.kernel, self.beside_peer = kernel, beside_peer
        # Makes what the command reads; given the session.
        self.prepare = prepare
        # Of one turn, for work of milliseconds: its median is the turn's figure.
        self.repetitions = repetitions

    def describe(self):
        launch = "mpirun -np %d, a core each: " % self.ranks if self.ranks > 1 else ""
        kernel = "ANNULUS_KERNEL=%s " % self.kernel if self.kernel else ""
        return "%s%sannulus bench %s --threads %d" % (kernel, launch, shlex.join(self.arguments), self.threads)

    def start(self, session):
        self.session = session
        session.require(self.ranks * self.threads, self.kernel, self.beside_peer)
        if self.prepare:
            self.prepare(session)

    def turn(self):
        launch = self.session.mpirun + ["-np", str(self.ranks)] if self.ranks > 1 else []
        command = launch + [self.session.annulus, "bench", *self.arguments, "--threads", str(self.threads)]
        ended = subprocess.run(
            command + ["--repetitions", str(self.repetitions), "--format", "json", "--quiet"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env=dict(os.environ, ANNULUS_KERNEL=self.kernel) if self.kernel else None)
        if ended.returncode != 0:
            raise failure(ended, "bench " + self.arguments[0])
        return json.loads(ended.stdout)

    def stop(self):
        pass


class Peer:
    """A peer that stays alive between its turns, stopped so that its threads cannot take a core from the other side."""

    def __init__(self, name, packages="peers", ranks=1, repetitions=1, environment=None, **options):
        self.name, self.packages, self.ranks, self.options = name, packages, ranks, options
        # Of one turn, as of Ours.
        self.repetitions = repetitions
        # What must be set before it starts.
        self.environment = environment or {}
        self.versions, self.chosen = {}, {}

    def describe(self):
        # Of a file its name will do.
        options = {**self.options, **self.chosen, **self.environment}
        return "%s(%s)" % (self.name, ", ".join("%s %s" % (key, os.path.basename(str(value))) for key, value in options.items()))

    def start(self, session):
        self.processes = []
        python = session.python_for(self.packages)
        needed = max(self.ranks, self.options.get("threads", 1))
        session.require(needed)
        self.folder = tempfile.TemporaryDirectory(prefix="annulus-peers.")
        self.errors = open(os.path.join(self.folder.name, "errors"), "w+")
        # What somebody has set for OpenBLAS, maybe for another processor, is not held against a peer.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        for rank in range(self.ranks):
            options = dict(self.options)
            if self.ranks > 1:
                options.update(rank=rank, ranks=self.ranks, store=os.path.join(self.folder.name, "store"))
            environment = dict(inherited, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", OMP_NUM_THREADS=str(options.get("threads", 1)),
                               **self.environment)
            self.processes.append(subprocess.Popen(
                [python, SCRIPT, "serve", self.name, json.dumps(options)], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True))
        try:
            told = [json.loads(self.read(process)) for process in self.processes]
        except Failed as reason:
            raise Skipped("it does not run here: %s" % reason)
        self.versions, self.chosen = told[0]["versions"], told[0]["chosen"]
        self.signal(signal.SIGSTOP)

    def read(self, process):
        line = process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise Failed("%s ended: %s" % (self.name, lines[-1] if lines else "status %d and no message" % process.wait()))
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
        seconds = statistics.median(self.run() for _ in range(self.repetitions))
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
    # "fraction" and "cost" read the first side's own field; "ratio" is the last side's seconds over the first's, turn by turn.
    kind: str
    target: float
    sides: list
    # What a turn's line says, for "fraction" and "cost".
    field: str = "fraction_of_peak"
    note: str = ""
    # How many turns, where that is not for the user to say.
    repetitions: int = 0
    # Whether another program sweeps memory on another core meanwhile.
    neighbour: bool = False

    @property
    def packages(self):
        """What the row's peers are made of, as REQUIREMENTS names it."""
        return sorted({side.packages for side in self.sides if isinstance(side, Peer)})

    def figure(self, turns, fastest):
        """From the lines of each side, by turn: the median of each turn's own, or of the fastest turn of either. A cost is a ratio
        of its own in every turn, of which no turn is the fastest, and a row of one turn has but one figure."""
        if self.kind == "ratio":
            # Of a turn of either, one after the other: a slow minute lengthens both.
            return of_seconds(turns[-1], fastest) / of_seconds(turns[0], fastest) if fastest else statistics.median(self.each(turns))
        if self.kind == "fraction":
            return of_peak(turns[0], self.field, fastest)
        return statistics.median(line[self.field] for line in turns[0])

    def each(self, turns):
        if self.kind == "ratio":
            return [last["seconds"] / first["seconds"] for first, last in zip(turns[0], turns[-1])]
        return [line[self.field] for line in turns[0]]

    def peak_fractions(self, turns, fastest):
        """The part of the peak that the first side and a peer reach; None where that is not measured. Both do the same work,
        so the peer's follows from the ratio of their seconds."""
        if not (self.kind == "ratio" and self.packages and all("fraction_of_peak" in line for line in turns[0])):
            return None
        ours = of_peak(turns[0], "fraction_of_peak", fastest)
        return ours, ours / self.figure(turns, fastest)

    def shown(self, figure):
        return "%.2fx" % figure if self.kind == "ratio" else "%.1f%%" % (100 * figure)

    def shown_target(self):
        sign = "<=" if self.kind == "cost" else ">="
        return "%s %s" % (sign, "%gx" % self.target if self.kind == "ratio" else "%g%%" % (100 * self.target))

    def met(self, figure):
        return figure <= self.target if self.kind == "cost" else figure >= self.target


def of_peak(lines, field, fastest):
    """The fastest turn is held against the highest peak of any: its own may have been measured in a bad moment."""
    if not fastest:
        return statistics.median(line[field] for line in lines)
    peak = max(line.get("peak_gflops", 1) for line in lines)
    return max(line[field] * line.get("peak_gflops", 1) for line in lines) / peak


def of_seconds(lines, fastest):
    return (min if fastest else statistics.median)([line["seconds"] for line in lines])


def chosen(rows, options):
    if options.only:
        for wanted in options.only.split(","):
            if not any(matches(row.name, wanted) for row in rows):
                sys.exit("%s: no row is called %r (see --list)" % (options.script, wanted))
        rows = [row for row in rows if any(matches(row.name, wanted) for wanted in options.only.split(","))]
    return [row for row in rows if not (options.no_peers and row.packages)]


def matches(name, wanted):
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


# ---------------------------------------------------------------------------------------------------------------
# Measuring.


@dataclasses.dataclass
class Session:
    annulus: str
    mpirun: list
    # The python3 that has a peer's packages, and why there is none, by the packages' name.
    pythons: dict
    why_not: dict
    cores: int

    def python_for(self, packages):
        if packages not in self.pythons:
            raise Skipped(self.why_not.get(packages, "nobody has installed " + packages))
        return self.pythons[packages]

    def require(self, cores, kernel=None, beside_peer=False):
        """Skips a row that asks for more cores than there are, for a kernel set that is not here, or for one that a peer, which
        takes the processor's best, cannot be held against."""
        if cores > self.cores:
            raise Skipped("needs %d cores, and %d may be used" % (cores, self.cores))
        kernels = self.kernels() if kernel else []
        if kernel and kernel not in kernels:
            raise Skipped("this processor cannot run the kernel set %s" % kernel)
        if beside_peer and kernel != kernels[-1]:
            raise Skipped("the peer takes this processor's %s, which %s cannot be held against" % (kernels[-1], kernel))

    def kernels(self):
        """The kernel sets of this machine, as `doctor` names them."""
        ended = subprocess.run([self.annulus, "doctor"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        listed = [line.split("can run:", 1)[1] for line in ended.stdout.splitlines() if line.startswith("kernel set ")]
        if not listed:
            raise Failed("annulus doctor names no kernel sets")
        return [name.strip() for name in listed[0].split(",")]


def measure(row, session, repetitions):
    """The lines of each side, by turn."""
    turns = [[] for _ in row.sides]
    started = []
    beside = neighbour.Neighbour() if row.neighbour else contextlib.nullcontext()
    try:
        with beside:
            for side in row.sides:
                started.append(side)
                side.start(session)
            for _ in range(repetitions):
                for side, lines in zip(row.sides, turns):
                    lines.append(side.turn())
    except neighbour.Impossible as reason:
        raise Skipped(str(reason))
    finally:
        for side in started:
            side.stop()
    return turns, [beside.told] if row.neighbour else []


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive")[::2] if len(values) > 1 else None


def table(entries):
    columns = ["row", "work", "figure", "quartiles", "target", "met", "how it was measured"]
    lines = [columns] + [[entry[key] for key in ("row", "work", "shown", "shown_quartiles", "shown_target", "verdict", "how")] for entry in entries]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns) - 1)]
    for number, line in enumerate(lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)) + "  " + line[-1])
        if number == 0:
            print("  ".join("-" * width for width in widths) + "  " + "-" * len(columns[-1]))


def measured(row, session, options):
    """What the table and the ladder say of a row."""
    repetitions = row.repetitions or options.repetitions
    turns, notes = measure(row, session, repetitions)
    fastest = options.statistic == "fastest" and row.kind != "cost"
    figure, each = row.figure(turns, fastest), row.each(turns)
    middle = quartiles(each)
    spread = "%s to %s" % (row.shown(min(each)), row.shown(max(each))) if middle else "one turn"
    seconds = ["%.4g s" % of_seconds(lines, fastest) for lines in turns]
    how = "%s of %d: %s (%s); %s" % (
        "fastest" if fastest else "median", repetitions, " against ".join("%s %s" % pair for pair in zip((side.describe() for side in row.sides), seconds)),
        spread, "A and B in turn" if len(row.sides) > 1 else "a process each")
    how = "; ".join([how, *notes, *([row.note] if row.note else [])])
    met = row.met(figure)
    verdict = "met" if met else "NOT MET"
    fractions = row.peak_fractions(turns, fastest)
    if fractions:
        ours, theirs = fractions
        how += "; %.0f%% of the peak against %.0f%%, so nothing on this machine could reach more than %.2fx" % (
            100 * ours, 100 * theirs, 1 / theirs)
        if not met and row.target * theirs > 1:
            verdict = "BEYOND THE PEAK"
    versions = {}
    for side in row.sides:
        versions.update(getattr(side, "versions", {}))
    return dict(figure=figure, each=each, quartiles=middle, met=met, shown=row.shown(figure), how=how, peak_fractions=fractions, versions=versions,
                shown_quartiles=" to ".join(map(row.shown, middle)) if middle else "-", verdict="(quick)" if options.quick else verdict,
                sides=[{"side": side.describe(), "turns": lines} for side, lines in zip(row.sides, turns)])


def run_measurements(rows, options):
    # A signal ends this through the `finally` of each row, and with it the peers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pythons, why_not = (dict(entry.split("=", 1) for entry in entries) for entries in (options.python, options.why_not))
    session = Session(options.annulus, shlex.split(options.mpirun), pythons, why_not, cores)
    began = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = ladder.machine()
    entries = []
    for row in rows:
        print("%s: %s" % (options.script, row.name), file=sys.stderr)
        entry = {"session": began, "script": options.script, "row": row.name, "work": row.work, "kind": row.kind, "target": row.target,
                 "shown_target": row.shown_target(), "processor": machine, "cores": cores, "quick": options.quick}
        entries.append(entry)
        missing = dict(figure=None, shown="-", shown_quartiles="-")
        try:
            entry.update(measured(row, session, options))
        except Skipped as reason:
            entry.update(missing, met=None, verdict="not measured", how=str(reason))
        except Failed as reason:
            entry.update(missing, met=False, verdict="FAILED", how=str(reason))
        if options.output:
            with open(options.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
    print("%s, %d cores, %s" % (machine, cores, began))
    table(entries)
    counts = collections.Counter(entry["verdict"] for entry in entries)
    print(", ".join("%d %s" % (count, verdict) for verdict, count in counts.items()))
    sys.exit(1 if counts["NOT MET"] or counts["FAILED"] else 0)


def main(script, make, peers):
    """Runs what the command line asks for.
    - script: the name that messages begin with.
    - make: gives the rows, short ones where it is given True.
    - peers: by name, what takes options and returns a function that runs the work once and returns its seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("list", "packages", "measure"):
        options = verbs.add_parser(verb)
        options.add_argument("--only", default="")
        options.add_argument("--quick", action="store_true")
        options.add_argument("--no-peers", action="store_true")
    for name in ("--annulus", "--output", "--mpirun"):
        options.add_argument(name, default="")
    for name in ("--python", "--why-not"):
        options.add_argument(name, action="append", default=[], metavar="PACKAGES=TEXT")
    options.add_argument("--repetitions", type=int, default=7)
    options.add_argument("--statistic", choices=["median", "fastest"], default="median")
    verbs.add_parser("requirements").add_argument("packages", choices=sorted(REQUIREMENTS))
    verbs.add_parser("ladder").add_argument("file")
    server = verbs.add_parser("serve")
    server.add_argument("name", choices=sorted(peers))
    server.add_argument("options", type=json.loads)
    options = parser.parse_args()
    options.script = script
    if options.verb == "requirements":
        print("\n".join(REQUIREMENTS[options.packages]))
    elif options.verb == "serve":
        serve(peers, options.name, options.options)
    elif options.verb == "ladder":
        ladder.show(options.file)
    elif options.verb == "packages":
        print("\n".join(sorted({name for row in chosen(make(False), options) for name in row.packages})))
    elif options.verb == "list":
        for row in chosen(make(options.quick), options):
            print("%-36s %-18s %-8s %s" % (row.name, ",".join(row.packages) or "-", row.shown_target(), row.work))
    else:
        run_measurements(chosen(make(options.quick), options), options)
