#!/usr/bin/env python3
"""Mutation test of masks, tiles, layouts, merge and plan: makes small changes at random and sees whether the tests notice.

    scripts/checks/mutate.py [--gradients] [--count N] [--seed S] [--sources FILE,…] [--only NUMBER,…] [--keep FOLDER] [--launcher COMMAND]

    --gradients         of what makes gradients and trains, instead
    --count N           how many changes (240)
    --seed S            which ones (1)
    --sources FILE,…    change these only, of the sources that are changed otherwise: 'Sources/Attention/*Operation.swift'
    --only NUMBER,…     run these only, by the numbers that a run prints; the others are made all the same
    --keep FOLDER       work in this folder, and leave it: a run that is interrupted goes on there where it was
    --launcher COMMAND  what starts the build and the tests, such as 'taskset -c 1'

The changes are made in a copy of the sources outside the tree; the product knows nothing of them. All are compiled at
once ("mutant schemata", Untch, Offutt & Harrold 1993): an operator, a literal, a bound, a call of min or a statement
becomes a function of both forms, and the environment of the test run says which one is to differ. So there is one build,
and a mutant costs one run of the tests. Places where the changed form does not compile are dropped and counted.

A mutant is noticed when a test fails, crashes or hangs. It meets the quick tests first; what survives them meets the whole
of TilesTests, AttentionTests, PlansTests, RingAttentionTests and TransformersTests. Prints a line a mutant, totals by file, and
each survivor with its line before and after and the judgement that Tests/Mutants/survivors.txt gives of it; what is judged
there is not run a third time. With --gradients the suites are RingAttentionTests, TransformersTests and TrainingTests. Exits with 1
when fewer than 90% are noticed. Preconditions are left alone: no test meets one.
"""
import argparse, functools, hashlib, json, os, random, re, resource, shlex, shutil, signal, subprocess, sys, tempfile, threading, time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = [
    "Sources/Tiles/*.swift", "Sources/Attention/Mask*.swift", "Sources/Attention/TileMask.swift",
    "Sources/Attention/DocumentMask.swift", "Sources/Attention/Shapes.swift", "Sources/Attention/PartialAttention.swift",
    "Sources/Attention/TileScores.swift", "Sources/Attention/*Operation.swift", "Sources/Attention/PackedTile.swift", "Sources/Plans/*.swift",
    "Sources/RingAttention/DifferentiableAttention.swift", "Sources/RingAttention/TileSum.swift",
    "Sources/Transformers/AttentionObservation.swift",
]
SUITES = ["TilesTests", "AttentionTests", "PlansTests", "RingAttentionTests", "TransformersTests"]
# (tests that run, cases of each generated part): quick ones first, in the end all there is.
STAGES = [
    ("TilesTests|PlansTests|MaskTests", 3),
    ("GeneratedCaseTests|DifferentiateTests|ObserveTests|ObservationTests|MaskGoldenTests|GradientGoldenTests|aNotANumber|aRowWithout|thousandsOf|aSequenceHas|bfloat16AtAny|everyKernelSet", 10),
    ("|".join(SUITES), None),
]

# The same with --gradients.
GRADIENT_SUBJECTS = [
    "Sources/Attention/DifferentiateOperation.swift", "Sources/Attention/WeightDropout.swift",
    "Sources/RingAttention/DifferentiableAttention.swift", "Sources/Transformers/*Backward.swift", "Sources/Transformers/Dropout.swift",
    "Sources/Transformers/Gradients.swift", "Sources/Transformers/TileSums.swift", "Sources/Transformers/MergeOrder.swift",
    "Sources/Training/*/*.swift",
]
GRADIENT_SUITES = ["RingAttentionTests", "TransformersTests", "TrainingTests"]
GRADIENT_STAGES = [
    ("TrainingTests|DropoutGradientTests|HeadGradientTests|VectorGradientTests|DifferentiateTests|WeightDropoutTests|GradientGoldenTests", 4),
    ("TrainingTests|GradientTests|GradientOptionTests|DifferentiateTests|WeightDropoutTests|GradientErrorTests", None),
]


# ---- Where changes can be made ----

class Site:
    """One change: the text [start, end) of a line, what the copy has there, and what the change amounts to."""

    def __init__(self, path, line, start, end, copy, changed, support=""):
        self.path, self.line, self.start, self.end = path, line, start, end
        self.copy, self.changed, self.support = copy, changed, support  # `copy`, `support`: functions of the number


