#!/usr/bin/env python3
"""Holds `annulus train` against PyTorch, step by step: the same model, data, order of examples, masked tokens and dropout.

    scripts/compare/training.py ANNULUS MODEL FILE [--kind mlm|classify] [--steps 100] [--dropout P] [--attention-dropout P]
                                [--classifier-dropout P] [--launch "mpirun -np 2"] [--batch-tokens N] [--max-length N]

MODEL is a folder that transformers loads, of any family whose dropout scripts/compare/dropout_twin.py knows, with a tokenizer.json;
FILE holds texts, one a line, for mlm, or JSON lines of text and label for classify. Both train from the same weights for so many
steps with AdamW, warm-up and clipping; PyTorch does it in float64 and in float32, a document at a time. The order of examples, the
masks and what is dropped are made here again from their definitions (Sources/Tiles/CountedDraws.swift, Sources/Training/Data).
Prints the largest and the root-mean-square difference of the loss from float64's over the steps, and how far the weights at the end
are from float64's, for annulus and for PyTorch in float32. Fails where a difference of the loss is more than twice PyTorch's; of the
weights nothing is asked, for Adam makes steps of full size of gradients that are nothing but roundings (those of key biases). Needs numpy, safetensors,
tokenizers, torch and transformers; scripts/goldens/make.py has them in an environment of its own.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent))
import draws
import dropout_twin

WARMUP, RATE, DECAY, CLIP = 5, 5e-4, 0.01, 1.0


def read(arguments, tokenizer):
    """The examples: ids, words (-1: special) and label."""
    examples, names = [], []
    if arguments.kind == "mlm":
        special = tokenizer.encode("", add_special_tokens=True).ids
        room = arguments.max_length - len(special)
        for line in Path(arguments.file).read_text().split("\n")[:-1]:
            found = tokenizer.encode(line, add_special_tokens=False)
            for first in range(0, len(found.ids), room):
                words = found.word_ids[first : first + room]
                examples.append(([special[0]] + found.ids[first : first + room] + [special[1]], [-1] + words + [-1], 0))
    else:
        for line in Path(arguments.file).read_text().splitlines():
            if not line.strip():
                continue
            fields = json.loads(line)
            if fields["label"] not in names:
                names.append(fields["label"])
            found = tokenizer.encode(fields["text"])
            examples.append((found.ids, found.word_ids, names.index(fields["label"])))
    return examples


def order(lengths, arguments):
    """The examples of every step."""
    steps, epoch = [], 0
    while len(steps) < arguments.steps:
        keys = []
        for example in range(len(lengths)):
            state = 0
            for number in (arguments.seed, epoch, draws.SITES["shuffling"], 0, 0, example, 0):
                state = draws.mixed(((state ^ number) + draws.STEP) & draws.MASK)
            keys.append((state, example))
        tokens, first = 0, True
        for _, example in sorted(keys):
            if first or tokens + lengths[example] > arguments.batch_tokens:
                steps.append([])
                tokens, first = 0, False
            steps[-1].append(example)
            tokens += lengths[example]
        epoch += 1
    return steps[: arguments.steps]


def masked(example, number, step, arguments, mask, vocabulary):
    """What the model sees, and what it is to guess (-100: nothing)."""
    ids, words, _ = example
    seen, labels = list(ids), [-100] * len(ids)
    for row, word in enumerate(words):
        if word is None or word < 0:
            continue
        chosen, fate, other = (
            int(value) for value in draws.bits("maskedTokens", 3, seed=arguments.seed, step=step, document=number, row=row))
        if chosen >= int(0.15 * 2**32):
            continue
        labels[row] = ids[row]
        if fate < int(0.8 * 2**32):
            seen[row] = mask
        elif fate < int(0.9 * 2**32):
            seen[row] = (other * vocabulary) >> 32
    return seen, labels


def prepared(arguments, examples, steps, mask, vocabulary):
    """The documents of every step: what the model sees, what it is to give, and the text's number."""
    result = []
    for step, members in enumerate(steps):
        documents = []
        for example in members:
            ids, _, label = examples[example]
            if arguments.kind == "mlm":
                ids, label = masked(examples[example], 2 * example, step, arguments, mask, vocabulary)
            documents.append((ids, label, 2 * example))
        result.append(documents)
    return result


