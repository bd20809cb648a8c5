#!/usr/bin/env python3
"""Goldens of attention's gradients, by PyTorch's automatic differentiation in float64.

    scripts/goldens/gradients.py        writes Tests/RingAttentionTests/Goldens/gradients.safetensors

Takes inputs, masks and modifiers from the goldens that scripts/goldens/masks.py made, whose outputs it meets first. Needs torch,
numpy and safetensors.
"""
import json
import re
from pathlib import Path

import safetensors.numpy
import torch

FOLDER = Path(__file__).resolve().parents[2] / "Tests" / "RingAttentionTests" / "Goldens"
# Of the cases with a mask alone, and of those with modifiers: each kind of mask and modifier once or more.
MASKED = [2, 4, 5, 12]
MODIFIED = [5, 6, 7, 8]


def visible(expression, queries, keys):
    """The mask of an expression, [queries, keys]."""
    i, j = torch.meshgrid(torch.arange(queries) + keys - queries, torch.arange(keys), indexing="ij")

    def of(lengths):
        return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))

    names = {
        "full": torch.ones(queries, keys, dtype=torch.bool),
        "causal": j <= i,
        "window": lambda left, right: (j >= i - left) & (j <= i + right),
        "prefix": lambda count: j < count,
        "documents": lambda *lengths: of(lengths)[:, None] == of(lengths)[None],
        "tokens": lambda *tokens: torch.isin(i, torch.tensor(tokens)) | torch.isin(j, torch.tensor(tokens)),
    }
    for word, operator in (("not ", "~"), ("!", "~"), (" and ", " & "), (" or ", " | "), ("global", "tokens")):
        expression = expression.replace(word, operator)
    return eval(re.sub(r"\s+", " ", expression), {"__builtins__": {}}, names)


def attend(q, k, v, mask, modifiers):
    """softmax(modified scores)·v of [heads, tokens, width], one matrix of scores a head; rows that see nothing give zeros."""
    queries, keys = q.shape[1], k.shape[1]
    distance = torch.arange(keys)[None] - (torch.arange(queries) + keys - queries)[:, None]
    scores = q @ k.mT / q.shape[2] ** 0.5
    if "softcap" in modifiers:
        scores = modifiers["softcap"] * torch.tanh(scores / modifiers["softcap"])
    if "relative_bias" in modifiers:
        reach = modifiers["relative_bias"].shape[1] // 2
        scores = scores + modifiers["relative_bias"][:, reach + distance.clamp(-reach, reach)]
    if "alibi_slopes" in modifiers:
        scores = scores - modifiers["alibi_slopes"][:, None, None] * distance.abs()
    scores = scores.masked_fill(~mask, -torch.inf)
    if "sinks" in modifiers:
        scores = torch.cat([modifiers["sinks"][:, None, None].expand(-1, queries, 1), scores], dim=2)
        return torch.softmax(scores, dim=2)[..., 1:] @ v
    seen = mask.any(-1)
    return torch.where(seen[None, :, None], torch.softmax(scores.masked_fill(~seen[:, None], 0), dim=2) @ v, torch.zeros(()))


def main():
    given = safetensors.numpy.load_file(FOLDER / "masks.safetensors")
    cases = [(str(n), json.loads((FOLDER / "masks.json").read_text())[n]) for n in MASKED]
    cases += [(f"modified.{n}", json.loads((FOLDER / "modified.json").read_text())[n]) for n in MODIFIED]
    generator = torch.Generator().manual_seed(23)
    tensors = {}
    for name, case in cases:
        inputs = {n: torch.from_numpy(given[f"{name}.{n}"]).double().requires_grad_() for n in "qkv"}
        modifiers = {"softcap": case["softcap"]} if "softcap" in case else {}
        for modifier in ("alibi_slopes", "relative_bias", "sinks"):
            if f"{name}.{modifier}" in given:
                modifiers[modifier] = torch.from_numpy(given[f"{name}.{modifier}"]).double().requires_grad_()
        mask = visible(case["expression"], inputs["q"].shape[1], inputs["k"].shape[1])
        output = attend(inputs["q"], inputs["k"], inputs["v"], mask, modifiers)
        torch.testing.assert_close(output, torch.from_numpy(given[f"{name}.output"]).double(), rtol=1e-6, atol=1e-6)
        gradient = torch.randn(output.shape, generator=generator).half()
        output.backward(gradient.double())
        tensors[f"{name}.grad_output"] = gradient.numpy()
        for key, tensor in {**inputs, **modifiers}.items():
            if key not in ("softcap", "alibi_slopes"):
                tensors[f"{name}.grad_{key}"] = tensor.grad.float().contiguous().numpy()
    safetensors.numpy.save_file(tensors, FOLDER / "gradients.safetensors")
    (FOLDER / "gradients.safetensors").chmod(0o644)
    print(f"gradients of {len(cases)} attentions, made with torch {torch.__version__}")


if __name__ == "__main__":
    main()
