"""How figures are measured beside peers: the sides, the turns and the table; the rows are in modules of their own.

    kernel_rows.py, encoder_rows.py list|requirements|measure …    for scripts/peers/bench-kernels and scripts/peers/bench-encoders
    kernel_rows.py, encoder_rows.py serve NAME JSON                one peer: prints "ready", then for every line of standard
                                                                   input one line with the seconds of one run

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

REQUIREMENTS = [
    "numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.31.1", "sentence-transformers==6.2.0", "torch==2.15.0", "transformers==5.23.0",
]
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
        if self.ranks * self.threads > session.cores:
            raise Skipped("needs %d cores, and %d may be used" % (self.ranks * self.threads, session.cores))
        kernels = session.kernels() if self.kernel else []
        if self.kernel and self.kernel not in kernels:
            raise Skipped("this processor cannot run the kernel set %s" % self.kernel)
        if self.beside_peer and self.kernel != kernels[-1]:
            raise Skipped("not measured: the peer takes this processor's %s, which %s cannot be held against" % (kernels[-1], self.kernel))
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

    def __init__(self, name, ranks=1, **options):
        self.name, self.ranks, self.options = name, ranks, options

    def describe(self):
        # Of a file its name will do.
        return "%s(%s)" % (self.name, ", ".join("%s %s" % (key, os.path.basename(str(value))) for key, value in self.options.items()))

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
                [session.python, SCRIPT, "serve", self.name, json.dumps(options)], env=environment,
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
    # How many turns, where that is not for the user to say.
    repetitions: int = 0

    @property
    def needs_peer(self):
        return any(isinstance(side, Peer) for side in self.sides)

    def figure(self, turns, fastest):
        """From the lines of each side, by turn: of their medians, or of the fastest of either. A cost is a ratio of its own
        in every turn, of which no turn is the fastest, and a row of one turn has but one figure."""
        if self.kind == "ratio":
            seconds = [of_seconds(lines, fastest) for lines in turns]
            return seconds[-1] / seconds[0]
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
        if not (self.kind == "ratio" and self.needs_peer and all("fraction_of_peak" in line for line in turns[0])):
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

    def kernels(self):
        """The kernel sets of this machine, as `doctor` names them."""
        ended = subprocess.run([self.annulus, "doctor"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        listed = [line.split("can run:", 1)[1] for line in ended.stdout.splitlines() if line.startswith("kernel set ")]
        if not listed:
            raise Failed("annulus doctor names no kernel sets")
        return [name.strip() for name in listed[0].split(",")]


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


def run_measurements(rows, options):
    # A signal ends this through the `finally` of each row, and with it the peers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    session = Session(options.annulus, shlex.split(options.mpirun), options.python, options.why_no_peers, cores)
    began = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = []
    for row in rows:
        print("%s: %s" % (options.script, row.name), file=sys.stderr)
        entry = {"session": began, "row": row.name, "work": row.work, "kind": row.kind, "target": row.target,
                 "shown_target": row.shown_target(), "processor": processor(), "quick": options.quick}
        entries.append(entry)
        try:
            repetitions = row.repetitions or options.repetitions
            turns = measure(row, session, repetitions)
            fastest = options.statistic == "fastest" and row.kind != "cost"
            figure, each = row.figure(turns, fastest), row.each(turns)
            spread = "%s to %s" % (row.shown(min(each)), row.shown(max(each))) if len(each) > 1 else "one turn"
            seconds = ["%.4g s" % of_seconds(lines, fastest) for lines in turns]
            how = "%s of %d: %s (%s); %s" % (
                "fastest" if fastest else "median", repetitions, " against ".join("%s %s" % pair for pair in zip((side.describe() for side in row.sides), seconds)),
                spread, "A and B in turn" if len(row.sides) > 1 else "a process each")
            if row.note:
                how += "; " + row.note
            met = row.met(figure)
            verdict = "met" if met else "NOT MET"
            fractions = row.peak_fractions(turns, fastest)
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


def main(script, make, peers):
    """Runs what the command line asks for.
    - script: the name that messages begin with.
    - make: gives the rows, short ones where it is given True.
    - peers: by name, what takes options and returns a function that runs the work once and returns its seconds."""
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
    options.add_argument("--statistic", choices=["median", "fastest"], default="median")
    verbs.add_parser("requirements")
    server = verbs.add_parser("serve")
    server.add_argument("name", choices=sorted(peers))
    server.add_argument("options", type=json.loads)
    options = parser.parse_args()
    options.script = script
    if options.verb == "requirements":
        print("\n".join(REQUIREMENTS))
    elif options.verb == "serve":
        serve(peers, options.name, options.options)
    elif options.verb == "list":
        for row in chosen(make(options.quick), options):
            print("%-32s %-5s %-8s %s" % (row.name, "peer" if row.needs_peer else "", row.shown_target(), row.work))
    else:
        run_measurements(chosen(make(options.quick), options), options)
