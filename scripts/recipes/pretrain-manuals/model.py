"""Makes the model that is trained, with random weights, and says how well token counts alone would guess.

    model.py make MINILM IDS FOLDER       writes the tokenizer and a model of its vocabulary: IDS are what `annulus tokenize` printed
    model.py unigram TRAIN HELD-OUT       prints the mean of -ln p over the held-out tokens, p being a token's share of the trained ones

The tokenizer is that of all-MiniLM-L6-v2, of whose pieces the commonest are kept and all single characters: what falls away is
spelt with smaller pieces. The model has ModernBERT's layers, of which the first of four sees the whole window and the others 128
tokens about each.
"""

import array
import json
import os
import random
import struct
import sys
from collections import Counter
from math import log

PIECES, WINDOW = 4096, 8192
HIDDEN, LAYERS, HEADS, INNER = 256, 4, 4, 512
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def counts(path):
    """How often each token occurs in the lines of `annulus tokenize`, special ones left out."""
    found = Counter()
    with open(path) as file:
        for line in file:
            found.update(json.loads(line)["ids"][1:-1])
    return found


def tokenizer(minilm, ids):
    """The tokenizer with the commonest pieces."""
    with open(minilm + "/tokenizer.json", encoding="utf-8") as file:
        content = json.load(file)
    pieces = {number: piece for piece, number in content["model"]["vocab"].items()}
    single = [piece for piece in content["model"]["vocab"] if len(piece) == 1 or piece.startswith("##") and len(piece) == 3]
    # Characters that the texts never have are unknown.
    usual = [pieces[number] for number, _ in sorted(counts(ids).items(), key=lambda entry: (-entry[1], entry[0]))]
    letters = {letter for piece in usual for letter in piece.removeprefix("##")}
    kept = SPECIAL + [piece for piece in single if piece.removeprefix("##") in letters]
    known = set(kept)
    kept += [piece for piece in usual if piece not in known][: PIECES - len(kept)]
    content["model"]["vocab"] = {piece: number for number, piece in enumerate(kept)}
    for token in content["added_tokens"]:
        token["id"] = kept.index(token["content"])
    for name, token in content["post_processor"].get("special_tokens", {}).items():
        token["ids"] = [kept.index(name)]
    content["truncation"] = content["padding"] = None
    return content


def write_weights(path, shapes):
    """Normal numbers of deviation 0.02 for matrices, ones for norms, zeros for biases."""
    generator = random.Random(1)
    header, parts, place = {}, [], 0
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        if len(shape) > 1:
            values = array.array("f", (generator.gauss(0, 0.02) for _ in range(count)))
        else:
            values = array.array("f", [0.0 if name.endswith("bias") else 1.0]) * count
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + 4 * count]}
        place += 4 * count
        parts.append(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in parts:
            if sys.byteorder == "big":
                values.byteswap()
            values.tofile(file)


def make(minilm, ids, folder):
    content = tokenizer(minilm, ids)
    vocabulary = len(content["model"]["vocab"])
    os.makedirs(folder, exist_ok=True)
    config = {
        "architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert", "vocab_size": vocabulary, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER, "max_position_embeddings": WINDOW,
        "global_attn_every_n_layers": LAYERS, "local_attention": 128, "hidden_activation": "gelu", "classifier_activation": "gelu",
        "norm_eps": 1e-5, "norm_bias": False, "attention_bias": False, "mlp_bias": False, "decoder_bias": True,
        "tie_word_embeddings": True, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3,
    }
    shapes = {"model.embeddings.tok_embeddings.weight": [vocabulary, HIDDEN], "model.embeddings.norm.weight": [HIDDEN]}
    for layer in range(LAYERS):
        path = f"model.layers.{layer}."
        if layer > 0:
            shapes[path + "attn_norm.weight"] = [HIDDEN]
        shapes[path + "attn.Wqkv.weight"] = [3 * HIDDEN, HIDDEN]
        shapes[path + "attn.Wo.weight"] = [HIDDEN, HIDDEN]
        shapes[path + "mlp_norm.weight"] = [HIDDEN]
        shapes[path + "mlp.Wi.weight"] = [2 * INNER, HIDDEN]
        shapes[path + "mlp.Wo.weight"] = [HIDDEN, INNER]
    shapes |= {
        "model.final_norm.weight": [HIDDEN], "head.dense.weight": [HIDDEN, HIDDEN], "head.norm.weight": [HIDDEN],
        "decoder.bias": [vocabulary],
    }
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    for name, value in (
        ("config.json", config), ("tokenizer.json", content),
        ("tokenizer_config.json", special | {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
    write_weights(folder + "/model.safetensors", shapes)
    size = sum(a * b for a, b in (shape for shape in shapes.values() if len(shape) == 2))
    print(f"a vocabulary of {vocabulary} pieces, {size / 1e6:.1f} million weights")


def unigram(trained, held_out):
    known, tokens = counts(trained), counts(held_out)
    # A token that was never seen has the share of one half.
    total = sum(known.values()) + 0.5 * PIECES
    print(sum(count * -log((known[token] + 0.5) / total) for token, count in tokens.items()) / sum(tokens.values()))


if __name__ == "__main__":
    {"make": make, "unigram": unigram}[sys.argv[1]](*sys.argv[2:])
