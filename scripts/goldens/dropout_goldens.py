"""Hidden states and logits of the tiny checkpoints with dropout, by PyTorch in float64, in the places where transformers drops.

Imported by scripts/goldens/make.py, inside its environment. What is dropped is drawn by the counter of
Sources/Tiles/CountedDraws.swift, with the numbers below, which DropoutGoldenTests has too. Beside the values stands how far
transformers' own float32 is from them, and how far they are from those without dropout.
"""

import copy
import sys

import numpy as np
import torch
import transformers
from encoder_goldens import JinaReference, dropout_twin, lifted, randomize, tiny_families
from safetensors.numpy import save_file
from task_goldens import families as head_families
from task_goldens import randomize as randomize_head

PROBABILITIES = {"values": 0.3, "weights": 0.25, "head": 0.4}
SEED, STEP, DOCUMENTS, LENGTHS = 11, 6, [5, 2], [40, 3]
TASKS = {"tokenClassification": "AutoModelForTokenClassification", "sequenceClassification": "AutoModelForSequenceClassification"}


def results(model, ids, drops):
    model = dropout_twin.place(copy.deepcopy(model), seed=SEED, **PROBABILITIES)
    model.train(drops)
    found = []
    for number, tokens in zip(DOCUMENTS, ids):
        dropout_twin.Dropped.place = {"step": STEP, "document": number}
        tokens = torch.tensor(np.array([tokens], np.int64))
        with torch.no_grad():
            output = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        found.append((output.logits if hasattr(output, "logits") else output.last_hidden_state)[0].double().numpy())
    return found


def add(tensors, metadata, name, model, ids):
    """The values of a model's documents under `name`."""
    double = copy.deepcopy(model).double()
    with lifted():
        exact, whole = results(double, ids, True), results(double, ids, False)
    rounded = results(model, ids, True)
    for place, values in enumerate(exact):
        tensors[f"{place}.{name}"] = values.astype(np.float32)
    largest = max(float(np.abs(a - b).max()) for a, b in zip(exact, rounded))
    metadata[f"{name}.float32_error"] = f"{largest:.3e}"
    metadata[f"{name}.scale"] = f"{max(float(np.abs(values).max()) for values in exact):.4g}"
    metadata[f"{name}.dropped"] = f"{max(float(np.abs(a - b).max()) for a, b in zip(exact, whole)):.3g}"


def write(folder, tensors, metadata, ids):
    for place, tokens in enumerate(ids):
        tensors[f"{place}.input_ids"] = tokens.astype(np.int32)
    path = folder / "dropout.safetensors"
    save_file(tensors, str(path), metadata=metadata)
    path.chmod(0o644)
    print(f"goldens: {folder.name}: {metadata}; {path.stat().st_size / 1024:.0f} KB", file=sys.stderr)


def make_dropout(target):
    for index, (name, (model_class, config, dtype)) in enumerate(tiny_families().items()):
        if "deberta" in name or model_class is JinaReference:
            continue
        config._attn_implementation = "eager"
        model = randomize(model_class(config), seed=100 + index, dtype=dtype)
        generator = np.random.default_rng(900 + index)
        first, last = (5, config.vocab_size) if config.vocab_size > 40 else (4, 24)
        ids = [generator.integers(first, last, length) for length in LENGTHS]
        if getattr(config, "mask_token_id", None) is not None:
            ids[0][[3, 19]] = config.mask_token_id
        tensors, metadata = {}, {}
        add(tensors, metadata, "last_hidden_state", model, ids)
        write(target / name, tensors, metadata, ids)
    for index, (name, config) in enumerate(head_families().items()):
        if "deberta" in name:
            continue
        generator = np.random.default_rng(950 + index)
        ids = [generator.integers(5, config.vocab_size, length) for length in LENGTHS]
        tensors, metadata = {}, {}
        for task, class_name in TASKS.items():
            own = copy.deepcopy(config)
            own.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
            own._attn_implementation = "eager"
            try:
                model = randomize_head(getattr(transformers, class_name).from_config(own))
            except ValueError:
                continue
            add(tensors, metadata, task, model, ids)
        write(target / name, tensors, metadata, ids)
