#!/usr/bin/env python3
"""A package as a site's tools install and test it: EasyBuild makes an installation and a module of it, ReFrame tests what the module loads.

  Tests/Scripts/installation.py TARBALL [--folder DIR]

  TARBALL         a package of scripts/package
  --folder DIR    where EasyBuild and ReFrame are installed from PyPI, each in a virtual environment (~/.cache/annulus/installation)

Times are printed, and not judged. The recipes are those of scripts/packaging. Environment modules are Debian's environment-modules; without them, or PyPI, nothing is run and the
status is 78. The last line is: N passed, N failed.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = ROOT / "scripts/packaging"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODULES = [pathlib.Path("/usr/lib/x86_64-linux-gnu/modulecmd.tcl"), pathlib.Path("/usr/share/modules/libexec/modulecmd.tcl")]


def leave(reason: str) -> None:
    print(f"left out: {reason}")
    sys.exit(78)


def tool(folder: pathlib.Path, package: str, name: str) -> pathlib.Path:
    """A program of a package of PyPI."""
    place = folder / package
    if not (place / "bin" / name).exists():
        print(f"installing {package} of PyPI into {place}", file=sys.stderr)
        for command in ([sys.executable, "-m", "venv", str(place)], [str(place / "bin/python"), "-m", "pip", "install", "--quiet", package]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                leave(f"{package} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return place / "bin" / name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tarball", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, default=CACHE / "annulus/installation")
    options = parser.parse_args()
    modules = next((path for path in MODULES if path.exists()), None)
    if modules is None:
        leave("there are no environment modules (Debian: environment-modules)")
    easybuild, reframe = tool(options.folder, "easybuild", "eb"), tool(options.folder, "reframe-hpc", "reframe")
    passed = failed = 0

    def check(is_right: bool, text: str) -> None:
        nonlocal passed, failed
        passed, failed = passed + bool(is_right), failed + (not is_right)
        print(f"{'passed' if is_right else 'FAILED'} {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="annulus-installation-") as name:
        prefix = pathlib.Path(name)
        environment = os.environ | {
            "HOME": name, "TMPDIR": name, "MODULES_CMD": str(modules), "MODULEPATH": str(prefix / "modules/all"), "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "EB_PYTHON": str(easybuild.parent / "python"),
            "PATH": os.pathsep.join([str(easybuild.parent), str(modules.parent), os.environ["PATH"]])}

        def run(command: list, **more) -> subprocess.CompletedProcess:
            return subprocess.run(
                list(map(str, command)), env=environment, cwd=name, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=1800, **more)

        (recipe,) = RECIPES.glob("annulus-*.eb")
        as_root = ["--allow-use-as-root-and-accept-consequences"] if os.geteuid() == 0 else []
        done = run([
            easybuild, recipe, "--prefix", prefix, "--sourcepath", options.tarball.resolve().parent, "--modules-tool", "EnvironmentModules",
            "--module-syntax", "Tcl", *as_root])
        check(done.returncode == 0, f"EasyBuild installs {recipe.name} {done.stdout[-2000:] if done.returncode else ''}")
        installed = prefix / "software" / recipe.stem.replace("-", "/")
        check(os.access(installed / "bin/annulus", os.X_OK), f"the command is in {installed.relative_to(prefix)}/bin")
        loaded = run(["sh", "-c", f'eval "$({modules} sh load annulus)" && command -v annulus && echo "$ANNULUS" && man -w annulus-embed'])
        places = [str(installed / place) for place in ("bin/annulus", "bin/annulus", "share/man/man1/annulus-embed.1")]
        check(loaded.stdout.splitlines() == places, f"the module has its command, its variable and its manual pages on their paths: {loaded.stdout}")

        report = prefix / "report.json"
        done = run([
            reframe, "-C", RECIPES / "reframe/one-machine.py", "-c", RECIPES / "reframe/installation.py", "--prefix", prefix / "reframe",
            "--report-file", report, "-S", "Scaling.least=0", "-r", "--performance-report"])
        print(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).strip())
        check(done.returncode == 0, "ReFrame's tests pass")
        runs = json.loads(report.read_text())["runs"][0]["testcases"] if report.exists() else []
        check(sum(test["result"] == "pass" and test["name"].startswith("SameBytes") for test in runs) == 9, "nine of them hold bytes against one rank's")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