def sign(number):
    """An operator of its own for each number, of two mathematical signs."""
    return chr(0x2200 + number // 200) + chr(0x2200 + number % 200)


ARITHMETIC = {
    # sign: (precedence group, signs that it may become)
    "+": ("Addition", ["-"]), "-": ("Addition", ["+"]), "*": ("Multiplication", ["+"]), "/": ("Multiplication", ["*"]),
    "%": ("Multiplication", ["/"]), "&": ("Multiplication", ["|"]), "|": ("Addition", ["&"]), "^": ("Addition", ["|"]),
    "<<": ("BitwiseShift", [">>"]), ">>": ("BitwiseShift", ["<<"]),
}
COMPARISON = {
    "<": ["<=", ">", "!="], "<=": ["<", ">=", "=="], ">": [">=", "<", "!="], ">=": [">", "<=", "=="], "==": ["!="], "!=": ["=="],
}


def infix(before, after, number):
    """The Swift of an operator that is `before`, or `after` where its number is asked for."""
    name, on = sign(number), f"isMutant({number})"

    def function(generics, left, right, result, one=None, other=None, where=""):
        return (f"@inline(__always) func {name}{generics}(a: {left}, b: {right}) -> {result}{where} "
                f"{{ {on} ? {other or f'a {after} b'} : {one or f'a {before} b'} }}")

    lines = []
    if before in COMPARISON:
        group = "Comparison"
        kind = "Equatable" if {before, after} <= {"==", "!="} else "Comparable"
        lines.append(function(f"<T: {kind}>", "T", "T", "Bool"))
    elif before in ("&&", "||"):
        group = "LogicalConjunction" if before == "&&" else "LogicalDisjunction"
        lines.append(f"@inline(__always) func {name}(a: Bool, b: @autoclosure () throws -> Bool) rethrows -> Bool "
                     f"{{ {on} ? try a {after} b() : try a {before} b() }}")
    elif before in ("..<", "..."):
        group = "RangeFormation"
        result = "Range" if before == "..<" else "ClosedRange"
        lines.append(function("", "Int", "Int", f"{result}<Int>", f"a{before}b", after))
    else:
        group = ARITHMETIC[before][0]
        if before in ("<<", ">>"):
            lines.append(function("<T: BinaryInteger, U: BinaryInteger>", "T", "U", "T"))
        elif before in ("&", "|", "^"):
            lines.append(function("<T: BinaryInteger>", "T", "T", "T"))
            lines.append(function("<T: SIMD>", "T", "T", "T", where=" where T.Scalar: FixedWidthInteger"))
        else:
            lines.append(function("<T: BinaryInteger>", "T", "T", "T"))
            if before != "%":
                lines.append(function("<T: BinaryFloatingPoint>", "T", "T", "T"))
            if before in "+-":
                for pointer in ("UnsafeMutablePointer", "UnsafePointer"):
                    lines.append(function("<P>", f"{pointer}<P>", "Int", f"{pointer}<P>"))
    return f"infix operator {name} : {group}Precedence\n" + "\n".join(lines)


def assignment(before, after, number):
    name = sign(number)
    return f"infix operator {name} : AssignmentPrecedence\n" + "\n".join(
        f"@inline(__always) func {name}<T: {kind}>(a: inout T, b: T) {{ if isMutant({number}) {{ a {after} b }} else {{ a {before} b }} }}"
        for kind in (("Numeric",) if before in ("+=", "-=") else ("BinaryInteger",)))


def blanked(text):
    """The text with comments and strings blanked out, so that places are those of the original."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def sites(path, choose):
    """All places of a file where something can be changed, with one change for each."""
    result = []
    for index, code in enumerate(blanked(path.read_text()).split("\n")):
        if re.search(r"\b(import|func [^\w\s]|precondition|preconditionFailure|typealias|case let)\b", code) or "func <" in code:
            continue

        def add(start, end, copy, changed, support=lambda number: ""):
            result.append(Site(path, index, start, end, copy, changed, support))

        for found in re.finditer(r"(?<= )(<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^<>])(?= )", code):
            before = found.group()
            if before in COMPARISON:
                after = choose(COMPARISON[before])
            elif before in ("&&", "||"):
                after = "||" if before == "&&" else "&&"
            else:
                after = choose(ARITHMETIC[before][1])
            add(*found.span(), sign, after, lambda number, b=before, a=after: infix(b, a, number))
        for found in re.finditer(r"(?<=[\w)\]])(\.\.[.<])(?=[\w($-])", code):
            before = found.group()
            if before == "..<":
                form, text = choose([("a..<max(a, b - 1)", "..<-1+"), ("a..<b + 1", "..<1+"), ("min(a + 1, b)..<b", "+1..<")])
            else:
                form, text = choose([("a...max(a, b - 1)", "...-1+"), ("min(a + 1, b)...b", "+1...")])
            add(*found.span(), sign, text, lambda number, b=before, f=form: infix(b, f, number))
        for found in re.finditer(r"(?<= )(\+=|-=|&=|\|=)(?= )", code):
            before = found.group()
            after = {"+=": "-=", "-=": "+=", "&=": "|=", "|=": "&="}[before]
            add(*found.span(), sign, after, lambda number, b=before, a=after: assignment(b, a, number))
        for found in re.finditer(r"(?<![\w.)\]])!(?=[\w(])", code):
            add(*found.span(), lambda number: sign(number), "",
                lambda number: f"prefix operator {sign(number)}\n@inline(__always) prefix func {sign(number)}(a: Bool) -> Bool "
                f"{{ isMutant({number}) ? a : !a }}")
        for found in re.finditer(r"\b(true|false)\b", code):
            value = found.group()
            add(*found.span(), lambda number, v=value: f"mutated({number}, {v})", "false" if value == "true" else "true")
        if not re.match(r"\s*case\b", code):
            for found in re.finditer(r"(?<![\w.$])(\d+)(?![\w.])", code):
                value = int(found.group())
                other = value + choose([1, -1]) if value > 0 else 1
                add(*found.span(), lambda number, v=value, o=other: f"mutated({number}, {v}, {o})", str(other))
        for found in re.finditer(r"(?<![\w.])(min|max)\(", code):
            other = "max" if found.group(1) == "min" else "min"
            add(*found.span(), lambda number, v=found.group(1): f"mutated_{v}({number}, ", other + "(")
        for found in re.finditer(r"\.(lowerBound|upperBound)\b", code):
            other = "upperBound" if found.group(1) == "lowerBound" else "lowerBound"
            add(*found.span(), lambda number, v=found.group(1): f".mutated_{v}({number})", "." + other)
        for found in re.finditer(r"\.(isEmpty)\b", code):
            add(*found.span(), lambda number: f".mutated_isEmpty({number})", ".isEmpty == false")
        # A statement left out: an assignment or a call that fills its line.
        found = re.fullmatch(r"(\s*)([a-z]\w*(?:\[[^\]]*\]|\.\w+)*(?: (?:[-+|&]?=) .+|\(.*\)))\s*", code)
        balanced = all(code.count(a) == code.count(b) for a, b in ("()", "[]", "{}"))
        if found and balanced and not re.match(r"(self|return|let|var|if|guard|while|for|switch|try|func|init|case)\b", found.group(2)):
            add(*found.span(2), lambda number: (f"if !isMutant({number}) {{ ", " }"), "")
    return result


SUPPORT = """
import CMutant

@inline(__always) func isMutant(_ number: Int32) -> Bool { annulus_mutant() == number }
@inline(__always) func mutated(_ number: Int32, _ value: Bool) -> Bool { isMutant(number) ? !value : value }
@inline(__always) func mutated<T: Numeric>(_ number: Int32, _ value: T, _ other: T) -> T { isMutant(number) ? other : value }
@inline(__always) func mutated_min<T: Comparable>(_ number: Int32, _ a: T, _ b: T) -> T { isMutant(number) ? max(a, b) : min(a, b) }
@inline(__always) func mutated_max<T: Comparable>(_ number: Int32, _ a: T, _ b: T) -> T { isMutant(number) ? min(a, b) : max(a, b) }
extension Range {
    @inline(__always) func mutated_lowerBound(_ number: Int32) -> Bound { isMutant(number) ? upperBound : lowerBound }
    @inline(__always) func mutated_upperBound(_ number: Int32) -> Bound { isMutant(number) ? lowerBound : upperBound }
}
extension Collection {
    @inline(__always) func mutated_isEmpty(_ number: Int32) -> Bool { isMutant(number) ? !isEmpty : isEmpty }
}
"""
RUNS_SUPPORT = """
extension Runs {
    @inline(__always) func mutated_isEmpty(_ number: Int32) -> Bool { isMutant(number) ? !isEmpty : isEmpty }
}
"""


# ---- The copy ----

@functools.cache
def targets():
    """The package's targets by their names."""
    dump = json.loads(subprocess.run(
        ["swift", "package", "dump-package"], cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    return {target["name"]: target for target in dump["targets"]}


def needed(names):
    """Some targets and all that they need, the needed ones first."""
    wanted = []

    def want(name):
        if name in targets() and name not in wanted:
            for dependency in targets()[name]["dependencies"]:
                want(next(iter(dependency.values()))[0])
            wanted.append(name)

    for name in names:
        want(name)
    return wanted


def manifest():
    """The package cut down to the test suites that run and what they need, and every Swift target of ours given the switch."""
    switched = {Path(subject).parts[1] for subject in SUBJECTS}
    lines = []
    for name in needed(SUITES):
        target = targets()[name]
        if target["type"] == "system":
            lines.append(f'.systemLibrary(name: "{name}", pkgConfig: "{target["pkgConfig"]}")')
            continue
        needs = [next(iter(dependency.values()))[0] for dependency in target["dependencies"]]
        if name in switched:
            needs.append("CMutant")
        arguments = [f'name: "{name}"', f"dependencies: {json.dumps(needs)}"]
        if target.get("path"):
            arguments.append(f'path: "{target["path"]}"')
        if target["exclude"]:
            arguments.append(f"exclude: {json.dumps(target['exclude'])}")
        kind = "testTarget" if target["type"] == "test" else "target"
        lines.append(f".{kind}({', '.join(arguments)})")
    lines.append('.target(name: "CMutant")')
    return (f"// swift-tools-version: 6.0\nimport PackageDescription\nlet package = Package(name: \"annulus\", "
            f"platforms: [.macOS(.v15)], targets: [\n" + ",\n".join(lines) + "],\nswiftLanguageModes: [.v6])\n")


def write_if_new(path, text):
    """Leaves a file alone that has the text already, so that the build does too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def write_copy(folder, chosen):
    """The sources with the chosen sites switched by their numbers."""
    by_file = {}
    for number, site in chosen.items():
        by_file.setdefault(site.path, []).append((number, site))
    modules = {}
    for path in sorted({path for subject in SUBJECTS for path in ROOT.glob(subject)}):
        lines = path.read_text().split("\n")
        edits = []  # (line, place, order, removed length, inserted)
        for number, site in by_file.get(path, []):
            copy = site.copy(number)
            modules.setdefault(path.relative_to(ROOT).parts[1], []).append(site.support(number))
            if isinstance(copy, tuple):
                edits += [(site.line, site.start, 1, 0, copy[0]), (site.line, site.end, 0, 0, copy[1])]
            else:
                edits.append((site.line, site.start, 2, site.end - site.start, copy))
        # From the end of the file to its start, so that places stay right.
        for line, start, _, length, text in sorted(edits, key=lambda edit: edit[:3], reverse=True):
            lines[line] = lines[line][:start] + text + lines[line][start + length:]
        text = "\n".join(lines)
        # What is inlined into other modules could not see the switch.
        write_if_new(folder / path.relative_to(ROOT), re.sub(r"@(inlinable|usableFromInline) ", "", text))
    for module in {Path(subject).parts[1] for subject in SUBJECTS}:
        extra = RUNS_SUPPORT if module == "Tiles" else "import Tiles\n" + RUNS_SUPPORT
        write_if_new(folder / "Sources" / module / "Mutants.swift", SUPPORT + extra + "\n".join(modules.get(module, [])) + "\n")


def prepare(folder):
    for name in ("Sources", "Tests"):
        for path in (ROOT / name).rglob("*"):
            relative = path.relative_to(ROOT)
            if path.is_file() and not any(relative.match(subject) for subject in SUBJECTS):
                target = folder / relative
                if not target.exists() or target.read_bytes() != path.read_bytes():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
    write_if_new(folder / "Package.swift", manifest())
    switch = folder / "Sources" / "CMutant"
    write_if_new(switch / "include" / "mutant.h",
                 "extern int annulus_mutant_number;\nstatic inline int annulus_mutant(void) { return annulus_mutant_number; }\n")
    write_if_new(switch / "mutant.c", """#include "mutant.h"
#include <stdlib.h>
int annulus_mutant_number = -1;
__attribute__((constructor)) static void read_number(void) {
    const char *text = getenv("ANNULUS_MUTANT");
    if (text) { annulus_mutant_number = atoi(text); }
}
""")


def build(folder, chosen, launcher):
    """Builds the copy, dropping sites that do not compile; returns how many."""
    dropped = 0
    while True:
        write_copy(folder, chosen)
        run = subprocess.run(
            launcher + ["swift", "build", "-c", "release", "--build-tests"], cwd=folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        if run.returncode == 0:
            return dropped
        faults = set()
        for file, line in re.findall(r"^(/\S+?\.swift):(\d+):\d+: error:", run.stdout, re.M):
            relative = Path(os.path.realpath(file)).relative_to(os.path.realpath(folder))
            faults.add((ROOT / relative, int(line) - 1))
        # An error may stand some lines away from the change that makes it, in a long expression. Of every error the nearest are
        # dropped, so that few builds find all; where there is none near any, the whole neighbourhood is.
        def near(fault, reach):
            return [number for number, site in chosen.items() if site.path == fault[0] and abs(site.line - fault[1]) <= reach]

        for reaches in (range(8), [100]):
            guilty = {number for fault in faults for number in next(filter(None, (near(fault, reach) for reach in reaches)), [])}
            if guilty:
                break
        else:
            print(run.stdout[-6000:], file=sys.stderr)
            sys.exit("the copy does not build")
        for number in guilty:
            del chosen[number]
        dropped += len(guilty)
        print(f"{len(guilty)} changes do not compile", file=sys.stderr, flush=True)


# ---- The runs ----

def run_tests(binary, folder, number, stage, seconds, launcher):
    """Why a mutant is noticed by a stage of the tests, None where it is not; and the processor time it took.

    The limit is one of processor time, so that a busy machine makes no mutant hang; a mutant that waits for ever meets a
    generous limit of the clock."""
    filter, cases = stage
    environment = {**os.environ, "ANNULUS_MUTANT": str(number), "SWIFT_BACKTRACE": "enable=no"}
    environment.pop("ANNULUS_TEST_SEED", None)
    if cases is not None:
        environment["ANNULUS_TEST_CASES"] = str(cases)

    def limit():
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        # A change may make a loop that allocates for ever.
        resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    process = subprocess.Popen(
        launcher + [str(binary), "--testing-library", "swift-testing", "--filter", filter], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limit)

    def stop():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    waited = []
    timer = threading.Timer(300 + 2 * seconds, lambda: (waited.append(True), stop()))
    timer.start()
    reason, passed = None, False
    try:
        for line in process.stdout:
            if b"\xe2\x9c\x98" in line:  # ✘
                found = re.search(rb"Test (?:case passing .* to )?(\"?[\w ]+)", line)
                reason = "failed " + (found.group(1).decode() if found else "")
                break
            passed = passed or (b"Test run with" in line and b"passed" in line)
    finally:
        timer.cancel()
        if reason or not passed:
            stop()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    took = usage.ru_utime + usage.ru_stime
    if reason is None and (waited or took > seconds - 1):
        reason = "hung"
    elif reason is None and not (passed and process.returncode == 0):
        reason = f"crashed ({process.returncode})"
    return reason, took


def judgements():
    """The judgement of each known survivor, by file, line before and line after."""
    path = ROOT / "Tests" / "Mutants" / "survivors.txt"
    result = {}
    if path.exists():
        for entry in re.split(r"\n\s*\n", path.read_text()):
            lines = [line for line in entry.split("\n") if line and not line.startswith("#")]
            if len(lines) >= 4:
                result[lines[0].strip(), lines[1].strip(), lines[2].strip()] = " ".join(line.strip() for line in lines[3:])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sources", default="", type=lambda text: {path for file in text.split(",") if file for path in ROOT.glob(file)})
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--launcher", default="")
    options = parser.parse_args()
    if options.gradients:
        SUBJECTS[:], SUITES[:], STAGES[:] = GRADIENT_SUBJECTS, GRADIENT_SUITES, GRADIENT_STAGES
    launcher = shlex.split(options.launcher)
    generator = random.Random(options.seed)
    everything = []
    for path in sorted({path for subject in SUBJECTS for path in ROOT.glob(subject)}):
        if not options.sources or path in options.sources:
            everything += sites(path, generator.choice)
    generator.shuffle(everything)
    # Some more than asked for, since some will not compile.
    chosen = dict(enumerate(everything[:options.count * 5 // 4], start=1))
    folder = options.keep.absolute() if options.keep else Path(tempfile.mkdtemp(prefix="annulus-mutants-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
        wanted = len(chosen)
        note = Note(folder / "note.json", [options.count, options.seed, options.gradients, sorted(map(str, options.sources))])
        if not note["built"]:
            print(f"{len(everything)} places; building {wanted} changes", file=sys.stderr, flush=True)
            build(folder, chosen, launcher)
            note["built"] = sorted(chosen)
        chosen = {number: chosen[number] for number in note["built"]}
        dropped = wanted - len(chosen)
        chosen = dict(list(chosen.items())[:options.count])
        if options.only:
            chosen = {int(number): chosen[int(number)] for number in options.only.split(",")}
        report(folder, note, chosen, dropped, launcher, options)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


class Note:
    """What a folder knows of its own run, as long as the sources, the tests and this script are the same."""

    def __init__(self, path, options):
        digest = hashlib.sha256(json.dumps(options).encode())
        for folder in ("Sources", "Tests", "scripts/checks/mutate.py"):
            for file in sorted((ROOT / folder).rglob("*")) or [ROOT / folder]:
                if file.is_file() and "Mutants" not in file.parts:
                    digest.update(file.read_bytes())
        self.path, self.values = path, {"state": digest.hexdigest(), "built": [], "limits": [], "results": {}}
        if path.exists() and json.loads(path.read_text())["state"] == self.values["state"]:
            self.values = json.loads(path.read_text())

    def __getitem__(self, key):
        return self.values[key]

    def __setitem__(self, key, value):
        self.values[key] = value
        self.path.write_text(json.dumps(self.values))


def report(folder, note, chosen, dropped, launcher, options):
    binaries = subprocess.run(
        ["swift", "build", "-c", "release", "--show-bin-path"], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    binary = Path(binaries.strip()) / "annulusPackageTests.xctest"
    for stage in STAGES[len(note["limits"]):]:
        reason, took = run_tests(binary, folder, 0, stage, 3600, launcher)
        if reason:
            sys.exit(f"the tests do not pass without a change: {reason}")
        note["limits"] = note["limits"] + [20 + 4 * took]
        print(f"without a change: {took:.1f} s of processor time for {stage[0]}", file=sys.stderr, flush=True)
    known = judgements()
    noticed, survivors, reasons = Counter(), [], Counter()
    totals = Counter(site.path for site in chosen.values())
    modules = {site.path.relative_to(ROOT).parts[1] for site in chosen.values()}
    reaching = {module: [suite for suite in SUITES if module in needed([suite])] for module in modules}
    for number, site in chosen.items():
        before = site.path.read_text().split("\n")[site.line]
        after = before[:site.start] + site.changed + before[site.end:]
        name = site.path.relative_to(ROOT)
        is_judged = (str(name), before.strip(), after.strip()) in known
        if str(number) not in note["results"]:
            reason, level, seconds = None, 0, 0.0
            for level, (stage, most) in enumerate(zip(STAGES, note["limits"]), start=1):
                if level == len(STAGES) and is_judged:
                    break
                # A suite that is built without the module cannot notice.
                of_these = f"^(?=({'|'.join(reaching[name.parts[1]])})\\.).*?({stage[0]})", stage[1]
                reason, took = run_tests(binary, folder, number, of_these, most, launcher)
                seconds += took
                if reason:
                    break
            note["results"] = {**note["results"], str(number): reason}
            print(f"{number:4} {name}:{site.line + 1}: {before[site.start:site.end].strip()} → {site.changed or 'nothing'}: "
                  f"{f'{reason}, stage {level}' if reason else 'SURVIVED'} ({seconds:.1f} s)", flush=True)
        reason = note["results"][str(number)]
        if reason:
            noticed[site.path] += 1
            reasons[reason.split()[0]] += 1
        else:
            survivors.append((number, name, site.line + 1, before.strip(), after.strip()))
    print(f"\n{'file':44} changes noticed survived")
    for path in sorted(totals):
        print(f"{str(path.relative_to(ROOT)):44} {totals[path]:7} {noticed[path]:7} {totals[path] - noticed[path]:8}")
    total, all_noticed = sum(totals.values()), sum(noticed.values())
    for number, name, line, before, after in survivors:
        print(f"\n{number}: {name}:{line}\n  before  {before}\n  after   {after}\n"
              f"  {known.get((str(name), before, after), 'not judged')}")
    share = all_noticed / total if total else 0
    print(f"\nseed {options.seed}: {total} changes, {all_noticed} noticed ({100 * share:.1f}%), {len(survivors)} survived, "
          f"{dropped} did not compile; noticed by " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
    if share < 0.9:
        sys.exit(1)


if __name__ == "__main__":
    main()
