"""What a program needs of the system that it runs on: `python3 needs.py FILE` prints its libraries, the highest versions of their symbols,
and the distributions whose glibc has them. Reads the dynamic section by readelf."""

import re
import subprocess
import sys

# The glibc of distributions, oldest first.
DISTRIBUTIONS = [
    ((2, 28), "RHEL, Rocky, Alma 8; Debian 10"), ((2, 31), "Ubuntu 20.04; Debian 11; SLES 15 SP3"), ((2, 34), "RHEL, Rocky, Alma 9"),
    ((2, 35), "Ubuntu 22.04"), ((2, 36), "Debian 12"), ((2, 38), "SLES 15 SP6"), ((2, 39), "Ubuntu 24.04; RHEL, Rocky, Alma 10"),
    ((2, 41), "Debian 13"),
]


def read(arguments: list[str], path: str) -> str:
    return subprocess.run(["readelf", *arguments, "--wide", path], check=True, capture_output=True, text=True).stdout


def highest(text: str, name: str) -> tuple[int, ...] | None:
    found = {tuple(map(int, version.split("."))) for version in re.findall(rf"\b{name}_([0-9]+(?:\.[0-9]+)+)\b", text)}
    return max(found, default=None)


def main() -> int:
    path = sys.argv[1]
    versions = read(["--version-info"], path)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", read(["--dynamic"], path))
    print("libraries   " + " ".join(needed))
    for name in ("GLIBC", "GLIBCXX", "CXXABI"):
        if version := highest(versions, name):
            print(f"{name:<11} {'.'.join(map(str, version))}")
    glibc = highest(versions, "GLIBC") or (0,)
    print("runs on     " + "; ".join(names for version, names in DISTRIBUTIONS if version >= glibc) + ", and later ones")
    without = [names for version, names in DISTRIBUTIONS if version < glibc]
    if without:
        print("not on      " + "; ".join(without))
    return 0


if __name__ == "__main__":
    sys.exit(main())
