"""A job as it is seen from outside: how it is started, which processes it has, and what it leaves behind."""

import dataclasses
import hashlib
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "Tests/TransformersTests/Goldens/tiny-bert"
SHARED_MEMORY = pathlib.Path("/dev/shm")
# By this variable of their environment the processes of a job are known.
MARKER = "ANNULUS_FAULT_TRIAL"
# Set where this program has a /dev/shm of its own.
PRIVATE = "ANNULUS_FAULT_TRIALS_PRIVATE"
HAS_PRIVATE_SHARED_MEMORY = PRIVATE in os.environ
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
WORDS = "the quick brown fox jumps over the lazy dog hello my dog is cute one tile of tokens at a time".split()


def write_documents(path: pathlib.Path, count: int, shortest: int, longest: int) -> None:
    """Documents of some words each, one a line, the same ones every time."""
    chance = random.Random(count)
    lines = (" ".join(chance.choices(WORDS, k=chance.randint(shortest, longest))) for _ in range(count))
    path.write_text("".join(line + "\n" for line in lines))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a job does, and the file it makes."""

    name: str
    arguments: list[str]
    output: str


def digest(path: pathlib.Path) -> str | None:
    """The SHA-256 of a file; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


# ---------------------------------------------------------------------------------------------------------------
# Processes, as the kernel shows them under /proc. One that ends while it is looked at is one that has ended.


@dataclasses.dataclass(frozen=True)
class Process:
    """A living process of a job."""

    identifier: int
    # Its rank, where a launcher told it one.
    rank: int | None
    # The program that it runs.
    program: str


def read(identifier: int, name: str) -> bytes:
    """A file of a process; nothing where the process has ended."""
    try:
        return pathlib.Path(f"/proc/{identifier}/{name}").read_bytes()
    except OSError:
        return b""


def program(identifier: int) -> str:
    """The path of the program that a process runs."""
    try:
        return os.readlink(f"/proc/{identifier}/exe")
    except OSError:
        return ""


def living(token: str, session: int | None = None) -> list[Process]:
    """The processes that have the token in their environment or belong to the session; what only waits for its parent to
    take note of its end is none."""
    found = []
    marker = f"{MARKER}={token}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        state = read(int(entry), "stat").rpartition(b")")[2].split()
        if not state or state[0] in (b"Z", b"X"):
            continue
        variables = read(int(entry), "environ").split(b"\0")
        if marker in variables or (session is not None and int(state[3]) == session):
            ranks = [int(text[21:]) for text in variables if text.startswith(b"OMPI_COMM_WORLD_RANK=")]
            found.append(Process(int(entry), ranks[0] if ranks else None, program(int(entry))))
    return found


def answers_signals(identifier: int) -> bool:
    """Whether a process has come so far that it does something about SIGTERM."""
    masks = re.findall(rb"^Sig(?:Blk|Cgt):\s*([0-9a-f]+)", read(identifier, "status"), re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)


def has_begun(identifier: int) -> bool:
    """Whether the program's own code runs, not only what loads it: its first lines have it ignore SIGPIPE."""
    mask = re.search(rb"^SigIgn:\s*([0-9a-f]+)", read(identifier, "status"), re.MULTILINE)
    return mask is not None and bool(int(mask[1], 16) >> (signal.SIGPIPE - 1) & 1)


def has_thread(identifier: int, name: str) -> bool:
    """Whether a thread of the process has this name."""
    try:
        threads = os.listdir(f"/proc/{identifier}/task")
    except OSError:
        return False
    return any(read(identifier, f"task/{thread}/comm").strip() == name.encode() for thread in threads)


