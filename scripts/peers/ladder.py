"""The ladder: what was reached on a processor, as a Markdown table made of the lines that `--output` has written."""

import json
import platform
import sys

# Of /proc/cpuinfo, where the name alone does not tell one generation from the next.
GENERATION = ("cpu family", "model")


def machine():
    """The processor's name, with its family and model where the system tells them."""
    try:
        with open("/proc/cpuinfo") as file:
            first = file.read().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    told = dict((part.strip() for part in line.split(":", 1)) for line in first.splitlines() if ":" in line)
    generation = ", ".join("%s %s" % (key.removeprefix("cpu "), told[key]) for key in GENERATION if key in told)
    name = told.get("model name") or platform.machine()
    return "%s (%s)" % (name, generation) if generation else name


def show(path):
    """Prints a table for each processor of a file, of the newest line of each row."""
    try:
        with open(path, encoding="utf-8") as file:
            entries = [json.loads(line) for line in file]
    except (OSError, ValueError) as reason:
        sys.exit("cannot read %s: %s" % (path, reason))
    machines = {}
    for entry in entries:
        if not entry["quick"]:
            machines.setdefault((entry["processor"], entry["cores"]), {})[entry["script"], entry["row"]] = entry
    if not machines:
        sys.exit("%s holds no measurement; those of --quick prove nothing" % path)
    print("\n\n".join(rung(name, cores, list(rows.values())) for (name, cores), rows in machines.items()))


def rung(name, cores, entries):
    days = sorted({entry["session"][:10] for entry in entries})
    peaks = {}
    for turn in [turn for entry in entries for side in entry.get("sides", []) for turn in side["turns"] if "peak_gflops" in turn]:
        # Of bfloat16 on sets with instructions of its own the peak is another.
        if turn.get("ranks") == turn.get("threads") == 1 and turn.get("dtype") == "float32":
            peaks.setdefault(turn["kernel"], []).append(turn["peak_gflops"])
    versions = {}
    for entry in entries:
        versions.update(entry.get("versions", {}))
    lines = ["## %s, %d cores, %s" % (name, cores, " to ".join(days[:1] + days[1:][-1:])), ""]
    if peaks:
        told = ["%.0f to %.0f with %s" % (min(found), max(found), kernel) for kernel, found in peaks.items()]
        lines += ["GFLOP/s of a core in float32: %s." % ", ".join(told), ""]
    if versions:
        lines += ["Peers: " + ", ".join("%s %s" % pair for pair in sorted(versions.items())) + ".", ""]
    lines += ["| row | work | figure | quartiles | target | |", "| --- | --- | --- | --- | --- | --- |"]
    for entry in entries:
        verdict = entry["verdict"] if entry["figure"] is not None else "%s: %s" % (entry["verdict"], entry["how"])
        cells = ["`%s`" % entry["row"], entry["work"], entry["shown"], entry["shown_quartiles"], entry["shown_target"], verdict]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
