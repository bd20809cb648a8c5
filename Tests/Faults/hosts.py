#!/usr/bin/env python3
"""Faults of a job over three hosts: a cut link, daemons and ranks that are killed or stopped, mpirun that is told to end.

  Tests/Faults/hosts.py                 every case once, and a table
  Tests/Faults/hosts.py --only TEXT     the cases whose name has this in it
  Tests/Faults/hosts.py --results FILE  adds a line of JSON for each case to the file; --table FILE… prints the table of several

The hosts are namespaces of this machine: each has its own network interface, host name, shared memory and folder for
temporary files, and they meet on a bridge. That needs root; without it nothing is run, and
the status is 78. They go when this program does, however it ends.

Within the watchdog's limit plus 5 s every rank must have ended, with at most one line of the command's own (see `rank_case` for
where there are two); and every process too, but where a host cannot be reached any more: see `link_case`.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import jobs
from jobs import Run
sys.path.insert(0, str(jobs.ROOT / "scripts/cluster"))
import network_hosts
from network_hosts import KEEPALIVE_SECONDS
from trials import LIMIT, WATCHDOG, Series, send, wait_for

# How much later than the watchdog's limit every rank must have ended.
MARGIN = LIMIT - WATCHDOG
# How much longer a case is watched.
PATIENCE = 20
COUNT = 3


class Hosts(network_hosts.Hosts):
    """Three hosts."""

    def launcher(self, ranks: int) -> list[str]:
        """mpirun on host 0, with as many ranks on each host."""
        return [
            str(self.agent), "host0", *jobs.MPIRUN, *self.mpirun_options, "-np", str(ranks), "--map-by", f"ppr:{ranks // self.count}:node",
        ]


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault, and how the job must end."""

    name: str
    # Three: a rank on each host; six: two.
    ranks: int
    # `rank N`, `daemon N` (of host N), `link N` or `mpirun`.
    target: str
    signal: int | None
    # None: any but 0.
    statuses: frozenset[int] | None
    # What a line says, where there is one.
    line: str = ""
    # Whether somebody must speak: a rank that goes on, and whose words reach mpirun.
    is_told: bool = False
    # How many lines there may be.
    lines: int = 1
    # Seconds that mpirun needs to notice.
    notice: float = 0
    # Whether Open MPI's folders and segments are to be removed; nobody does where its daemon is killed.
    is_cleared: bool = True
    watchdog: int = WATCHDOG
    # Whether mpirun is to end too.
    ends: bool = True

    @property
    def number(self) -> int:
        return int(self.target.split()[1])


def rank_case(rank: int, ranks: int, number: signal.Signals) -> Case:
    statuses = {signal.SIGKILL: {137}, signal.SIGSTOP: {70}, signal.SIGSEGV: {139}}[number]
    words = {signal.SIGKILL: "killed", signal.SIGSTOP: "not been heard of", signal.SIGSEGV: "SIGSEGV"}[number]
    has_neighbour = ranks > COUNT
    # Of a rank that was alone on its host only mpirun knows, which tells the others to end. Of another its neighbour knows; but
    # ranks that had a connection to the lost one hear of no other host any more (Open MPI ends the job from within the loop that
    # reads its sockets, and waits there for mpirun), so host0 may say what mpirun told it, beside the neighbour's word.
    is_remote = rank * COUNT // ranks > 0
    unseen = rf"|where it has lost a rank|rank {rank}\b.*not been heard of" if number == signal.SIGKILL and (is_remote or not has_neighbour) else ""
    return Case(
        f"{number.name} to rank {rank} of {ranks}, host{rank * COUNT // ranks}", ranks, f"rank {rank}", number, frozenset(statuses),
        rf"rank {rank}\b.*{words}{unseen}", is_told=has_neighbour or number != signal.SIGKILL,
        lines=2 if number == signal.SIGKILL and has_neighbour and is_remote else 1)


