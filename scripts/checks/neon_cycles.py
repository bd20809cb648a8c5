"""Static analysis of the NEON kernels: their hot loops, and recorded strips of work, through llvm-mca. Run by neon-cycles."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CORES = ["neoverse-n1", "neoverse-n2", "neoverse-v1", "neoverse-v2"]
# What swift build passes in release mode.
FLAGS = ["--target=aarch64-linux-gnu", "-O2"]
# The hot loop of a function is the innermost one with the most multiply-adds.
LOOPS = [
    ("panel_product", "products of float32: attention's K and V, dense layers"),
    ("widened_product", "products of bfloat16, widened"),
    ("softmax_rows", "exponentials of float32, 64 scores"),
]
ROWS, KEYS, COLUMNS = 24, 256, 64
WORK = [(name, depth) for name in ("attention", "bfloat16-attention") for depth in (32, 64, 128)]
WORK += [("dense", 384), ("bfloat16-dense", 384)]

clang, mca, emulator, kernels, work = sys.argv[1:]
work = Path(work)


def run(*command):
    """What a command prints; its failure ends this one."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def is_multiply_add(instruction):
    return re.match(r"fmla|fmls|fmadd", instruction) is not None


def cycles(instructions, core, iterations):
    """The cycles that the model takes for so many rounds of the instructions."""
    text = subprocess.run(
        [mca, "-mtriple=aarch64", f"-mcpu={core}", f"-iterations={iterations}", "-instruction-info=0", "-resource-pressure=0"],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, input="\n".join(instructions) + "\n").stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", text).group(1))


def steady(instructions, core):
    """Cycles of a round, once the first ones are through."""
    return (cycles(instructions, core, 300) - cycles(instructions, core, 100)) / 200


def innermost_loops(assembly, function):
    """The instructions of each innermost loop of a function."""
    lines = re.search(rf"^{function}:(.*?)^\.Lfunc_end", assembly, re.S | re.M).group(1).split("\n")
    label_at, spans = {}, []
    for i, line in enumerate(lines):
        if label := re.match(r"(\.LBB\w+):", line):
            label_at[label.group(1)] = i
        branch = re.match(r"\s+(?:b|b\.\w+|cbn?z|tbn?z)\s.*?(\.LBB\w+)", line)
        if branch and branch.group(1) in label_at:
            spans.append((label_at[branch.group(1)], i))
    for first, last in spans:
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in spans):
            yield [line.split("//")[0].strip() for line in lines[first + 1 : last + 1] if re.match(r"\s+[a-z]", line)]


def without_targets(instruction):
    """An instruction of a disassembly as llvm-mca takes it: addresses of code mean nothing to it."""
    instruction = re.sub(r"\s*(<.*|//.*)$", "", instruction)
    if re.match(r"b(\.\w+)?\s|cbn?z\s|tbn?z\s|adrp?\s", instruction):
        instruction = re.sub(r"(?:0x)?[0-9a-f]+$", "#0" if instruction.startswith("adr") else "#8", instruction)
    return instruction


def record(program, name, depth):
    """Every instruction of the kernels that one strip of work executes, in order."""
    symbols = run("aarch64-linux-gnu-nm", "-S", program).splitlines()
    own = {line.split()[-1] for line in run("aarch64-linux-gnu-nm", work / "neon.o").splitlines() if " t " in line}
    places = [line.split() for line in symbols]
    places = [(int(p[0], 16), int(p[1], 16)) for p in places if len(p) == 4 and p[2] == "t" and p[3] in own]
    first, end = min(a for a, _ in places), max(a + size for a, size in places)
    instructions = {}
    for line in run("aarch64-linux-gnu-objdump", "-d", f"--start-address={first}", f"--stop-address={end}", program).splitlines():
        if match := re.match(r"\s*([0-9a-f]+):\t[0-9a-f]{8} \t(.*)", line):
            instructions[int(match.group(1), 16)] = without_targets(match.group(2).replace("\t", " "))
    one_by_one = "-one-insn-per-tb" if "one-insn-per-tb" in run(emulator, "--help") else "-singlestep"
    log = work / "log"
    run(emulator, one_by_one, "-d", "exec,nochain", "-dfilter", f"{first:#x}..{end - 1:#x}", "-D", log, program, name, depth)
    with open(log) as lines:
        addresses = (re.match(r"Trace .*?\[[0-9a-f]+/([0-9a-f]+)/", line) for line in lines)
        executed = [instructions[int(match.group(1), 16)] for match in addresses if match]
    log.unlink()
    # The model cannot follow a call and guesses 100 cycles for it.
    return [instruction for instruction in executed if not re.match(r"bl |blr |ret", instruction)]


run(clang, *FLAGS, f"-I{kernels}/include", "-S", f"{kernels}/neon.c", "-o", work / "neon.s")
run(clang, *FLAGS, f"-I{kernels}/include", "-c", f"{kernels}/neon.c", "-o", work / "neon.o")
run(clang, *FLAGS, f"-I{kernels}/include", "-c", "Tests/NEON/work.c", "-o", work / "work.o")
run("aarch64-linux-gnu-gcc", "-static", work / "work.o", work / "neon.o", "-lm", "-o", work / "work")
assembly = (work / "neon.s").read_text()
version = re.search(r"version (\S+)", run(mca, "--version")).group(1)
print(f"by llvm-mca {version}, loads from the first-level cache, branches predicted; code of {run(clang, '--version').splitlines()[0]}")

# A multiply-add's share of a cycle, where nothing else is to be done.
independent = [f"fmla v{i}.4s, v30.4s, v31.4s" for i in range(24)]
share_of_cycle = {core: steady(independent, core) / len(independent) for core in CORES}
print("multiply-adds (of 4 floats) a cycle: " + ", ".join(f"{core} {1 / share_of_cycle[core]:.2f}" for core in CORES))

print("\nhot loops: cycles of an iteration, those that its multiply-adds need, and their share")
for function, meaning in LOOPS:
    if f"\n{function}:" not in assembly:
        print(f"  {function}: not there")
        continue
    loop = max(innermost_loops(assembly, function), key=lambda body: sum(map(is_multiply_add, body)))
    count = sum(map(is_multiply_add, loop))
    on_stack = sum(bool(re.search(r"\[sp\b", line)) for line in loop)
    print(f"  {function}: {meaning}; {len(loop)} instructions, {count} multiply-adds, {on_stack} on the stack")
    for core in CORES:
        all_of_it, needed = steady(loop, core), count * share_of_cycle[core]
        print(f"    {core:12} {all_of_it:7.1f} {needed:7.1f}   {needed / all_of_it:.2f}")

print(f"\n{ROWS} rows (attention: one tile of {KEYS} keys; dense: {COLUMNS} columns): multiply-adds among instructions,")
print("and the share of the peak: the cycles that the multiply-adds of the products need, of all")
print(f"  {'work':20} {'depth':>5} {'instructions':>12} {'multiply-adds':>13}  " + "  ".join(f"{core:>11}" for core in CORES))
for name, depth in WORK:
    executed = record(work / "work", name, depth)
    among = sum(map(is_multiply_add, executed)) / len(executed)
    of_products = ROWS * (2 * KEYS if "attention" in name else COLUMNS) * depth / 4
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(lambda core: cycles(executed, core, 1), CORES))
    shares = [of_products * share_of_cycle[core] / all_of_it for core, all_of_it in zip(CORES, taken)]
    print(f"  {name:20} {depth:5} {len(executed):12} {among:13.2f}  " + "  ".join(f"{share:11.2f}" for share in shares), flush=True)
