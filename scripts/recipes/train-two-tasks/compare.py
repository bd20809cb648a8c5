"""Prints what the trainings of a folder came to: compare.py FOLDER. Exits with 1 where the shared encoder falls behind."""

import json
import sys


def last(name):
    """The last value of everything that a training logged, without the number of the task in a name."""
    found = {}
    with open(f"{sys.argv[1]}/{name}/trainer_state.json") as file:
        for entry in json.load(file)["log_history"]:
            found.update(entry)
    return found


start, topics, pairs, both = (last(name) for name in ("start", "topics", "pairs", "both"))
of_start, of_pairs, shared_pairs = start["eval_accuracy"], pairs["eval_accuracy"], both["eval_2_similarity_accuracy"]
of_topics, shared_topics = topics["eval_accuracy"], both["eval_1_classify_accuracy"]
print("                         topic right   next paragraph found")
print(f"the model as it was                -   {100 * of_start:18.1f} %")
print(f"topics alone             {100 * of_topics:9.1f} %                      -")
print(f"pairs alone                        -   {100 * of_pairs:18.1f} %")
print(f"both, one encoder        {100 * shared_topics:9.1f} %   {100 * shared_pairs:18.1f} %")
print(f"learned weights: {both['weight_1_classify']:.3f} of topics, {both['weight_2_similarity']:.3f} of pairs")
sys.exit(0 if shared_topics >= of_topics - 0.01 and shared_pairs >= of_pairs - 0.01 and shared_pairs > of_start else 1)
