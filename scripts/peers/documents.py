"""Short documents through a BERT-shaped model: random ids, and the peers that pool a vector of each."""

import json
import random
import sys
import time

# A peer takes the fastest of these at its start.
BATCH_SIZES = (1, 4, 8, 16, 32)


def write(path, count, lengths, seed=1):
    """Writes a file of documents of random ids, and gives their lengths."""
    generator = random.Random(seed)
    wanted = [generator.choice(lengths) for _ in range(count)]
    with open(path, "w") as file:
        for length in wanted:
            file.write(json.dumps([101] + [generator.randrange(1000, 30522) for _ in range(length - 2)] + [102]) + "\n")
    return wanted


def pooled(states_of, documents, vectors):
    """What runs the documents once, in batches of like length, padded; each gets the mean of its states, divided by its norm.
    The vectors are compared with those of a file: both sides must have done the same work.
    - states_of: gives the states of int arrays of ids and mask, (documents, tokens)."""
    import numpy

    with open(documents) as file:
        texts = [json.loads(line) for line in file]
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))

    def batch(numbers):
        longest = max(len(texts[number]) for number in numbers)
        ids, mask = (numpy.zeros((len(numbers), longest), numpy.int64) for _ in range(2))
        for row, number in enumerate(numbers):
            ids[row, : len(texts[number])] = texts[number]
            mask[row, : len(texts[number])] = 1
        return ids, mask

    def embed(size):
        found = [None] * len(texts)
        start = time.perf_counter()
        for first in range(0, len(texts), size):
            numbers = order[first : first + size]
            ids, mask = batch(numbers)
            sums = (states_of(ids, mask) * mask[..., None].astype(numpy.float32)).sum(1)
            for number, vector in zip(numbers, sums / numpy.linalg.norm(sums, axis=1, keepdims=True)):
                found[number] = vector
        return time.perf_counter() - start, numpy.array(found)

    embed(BATCH_SIZES[-1])
    # By the faster of two rounds, for one may have been disturbed.
    rounds = [[embed(size)[0] for size in BATCH_SIZES] for _ in range(2)]
    best = min(zip(map(min, *rounds), BATCH_SIZES))[1]

    def run():
        seconds, found = embed(best)
        difference = float(numpy.abs(found - numpy.load(vectors)).max())
        if not difference <= 1e-5:
            sys.exit("its vectors differ from those of annulus by %g" % difference)
        return seconds

    run.chosen = {"batch_size": best}
    return run


def onnx_documents(threads, folder, documents, vectors):
    """ONNX Runtime over a checkpoint, in the operators that its own optimiser fuses to."""
    import bert_graph
    import numpy
    from safetensors.numpy import load_file

    with open(folder + "/config.json") as file:
        config = json.load(file)
    tensors = load_file(folder + "/model.safetensors")
    hidden = config["hidden_size"]
    graph = bert_graph.Graph(lambda name, *shape: tensors[name].reshape(shape))
    rows = graph.embeddings("ids", "segments", config["vocab_size"], config["max_position_embeddings"], hidden)
    states = graph.encoder(rows, hidden, config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"], "mask")
    inputs = {name: (numpy.int32, ["documents", "tokens"]) for name in ("ids", "segments", "mask")}
    session = bert_graph.session(graph.nodes, graph.weights, inputs, states, threads)

    def states_of(ids, mask):
        ids, mask = ids.astype(numpy.int32), mask.astype(numpy.int32)
        return session.run(None, {"ids": ids, "segments": numpy.zeros_like(ids), "mask": mask})[0]

    return pooled(states_of, documents, vectors)


def openvino_documents(threads, folder, documents, vectors):
    """OpenVINO over a checkpoint, as it converts transformers' model."""
    import openvino
    import torch
    from kernel_peers import openvino_compiled
    from transformers import AutoModel

    torch.set_grad_enabled(False)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    example = torch.ones(2, 8, dtype=torch.int64)
    converted = openvino.convert_model(model, example_input={"input_ids": example, "attention_mask": example})
    compiled = openvino_compiled(converted, threads)
    return pooled(lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})[0], documents, vectors)


PEERS = {"onnx-documents": onnx_documents, "openvino-documents": openvino_documents}
