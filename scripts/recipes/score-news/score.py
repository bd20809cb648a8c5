"""Streams labelled lines through `annulus classify`, then through transformers, and reports labels, accuracy and rates.

    score.py CLASSIFIER STREAM.jsonl COMMAND…

COMMAND… is `annulus classify` on two ranks, and reads standard input. The whole command is timed, from its start to its last
line, and what the same command takes for a single line of one word is subtracted: starting the ranks and loading the model.
transformers is timed in this process, its model loaded, on two threads. Exits with 1 where any label differs.
"""

import json
import shlex
import subprocess
import sys
import threading
import time

THREADS, BATCH, SHOWN = 2, 32, 8


def stream(command, lines, show):
    """What the command prints for the lines, which it gets one by one on its standard input, and its seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def feed():
        for line in lines:
            process.stdin.write(json.dumps(line, ensure_ascii=False) + "\n")
        process.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    results = []
    for line in process.stdout:
        results.append(json.loads(line))
        if show and len(results) <= SHOWN:
            text = lines[len(results) - 1]["text"]
            print("  %-14s %.3f  %s" % (results[-1]["label"], results[-1]["score"], text if len(text) <= 72 else text[:71] + "…"), flush=True)
    if process.wait() != 0:
        sys.exit(process.returncode)
    return results, time.perf_counter() - start


def transformers_results(folder, lines):
    """Label, score and logits of each line, the tokens of all, and the seconds, of batches in the order of the stream."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def classify(lines):
        results, tokens = [], 0
        for first in range(0, len(lines), BATCH):
            texts = [line["text"] for line in lines[first : first + BATCH]]
            inputs = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
            tokens += int(inputs["attention_mask"].sum())
            for logits in model(**inputs).logits:
                best = int(logits.argmax())
                results.append({"label": model.config.id2label[best], "score": float(logits.softmax(0)[best]), "logits": logits.tolist()})
        return results, tokens

    classify(lines[: 4 * BATCH])
    start = time.perf_counter()
    results, tokens = classify(lines)
    return results, tokens, time.perf_counter() - start


def main():
    folder, path = sys.argv[1:3]
    command = sys.argv[3:]
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    print("$ " + shlex.join(command) + " < " + path, flush=True)
    _, loading = stream(command + ["--quiet"], [{"text": "word", "label": lines[0]["label"]}], show=False)
    ours, seconds = stream(command, lines, show=True)
    print("  …", flush=True)
    seconds -= loading
    theirs, tokens, their_seconds = transformers_results(folder, lines)

    same = sum(mine["label"] == other["label"] for mine, other in zip(ours, theirs))
    right = sum(mine["label"] == line["label"] for mine, line in zip(ours, lines))
    furthest = max(abs(a - b) for mine, other in zip(ours, theirs) for a, b in zip(mine["logits"], other["logits"]))
    print("\n%d lines, %d tokens, of articles that were not trained on" % (len(lines), tokens))
    print("label right      %5.1f %%   %d lines; mean loss %.3f" % (100 * right / len(lines), right, sum(mine["loss"] for mine in ours) / len(lines)))
    print("label as in transformers %d of %d lines; logits differ by at most %.1e" % (same, len(lines), furthest))
    print("%-34s %8s %9s %10s" % ("", "seconds", "lines/s", "tokens/s"))
    for name, taken in [("annulus, two ranks of one thread", seconds), ("transformers, two threads", their_seconds)]:
        print("%-34s %8.2f %9.0f %10.0f" % (name, taken, len(lines) / taken, tokens / taken))
    print("annulus is %.2f times as fast; before the first line it took %.2f s to start and load" % (their_seconds / seconds, loading))
    if len(ours) != len(lines) or same != len(lines):
        sys.exit("score.py: annulus and transformers label %d lines differently" % (len(lines) - same))


if __name__ == "__main__":
    main()
