#!/usr/bin/env python3
"""Sends signals to random ranks of real jobs at random moments, and looks at how the jobs end.

  Tests/Faults/trials.py --trials 100 --results FILE     trials 0 to 99 of the series; a line of JSON for each goes into FILE
  Tests/Faults/trials.py --first 100 --trials 100 …      the next hundred: a series can be run in parts and on several machines
  Tests/Faults/trials.py --only 17000042                 one trial again, by the number that it printed
  Tests/Faults/trials.py --table FILE…                   the table of all results in these files
  Tests/Faults/trials.py --ci                            twenty short trials; the last line is: N passed, N failed

A trial's number is the seed of every choice in it: the launch (one process, virtual ranks, mpirun with 2 to 5 ranks), what the
job does, the rank and the moment. Twenty trials in a row have every kind of fault; `DECK` says how often each. `anywhere` is a
moment of the rank's life, uniformly; `start` one of its first 50 ms, before MPI_Init; `end` one after the output has its name,
in MPI_Finalize and while the process ends.

What is wanted of a trial is in `judge`: under mpirun every process ends within the watchdog's limit plus 5 s of the fault, with
the status of the fault and one line that names rank and fault, and nothing is left. A lone process that is killed cannot speak
and one that is stopped cannot end: of the first it is recorded what it leaves, the second is continued and must finish. A job
that was through with its work when the fault came ends well with status 0 and its whole output; such trials are counted apart. So
are those in which every rank has ended as wanted and mpirun itself hangs, which no rank can help.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import jobs
from jobs import Run, Work

# Seconds without a sign of life after which a job ends, and how much later it must have ended at the latest.
WATCHDOG = 2
LIMIT = WATCHDOG + 5
# How much longer a job is watched that has not ended by then.
PATIENCE = 15
# How long a whole job is suspended, and how long its input waits: longer than the watchdog.
SUSPENSION = 6
# How many long documents a job has that meets faults amid its layers.
PARTS = 4
# How long a job may take that has to finish, on a machine however busy.
FINISH = 120


@dataclasses.dataclass(frozen=True)
class Kind:
    """A card of the deck: what happens, to which kind of launch, and when."""

    # A signal's name; `suspended`: all ranks are stopped and continued; `waiting`: the input comes late; `launcher`: mpirun
    # is killed.
    faults: tuple[str, ...]
    launches: tuple[str, ...]
    when: str = "anywhere"
    # Whether rank 0 is meant, not any rank.
    first: bool = False


UNDER_MPIRUN, IN_ONE_PROCESS = ("mpirun",), ("alone", "virtual")
ENDED_BY_SIGNAL = ("SIGSEGV", "SIGTERM", "SIGUSR1")
DECK = [
    Kind(("SIGKILL",), UNDER_MPIRUN),
    Kind(("SIGSTOP",), UNDER_MPIRUN),
    Kind(("SIGSEGV",), UNDER_MPIRUN),
    Kind(("SIGTERM",), UNDER_MPIRUN),
    Kind(("SIGUSR1",), UNDER_MPIRUN),
    Kind(("SIGKILL",), IN_ONE_PROCESS),
    Kind(("SIGSTOP",), IN_ONE_PROCESS),
    Kind(("SIGSEGV",), IN_ONE_PROCESS),
    Kind(("SIGTERM",), IN_ONE_PROCESS),
    Kind(("SIGUSR1",), IN_ONE_PROCESS),
    Kind(("SIGKILL",), UNDER_MPIRUN, "start"),
    Kind(("SIGSTOP",), UNDER_MPIRUN, "start"),
    Kind(ENDED_BY_SIGNAL, UNDER_MPIRUN, "start"),
    Kind(ENDED_BY_SIGNAL, IN_ONE_PROCESS, "start"),
    Kind(("SIGKILL", "SIGSTOP"), UNDER_MPIRUN, first=True),
    Kind(("SIGKILL", "SIGSTOP"), UNDER_MPIRUN, "end"),
    Kind(ENDED_BY_SIGNAL, UNDER_MPIRUN + IN_ONE_PROCESS, "end"),
    Kind(("suspended",), UNDER_MPIRUN),
    Kind(("waiting",), UNDER_MPIRUN),
    Kind(("launcher",), UNDER_MPIRUN),
]
RANKS = {"alone": (1, 1), "virtual": (2, 8), "mpirun": (2, 5)}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is done, all of it chosen by the number."""

    number: int
    fault: str
    launch: str
    ranks: int
    # The rank that is met; 0 where there is one process.
    rank: int
    when: str
    work: str
    # Where in the time that `when` names.
    fraction: float

    def __str__(self) -> str:
        place = {"alone": "one process", "virtual": f"{self.ranks} virtual ranks", "mpirun": f"mpirun -np {self.ranks}"}
        target = f"rank {self.rank} of " if self.fault.startswith("SIG") and self.launch == "mpirun" else ""
        return f"{self.number} {self.fault} {self.when} {self.fraction:.3f}, {target}{place[self.launch]}, {self.work}"


