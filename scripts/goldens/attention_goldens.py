"""The attention weights that transformers computes from the tiny checkpoints of every family.

Imported by scripts/goldens/make.py, inside its environment, after `tiny` and `families` have made the checkpoints. The
weights are those of `output_attentions=True` with eager attention, in float32. Families whose classes are not those of
transformers are left out.
"""

import sys

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file, save_file

torch.set_num_threads(1)

FAMILIES = [
    "tiny-bert", "tiny-roberta", "tiny-distilbert", "tiny-albert", "tiny-electra", "tiny-mpnet", "tiny-modernbert", "tiny-deberta-v2",
    "tiny-deberta-v3", "tiny-esm",
]
# Of the long document: around the edges of tiles.
ROWS = [0, 5, 255, 256, 299]
# Of its layers, where there are many.
LAYERS = 2


def weights(model, ids):
    tokens = torch.tensor(ids.astype(np.int64)[None])
    with torch.no_grad():
        attentions = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), output_attentions=True).attentions
    return np.stack([layer[0].numpy() for layer in attentions])


def make_classic(target, folder):
    """The classic example of the documentation with the cased BERT of two labels: `ids`, `weights`, [layers, heads, 8, 8], and `scores`,
    likewise, of the queries and keys that hooks on their layers see."""
    source = target / "tasks-bert"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(source), attn_implementation="eager", dtype=torch.float32
    ).eval()
    ids = np.array(tokenizers.Tokenizer.from_file(str(source / "tokenizer.json")).encode("Hello, my dog is cute").ids, np.int32)
    seen = []
    for layer in model.bert.encoder.layer:
        for part in (layer.attention.self.query, layer.attention.self.key):
            part.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    found = weights(model, ids)
    heads = model.config.num_attention_heads
    split = [x.reshape(len(ids), heads, -1).transpose(0, 1) for x in seen]
    scores = np.stack([(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).numpy() for q, k in zip(split[::2], split[1::2])])
    save_file({"ids": ids, "weights": found, "scores": scores}, str(folder / "classic.safetensors"))
    (folder / "classic.safetensors").chmod(0o644)


def make_attention(target):
    """For each family NAME.safetensors: `short.ids` and all its weights `short.weights`, [layers, heads, 17, 17]; `long.ids` and of
    the rows `rows` `long.weights`, [layers, heads, rows, 300]."""
    folder = target / "attention"
    folder.mkdir(exist_ok=True)
    make_classic(target, folder)
    for name in FAMILIES:
        model = transformers.AutoModel.from_pretrained(str(target / name), attn_implementation="eager", dtype=torch.float32).eval()
        goldens = load_file(str(target / name / "goldens.safetensors"))
        generator = np.random.default_rng(len(name))
        ids = {"short": generator.integers(5, 45, 17).astype(np.int32), "long": generator.integers(5, 45, 300).astype(np.int32)}
        for key, length in (("short", "17"), ("long", "300")):
            ids[key] = goldens.get(f"{length}.input_ids", ids[key])
        short, long = weights(model, ids["short"]), weights(model, ids["long"])
        result = {
            "short.ids": ids["short"], "short.weights": short, "long.ids": ids["long"], "rows": np.array(ROWS, np.int32),
            "long.weights": np.ascontiguousarray(long[:LAYERS][:, :, ROWS]),
        }
        save_file(result, str(folder / f"{name}.safetensors"))
        (folder / f"{name}.safetensors").chmod(0o644)
        print(f"goldens: attention of {name}: {short.shape[0]} layers, largest weight {short.max():.3f}", file=sys.stderr)
