#!/usr/bin/env python3
"""Holds `annulus observe` against the attention that transformers gives for the same model and text.

    scripts/compare/attention.py ANNULUS MODEL TEXT [--launch "mpirun -np 2"]

MODEL is a folder that transformers loads as it is, TEXT a file with one document. Weights are those of
output_attentions=True with eager attention; statistics, block means and rollouts are made of the weights of the same model in
float64. Needs numpy, safetensors, torch and transformers; scripts/goldens/make.py has them in an environment of its own. Prints
the largest difference of each, and fails beyond 1e-5 for weights and rollouts, and what that makes of the others.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

TOP = 8


def attentions(folder, ids, dtype):
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()
    tokens = torch.tensor(ids.astype(np.int64)[None])
    with torch.no_grad():
        found = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), output_attentions=True).attentions
    return np.stack([layer[0].numpy() for layer in found])


def observe(arguments, folder):
    output = str(Path(folder) / "seen.safetensors")
    command = shlex.split(arguments.launch) + [
        arguments.annulus, "observe", "-m", arguments.model, "-i", arguments.text, "--input-format", "text", "-o", output, "--quiet",
        "--queries", "0:", "--top-k", str(TOP), "--block-map", "--rollout", "0:3",
    ]
    subprocess.run(command, check=True)
    return load_file(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annulus")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--launch", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = observe(arguments, folder)
    ids = seen["0.ids"]
    single, exact = attentions(arguments.model, ids, torch.float32), attentions(arguments.model, ids, torch.float64)
    layers, heads, count, _ = exact.shape
    worst = {}

    def hold(name, mine, theirs, limit):
        difference = float(np.abs(np.asarray(mine, np.float64) - theirs).max())
        worst[name] = (max(difference, worst.get(name, (0, 0))[0]), limit)

    distance = np.abs(np.arange(count)[:, None] - np.arange(count)[None])
    size = -(-count // 256)
    edges = np.arange(0, count, size)
    pairs = np.diff(np.append(edges, count))
    misplaced = 0
    for layer in range(layers):
        name = lambda what: seen[f"0.layer.{layer}.{what}"]
        p = exact[layer]
        hold("weights", name("weights"), single[layer], 1e-5)
        hold("entropy", name("entropy"), -(p * np.log(np.maximum(p, 1e-300))).sum(-1), 1e-4)
        hold("mean_distance", name("mean_distance"), (p * distance).sum(-1), 1e-5 * count)
        hold("received_mass", name("received_mass"), p.sum(1), 1e-5 * count)
        hold("first_token_share", name("first_token_share"), p.sum(1)[:, 0] / count, 1e-5)
        best = np.take_along_axis(p, name("top_keys").astype(np.int64), -1)
        hold("top_weights", name("top_weights"), best, 1e-5)
        # Keys in another order, or others, where the weights leave no doubt.
        misplaced += int((np.abs(best - -np.sort(-p, -1)[..., :TOP]) > 1e-6).sum())
        blocks = np.add.reduceat(np.add.reduceat(p, edges, 1), edges, 2) / (pairs[:, None] * pairs[None])
        hold("block_map", name("block_map"), blocks, 1e-5)
    for row in range(3):
        share = np.eye(count)[row]
        for layer in reversed(range(layers)):
            share = (share + share @ exact[layer].mean(0)) / 2
        hold("rollout", seen["0.rollout"][row], share, 1e-5)
    print(f"{layers} layers of {heads} heads, {count} tokens")
    failed = misplaced > 0
    for name, (difference, limit) in worst.items():
        print(f"{name:18} off by {difference:.2e}, {limit:.0e} are allowed")
        failed |= not difference <= limit
    print(f"top_keys           {misplaced} misplaced")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
