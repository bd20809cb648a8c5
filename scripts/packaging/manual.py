"""Manual pages from what a command tells of itself: `annulus --experimental-dump-help | python3 manual.py FOLDER VERSION` writes
annulus.1 and a page for each verb, annulus-VERB.1."""

import json
import pathlib
import sys


def escaped(text: str) -> str:
    """As troff takes it: no line may begin with a dot or an apostrophe."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    lines = "".join(one if ord(one) < 128 else f"\\[u{ord(one):04X}]" for one in text).splitlines()
    return "\n".join(("\\&" + line) if line.startswith((".", "'")) else line for line in lines)


def spelled(argument: dict) -> str:
    """How an option is written: -m, --model <model>."""
    value = argument.get("valueName", "value")
    if argument["kind"] == "positional":
        return f"\\fI{escaped(value)}\\fR"
    names = [("\\-" if name["kind"] == "short" else "\\-\\-") + escaped(name["name"]) for name in argument.get("names", [])]
    text = ", ".join(f"\\fB{name}\\fR" for name in sorted(names, key=len))
    return text if argument["kind"] == "flag" else f"{text} \\fI{escaped(value)}\\fR"


def page(command: dict, path: list[str], version: str, date: str) -> str:
    name = "-".join(path)
    parts = [f'.TH {name.upper()} 1 "{date}" "annulus {version}" "Annulus"', ".SH NAME", f"{escaped(name)} \\- {escaped(command.get('abstract', ''))}"]
    arguments = [one for one in command.get("arguments", []) if one.get("shouldDisplay", True)]
    children = [one for one in command.get("subcommands", []) if one["commandName"] != "help"]
    parts += [".SH SYNOPSIS", f".B {escaped(' '.join(path))}"]
    if children:
        parts.append(".I verb")
    for argument in arguments:
        text = spelled(argument)
        parts.append(f"[{text}]" if argument.get("isOptional", True) else text)
    if command.get("discussion"):
        parts.append(".SH DESCRIPTION")
        for paragraph in command["discussion"].split("\n\n"):
            # What is indented stays as it is.
            kept = any(line.startswith("  ") for line in paragraph.splitlines())
            parts += [".nf", escaped(paragraph), ".fi"] if kept else [".PP", escaped(paragraph)]
    if children:
        parts.append(".SH VERBS")
        for child in children:
            parts += [".TP", f"\\fB{escaped('-'.join(path + [child['commandName']]))}\\fR(1)", escaped(child.get("abstract", ""))]
    if arguments:
        parts.append(".SH OPTIONS")
        for argument in arguments:
            text = " ".join(filter(None, [argument.get("abstract", ""), argument.get("discussion", "")]))
            if default := argument.get("defaultValue"):
                text += f" (default: {default})"
            parts += [".TP", spelled(argument), escaped(text) or "\\&"]
    return "\n".join(parts) + "\n"


def write(command: dict, path: list[str], folder: pathlib.Path, version: str, date: str) -> int:
    (folder / ("-".join(path) + ".1")).write_text(page(command, path, version, date), encoding="utf-8")
    children = [one for one in command.get("subcommands", []) if one["commandName"] != "help"]
    return 1 + sum(write(one, [*path, one["commandName"]], folder, version, date) for one in children)


def main() -> int:
    folder, version, date = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    command = json.load(sys.stdin)["command"]
    print(write(command, [command["commandName"]], folder, version, date), "manual pages", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
