#!/usr/bin/env python3
"""Jobs under Slurm, for real: three hosts of scripts/cluster-up --slurm, `srun --mpi=pmix` and `sbatch scripts/slurm-job`.

  Tests/Faults/slurm.py                 every case, and a line for each; the last one is: N passed, N failed
  Tests/Faults/slurm.py --only TEXT     the cases whose name has this in it
  Tests/Faults/slurm.py --ci            without those that take long: jobs that go back into the queue

On one, two and three nodes the output must be that of one process, byte for byte. Tasks that cannot find each other are refused
with 78. A job that Slurm warns that its time is up saves, goes back into the queue, and comes to the same bytes; one that is requeued
because its node failed too. Takes root and Debian's Slurm, which scripts/cluster-up installs; without them nothing is run, and the status is 78.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import jobs

ROOT = jobs.ROOT
# How long a job may take.
FINISH = 120


class Cluster:
    """Three hosts with Slurm, and a job's input and right output."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path):
        self.binary = binary
        self.folder = folder
        self.programs = folder / "cluster/bin"
        self.input = folder / "documents.lines"
        jobs.write_documents(self.input, 400, 20, 30)
        self.job = ["embed", "-m", str(jobs.MODEL), "-i", str(self.input), "--input-format", "lines"]
        right = self.folder / "right.npy"
        self.run([str(binary), *self.job, "--threads", "1", "-o", str(right)])
        self.right = jobs.digest(right)

    def run(self, command: list[str], **variables: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}", "ANNULUS": str(self.binary)} | variables
        return subprocess.run(
            command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FINISH)

    def submit(self, options: list[str], command: list[str]) -> tuple[int, str]:
        """Submits the batch script and waits for the job's last run; returns its number and its log."""
        done = self.run([
            "sbatch", "--parsable", "--time=00:05:00", "--hint=multithread", "--cpus-per-task=1", f"--output={self.folder}/%j.log", *options,
            str(ROOT / "scripts/slurm-job"), *command])
        if done.returncode:
            raise AssertionError(f"sbatch: {done.stderr}")
        number = int(done.stdout)
        return number, self.log(number)

    def log(self, number: int) -> str:
        path = self.folder / f"{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def state(self, number: int) -> str:
        told = self.run(["scontrol", "show", "job", str(number)])
        found = re.search(r"JobState=(\S+)", told.stdout)
        return found[1] if found else "unknown"

    def wait(self, number: int, *states: str) -> str:
        deadline = time.monotonic() + FINISH
        while (state := self.state(number)) not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"job {number} is {state}, not {states}: {self.log(number)}")
            time.sleep(0.1)
        return state


def check(is_right: bool, text: str) -> None:
    if not is_right:
        raise AssertionError(text)


def srun(cluster: Cluster, nodes: int, tasks: int) -> None:
    output = cluster.folder / f"srun-{nodes}-{tasks}.npy"
    done = cluster.run(["srun", "--mpi=pmix", f"-N{nodes}", f"-n{tasks}", str(cluster.binary), *cluster.job, "-o", str(output)])
    check(done.returncode == 0, f"status {done.returncode}: {done.stderr}")
    check(f"{tasks} rank" in done.stderr, f"it ran on other ranks: {done.stderr}")
    check(jobs.digest(output) == cluster.right, "other bytes")


