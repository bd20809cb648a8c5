"""Gradients of the parameters of the tiny checkpoints, by PyTorch's autograd in float64.

Imported by scripts/goldens/make.py, inside its environment. The loss of a family's encoder is the sum over documents of its
last hidden states times numbers of SplitMix64, whose state is the document's place; that of the heads is a sum of last hidden states times numbers of SplitMix64, whose state is the document's place; that of the heads is a sum of cross
entropies, of all three tasks. Beside each gradient stands its L2 norm, and how far PyTorch's own float32 is from it: the larger of
what its two ways to attend are, softmax and products by themselves (eager), and scaled_dot_product_attention, whose backward has
D = sum of dO times O (Dao et al. 2022) where the other has the sum of P times dP, and is two to three times as far off.
"""

import copy
import json
import sys

import numpy as np
import torch
import transformers
from encoder_goldens import JinaReference, in_double, lifted, randomize, tiny_families
from safetensors.numpy import load_file, save_file
from task_goldens import families as head_families
from task_goldens import randomize as randomize_head

torch.set_num_threads(1)
LENGTHS = [1, 70, 300]
HEAD_LENGTHS = [5, 40, 2]
HEAD_TASKS = {
    "maskedLanguage": "AutoModelForMaskedLM",
    "tokenClassification": "AutoModelForTokenClassification",
    "sequenceClassification": "AutoModelForSequenceClassification",
}
HEADS = ["heads-bert", "heads-roberta", "heads-distilbert", "heads-albert", "heads-electra", "heads-mpnet", "heads-modernbert", "heads-esm", "heads-nomic"]


