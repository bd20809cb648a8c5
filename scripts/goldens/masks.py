#!/usr/bin/env python3
"""Goldens of masks and biases made with PyTorch: scaled_dot_product_attention and flex_attention's mask functions.

    scripts/goldens/masks.py            writes Tests/RingAttentionTests/Goldens/masks.safetensors

Needs torch, numpy and safetensors; ANNULUS_GOLDENS_PYTHON may name an interpreter that has them. Otherwise the virtual
environment of scripts/peers/bench-kernels serves where there is one, or one is made in ~/.cache/annulus/mask-goldens and they
are installed there (several gigabytes).
"""
import json, os, subprocess, sys
from pathlib import Path

try:
    import numpy, safetensors.numpy, torch
    import torch.nn.functional as F
    from torch.nn.attention.flex_attention import (
        and_masks, create_block_mask, create_mask, flex_attention, noop_mask, or_masks)
except ImportError:
    python = os.environ.get("ANNULUS_GOLDENS_PYTHON")
    if not python:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "annulus"
        # The requirements are written once the peers are installed.
        folder = cache / ("peers" if (cache / "peers" / "requirements.txt").exists() else "mask-goldens")
        python = str(folder / "bin" / "python")
        if not Path(python).exists():
            print(f"making a virtual environment in {folder} with torch, numpy and safetensors", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "torch", "numpy", "safetensors"], check=True)
    if os.environ.get("ANNULUS_MASK_GOLDENS") == "1":
        raise
    sys.exit(subprocess.run([python, *sys.argv], env={**os.environ, "ANNULUS_MASK_GOLDENS": "1"}).returncode)

HEADS, DIMENSION = 2, 8
generator = torch.Generator().manual_seed(7)


def causal(offset):
    return lambda b, h, q, k: k <= q + offset


def window(left, right, offset):
    return lambda b, h, q, k: (k >= q + offset - left) & (k <= q + offset + right)


def documents(queries, keys):
    of_query = torch.repeat_interleave(torch.arange(len(queries)), torch.tensor(queries))
    of_key = torch.repeat_interleave(torch.arange(len(keys)), torch.tensor(keys))
    return lambda b, h, q, k: of_query[q] == of_key[k]


def prefix(n):
    return lambda b, h, q, k: k < n


def some_global(tokens, length):
    chosen = torch.zeros(length, dtype=torch.bool)
    chosen[tokens] = True
    return lambda b, h, q, k: chosen[q] | chosen[k]


