"""Maps the atoms of reactions with the package rxnmapper, and holds what `annulus observe` sees against the attention that it maps by.

    map.py REACTIONS.tsv MODEL WORK ANNULUS MPIRUN…

A line of REACTIONS.tsv is a name, a tab and a reaction in SMILES. MODEL is a folder, made where it is missing, that gets the
package's model as annulus reads it; WORK takes temporary files. MPIRUN… is mpirun with its flags, all but -np. Exits with 1 where
a claim of those printed at the end does not hold.
"""

import hashlib
import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from rxnmapper import RXNMapper
from rxnmapper.smiles_utils import SMI_REGEX_PATTERN
from safetensors.numpy import load_file

LIMIT, RANKS, LEAST = 1e-5, (1, 3), 20


def tokenizer_file(tokenizer):
    """The package's tokenizer in the format of `tokenizer.json`: pieces that a regular expression finds, looked up as they are."""
    around = {"[CLS]": tokenizer.cls_token_id, "[SEP]": tokenizer.sep_token_id}
    special = {**around, "[PAD]": tokenizer.pad_token_id, "[UNK]": tokenizer.unk_token_id, "[MASK]": tokenizer.mask_token_id}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    first, text, last = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for token, number in sorted(special.items(), key=lambda pair: pair[1])],
        "normalizer": None,
        # What the expression does not match is dropped, as findall drops it.
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": SMI_REGEX_PATTERN}, "behavior": "Removed", "invert": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text, last],
            "pair": [first, text, last, *second],
            "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in around.items()},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": dict(tokenizer.vocab), "unk_token": "[UNK]"},
    }


def write_model(mapper, folder):
    """The package's configuration and weights, which annulus reads as they are, and a tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["config.json", "pytorch_model.bin"]:
        shutil.copyfile(Path(mapper.model_path) / name, folder / name)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file(mapper.tokenizer), indent=1) + "\n", encoding="utf-8")


def run(command, **options):
    print("$ " + shlex.join(command), flush=True)
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, **options)
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    return ended


def main():
    path, folder, work = (Path(argument) for argument in sys.argv[1:4])
    annulus, mpirun = sys.argv[4], sys.argv[5:]
    with open(path, encoding="utf-8") as file:
        names, reactions = zip(*(line.rstrip("\n").split("\t") for line in file))

    # The package itself, as its users call it, a reaction at a time: how its float32 rounds depends on the batch.
    mapper = RXNMapper()
    (layer,), head = mapper.layers, mapper.head
    theirs = [mapper.get_attention_guided_atom_maps([reaction], detailed_output=True)[0] for reaction in reactions]
    # In canonical form, as the model gets them.
    texts = ["".join(found["tokens"][1:-1]) for found in theirs]
    ids = [mapper.tokenizer(text)["input_ids"] for text in texts]
    mapper.model.double()
    exact = [mapper.convert_batch_to_attns([text])[0].numpy() for text in texts]

    write_model(mapper, folder)
    (work / "reactions.ids").write_text("".join(json.dumps(line) + "\n" for line in ids))
    (work / "reactions.txt").write_text("".join(text + "\n" for text in texts))
    lines = run(
        [annulus, "tokenize", "-m", str(folder), "-i", str(work / "reactions.txt"), "--input-format", "lines"],
        stdout=subprocess.PIPE, text=True,
    ).stdout.splitlines()
    tokenized = sum(json.loads(line)["ids"] == mine for line, mine in zip(lines, ids)) if len(lines) == len(ids) else 0

    digests = []
    for ranks in RANKS:
        output = work / ("seen-%d.safetensors" % ranks)
        run(
            [*mpirun, "-np", str(ranks), annulus, "observe", "-m", str(folder), "-i", str(work / "reactions.ids"), "--input-format", "ids"]
            + ["--layers", str(layer), "--heads", str(head), "--queries", "0:", "--keys", "0:", "-o", str(output)]
        )
        digests.append(hashlib.sha256(output.read_bytes()).hexdigest())
    seen = load_file(work / ("seen-%d.safetensors" % RANKS[0]))

    weights, differences, from_exact = [], [], []
    for number, (mine, found) in enumerate(zip(ids, theirs)):
        if seen["%d.ids" % number].tolist() != mine:
            sys.exit("map.py: annulus has other tokens for reaction %d" % number)
        weights.append(seen["%d.layer.%d.weights" % (number, layer)][0])
        attention = found["tokensxtokens_attns"]
        if weights[-1].shape != attention.shape:
            sys.exit("map.py: reaction %d has weights of shape %s, not %s" % (number, weights[-1].shape, attention.shape))
        differences.append(float(np.abs(weights[-1].astype(np.float64) - attention).max()))
        from_exact.append(float(np.abs(weights[-1] - exact[number]).max()))

    # The package once more, with the weights that annulus gave in place of those of its model.
    mapper.convert_batch_to_attns = lambda *_, **__: [torch.from_numpy(weight) for weight in weights]
    ours = mapper.get_attention_guided_atom_maps(list(reactions))
    mapped = sum(mine["mapped_rxn"] == other["mapped_rxn"] for mine, other in zip(ours, theirs))

    print("\n%-56s %6s  %10s  %10s  %10s" % ("reaction", "tokens", "difference", "in float64", "confidence"))
    for row in zip(names, ids, differences, from_exact, ours):
        print("%-56s %6d  %10.1e  %10.1e  %10.3f" % (row[0], len(row[1]), row[2], row[3], row[4]["confidence"]))
    print("\nFor one, %s:\n%s\n" % (names[0], ours[0]["mapped_rxn"]))
    # Not Python's max, which may overlook a NaN.
    count, worst, worst_exact = len(ids), float(np.max(differences)), float(np.max(from_exact))
    print("%d reactions, %d tokens; layer %d, head %d of rxnmapper %s" % (count, sum(map(len, ids)), layer, head, importlib.metadata.version("rxnmapper")))
    print("tokens as the package has them    %d of %d reactions" % (tokenized, count))
    print("largest difference of a weight    %.1e; from the package's model in float64 %.1e; %.0e is allowed" % (worst, worst_exact, LIMIT))
    print("SHA-256 on %d and %d ranks          %s" % (*RANKS, "the same, " + digests[0] if digests[0] == digests[1] else " and ".join(digests)))
    print("atoms mapped as by the package    %d of %d reactions" % (mapped, count))
    near = worst <= LIMIT and worst_exact <= LIMIT
    if not (count >= LEAST and tokenized == count and near and digests[0] == digests[1] and mapped == count):
        sys.exit("map.py: a claim does not hold")


if __name__ == "__main__":
    main()