def splitmix(seed, count):
    """Steele, Lea, Flood 2014, as numbers in [-1, 1) with 24 bits."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0


def stored_places(model, weights):
    """For each parameter its name in the checkpoint, its shape there, and the row at which it begins: projections may be stored as one."""
    places = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        for key in sorted(weights, key=lambda key: key != name):
            stored = weights[key]
            if stored.ndim != value.ndim or stored.shape[1:] != value.shape[1:]:
                continue
            rows = range(0, len(stored) - len(value) + 1, len(value))
            first = [row for row in rows if np.array_equal(stored[row : row + len(value)].astype(np.float32), value)]
            if first:
                places[name] = (key, stored.shape, first[0])
                break
    return places


def rounded_errors(models, places, loss, exact):
    """The largest L2 distance of float32 gradients, by the name of the parameter."""
    errors = {}
    for model in models:
        for name, value in gradients(model, places, loss).items():
            errors[name] = max(errors.get(name, 0.0), float(np.linalg.norm(exact[name] - value)))
    return errors


def both_ways(model):
    """A model that attends eagerly, and the same with scaled_dot_product_attention."""
    other = copy.deepcopy(model)
    if isinstance(other, JinaReference):
        other.attends_at_once = True
    elif other._supports_sdpa:
        other.set_attn_implementation("sdpa")
    return [model, other]


def gradients(model, places, loss):
    model.zero_grad()
    loss(model).backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None or name not in places:
            continue
        key, shape, first = places[name]
        found.setdefault(key, np.zeros(shape))
        found[key][first : first + len(parameter)] += parameter.grad.detach().double().numpy()
    return found


def canonical(name):
    """Norms may be stored under the names that TensorFlow has."""
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


def write(path, tensors, exact, errors):
    sizes = {canonical(name): float(np.linalg.norm(value)) for name, value in exact.items()}
    for name, value in exact.items():
        tensors["gradient." + canonical(name)] = value.astype(np.float32)
    errors = {canonical(name): error for name, error in errors.items()}
    save_file(tensors, str(path), metadata={"norms": json.dumps(sizes), "float32_errors": json.dumps(errors)})
    path.chmod(0o644)
    print(f"goldens: {path.parent.name}: gradients, {path.stat().st_size / 1024:.0f} KB", file=sys.stderr)


def encoder_loss(ids):
    def loss(model):
        total = 0
        for place, tokens in enumerate(ids):
            tokens = torch.tensor(np.array([tokens], np.int64))
            states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0]
            weights = torch.tensor(splitmix(place, states.numel()).reshape(states.shape)).to(states.dtype)
            total = total + (states * weights).sum()
        return total

    return loss


def make_encoders(target):
    for index, (name, (model_class, config, dtype)) in enumerate(tiny_families().items()):
        if "deberta" in name:
            continue
        if model_class is not JinaReference:
            config._attn_implementation = "eager"
        model = randomize(model_class(config), seed=100 + index, dtype=dtype)
        places = stored_places(model, load_file_as_float(target / name / "model.safetensors"))
        generator = np.random.default_rng(700 + index)
        first, last = (5, config.vocab_size) if config.vocab_size > 40 else (4, 24)
        ids = [generator.integers(first, last, length) for length in LENGTHS]
        if getattr(config, "mask_token_id", None) is not None:
            ids[1][[3, 19]] = config.mask_token_id
        double = in_double(model)
        with lifted():
            exact = gradients(double, places, encoder_loss(ids))
        errors = rounded_errors(both_ways(model), places, encoder_loss(ids), exact)
        tensors = {f"{place}.input_ids": tokens.astype(np.int32) for place, tokens in enumerate(ids)}
        write(target / name / "gradients.safetensors", tensors, exact, errors)


def load_file_as_float(path):
    from safetensors.torch import load_file as load

    return {name: value.float().numpy() for name, value in load(str(path)).items()}


def head_loss(task, ids, labels):
    def loss(model):
        total = 0
        for tokens, wanted in zip(ids, labels[task]):
            tokens = torch.tensor(np.array([tokens], np.int64))
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0]
            if task == "sequenceClassification":
                logits = logits[None]
            wanted = torch.tensor(wanted.astype(np.int64))
            if bool((wanted >= 0).any()):
                total = total + torch.nn.functional.cross_entropy(logits, wanted, ignore_index=-1, reduction="sum")
        return total

    return loss


def make_heads(target):
    for index, (name, config) in enumerate(head_families().items()):
        if name not in HEADS:
            continue
        generator = np.random.default_rng(800 + index)
        ids = [generator.integers(5, config.vocab_size, length) for length in HEAD_LENGTHS]
        labels = {
            # Some rows have no label: those of the last document have none at all.
            "maskedLanguage": [
                np.where(generator.random(len(tokens)) < 0.4, generator.integers(0, config.vocab_size, len(tokens)), -1) if len(tokens) > 2 else np.full(len(tokens), -1)
                for tokens in ids
            ],
            "tokenClassification": [generator.integers(0, 2, len(tokens)) for tokens in ids],
            "sequenceClassification": [generator.integers(0, 2, 1) for _ in ids],
        }
        weights = load_file_as_float(target / name / "model.safetensors")
        exact, rounded = {}, [{}, {}]
        for task, class_name in HEAD_TASKS.items():
            own = copy.deepcopy(config)
            own.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
            own._attn_implementation = "eager"
            try:
                model = randomize_head(getattr(transformers, class_name).from_config(own)).eval()
            except ValueError:
                continue
            places = stored_places(model, weights)
            loss = head_loss(task, ids, labels)
            with lifted():
                found = gradients(in_double(model), places, loss)
            ways = [gradients(way, places, loss) for way in both_ways(model)]
            for total, part in zip([exact, *rounded], [found, *ways]):
                for key, value in part.items():
                    total[key] = total.get(key, 0) + value
        tensors = {f"{place}.input_ids": tokens.astype(np.int32) for place, tokens in enumerate(ids)}
        for task, wanted in labels.items():
            for place, row in enumerate(wanted):
                tensors[f"{place}.{task}"] = row.astype(np.int32)
        errors = {key: max(float(np.linalg.norm(value - way[key])) for way in rounded) for key, value in exact.items()}
        write(target / name / "gradients.safetensors", tensors, exact, errors)


def make_gradients(target):
    make_encoders(target)
    make_heads(target)