def made_blocks(size):
    return lambda b, h, q, k: (q // size + 2 * (k // size)) % 3 > 0


def negated(mask):
    return lambda b, h, q, k: ~mask(b, h, q, k)


# (expression, queries, keys, the mask by flex_attention's functions)
CASES = [
    ("full", 300, 300, noop_mask),
    ("causal", 300, 300, causal(0)),
    ("causal", 70, 300, causal(230)),
    ("window(40,9)", 300, 300, window(40, 9, 0)),
    ("window(40,9)", 270, 300, window(40, 9, 30)),
    ("documents(100,0,57,143)", 300, 300, documents([100, 0, 57, 143], [100, 0, 57, 143])),
    ("documents(100,157;30,270)", 257, 300, documents([100, 157], [30, 270])),
    ("prefix(77)", 260, 300, prefix(77)),
    ("global(3,299)", 300, 300, some_global([3, 299], 300)),
    ("!causal", 300, 300, negated(causal(0))),
    ("documents(100,200) & causal", 300, 300, and_masks(documents([100, 200], [100, 200]), causal(0))),
    ("causal & window(30,30) | prefix(5)", 300, 300, or_masks(and_masks(causal(0), window(30, 30, 0)), prefix(5))),
    ("(global(0) or window(16,16)) and not prefix(2)", 300, 300,
     and_masks(or_masks(some_global([0], 300), window(16, 16, 0)), negated(prefix(2)))),
]

tensors, expressions = {}, []
for number, (expression, queries, keys, mask_function) in enumerate(CASES):
    q = torch.randn(HEADS, queries, DIMENSION, generator=generator)
    k = torch.randn(HEADS, keys, DIMENSION, generator=generator)
    v = torch.randn(HEADS, keys, DIMENSION, generator=generator)
    mask = create_mask(mask_function, 1, 1, queries, keys, device="cpu")[0, 0]
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        tensors[f"{number}.{name}"] = tensor.bfloat16().float().half().numpy()
    # The inputs as stored, so that both sides start from the same numbers.
    q, k, v = (torch.from_numpy(tensors[f"{number}.{n}"]).double() for n in "qkv")
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # A row without a visible key is PyTorch's NaN; here it is zeros.
    exact = torch.where(mask.any(-1)[None, :, None], exact, torch.zeros((), dtype=torch.float64))
    tensors[f"{number}.output"] = exact.float().numpy()
    expressions.append({"expression": expression, "queries": queries, "keys": keys, "visible": int(mask.sum())})

# Score modifiers, alone and together, with masks: (expression, queries, keys, the mask, modifiers).
slopes, sinks = torch.tensor([0.25, 0.0625]), torch.tensor([0.5, -2.0])
table = torch.linspace(-1.5, 1.5, HEADS * 13).reshape(HEADS, 13)[:, torch.randperm(13, generator=torch.Generator().manual_seed(3))]
MODIFIED = [
    ("full", 280, 280, noop_mask, {"alibi_slopes": slopes}),
    ("causal", 300, 300, causal(0), {"alibi_slopes": slopes}),
    ("window(40,9)", 270, 300, window(40, 9, 30), {"alibi_slopes": slopes}),
    ("documents(100,200) & causal", 300, 300, and_masks(documents([100, 200], [100, 200]), causal(0)), {"alibi_slopes": slopes}),
    ("documents(100,157;30,270)", 257, 300, documents([100, 157], [30, 270]), {"alibi_slopes": slopes}),
    ("!causal", 300, 300, negated(causal(0)), {"alibi_slopes": slopes, "softcap": 1.5}),
    ("window(100,0) | prefix(5)", 300, 300, or_masks(window(100, 0, 0), prefix(5)), {"relative_bias": table}),
    ("causal", 70, 300, causal(230), {"softcap": 2.0, "relative_bias": table, "alibi_slopes": slopes}),
    ("prefix(77)", 260, 300, prefix(77), {"alibi_slopes": slopes, "sinks": sinks}),
    ("blocks(made,50) | window(5,5)", 290, 290, or_masks(made_blocks(50), window(5, 5, 0)), {"alibi_slopes": slopes}),
]
modified = []
for number, (expression, queries, keys, mask_function, modifiers) in enumerate(MODIFIED):
    q, k, v = (torch.randn(HEADS, length, DIMENSION, generator=generator).bfloat16().double() for length in (queries, keys, keys))
    offset = keys - queries
    cap = torch.tensor(modifiers.get("softcap", 0), dtype=torch.float64)

    def score(s, b, h, i, j):
        """A flex_attention score modifier: cap, then biases; a query row stands at its bottom-right aligned position."""
        distance = j - (i + offset)
        if "softcap" in modifiers:
            s = cap * torch.tanh(s / cap)
        if "relative_bias" in modifiers:
            s = s + table.double()[h, 6 + distance.clamp(-6, 6)]
        if "alibi_slopes" in modifiers:
            s = s - slopes.double()[h] * distance.abs()
        return s

    blocks = create_block_mask(mask_function, None, None, queries, keys, device="cpu")
    output = flex_attention(q[None], k[None], v[None], score_mod=score, block_mask=blocks)[0]
    # The same by scaled_dot_product_attention with an additive bias, where the modifiers are no more than that.
    mask = create_mask(mask_function, 1, 1, queries, keys, device="cpu")[0, 0]
    if "softcap" not in modifiers:
        i, j = torch.meshgrid(torch.arange(queries), torch.arange(keys), indexing="ij")
        bias = torch.stack([score(torch.zeros(queries, keys, dtype=torch.float64), 0, h, i, j) for h in range(HEADS)])
        by_bias = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(~mask, -torch.inf))
        seen = mask.any(-1)
        torch.testing.assert_close(output[:, seen], by_bias[:, seen], rtol=0, atol=1e-12)
    if "sinks" in modifiers:
        # A key more in the denominator, with no value.
        sums = torch.logsumexp((q @ k.mT / DIMENSION**0.5 + bias).masked_fill(~mask, -torch.inf), dim=-1)
        output = output * torch.sigmoid(sums - sinks.double()[:, None])[..., None]
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        tensors[f"modified.{number}.{name}"] = tensor.half().numpy()
    for name in {"alibi_slopes", "relative_bias", "sinks"} & modifiers.keys():
        tensors[f"modified.{number}.{name}"] = modifiers[name].float().contiguous().numpy()
    tensors[f"modified.{number}.output"] = output.float().numpy()
    modified.append({"expression": expression, **({"softcap": modifiers["softcap"]} if "softcap" in modifiers else {})})

folder = Path(__file__).resolve().parents[2] / "Tests" / "RingAttentionTests" / "Goldens"
folder.mkdir(exist_ok=True)
safetensors.numpy.save_file(tensors, folder / "masks.safetensors")
(folder / "masks.json").write_text(json.dumps(expressions, indent=1) + "\n")
(folder / "modified.json").write_text(json.dumps(modified, indent=1) + "\n")
print(f"{len(CASES)} masks and {len(MODIFIED)} with modifiers, made with torch {torch.__version__}")