def trial(seed: int, index: int, works: list[str]) -> Trial:
    number = seed * 1_000_000 + index
    chance = random.Random(number)
    kind = DECK[index % len(DECK)]
    launch = chance.choice(kind.launches)
    ranks = chance.randint(*RANKS[launch])
    rank = chance.randrange(ranks) if launch == "mpirun" and not kind.first else 0
    fault = chance.choice(kind.faults)
    work = "question" if fault == "waiting" else chance.choice(works)
    return Trial(number, fault, launch, ranks, rank, kind.when, work, chance.random())


@dataclasses.dataclass(frozen=True)
class Measured:
    """A job that nothing happened to."""

    # From the first sight of a rank's process to its end, and from the output's appearance to that.
    life: float
    tail: float


@dataclasses.dataclass
class Seen:
    """What was seen of a trial."""

    # Seconds into the job at which the fault came; None where the job was over before.
    moment: float | None = None
    # From the fault to the end of the last process; None where one did not end.
    seconds: float | None = None
    status: int | None = None
    lines: list[str] = dataclasses.field(default_factory=list)
    errors: str = ""
    left: jobs.Left | None = None
    # Of the output: `whole`, `none` or `wrong`.
    output: str = "none"
    # At the fault: whether the rank that is met ran code of the program's own, whether it had come so far that it could do
    # something about a signal, whether any rank that goes on had, and whether all ranks were in touch.
    had_begun: bool = False
    was_up: bool = False
    could_speak: bool = False
    was_connected: bool = False
    complaint: str = ""
    # Whether every rank has ended and mpirun has not: seen where a rank dies while MPI_Init connects it to mpirun.
    launcher_hangs: bool = False

    @property
    def ended_well(self) -> bool:
        return self.status == 0 and self.output == "whole" and not self.lines


@dataclasses.dataclass
class Verdict:
    """Which of the things that are wanted were so."""

    trial: Trial
    seen: Seen
    in_time: bool
    right_status: bool
    right_line: bool
    clean: bool

    @property
    def passed(self) -> bool:
        return self.in_time and self.right_status and self.right_line and self.clean and not self.seen.complaint

    @property
    def finished(self) -> bool:
        """Whether the job was through with its work when the fault came."""
        return self.seen.ended_well and not must_finish(self.trial) and (self.trial.fault in SIGNALS or self.seen.moment is None)

    def complaints(self) -> str:
        seen = self.seen
        parts = [seen.complaint] if seen.complaint else []
        if not self.in_time:
            parts.append("did not end" if seen.seconds is None else f"ended only after {seen.seconds:.1f} s")
        if not self.right_status:
            parts.append(f"status {seen.status}, output {seen.output}")
        if not self.right_line:
            parts.append(f"says {' | '.join(seen.lines) or 'nothing'}")
        if not self.clean:
            parts.append(f"left {seen.left}")
        return "; ".join(parts)


SIGNALS = ("SIGKILL", "SIGSTOP", "SIGSEGV", "SIGTERM", "SIGUSR1")
STATUSES = {
    # As mpirun shows them; SIGTERM of a rank it may turn into a status of its own.
    "SIGKILL": {137}, "SIGSTOP": {70}, "SIGSEGV": {139}, "SIGTERM": {75, 1, 143}, "SIGUSR1": {75},
}