def launcher_case(number: signal.Signals, ranks: int) -> Case:
    """mpirun is told to end, or killed; SIGUSR1 it passes on to the ranks."""
    return Case(
        f"{number.name} to mpirun, {ranks} ranks", ranks, "mpirun", number, frozenset({75}) if number == signal.SIGUSR1 else None,
        "interrupted by SIGUSR1" if number == signal.SIGUSR1 else "interrupted by SIGTERM", is_told=number != signal.SIGKILL,
        is_cleared=number != signal.SIGKILL)


def link_case(host: int, ranks: int, watchdog: int) -> Case:
    """A host is cut off. Where the ranks wait longer than mpirun's keepalive takes, mpirun notices first and ends all of them.
    Where they are quicker they end by themselves, and mpirun tells the lost host to end as well: while that message is under
    way there is no keepalive, and TCP tries for a quarter of an hour (net.ipv4.tcp_retries2)."""
    is_first = watchdog < KEEPALIVE_SECONDS
    return Case(
        f"link of host{host} down, {ranks} ranks, --watchdog {watchdog}", ranks, f"link {host}", None, None,
        notice=KEEPALIVE_SECONDS + 5, is_cleared=False, watchdog=watchdog, ends=not is_first)


CASES = [
    *(rank_case(rank, 3, number) for rank in (0, 1) for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)),
    *(rank_case(rank, 6, number) for rank in (0, 1, 2, 5) for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)),
    *(link_case(host, ranks, watchdog) for watchdog in (WATCHDOG, 30) for ranks in (3, 6) for host in (0, 2)),
    *(Case(f"SIGKILL to the daemon of host1, {ranks} ranks", ranks, "daemon 1", signal.SIGKILL, None, is_cleared=False) for ranks in (3, 6)),
    *(launcher_case(number, ranks) for ranks in (3, 6) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL)),
]


@dataclasses.dataclass
class Outcome:
    """How a case went."""

    case: str
    # Seconds to the end of the last rank, and of the last process.
    ranks_ended: float | None
    ended: float | None
    status: int | None
    lines: list[str]
    errors: str
    left: list[str]
    partials: list[str]
    faults: list[str]


def launchers(run: Run) -> list[int]:
    return [one.identifier for one in run.living() if pathlib.Path(one.program).name in ("mpirun", "orterun", "prterun")]


def host_of(identifier: int, hosts: Hosts) -> int | None:
    """The number of the host that a process is on."""
    name = lambda one: os.readlink(f"/proc/{one}/ns/net")
    with contextlib.suppress(OSError):
        for number, holder in enumerate(hosts.identifiers):
            if name(identifier) == name(holder):
                return number
    return None


def inject(case: Case, hosts: Hosts, run: Run) -> None:
    if case.target.startswith("rank"):
        send(case.signal, [run.ranks()[case.number]])
    elif case.target.startswith("daemon"):
        daemons = [one.identifier for one in run.living() if pathlib.Path(one.program).name in ("orted", "prted")]
        send(case.signal, [daemon for daemon in daemons if host_of(daemon, hosts) == case.number])
    elif case.target.startswith("link"):
        hosts.set_link(case.number, "down")
    else:
        send(case.signal, launchers(run))


def wait(run: Run, limit: float) -> tuple[float | None, float | None]:
    """Waits for the end of all ranks and of all processes; returns both moments."""
    deadline = time.monotonic() + limit
    ranks_ended = None
    while time.monotonic() < deadline:
        processes = run.living()
        if ranks_ended is None and not any(one.program == run.binary for one in processes):
            ranks_ended = time.monotonic()
        if not processes and run.process.poll() is not None:
            return ranks_ended, time.monotonic()
        time.sleep(0.02)
    return ranks_ended, None


