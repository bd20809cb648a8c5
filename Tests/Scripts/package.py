#!/usr/bin/env python3
"""A package as who installs it meets it: unpacked on a system that has no Swift.

  Tests/Scripts/package.py TARBALL [--binary FILE] [--root DIR]

  TARBALL          a package of scripts/package
  --binary FILE    the build that its output is held against (.build/release/annulus)
  --root DIR       another system, in which the package is unpacked and run by chroot, with its own mpirun: as
                   `debootstrap --variant=minbase --include=openmpi-bin bookworm DIR` makes one

Without --root this system's Swift is hidden. Either takes root; without it the check is left out, and said so. The last line is:
N passed, N failed.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "Tests/TransformersTests/Goldens/tiny-bert"
VERBS = ["embed", "search", "classify", "ner", "fill-mask", "answer", "train", "tokenize", "attend", "observe", "init", "inspect", "verify",
         "doctor", "plan", "bench", "bench-attention"]


class Check:
    def __init__(self) -> None:
        self.passed = self.failed = 0

    def __call__(self, is_right: bool, text: str) -> None:
        self.passed, self.failed = self.passed + bool(is_right), self.failed + (not is_right)
        print(f"{'passed' if is_right else 'FAILED'} {text}", flush=True)


def swift_folder() -> pathlib.Path | None:
    """The toolchain's folder: three up from usr/bin/swift."""
    swift = shutil.which("swift")
    if swift is None:
        return None
    place = pathlib.Path(swift).resolve().parents[2]
    return None if place == pathlib.Path("/") else place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tarball", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/annulus")
    parser.add_argument("--root", type=pathlib.Path)
    options = parser.parse_args()
    check = Check()
    root = options.root.resolve() if options.root else None
    with tempfile.TemporaryDirectory(prefix="annulus-package-", dir=root / "tmp" if root else None) as name:
        folder = pathlib.Path(name)
        subprocess.run(["tar", "-xf", str(options.tarball.resolve()), "-C", name], check=True)
        (package,) = folder.iterdir()
        command = package / "bin/annulus"
        shutil.copytree(MODEL, folder / "model")
        swift = swift_folder()
        hides = swift if os.geteuid() == 0 and root is None else None

        def inside(path: pathlib.Path) -> str:
            """A path as what is run sees it."""
            return f"/{path.relative_to(root)}" if root else str(path)

        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "HOME": inside(folder), "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

        def run(words: list[str], **more) -> subprocess.CompletedProcess:
            prepare = []
            if root:
                prepare = [f"mount --rbind /{name} {shlex.quote(str(root / name))}" for name in ("proc", "sys")]
                prepare.append(f"mount -t tmpfs tmpfs {shlex.quote(str(root / 'dev/shm'))}")
                words = ["chroot", str(root), *words]
            elif hides:
                prepare = [f"mount -t tmpfs tmpfs {shlex.quote(str(hides))}"]
            if prepare:
                words = ["unshare", "--mount", "sh", "-c", " && ".join([*prepare, f"exec {shlex.join(words)}"])]
            return subprocess.run(words, env=environment, cwd=name, capture_output=True, text=True, timeout=300, **more)

        if not root and not hides:
            print("left out: hiding Swift takes root, and a Swift that lies in a folder of its own")
        if root:
            check(run(["sh", "-c", "command -v swift"]).returncode != 0, "the other system has no Swift")
        libraries = run(["ldd", inside(command)]).stdout
        check("not found" not in libraries and "swift" not in libraries.lower(), "no library of Swift is needed, and none is missing")
        version = run([inside(command), "--version"])
        check(version.returncode == 0 and re.search(r"^commit +[0-9a-f]{7,}", version.stdout, re.M) is not None, "the version names its commit")
        text = "The dog is cute.\nOne tile of tokens at a time.\n" * 30
        right = subprocess.run(
            [str(options.binary), "embed", "-m", str(MODEL), "--threads", "1"], input=text, capture_output=True, text=True, check=True).stdout
        for ranks in (1, 3):
            launcher = [] if ranks == 1 else ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
            done = run([*launcher, inside(command), "embed", "-m", inside(folder / "model"), "--threads", "1"], input=text)
            digest = hashlib.sha256(done.stdout.encode()).hexdigest()
            check(done.returncode == 0 and done.stdout == right, f"{ranks} ranks embed to the bytes of the build beside it, SHA-256 {digest} {done.stderr[-300:] if done.returncode else ''}")
        pages = {page.name: page.read_text() for page in (package / "share/man/man1").iterdir()}
        check(all(f"annulus-{verb}.1" in pages for verb in VERBS), "every verb has a manual page")
        check(all("\\-\\-trace" in pages[f"annulus-{verb}.1"] for verb in ("embed", "observe", "plan")), "manual pages have the options")
        if shutil.which("groff"):
            said = [subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True).stderr for page in pages.values()]
            check(not any(said), f"groff has nothing to say of them {next(filter(None, said), '')}")
        completions = package / "share/bash-completion/completions/annulus"
        check(subprocess.run(["bash", "-c", f". {shlex.quote(str(completions))} && complete -p annulus"], capture_output=True).returncode == 0, "bash takes the completions")
        check(all((package / "share" / place).stat().st_size > 1000 for place in ("zsh/site-functions/_annulus", "fish/vendor_completions.d/annulus.fish")), "zsh and fish have some too")
        module = next((package / "share/modulefiles/annulus").iterdir()).read_text()
        check(module.startswith("#%Module") and "/opt" not in module and name not in module, "the modulefile names no place")
        if shutil.which("tclsh"):
            # What modules do to a modulefile, in short.
            script = (
                "proc module-whatis args {}\nproc conflict args {}\nproc setenv {name value} {puts \"$name=$value\"}\n"
                "proc prepend-path {name value} {puts \"$name=$value\"}\nset ModulesCurrentModulefile [lindex $argv 0]\nsource $ModulesCurrentModulefile\n")
            (folder / "module.tcl").write_text(script)
            path = next((package / "share/modulefiles/annulus").iterdir())
            told = subprocess.run(["tclsh", str(folder / "module.tcl"), str(path)], capture_output=True, text=True)
            check(f"PATH={package}/bin\n" in told.stdout and f"ANNULUS={command}\n" in told.stdout, f"the modulefile finds its package {told.stderr}")
        check((package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes(), "the licence is there")
        print(f"SHA-256 {hashlib.sha256(options.tarball.read_bytes()).hexdigest()}")
    print(f"{check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