def right_line(trial: Trial, seen: Seen) -> bool:
    """Whether the job says in one line what happened."""
    if trial.fault in ("suspended", "waiting"):
        return not seen.lines
    if trial.fault == "launcher":
        # What the ranks write goes through mpirun, which is gone.
        return True
    if trial.launch != "mpirun" and trial.fault in ("SIGKILL", "SIGSTOP"):
        return not seen.lines
    if not seen.lines and not seen.could_speak:
        return True
    if not seen.lines and trial.fault == "SIGKILL" and trial.when == "end" and seen.output == "whole":
        # A rank that was through is no loss to the others; mpirun tells of it.
        return True
    if len(seen.lines) != 1:
        return False
    line = seen.lines[0]
    if trial.launch == "mpirun" and not seen.was_connected and "starting" in line:
        return True
    if trial.fault in ("SIGTERM", "SIGUSR1"):
        return f"interrupted by {trial.fault}" in line
    if trial.launch == "mpirun" and not re.search(rf"\brank {trial.rank}\b", line):
        return False
    wanted = {"SIGKILL": r"killed|ended from outside|SIGKILL", "SIGSTOP": r"not been heard of", "SIGSEGV": r"crashed.*SIGSEGV|SIGSEGV.*crashed"}
    return re.search(wanted[trial.fault], line) is not None


def has_backtrace(seen: Seen) -> bool:
    """Whether at least three addresses of frames follow the line."""
    behind = seen.errors.partition("annulus:")[2].partition("\n")[2]
    return len(re.findall(r"^.*\b0x[0-9a-f]{6,}", behind, re.MULTILINE)) >= 3


def right_status(trial: Trial, seen: Seen) -> bool:
    if seen.launcher_hangs:
        return seen.output != "wrong"
    if trial.fault in ("suspended", "waiting"):
        return seen.status == 0 and seen.output == "whole"
    if trial.fault == "launcher":
        return seen.status == 137 and seen.output != "wrong"
    if trial.launch != "mpirun" and trial.fault == "SIGSTOP":
        return seen.status == 0 and seen.output == "whole"
    wanted = STATUSES[trial.fault]
    if not seen.had_begun and trial.fault == "SIGSEGV":
        # Reported by the runtime for seconds: to the others it is a rank that is not heard of.
        wanted = wanted | {70}
    elif not seen.was_up and trial.fault in ("SIGTERM", "SIGUSR1"):
        # A process that has only just begun ends as any does.
        wanted = wanted | {128 + signal.Signals[trial.fault]}
    elif trial.launch != "mpirun" and trial.fault == "SIGTERM":
        wanted = {75}
    return seen.status in wanted and seen.output != "wrong"


def judge(trial: Trial, seen: Seen) -> Verdict:
    limit = FINISH if must_finish(trial) or is_swallowed(trial, seen) else LIMIT
    left = seen.left
    clean = not left
    if trial.fault == "SIGKILL" and trial.launch != "mpirun":
        # Nobody is there to remove the unfinished output.
        clean = not (left.processes or left.segments or left.temporary)
    if trial.fault == "launcher":
        # mpirun's own folder is not the ranks' to find, nor is memory that they share before MPI_Init is through with it.
        clean = not (left.processes or left.partials or (left.segments and seen.was_connected))
    if seen.launcher_hangs:
        clean = not (left.partials or left.segments)
    verdict = Verdict(
        trial, seen, in_time=seen.seconds is not None and seen.seconds <= limit, right_status=right_status(trial, seen),
        right_line=right_line(trial, seen), clean=clean)
    if verdict.finished:
        verdict.right_status = verdict.right_line = True
    elif trial.fault == "SIGSEGV" and trial.launch != "mpirun" and seen.was_up and not has_backtrace(seen):
        verdict.right_line = False
    return verdict