def twin(arguments, start, steps, dtype):
    kind = transformers.AutoModelForMaskedLM if arguments.kind == "mlm" else transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(start, dtype=torch.float32, attn_implementation="eager").to(dtype)
    dropout_twin.place(
        model, seed=arguments.seed, values=arguments.dropout, weights=arguments.attention_dropout, head=arguments.classifier_dropout)
    model.train()
    trained = [(name, value) for name, value in model.named_parameters()]
    groups = [
        {"params": [value for _, value in trained if value.dim() > 1], "weight_decay": DECAY},
        {"params": [value for _, value in trained if value.dim() <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=RATE)
    schedule = transformers.get_linear_schedule_with_warmup(adam, WARMUP, len(steps))
    losses = []
    for step, documents in enumerate(steps):
        count = sum(sum(row != -100 for row in label) for _, label, _ in documents) if arguments.kind == "mlm" else len(documents)
        total = 0.0
        adam.zero_grad()
        for ids, label, number in documents:
            dropout_twin.Dropped.place = {"step": step, "document": number}
            logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), torch.tensor(label).reshape(-1), reduction="sum", ignore_index=-100) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([value for _, value in trained], CLIP)
        adam.step()
        schedule.step()
        losses.append(total)
    # What no loss reaches is left out.
    return np.array(losses), {name: value.detach().double().numpy() for name, value in trained if value.grad is not None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annulus")
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--kind", choices=["mlm", "classify"], default="mlm")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--attention-dropout", type=float, default=0.0)
    parser.add_argument("--classifier-dropout", type=float)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--launch", default="")
    arguments = parser.parse_args()
    if arguments.classifier_dropout is None:
        arguments.classifier_dropout = arguments.dropout
    torch.set_num_threads(2)
    tokenizer = tokenizers.Tokenizer.from_file(arguments.model + "/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    examples = read(arguments, tokenizer)
    steps = order([len(ids) for ids, _, _ in examples], arguments)
    mask = next(found for found in map(tokenizer.token_to_id, ["[MASK]", "<mask>"]) if found is not None)
    with tempfile.TemporaryDirectory() as folder:
        def train(output, count, rate):
            command = shlex.split(arguments.launch) + [
                arguments.annulus, "train", "-m", arguments.model, "--task", f"{arguments.kind}:{arguments.file}", "-o", output,
                "--max-steps", str(count), "--learning-rate", str(rate), "--warmup-steps", str(WARMUP), "--weight-decay", str(DECAY),
                "--max-grad-norm", str(CLIP), "--batch-tokens", str(arguments.batch_tokens), "--dropout", str(arguments.dropout),
                "--attention-dropout", str(arguments.attention_dropout), "--classifier-dropout", str(arguments.classifier_dropout),
                "--seed", str(arguments.seed), "--logging-steps", "1", "--quiet",
            ]
            if arguments.kind == "mlm":
                command += ["--input-format", "lines", "--max-length", str(arguments.max_length)]
            subprocess.run(command, check=True)

        # A step at no rate gives the weights that both begin with, new heads among them.
        train(folder + "/start", 1, 0)
        train(folder + "/end", len(steps), RATE)
        log = json.loads(Path(folder + "/end/trainer_state.json").read_text())["log_history"]
        ours = np.array([entry["loss"] for entry in log if "loss" in entry])
        weights = load_file(folder + "/end/model.safetensors")
        vocabulary = json.loads(Path(folder + "/start/config.json").read_text())["vocab_size"]
        documents = prepared(arguments, examples, steps, mask, vocabulary)
        with dropout_twin.lifted():
            exact, exact_weights = twin(arguments, folder + "/start", documents, torch.float64)
        single, single_weights = twin(arguments, folder + "/start", documents, torch.float32)

    def distance(found):
        missing = [name for name in exact_weights if name not in found]
        if missing:
            sys.exit(f"training: no weights called {missing}")
        return np.sqrt(sum(((found[name].astype(np.float64) - exact_weights[name]) ** 2).sum() for name in exact_weights))

    failed = False
    dropped = f"{arguments.dropout}, {arguments.attention_dropout} of weights, {arguments.classifier_dropout} in the head"
    print(f"{arguments.kind}, {len(steps)} steps, dropout {dropped}: loss {exact[0]:.4f} to {exact[-1]:.4f}")
    for what, mine, theirs in (
        ("largest difference of the loss", np.abs(ours - exact).max(), np.abs(single - exact).max()),
        ("root mean square of that of the loss", np.sqrt(((ours - exact) ** 2).mean()), np.sqrt(((single - exact) ** 2).mean())),
        ("distance of the last weights", distance(weights), distance(single_weights)),
    ):
        print(f"  {what}: annulus {mine:.3g}, PyTorch in float32 {theirs:.3g}")
        failed |= "loss" in what and bool(mine > 2 * theirs)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
