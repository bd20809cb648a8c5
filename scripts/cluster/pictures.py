"""Draws what scripts/scaling has measured: speed-up, efficiency, memory and time, as SVG and PNG. Takes the points as JSON on standard
input and the prefix of the files' names as its argument; needs matplotlib."""

import json
import math
import sys
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import matplotlib.ticker

# Okabe & Ito's colours, which most eyes tell apart; lines are told apart by their marks too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKS = "osD^vPX"
LANES = {"dense": ("dense layers", "#0072B2"), "compute": ("attention", "#009E73"), "merge": ("merging", "#E69F00"), "wait": ("waiting", "#D55E00")}


def series(tables: list[dict]) -> list[tuple[str, list[dict]]]:
    """A line of each picture: the points of one table and length over rank counts."""
    shared = common([table["title"].partition(": ")[2].split(", ") for table in tables if table["points"]])
    found = []
    for table in tables:
        words = [word for word in table["title"].partition(": ")[2].split(", ") if word not in shared]
        for length in sorted({point["length"] for point in table["points"]}):
            label = ", ".join([f"{length:,} tokens", *words])
            found.append((label, [point for point in table["points"] if point["length"] == length]))
    return found


def common(lists: list[list[str]]) -> list[str]:
    return [word for word in lists[0] if all(word in words for words in lists)] if lists else []


def axes(title: str, label: str, ranks: list[int]):
    figure, axis = plt.subplots(figsize=(7, 4.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    axis.set_xlabel("ranks")
    axis.set_ylabel(label)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ranks, [str(count) for count in ranks])
    axis.minorticks_off()
    axis.grid(True, color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def save(figure, name: str) -> None:
    for suffix in ("svg", "png"):
        # No date: the same points give the same file.
        figure.savefig(f"{name}.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else None)
        print(f"{name}.{suffix}", file=sys.stderr)
    plt.close(figure)


def main() -> int:
    prefix, tables = sys.argv[1], json.load(sys.stdin)
    matplotlib.rcParams["svg.hashsalt"] = "annulus"
    lines = series(tables)
    if not lines:
        print("nothing to draw", file=sys.stderr)
        return 1
    subject = textwrap.fill(", ".join(common([table["title"].partition(": ")[2].split(", ") for table in tables if table["points"]])), 96)
    ranks = sorted({point["ranks"] for _, points in lines for point in points})

    def curves(axis, value, predicted=None) -> None:
        for place, (label, points) in enumerate(lines):
            colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
            axis.plot([point["ranks"] for point in points], [value(point) for point in points], mark + "-", color=colour, label=label, markersize=5)
            if predicted:
                guesses = [(point["ranks"], predicted(point, points)) for point in points]
                guesses = [(count, guess) for count, guess in guesses if math.isfinite(guess)]
                axis.plot(*zip(*guesses) if guesses else ([], []), "--", color=colour, linewidth=1)

    def speed_up(point: dict, points: list[dict]) -> float:
        """By predictions alone, of work as it is."""
        base = next((one for one in points if one["ranks"] == 1), None)
        if base is None or not math.isfinite(base["predicted"]) or not math.isfinite(point["predicted"]):
            return math.nan
        return point["gflop"] / point["predicted"] / (base["gflop"] / base["predicted"])

    figure, axis = axes(f"Speed-up over one rank; dashed: predicted\n{subject}", "speed-up", ranks)
    axis.set_yscale("log", base=2)
    axis.plot(ranks, ranks, color="#999999", linewidth=0.8, label="perfect")
    curves(axis, lambda point: point["speed_up"], speed_up)
    axis.set_yticks(ranks, [str(count) for count in ranks])
    axis.minorticks_off()
    axis.legend(fontsize=8, frameon=False)
    save(figure, f"{prefix}-speed-up")

    figure, axis = axes(f"Efficiency: speed-up over ranks; dashed: predicted\n{subject}", "efficiency", ranks)
    axis.axhline(1, color="#999999", linewidth=0.8)
    curves(axis, lambda point: point["speed_up"] / point["ranks"], lambda point, points: speed_up(point, points) / point["ranks"])
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    axis.legend(fontsize=8, frameon=False)
    save(figure, f"{prefix}-efficiency")

    figure, axis = axes(f"Peak memory of the largest rank, what ranks share included\n{subject}", "MiB", ranks)
    curves(axis, lambda point: point["memory"] / 2**20)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, frameon=False)
    save(figure, f"{prefix}-memory")

    # Bars that add up to a repetition: of each, the shares in the mean of its ranks.
    figure, axis = plt.subplots(figsize=(7, 1.4 + 0.34 * sum(len(points) for _, points in lines)), layout="constrained")
    figure.suptitle(f"Where the time goes, in the mean of the ranks; |: predicted time over measured\n{subject}", x=0.01, ha="left", fontsize=9)
    bars = [
        (f"{label}, {point['ranks']} rank{'s' if point['ranks'] > 1 else ''}, {point['seconds']:.3g} s", point)
        for label, points in lines for point in points]
    left = [0.0] * len(bars)
    for lane, (name, colour) in LANES.items():
        widths = [point["lanes"][lane] / point["seconds"] if math.isfinite(point["lanes"][lane]) else 0.0 for _, point in bars]
        if any(widths):
            axis.barh(range(len(bars)), widths, left=left, color=colour, label=name)
        left = [one + width for one, width in zip(left, widths)]
    axis.barh(range(len(bars)), [max(0.0, 1 - spent) for spent in left], left=left, color="#cccccc", label="else")
    axis.plot([point["predicted"] / point["seconds"] for _, point in bars], range(len(bars)), "|", color="black", markersize=14)
    axis.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=8)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, frameon=False, ncols=5, loc="outside lower center")
    save(figure, f"{prefix}-time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
