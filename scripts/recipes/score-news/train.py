"""Trains a classifier of lines on top of a small encoder, on a CPU, in minutes, and saves it in Hugging Face's format.

    train.py ENCODER TRAIN.jsonl FOLDER
"""

import json
import os
import random
import sys
import time

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

# One pass over so many lines, cut to so many tokens: a topic shows in the first ones.
LINES, TOKENS, BATCH = 4000, 96, 32
RATE, HEAD_RATE = 1e-4, 1e-3


def main():
    encoder, path, folder = sys.argv[1:]
    logging.disable_progress_bar()
    torch.manual_seed(1)
    generator = random.Random(1)
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    topics = sorted({line["label"] for line in lines})
    lines = lines[:LINES]

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    names = dict(enumerate(topics))
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=len(topics), id2label=names, label2id={name: index for index, name in names.items()})
    model.train()

    # Lines of like length together, so that little is padding; the batches in a random order.
    lines.sort(key=lambda line: len(line["text"]))
    batches = [lines[first : first + BATCH] for first in range(0, len(lines), BATCH)]
    generator.shuffle(batches)
    head = list(model.classifier.parameters())
    body = [parameter for name, parameter in model.named_parameters() if not name.startswith("classifier.")]
    optimizer = torch.optim.AdamW([{"params": body, "lr": RATE}, {"params": head, "lr": HEAD_RATE}], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, HEAD_RATE], total_steps=len(batches), pct_start=0.1)
    start = time.perf_counter()
    losses = []
    for number, batch in enumerate(batches, 1):
        inputs = tokenizer([line["text"] for line in batch], truncation=True, max_length=TOKENS, padding=True, return_tensors="pt")
        labels = torch.tensor([topics.index(line["label"]) for line in batch])
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if number % 25 == 0 or number == len(batches):
            recent = losses[-25:]
            print("batch %d of %d, loss %.3f, %.0f s" % (number, len(batches), sum(recent) / len(recent), time.perf_counter() - start), flush=True)

    # Whole or not at all: a folder that is there is a trained model.
    part = folder + ".part"
    model.eval().save_pretrained(part)
    tokenizer.save_pretrained(part)
    os.rename(part, folder)


if __name__ == "__main__":
    main()