def must_finish(trial: Trial) -> bool:
    return trial.fault in ("suspended", "waiting") or trial.launch != "mpirun" and trial.fault == "SIGSTOP"


def is_swallowed(trial: Trial, seen: Seen) -> bool:
    """Whether the fault met a process in the milliseconds in which Swift's runtime is there and the program is not: it
    reports a crash that somebody sent, which takes seconds, and goes on."""
    return trial.fault == "SIGSEGV" and seen.moment is not None and not seen.had_begun


# ---------------------------------------------------------------------------------------------------------------
# Running them.


class Series:
    """Trials of one binary, with what they have in common: the documents, the right bytes, the usual times."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, *, small: bool, keeps: bool):
        self.binary, self.folder, self.keeps = binary, folder, keeps
        jobs.write_documents(folder / "many.txt", 6_000, 5, 55)
        for part in range(PARTS):
            jobs.write_documents(folder / f"long{part}.txt", 1, 5200, 5300)
        model = ["-m", str(jobs.MODEL), "--quiet", "--watchdog", str(WATCHDOG)]
        many = ["embed", "-i", str(folder / "many.txt"), "--input-format", "lines", *model]
        long = ["embed", "-i", *(str(folder / f"long{part}.txt") for part in range(PARTS)), "--pooling", "none", *model]
        question = ["embed", *model]
        self.works = {
            work.name: work for work in [
                Work("many.npy", many, "vectors.npy"), Work("many.jsonl", many, "vectors.jsonl"),
                Work("long.safetensors", long, "states.safetensors"), Work("question", question, "")]
        }
        # What trials draw from; in short ones the time for measuring counts.
        self.names = ["many.npy"] if small else ["many.npy", "many.jsonl", "long.safetensors"]
        self.measured: dict[tuple[str, str], Measured] = {}
        self.right: dict[str, str] = {}

    def start(self, name: str, launch: str, ranks: int, label: str, **more) -> Run:
        launcher = [*jobs.MPIRUN, "-np", str(ranks)] if launch == "mpirun" else []
        work = self.works[name]
        if launch == "virtual":
            work = dataclasses.replace(work, arguments=[*work.arguments, "--virtual-ranks", str(ranks)])
        return Run(launcher, self.binary, work, self.folder / label, **more)

    def output_of(self, run: Run, name: str) -> str | None:
        return jobs.digest(run.output if self.works[name].output else run.folder / "stdout")

    def measure(self, name: str, launch: str) -> Measured:
        """How long a job takes that nothing happens to; on the way, what its output is."""
        if name not in self.right and launch != "alone":
            self.measure(name, "alone")
        if (name, launch) not in self.measured:
            label = f"measured-{name}-{launch}"
            waits = name == "question"
            with self.start(name, launch, 3, label, **({"stdin": subprocess.PIPE} if waits else {})) as run:
                if waits:
                    self.answer(run)
                begin = wait_for(lambda: bool(run.ranks()), run)
                whole = wait_for(run.output.exists, run)
                end = wait_for(lambda: not run.ranks(), run) or time.monotonic()
                run.process.wait(FINISH)
                output = self.output_of(run, name)
                if run.status != 0 or self.right.setdefault(name, output) != output:
                    sys.exit(f"{label} ended with status {run.status}, its bytes {output}: {run.errors}")
            self.measured[name, launch] = Measured(end - (begin or end), end - (whole or end))
            self.clear(run)
        return self.measured[name, launch]

    @staticmethod
    def answer(run: Run) -> None:
        run.process.stdin.write(b"What is cute?\nMy dog is cute.\n")
        run.process.stdin.close()

    def clear(self, run: Run) -> None:
        if not self.keeps:
            subprocess.run(["rm", "-rf", str(run.folder)], check=True)

    def run(self, trial: Trial) -> Verdict:
        measured = self.measure(trial.work, trial.launch)
        waits = trial.fault == "waiting"
        seen = Seen()
        more = {"stdin": subprocess.PIPE} if waits else {}
        with self.start(trial.work, trial.launch, trial.ranks, f"trial-{trial.number}", **more) as run:
            ranks = await_moment(trial, measured, run)
            fault = inject(trial, ranks, run, seen)
            if waits:
                time.sleep(SUSPENSION)
                fault = time.monotonic()
                self.answer(run)
            ended = run.wait(FINISH if must_finish(trial) or is_swallowed(trial, seen) else LIMIT + PATIENCE)
            if ended is None and run.is_launched and run.ranks_ended and not run.ranks():
                seen.launcher_hangs, ended = True, run.ranks_ended
            seen.seconds = ended - fault if ended else None
            seen.status, seen.lines, seen.left = run.status, run.lines, run.left()
            seen.errors = run.errors[-4000:]
            output = self.output_of(run, trial.work)
            seen.output = "none" if output is None else "whole" if output == self.right[trial.work] else "wrong"
        self.clear(run)
        return judge(trial, seen)


def wait_for(condition, run: Run) -> float | None:
    """The moment at which something has become true; None where the job ended before."""
    while run.process.poll() is None:
        if condition():
            return time.monotonic()
        time.sleep(0.0005)
    return None


def await_moment(trial: Trial, measured: Measured, run: Run) -> dict[int, int]:
    """Waits until the fault is due, or the job is over; returns the processes of the ranks."""
    ranks: dict[int, int] = {}
    processes = trial.ranks if trial.launch == "mpirun" else 1

    def is_there() -> bool:
        ranks.update(run.ranks())
        return len(ranks) == processes if trial.when == "end" else trial.rank in ranks

    begin = wait_for(is_there, run)
    length = 0.05 if trial.when == "start" else measured.life
    if trial.when == "end":
        begin = wait_for(run.output.exists, run)
        length = measured.tail * 1.1
    if begin is not None:
        due = begin + trial.fraction * length
        wait_for(lambda: time.monotonic() >= due, run)
    # There is no time to look again while the ranks end.
    return ranks if trial.when == "end" else run.ranks()


def inject(trial: Trial, ranks: dict[int, int], run: Run, seen: Seen) -> float:
    """Lets the fault happen; returns when."""
    look(trial, ranks, seen)
    now = time.monotonic()
    moment = now - run.started
    if trial.fault == "waiting":
        seen.moment = moment
    elif trial.fault == "suspended":
        if ranks:
            seen.moment = moment
        send(signal.SIGSTOP, list(ranks.values()))
        time.sleep(SUSPENSION)
        send(signal.SIGCONT, list(ranks.values()))
        now = time.monotonic()
    else:
        target = run.process.pid if trial.fault == "launcher" else ranks.get(trial.rank)
        number = signal.SIGKILL if trial.fault == "launcher" else signal.Signals[trial.fault]
        # A process that has ended, and that its parent has not yet taken note of, is still there for a signal.
        if target is not None and run.process.poll() is None and send(number, [target]):
            seen.moment = moment
        elif run.process.poll() not in (None, 0):
            seen.complaint = "ended by itself before the fault"
        if number == signal.SIGSTOP and not run.is_launched:
            # Longer than the watchdog, which must not count time in which the process did not run.
            time.sleep(WATCHDOG + 1)
            send(signal.SIGCONT, [run.process.pid] if run.process.poll() is None else [])
            now = time.monotonic()
    return now


def look(trial: Trial, ranks: dict[int, int], seen: Seen) -> None:
    """Notes how far the ranks are, just before the fault: what they can do later, they may not be able to do yet."""
    up = {rank for rank, identifier in ranks.items() if jobs.answers_signals(identifier)}
    seen.had_begun = trial.rank in ranks and jobs.has_begun(ranks[trial.rank])
    seen.was_up = trial.rank in up
    seen.could_speak = bool(up - {trial.rank} if trial.fault in ("SIGKILL", "SIGSTOP") else up)
    seen.was_connected = len(ranks) == trial.ranks and all(
        jobs.has_thread(identifier, "control") for identifier in ranks.values())


def send(number: int, identifiers: list[int]) -> bool:
    sent = False
    for identifier in identifiers:
        try:
            os.kill(identifier, number)
            sent = True
        except ProcessLookupError:
            pass
    return sent


# ---------------------------------------------------------------------------------------------------------------
# The table.


def record(verdict: Verdict, binary: pathlib.Path) -> dict:
    seen = dataclasses.asdict(verdict.seen)
    if verdict.passed:
        del seen["errors"]
    return dataclasses.asdict(verdict.trial) | seen | {
        "passed": verdict.passed, "finished": verdict.finished, "in_time": verdict.in_time, "right_status": verdict.right_status,
        "right_line": verdict.right_line, "clean": verdict.clean, "complaints": verdict.complaints(), "binary": str(binary),
    }


def table(records: list[dict]) -> str:
    """A row for each fault and kind of launch. A number that was run several times counts as it went last."""
    records = list({one["number"]: one for one in records}.values())
    groups = collections.defaultdict(list)
    for one in records:
        groups[one["fault"], one["launch"]].append(one)
    rows = [["fault", "launch", "trials", "over before", "in time", "right status", "right line", "clean", "partials", "mpirun hangs", "slowest s", "passed"]]
    faults = [*SIGNALS, "suspended", "waiting", "launcher"]
    for (fault, launch), group in sorted(groups.items(), key=lambda item: (faults.index(item[0][0]), item[0][1])):
        count = lambda name: str(sum(one.get(name, False) for one in group))
        times = [one["seconds"] for one in group if not one["finished"]]
        slowest = "never" if None in times else f"{max(times):.1f}" if times else ""
        partials = sum(bool(one["left"]["partials"]) for one in group)
        rows.append([
            fault, launch, str(len(group)), count("finished"), count("in_time"), count("right_status"), count("right_line"),
            count("clean"), str(partials), count("launcher_hangs"), slowest, count("passed")])
    total = lambda name: str(sum(one.get(name, False) for one in records))
    rows.append(["all", "", str(len(records)), total("finished"), total("in_time"), total("right_status"), total("right_line"), total("clean"), "", total("launcher_hangs"), "", total("passed")])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=jobs.ROOT / ".build/release/annulus")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", type=int, metavar="NUMBER")
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="beside so many processes that are always busy")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all runs")
    parser.add_argument("--ci", action="store_true")
    parser.add_argument("--table", nargs="+", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    if options.table:
        records = [json.loads(line) for path in options.table for line in path.read_text().splitlines()]
        print(table(records))
        return 0 if all(one["passed"] for one in records) else 1
    if not pathlib.Path("/proc/self/environ").exists():
        print("skipped: processes are found under /proc, which this system does not have", file=sys.stderr)
        return 78
    if not options.binary.exists():
        print(f"{options.binary} is missing: build it, or name one with --binary", file=sys.stderr)
        return 66
    jobs.with_private_shared_memory()

    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="annulus-faults-"))
    seed, indices = options.seed, range(options.first, options.first + options.trials)
    if options.only is not None:
        seed, index = divmod(options.only, 1_000_000)
        indices = range(index, index + 1)
    passed = failed = 0
    try:
        series = Series(options.binary.resolve(), folder, small=options.ci, keeps=options.keep)
        for index in indices:
            verdict = series.run(trial(seed, index, series.names))
            seen = verdict.seen
            outcome = "over before" if verdict.finished else "passed" if verdict.passed else f"FAILED: {verdict.complaints()}"
            moment = "never" if seen.moment is None else f"{seen.moment:.2f} s"
            seconds = "" if seen.seconds is None else f", ended {seen.seconds:.1f} s later with {seen.status}"
            outcome += "; mpirun itself hangs" if seen.launcher_hangs else ""
            print(f"{verdict.trial}, at {moment}{seconds}: {outcome}", flush=True)
            passed, failed = passed + verdict.passed, failed + (not verdict.passed)
            if options.results:
                with open(options.results, "a") as results:
                    results.write(json.dumps(record(verdict, options.binary)) + "\n")
    finally:
        for neighbour in neighbours:
            neighbour.kill()
        if options.keep:
            print(f"the folders are in {folder}", file=sys.stderr)
        else:
            subprocess.run(["rm", "-rf", str(folder)])
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