def batch(cluster: Cluster, nodes: int, launcher: str) -> None:
    output = cluster.folder / f"batch-{nodes}-{launcher}.npy"
    number, _ = cluster.submit(
        [f"--nodes={nodes}", "--ntasks-per-node=1", f"--export=ALL,LAUNCHER={launcher},OMPI_ALLOW_RUN_AS_ROOT=1,OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"],
        [*cluster.job, "-o", str(output)])
    state = cluster.wait(number, "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
    check(state == "COMPLETED", f"{state}: {cluster.log(number)}")
    check(f"{nodes} rank" in cluster.log(number), f"it ran on other ranks: {cluster.log(number)}")
    check(jobs.digest(output) == cluster.right, "other bytes")


def tasks_alone(cluster: Cluster) -> None:
    """Without --mpi=pmix each task would be a job of its own."""
    output = cluster.folder / "alone.npy"
    done = cluster.run(["srun", "--mpi=none", "-n2", str(cluster.binary), *cluster.job, "-o", str(output)])
    check(done.returncode == 78, f"status {done.returncode}: {done.stderr}")
    lines = [line for line in done.stderr.splitlines() if line.startswith("annulus:")]
    check(len(lines) == 1 and "--mpi=pmix" in lines[0], f"{lines}")
    check(not output.exists(), "an output was written")


def has_begun(journal: pathlib.Path) -> bool:
    """Whether a journal says that documents are done."""
    try:
        return json.loads(journal.read_text())["documents"] > 0
    except (OSError, ValueError):
        return False


def requeued(cluster: Cluster, how: str) -> None:
    """A job of many batches that is warned, or requeued, amid its work."""
    output = cluster.folder / f"again-{how}.npy"
    corpus = cluster.folder / "many.lines"
    jobs.write_documents(corpus, 40_000, 20, 30)
    job = ["embed", "-m", str(jobs.MODEL), "-i", str(corpus), "--input-format", "lines", "--save-seconds", "0"]
    right = cluster.folder / "many.npy"
    if not right.exists():
        cluster.run([str(cluster.binary), *job, "--threads", "1", "-o", str(right)])
    number, _ = cluster.submit(["--nodes=2", "--ntasks-per-node=1"], [*job, "-o", str(output), "--resume"])
    cluster.wait(number, "RUNNING")
    deadline = time.monotonic() + FINISH
    while not has_begun(pathlib.Path(f"{output}.journal")) and not output.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if how == "warned":
        done = cluster.run(["scancel", "--batch", "--signal=USR1", str(number)])
    else:
        done = cluster.run(["scontrol", "requeue", str(number)])
    check(done.returncode == 0, done.stderr)
    # Slurm holds requeued jobs back for a while; they are let go once nothing of their last run can be left, which has the same name.
    time.sleep(5)
    deadline = time.monotonic() + FINISH
    while cluster.state(number) not in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED") and time.monotonic() < deadline:
        time.sleep(0.5)
        cluster.run(["scontrol", "update", f"jobid={number}", "StartTime=now"])
    check(cluster.state(number) == "COMPLETED", f"{cluster.state(number)}: {cluster.log(number)}")
    if how == "warned":
        check("slurm-job: saved" in cluster.log(number), f"it was through before it was warned: {cluster.log(number)}")
    check("resuming:" in cluster.log(number), f"it began anew: {cluster.log(number)}")
    check(jobs.digest(output) == jobs.digest(right), "other bytes")


def array(cluster: Cluster) -> None:
    """Shards of a corpus, a task each."""
    for shard in range(3):
        jobs.write_documents(cluster.folder / f"shard-{shard}.lines", 50 + shard, 20, 30)
    job = ["embed", "-m", str(jobs.MODEL), "--input-format", "lines", "-i", f"{cluster.folder}/shard-%a.lines", "-o"]
    number, _ = cluster.submit(["--array=0-2", "--nodes=1", "--ntasks-per-node=1"], [*job, f"{cluster.folder}/array-%a.npy"])
    deadline = time.monotonic() + FINISH
    while cluster.run(["squeue", "-h", "-j", str(number)]).stdout.strip() and time.monotonic() < deadline:
        time.sleep(0.2)
    for shard in range(3):
        right = cluster.folder / f"alone-{shard}.npy"
        cluster.run([str(cluster.binary), *(word.replace("%a", str(shard)) for word in job), str(right), "--threads", "1"])
        check(jobs.digest(right) is not None and jobs.digest(cluster.folder / f"array-{shard}.npy") == jobs.digest(right), f"shard {shard}: other bytes")


CASES = [
    *((f"srun, {nodes} nodes, {tasks} tasks", lambda cluster, nodes=nodes, tasks=tasks: srun(cluster, nodes, tasks))
      for nodes, tasks in [(1, 1), (1, 2), (2, 2), (3, 3), (3, 5)]),
    *((f"sbatch, {nodes} nodes, by {launcher}", lambda cluster, nodes=nodes, launcher=launcher: batch(cluster, nodes, launcher))
      for nodes in (1, 2, 3) for launcher in ("srun", "mpirun")),
    ("srun without --mpi=pmix", tasks_alone),
    ("a job array", array),
    ("a job that is warned", lambda cluster: requeued(cluster, "warned")),
    ("a job that is requeued", lambda cluster: requeued(cluster, "requeued")),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/annulus")
    parser.add_argument("--only", default="")
    parser.add_argument("--ci", action="store_true")
    options = parser.parse_args()
    if not options.binary.exists():
        print(f"{options.binary} is missing: build it, or name one with --binary", file=sys.stderr)
        return 66
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="annulus-slurm-") as name:
        folder = pathlib.Path(name)
        up = subprocess.run(
            [str(ROOT / "scripts/cluster-up"), "3", "1gbit", "--slots", "2", "--slurm", "--folder", str(folder / "cluster")],
            capture_output=True, text=True)
        if up.returncode:
            print(f"skipped: {up.stderr.strip()}")
            return 78
        try:
            cluster = Cluster(options.binary.resolve(), folder)
            for case, run in CASES:
                if options.only not in case or options.ci and case in ("a job that is warned", "a job that is requeued"):
                    continue
                start = time.monotonic()
                try:
                    run(cluster)
                    passed += 1
                    print(f"passed {case}, {time.monotonic() - start:.1f} s", flush=True)
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    failed += 1
                    print(f"FAILED {case}: {error}", flush=True)
        finally:
            subprocess.run([str(ROOT / "scripts/cluster-down"), str(folder / "cluster")])
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