def play(case: Case, hosts: Hosts, series: Series) -> Outcome:
    hosts.clear()
    work = series.works["many.npy"]
    work = dataclasses.replace(work, arguments=[*work.arguments[:-1], str(case.watchdog)])
    with Run(hosts.launcher(case.ranks), series.binary, work, series.folder / "case", variables={"TMPDIR": str(hosts.temporary(0))}) as run:
        try:
            partial = lambda: any((run.folder / "out").glob(".*.partial"))
            if wait_for(partial, run) is None:
                run.end_by_force()
                outcome = Outcome(case.name, None, None, run.status, run.lines, run.errors[-4000:], [], [], ["ended before the fault"])
                series.clear(run)
                return outcome
            # The work has begun.
            time.sleep(0.5)
            fault = time.monotonic()
            inject(case, hosts, run)
            ranks_ended, ended = wait(run, LIMIT + case.notice + (PATIENCE if case.ends else 0))
            left = hosts.left()
            partials = run.left().partials
            outcome = Outcome(
                case.name, ranks_ended and ranks_ended - fault, ended and ended - fault, run.status, run.lines, run.errors[-4000:],
                left, partials, [])
            output = jobs.digest(run.output)
        finally:
            if case.target.startswith("link"):
                hosts.set_link(case.number, "up")
    series.clear(run)
    outcome.faults = faults(case, outcome, is_whole=output in (None, series.right["many.npy"]))
    return outcome


def faults(case: Case, outcome: Outcome, is_whole: bool) -> list[str]:
    found = []
    limit = case.watchdog + MARGIN
    if outcome.ranks_ended is None or outcome.ranks_ended > limit:
        found.append("ranks did not end in time")
    if case.ends and (outcome.ended is None or outcome.ended > LIMIT + case.notice):
        found.append("the job did not end in time")
    if outcome.status == 0 or case.statuses is not None and outcome.status not in case.statuses:
        found.append("another status")
    if len(outcome.lines) > case.lines or case.is_told and not outcome.lines:
        found.append(f"{len(outcome.lines)} lines")
    if any(not re.search(case.line, line) for line in outcome.lines):
        found.append("another line")
    if outcome.partials:
        found.append("an unfinished output is left")
    if outcome.left and case.is_cleared:
        found.append("shared memory or folders are left")
    if not is_whole:
        found.append("a cut output")
    return found


def table(outcomes: list[dict]) -> str:
    seconds = lambda value: "never" if value is None else f"{value:.1f}"
    rows = [["case", "ranks ended, s", "all ended, s", "status", "left", "lines", "verdict"]]
    for one in {one["case"]: one for one in outcomes}.values():
        left = one["partials"] + one["left"]
        rows.append([
            one["case"], seconds(one["ranks_ended"]), seconds(one["ended"]), str(one["status"]), " ".join(left) or "nothing",
            " / ".join(line.removeprefix("annulus: ") for line in one["lines"]) or "none", ", ".join(one["faults"]) or "as wanted"])
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=jobs.ROOT / ".build/release/annulus")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--table", nargs="+", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    if options.table:
        outcomes = [json.loads(line) for path in options.table for line in path.read_text().splitlines()]
        print(table(outcomes))
        return 1 if any(one["faults"] for one in outcomes) else 0
    if os.geteuid() != 0:
        print("skipped: hosts out of namespaces need root", file=sys.stderr)
        return 78
    if not options.binary.exists():
        print(f"{options.binary} is missing: build it, or name one with --binary", file=sys.stderr)
        return 66

    outcomes = []
    with tempfile.TemporaryDirectory(prefix="annulus-hosts-") as name:
        folder = pathlib.Path(name)
        with contextlib.ExitStack() as stack:
            try:
                hosts = Hosts(folder)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"skipped: {error}", file=sys.stderr)
                return 78
            stack.callback(hosts.close)
            series = Series(options.binary.resolve(), folder, small=False, keeps=False)
            series.measure("many.npy", "alone")
            for case in CASES:
                if options.only not in case.name:
                    continue
                outcome = dataclasses.asdict(play(case, hosts, series))
                outcomes.append(outcome)
                print(f"{case.name}: {', '.join(outcome['faults']) or 'as wanted'}", file=sys.stderr, flush=True)
                if options.results:
                    with open(options.results, "a") as results:
                        results.write(json.dumps(outcome) + "\n")
    print(table(outcomes))
    failed = sum(bool(one["faults"]) for one in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