def mapped_files() -> set[str]:
    """The files in shared memory that some living process has mapped."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found.update(re.findall(r"(/dev/shm/[^\s]+)", read(int(entry), "maps").decode(errors="replace")))
    return found


def abandoned_segments(before: set[str]) -> list[str]:
    """What is new in shared memory and used by nobody."""
    new = set(os.listdir(SHARED_MEMORY)) - before
    if not new:
        return []
    mapped = mapped_files()
    return sorted(name for name in new if f"{SHARED_MEMORY}/{name}" not in mapped)


def with_private_shared_memory() -> None:
    """Starts this program again with a /dev/shm of its own, where that is allowed: what others on this machine put there or
    leave there is then none of its business. Returns where it is so already, or cannot be."""
    mount = f"mount -t tmpfs -o mode=1777 tmpfs {SHARED_MEMORY}"
    if HAS_PRIVATE_SHARED_MEMORY or os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode == 0:
        os.environ[PRIVATE] = "1"
        again = f'{mount} && exec "$@"'
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", again, "sh", sys.executable, *sys.argv])


# ---------------------------------------------------------------------------------------------------------------
# A run of a job, in a folder of its own.


@dataclasses.dataclass
class Left:
    """What a job left behind."""

    processes: list[str]
    partials: list[str]
    segments: list[str]
    temporary: list[str]

    def __bool__(self) -> bool:
        return bool(self.processes or self.partials or self.segments or self.temporary)

    def __str__(self) -> str:
        return ", ".join(f"{field} {' '.join(value)}" for field, value in dataclasses.asdict(self).items() if value)


class Run:
    """A job that runs, with what it needs in a folder: `out` for its output, `temporary` as its TMPDIR, its error text."""

    def __init__(
        self, launcher: list[str], binary: pathlib.Path, work: Work, folder: pathlib.Path, *, stdin=subprocess.DEVNULL,
        variables: dict[str, str] | None = None,
    ):
        self.binary, self.is_launched = str(binary), bool(launcher)
        # When the last rank had ended, as far as `wait` has seen.
        self.ranks_ended: float | None = None
        self.token = f"{os.getpid()}-{time.monotonic_ns()}"
        self.folder = folder
        self.output = folder / "out" / work.output
        for name in ("out", "temporary", "cache"):
            (folder / name).mkdir(parents=True)
        self.segments_before = set(os.listdir(SHARED_MEMORY))
        # No core file of the crashes that are meant.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        environment = dict(os.environ) | {
            MARKER: self.token, "TMPDIR": str(folder / "temporary"), "XDG_CACHE_HOME": str(folder / "cache"),
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        } | (variables or {})
        with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [*launcher, str(binary), *work.arguments] + (["-o", str(self.output)] if work.output else []),
                stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_) -> None:
        self.end_by_force()

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The lines in which the command itself says what went wrong."""
        return [line for line in self.errors.splitlines() if line.startswith("annulus:")]

    @property
    def status(self) -> int | None:
        """The status as a shell shows it; None while the first process runs."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    def living(self) -> list[Process]:
        return living(self.token, self.process.pid)

    def ranks(self) -> dict[int, int]:
        """The process of each rank that lives; a process that no launcher started is rank 0."""
        found = {one.rank: one.identifier for one in self.living() if one.rank is not None and one.program == self.binary}
        return found or ({0: self.process.pid} if self.status is None and not self.is_launched else {})

    def wait(self, limit: float) -> float | None:
        """Waits until no process of the job lives, for so many seconds; returns the moment, or None where some still do."""
        deadline = time.monotonic() + limit
        self.ranks_ended = None
        while True:
            living = self.living()
            if not any(one.program == self.binary for one in living):
                self.ranks_ended = self.ranks_ended or time.monotonic()
            if self.process.poll() is not None and not living:
                return time.monotonic()
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1 if self.process.poll() is None else 0.03)

    def left(self) -> Left:
        """What lies about; call when the processes have ended or are given up."""
        return Left(
            processes=[f"{pathlib.Path(one.program).name} ({one.identifier}, rank {one.rank})" for one in self.living()],
            partials=sorted(path.name for path in (self.folder / "out").glob(".*.partial")),
            segments=abandoned_segments(self.segments_before),
            temporary=sorted(path.name for path in (self.folder / "temporary").iterdir()))

    def end_by_force(self) -> None:
        """Ends every process of the job and removes what it left in shared memory."""
        for _ in range(200):
            processes = self.living()
            if self.process.poll() is not None and not processes:
                break
            for one in processes:
                try:
                    os.kill(one.identifier, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        # Elsewhere they may be somebody else's.
        for name in abandoned_segments(self.segments_before) if HAS_PRIVATE_SHARED_MEMORY else []:
            (SHARED_MEMORY / name).unlink(missing_ok=True)
