#!/usr/bin/env python3
"""Rebuilds published models by their file lists with random weights, and compares annulus with transformers and
sentence-transformers on each: the table of docs/models.md.

  scripts/compare/published-models.py                 all of published-models.json; the table goes to standard output
  scripts/compare/published-models.py bge labse       those whose names hold one of the words
  scripts/compare/published-models.py --keep FOLDER   the folders are left there

published-models.json has for each model the page of its file list, its root files and the keys of its settings, as the pages
show them; `unseen` names what no page showed. A model is made small: few layers, narrow, a vocabulary trained on the lines below;
everything else is as published. What is compared: ids of all lines and pairs; vectors as sentence-transformers encodes them, with
the model's prompts; scores of pairs, labels, entities, answers, guesses for masks, or states.

Needs a python3 with transformers, sentence-transformers and sentencepiece (ANNULUS_GOLDENS_PYTHON names one, see
scripts/goldens/make.py), and a build in release mode.
"""

import argparse
import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
if __name__ == "__main__" and os.environ.get("ANNULUS_GOLDENS_PYTHON") and os.environ.get("ANNULUS_PUBLISHED") is None:
    os.environ["ANNULUS_PUBLISHED"] = "1"
    os.execv(os.environ["ANNULUS_GOLDENS_PYTHON"], [os.environ["ANNULUS_GOLDENS_PYTHON"], __file__, *sys.argv[1:]])

for key, value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1"}.items():
    os.environ.setdefault(key, value)
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(ROOT / "scripts/goldens"))
import tokenizer_folders

transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
BINARY = os.environ.get("ANNULUS") or str(ROOT / ".build/release/annulus")
LINES = [
    "The river runs cold when the rain falls.", "Birds fly over green hills in the morning!", "Wolfgang lives in Berlin, isn't that right?",
    "Où est la bibliothèque? C'est près de Zürich.", "A question, an answer and a list of 42 numbers: 1.5, 2, 3.", "rain", "HILLS and Valleys",
    "What falls on the hills? Rain falls; rivers run; and nobody asks why the cold wind sings.",
]
PAIRS = [(LINES[2], LINES[0]), (LINES[5], LINES[7]), (LINES[6], LINES[1])]
PROTEINS = ["MKTAYIAKQR", "GSHMLEDPVA", "ACDEFGHIKLMNPQRSTVWY"]
WIDTH, HEADS, LAYERS, INNER = 16, 2, 2, 24


def trained_lines():
    return (LINES + [" ".join(pair) for pair in PAIRS]) * 5


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False))


class Folder:
    """A published model's folder, rebuilt."""

    def __init__(self, entry, path):
        self.entry, self.path = entry, path
        self.files = entry["files"]
        self.type = entry["config"]["model_type"]
        inner = (entry["modules"] or [{"path": ""}])[0].get("path") or ""
        # Where the transformer lies in a folder of its own, so do its files; what the list has at the root is there, too.
        self.transformer = path / inner
        path.mkdir(parents=True)
        self.transformer.mkdir(exist_ok=True)
        self.places = [inner + "/" if inner else "", ""] if inner else [""]
        self.write_settings()
        self.write_vocabulary()
        self.write_config()
        self.write_weights()
        self.write_modules()
        self.reference = path  # What the reference reads.
        if self.type == "nomic_bert":
            self.reference = path.parent / (path.name + "--reference")
            shutil.copytree(path, self.reference, dirs_exist_ok=True)
            self.auto_config().save_pretrained(self.reference)

    def has(self, name):
        return any(place + name in self.files for place in self.places)

    def write_settings(self):
        for name, value in [("tokenizer_config.json", self.entry["tokenizer_config"]), ("special_tokens_map.json", self.entry["special_tokens_map"])]:
            for place in self.places:
                if place + name in self.files and value is not None:
                    write_json(self.path / (place + name), self.scaled_tokens(value))
        if "added_tokens.json" in self.files:
            self.added = (self.entry["other"] or {}).get("added_tokens.json")

    def scaled_tokens(self, value):
        """Added tokens by the ids of the small vocabulary: those that it has keep their ids there."""
        value = copy.deepcopy(value)
        self.decoder = value.get("added_tokens_decoder") if isinstance(value, dict) else None
        return value

    def write_vocabulary(self):
        lines = trained_lines()
        settings = self.entry["tokenizer_config"] or {}
        name = (settings.get("tokenizer_class") or self.entry["config"].get("tokenizer_class") or "").removesuffix("Fast")
        pieces = next((file for file in ["sentencepiece.bpe.model", "spiece.model", "spm.model"] if self.has(file)), None)
        special = {key: value["content"] if isinstance(value, dict) else value
                   for key, value in {**(self.entry["special_tokens_map"] or {}), **settings}.items() if key.endswith("_token") and value}
        if self.type == "esm":
            tokens = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
            (self.transformer / "vocab.txt").write_text("\n".join(tokens))
            return
        if pieces or name in ("XLMRobertaTokenizer", "CamembertTokenizer") or special.get("unk_token") == "<unk>" and not self.has("merges.txt") \
                and self.type in ("bert", "xlm-roberta", "camembert", "albert"):
            kind = pieces or "sentencepiece.bpe.model"
            options = {
                "spiece.model": dict(pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"]),
                "spm.model": dict(pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]"),
            }.get(kind, {})
            tokenizer_folders.pieces(lines, 200, self.transformer / kind, normalization_rule_name="nmt_nfkc", **options)
            slow = {"sentencepiece.bpe.model": "CamembertTokenizer" if self.type == "camembert" else "XLMRobertaTokenizer",
                    "spiece.model": "AlbertTokenizer", "spm.model": "DebertaV2Tokenizer"}[kind]
            if self.has("tokenizer.json"):
                self.convert(slow, special)
            if not pieces:
                (self.transformer / kind).unlink()
            return
        lowercases = settings.get("do_lower_case", True)
        if self.has("merges.txt") or self.type in ("roberta", "modernbert"):
            tokenizer = tokenizer_folders.byte_pairs(lines, 420)
            if self.type == "modernbert":
                text = tokenizer.to_str()
                for old, new in [("<s>", "[CLS]"), ("</s>", "[SEP]"), ("<pad>", "[PAD]"), ("<unk>", "[UNK]"), ("<mask>", "[MASK]")]:
                    text = text.replace(json.dumps(old), json.dumps(new))
                value = json.loads(text)
                ids = value["model"]["vocab"]
                value["post_processor"] = {
                    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                                             {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                    "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                             {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                    "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ["[CLS]", "[SEP]"]}}
                tokenizer = tokenizer_folders.Tokenizer.from_str(json.dumps(value))
        else:
            tokenizer = tokenizer_folders.wordpiece(lines, 260, lowercases)
            if special.get("cls_token") == "<s>":  # MPNet has RoBERTa's special tokens and BERT's words.
                value = json.loads(tokenizer.to_str().replace('"[CLS]"', '"<s>"').replace('"[SEP]"', '"</s>"').replace('"[PAD]"', '"<pad>"').replace('"[MASK]"', '"<mask>"'))
                tokenizer = tokenizer_folders.Tokenizer.from_str(json.dumps(value))
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        for place in self.places:
            if place + "vocab.txt" in self.files:
                (self.path / (place + "vocab.txt")).write_text("".join(token + "\n" for token, _ in vocabulary))
            if place + "tokenizer.json" in self.files:
                tokenizer.save(str(self.path / (place + "tokenizer.json")))
            if place + "vocab.json" in self.files:
                model = json.loads(tokenizer.to_str())["model"]
                write_json(self.path / (place + "vocab.json"), model["vocab"])
                rows = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
                (self.path / (place + "merges.txt")).write_text("#version: 0.2\n" + "".join(row + "\n" for row in rows))
        self.move_added_tokens(dict(vocabulary))

    def move_added_tokens(self, vocabulary):
        """`added_tokens_decoder` by the ids of the small vocabulary; what is not in it comes behind."""
        for place in self.places:
            path = self.path / (place + "tokenizer_config.json")
            if not path.exists():
                continue
            settings = json.loads(path.read_text())
            entries = settings.get("added_tokens_decoder")
            if not entries:
                continue
            if isinstance(entries, str):  # A page that was too long to be seen whole; tokenizer.json has them all the same.
                del settings["added_tokens_decoder"]
                write_json(path, settings)
                continue
            last, moved = len(vocabulary), {}
            for _, token in sorted(entries.items(), key=lambda item: int(item[0])):
                if token["content"] in vocabulary:
                    moved[str(vocabulary[token["content"]])] = token
                else:
                    moved[str(last)], last = token, last + 1
            settings["added_tokens_decoder"] = moved
            write_json(path, settings)

    def convert(self, class_name, special):
        """tokenizer.json out of the sentencepiece model, as transformers saves it."""
        with tempfile.TemporaryDirectory() as scratch:
            for file in self.transformer.glob("*.model"):
                shutil.copy(file, scratch)
            tokenizer = getattr(transformers, class_name).from_pretrained(scratch, **{
                key: value for key, value in special.items() if key in ("bos_token", "eos_token", "cls_token", "sep_token", "unk_token", "pad_token", "mask_token")})
            for place in self.places:
                if place + "tokenizer.json" in self.files:
                    tokenizer.backend_tokenizer.save(str(self.path / (place + "tokenizer.json")))
            self.move_added_tokens(tokenizer.get_vocab())

    def tokenizer(self):
        # In the old layout the settings of the tokenizer may lie at the root alone.
        return transformers.AutoTokenizer.from_pretrained(str(self.transformer))

    def write_config(self):
        config = copy.deepcopy(self.entry["config"])
        wide = {"hidden_size": WIDTH, "dim": WIDTH, "n_embd": WIDTH, "num_hidden_layers": LAYERS, "n_layers": LAYERS, "n_layer": LAYERS,
                "num_attention_heads": HEADS, "n_heads": HEADS, "n_head": HEADS, "intermediate_size": INNER, "hidden_dim": INNER, "n_inner": INNER,
                "embedding_size": WIDTH if self.type == "electra" else 12}
        for key, value in wide.items():
            if key in config:
                config[key] = value
        if self.type == "nomic_bert":
            config["pad_vocab_size_multiple"] = 1
        if "pooler_hidden_size" in config:
            config["pooler_hidden_size"] = WIDTH
        for key in ["max_position_embeddings", "n_positions"]:
            if key in config:
                config[key] = min(config[key], 514)
        config.pop("_name_or_path", None)
        write_json(self.transformer / "config.json", config)
        rows = len(self.tokenizer())
        config["vocab_size"] = rows
        if self.type == "esm":
            config["vocab_size"] = 33
        tokens = self.tokenizer()
        for key in ["pad", "bos", "eos", "cls", "sep", "mask"]:
            if config.get(f"{key}_token_id") is not None and getattr(tokens, f"{key}_token_id", None) is not None and self.type != "bert":
                config[f"{key}_token_id"] = getattr(tokens, f"{key}_token_id")
        self.config = config
        for place in self.places:
            write_json(self.path / (place + "config.json"), config)

    def model_class(self):
        name = (self.config.get("architectures") or [""])[0]
        if name in ("NomicBertModel", "HF_ColBERT") or not hasattr(transformers, name):
            name = {"HF_ColBERT": "BertModel"}.get(name) or transformers.AutoModel._model_mapping[type(self.auto_config())].__name__
        return getattr(transformers, name)

    def auto_config(self):
        if self.type == "nomic_bert":  # The page's keys are those of the code beside the weights; transformers' class has its own.
            return transformers.NomicBertConfig(
                hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER, vocab_size=self.config["vocab_size"],
                max_position_embeddings=self.config["n_positions"], type_vocab_size=self.config["type_vocab_size"],
                rope_parameters={"rope_type": "default", "rope_theta": float(self.config["rotary_emb_base"])})
        return transformers.AutoConfig.from_pretrained(str(self.transformer))

    def write_weights(self):
        model = self.model_class()(self.auto_config()).eval()
        generator = torch.Generator().manual_seed(len(self.entry["name"]))
        with torch.no_grad():
            for name, parameter in sorted(model.named_parameters()):
                scale = 0.2 if parameter.dim() == 1 else 0.4 if "embeddings" in name else 1.2 / parameter.shape[-1] ** 0.5
                value = torch.randn(parameter.shape, generator=generator) * scale
                parameter.copy_((value + (1 if parameter.dim() == 1 and name.endswith("weight") else 0)).half().float())
        if self.config.get("architectures") == ["HF_ColBERT"]:
            model.linear = torch.nn.Linear(WIDTH, 8, bias=False)
            with torch.no_grad():
                model.linear.weight.copy_(torch.randn(8, WIDTH, generator=generator))
        self.model = model
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        if self.type == "nomic_bert":  # Under the published names, which transformers' own class is saved with.
            from safetensors.torch import load_file

            with tempfile.TemporaryDirectory() as scratch:
                model.save_pretrained(scratch)
                state = load_file(scratch + "/model.safetensors")
        # Shared tensors are written once, under the embeddings' name.
        seen = {}
        for name in sorted(state, key=lambda name: ".decoder." in name):
            key = (state[name].data_ptr(), tuple(state[name].shape))
            if key in seen and state[name].numel() > 1:
                del state[name]
            seen.setdefault(key, name)
        # Where no list has weights of its own kind, PyTorch's are there.
        for place in self.places:
            if place + "model.safetensors" in self.files:
                save_file({name: value.clone() for name, value in state.items()}, str(self.path / (place + "model.safetensors")), metadata={"format": "pt"})
            if place + "pytorch_model.bin" in self.files:
                half = self.entry["name"] == "microsoft/deberta-v3-base"
                old = not (self.path / (place + "model.safetensors")).exists() and self.entry["name"] in ("ProsusAI/finbert", "google/electra-base-discriminator")
                torch.save({name: value.half() if half and value.is_floating_point() else value for name, value in state.items()},
                           self.path / (place + "pytorch_model.bin"), _use_new_zipfile_serialization=not old)

    def write_modules(self):
        if self.entry["modules"] is not None:
            write_json(self.path / "modules.json", self.entry["modules"])
        hidden = self.entry["config"].get("hidden_size") or self.entry["config"].get("dim") or self.entry["config"].get("n_embd")
        for name, value in (self.entry["other"] or {}).items():
            if name not in self.files or name.endswith("tokenizer.json") or not isinstance(value, dict) or name in ("config.json", "0_Transformer/config.json"):
                continue
            value = copy.deepcopy(value)
            for key in ["word_embedding_dimension", "embedding_dimension", "in_features", "out_features"]:
                if key in value:
                    value[key] = max(2, value[key] * WIDTH // hidden)
            if name == "added_tokens.json":
                vocabulary = self.tokenizer().get_vocab()
                value = {token: vocabulary[token] for token in value if token in vocabulary}
            write_json(self.path / name, value)
            if name.endswith("_Dense/config.json"):
                generator = torch.Generator().manual_seed(3)
                weights = {"linear.weight": torch.randn(value["out_features"], value["in_features"], generator=generator)}
                if value.get("bias", True):
                    weights["linear.bias"] = torch.randn(value["out_features"], generator=generator)
                folder = (self.path / name).parent
                if str(folder.relative_to(self.path)) + "/model.safetensors" in self.files:
                    save_file(weights, str(folder / "model.safetensors"))
                else:
                    torch.save(weights, folder / "pytorch_model.bin")


def annulus(*arguments, documents):
    text = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    run = subprocess.run([BINARY, *map(str, arguments), "--input-format", "jsonl", "--quiet"], input=text, capture_output=True, text=True)
    if run.returncode:
        raise Refusal(next((line for line in run.stderr.splitlines() if line.startswith("annulus:")), f"status {run.returncode}"))
    return [json.loads(line) for line in run.stdout.splitlines()]


class Refusal(Exception):
    pass


def worst(found, wanted):
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        raise Refusal(f"shapes {found.shape} for {wanted.shape}")
    return float(np.abs(found - wanted).max() / max(1, np.abs(wanted).max())) if found.size else 0.0


def texts_of(folder):
    return PROTEINS if folder.type == "esm" else LINES


def compare_ids(folder):
    tokenizer = folder.tokenizer()
    texts = texts_of(folder)
    documents = [{"text": text} for text in texts]
    wanted = [tokenizer(text)["input_ids"] for text in texts]
    if folder.type != "esm":
        documents += [{"text": a, "text_pair": b} for a, b in PAIRS]
        wanted += [tokenizer(a, b)["input_ids"] for a, b in PAIRS]
    found = [line["ids"] for line in annulus("tokenize", "-m", folder.path, documents=documents)]
    for one, other, document in zip(found, wanted, documents):
        if one != other:
            raise Refusal(f"ids of {document}: {one} for {other}")
    return f"ids of {len(wanted)}"


def compare_vectors(folder):
    from sentence_transformers import SentenceTransformer

    # Weights in half precision are computed with in float32, as annulus does.
    model = SentenceTransformer(str(folder.reference), device="cpu", model_kwargs={"dtype": torch.float32})
    found = annulus("embed", "-m", folder.path, documents=[{"text": text} for text in LINES])
    error = worst([line["embedding"] for line in found], model.encode(LINES))
    parts = [("vectors", error)]
    for name in sorted(set(model.prompts) & {"query", "document", "passage", "search_query", "search_document"}):
        if model.prompts[name]:
            found = annulus("embed", "-m", folder.path, "--prompt-name", name, documents=[{"text": text} for text in LINES])
            parts.append((f"prompt {name}", worst([line["embedding"] for line in found], model.encode(LINES, prompt_name=name))))
    return parts


def compare_states(folder):
    """The transformer's states, and of a ColBERT their projections."""
    tokenizer, config = folder.tokenizer(), folder.auto_config()
    model = transformers.AutoModel.from_pretrained(str(folder.transformer), dtype=torch.float32).eval()
    error = 0.0
    for text in texts_of(folder)[:4]:
        with torch.no_grad():
            wanted = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        if folder.entry["modules"]:  # modules.json says what comes behind; a ColBERT folder without one has its projection in the model.
            from safetensors.torch import load_file

            wanted = wanted @ load_file(str(folder.path / "1_Dense/model.safetensors"))["linear.weight"].T
        elif hasattr(folder.model, "linear"):
            wanted = wanted @ folder.model.linear.weight.T
        found = annulus("embed", "-m", folder.path, "--pooling", "none", documents=[{"text": text}])
        error = max(error, worst(found[0]["embeddings"], wanted.detach()))
    return [("states of tokens", error)]


def compare_task(folder, task):
    tokenizer = folder.tokenizer()
    if task == "sequence":
        from sentence_transformers import CrossEncoder

        model = transformers.AutoModelForSequenceClassification.from_pretrained(str(folder.path), dtype=torch.float32).eval()
        documents = [{"text": a, "text_pair": b} for a, b in PAIRS] + [{"text": text} for text in LINES]
        wanted = []
        for document in documents:
            with torch.no_grad():
                wanted.append(model(**tokenizer(document["text"], document.get("text_pair"), return_tensors="pt")).logits[0].numpy())
        found = annulus("classify", "-m", folder.path, "--top-k", "99", documents=documents)
        error = worst([line[0]["logits"] for line in found], wanted)
        parts = [("logits", error)]
        names = [model.config.id2label[i] for i in range(len(wanted[0]))]
        if len(names) == 1:
            scores = np.ravel(CrossEncoder(str(folder.path), device="cpu", model_kwargs={"dtype": torch.float32}).predict(PAIRS))
            parts.append(("scores of pairs", worst([line[0]["score"] for line in found[: len(PAIRS)]], scores)))
        else:
            pipe = transformers.pipeline("text-classification", model=str(folder.path), tokenizer=str(folder.path), device="cpu", top_k=None)
            one = {entry["label"]: entry["score"] for entry in pipe([LINES[0]])[0]}
            parts.append(("scores of labels", worst([{e["label"]: e["score"] for e in found[len(PAIRS)]}[name] for name in names], [one[name] for name in names])))
        return parts
    if task == "tokens":
        pipe = transformers.pipeline("token-classification", model=str(folder.path), tokenizer=str(folder.path), device="cpu", aggregation_strategy="simple")
        error, count = 0.0, 0
        found = annulus("ner", "-m", folder.path, "--aggregation", "simple", documents=[{"text": text} for text in LINES])
        for text, entities in zip(LINES, found):
            wanted = pipe(text)
            if [(e["entity_group"], e["start"], e["end"]) for e in entities] != [(e["entity_group"], e["start"], e["end"]) for e in wanted]:
                raise Refusal(f"entities of {text!r}: {entities} for {wanted}")
            error = max(error, worst([e["score"] for e in entities], [float(e["score"]) for e in wanted]))
            count += len(wanted)
        return [(f"{count} entities", error)]
    if task == "answers":
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(str(folder.path), dtype=torch.float32).eval()
        context = " ".join(LINES)
        inputs = tokenizer(LINES[4], context, return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        sequences, words = inputs.sequence_ids(0), inputs.word_ids(0)
        with torch.no_grad():
            output = model(**inputs)
        inside = np.array([s == 1 for s in sequences])
        keep = inside.copy()
        keep[0] = True
        start, end = (torch.softmax(torch.where(torch.tensor(keep), x[0].double(), torch.tensor(-1e4, dtype=torch.double)), 0).numpy() for x in (output.start_logits, output.end_logits))
        scores = np.tril(np.triu(np.outer(start, end)), 14) * np.outer(inside, inside)
        first, last = divmod(int(scores.argmax()), len(scores))
        word = lambda token: [offsets[i] for i in range(len(words)) if inside[i] and words[i] == words[token]]
        wanted = (word(first)[0][0], word(last)[-1][1])
        found = annulus("answer", LINES[4], "-m", folder.path, documents=[{"text": context}])[0]
        if (found["start"], found["end"]) != wanted:
            raise Refusal(f"the answer {found} for {wanted}")
        return [("an answer", worst([found["score"]], [scores[first, last]]))]
    mask = tokenizer.mask_token
    text = "".join(PROTEINS[0][:4] + mask + PROTEINS[1]) if folder.type == "esm" else f"The river {mask} cold when rain falls."
    pipe = transformers.pipeline("fill-mask", model=str(folder.path), tokenizer=str(folder.path), device="cpu")
    wanted = pipe(text)
    found = annulus("fill-mask", "-m", folder.path, documents=[{"text": text}])[0]
    if [e["token"] for e in found] != [e["token"] for e in wanted] or [e["sequence"] for e in found] != [e["sequence"] for e in wanted]:
        raise Refusal(f"guesses {found} for {wanted}")
    return [("5 guesses", worst([e["score"] for e in found], [e["score"] for e in wanted]))]


def compare(folder):
    """What was compared and came out the same, and the largest difference in parts of the largest value."""
    done = [compare_ids(folder)]
    name = (folder.config.get("architectures") or [""])[0]
    kinds = [module["type"].split(".")[-1] for module in folder.entry["modules"] or []]
    if "Pooling" in kinds:
        parts = compare_vectors(folder)
    elif "HF_ColBERT" in name or "Dense" in kinds:
        parts = compare_states(folder)
    elif name.endswith("ForSequenceClassification"):
        parts = compare_task(folder, "sequence")
    elif name.endswith("ForTokenClassification"):
        parts = compare_task(folder, "tokens")
    elif name.endswith("ForQuestionAnswering"):
        parts = compare_task(folder, "answers")
    elif name.endswith("ForMaskedLM"):
        parts = compare_task(folder, "masks") + compare_states(folder)
    else:
        parts = compare_states(folder)
    return ", ".join(done + [part for part, _ in parts]), max(error for _, error in parts)


def layout(entry):
    """What tells a folder's layout from another: kinds of weights, vocabularies and settings, and modules."""
    files = set(entry["files"])
    weights = next((name for name in ["model.safetensors", "pytorch_model.bin"] if name in files or any(f.endswith("/" + name) for f in files)), "")
    words = [name for name in ["tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model"] if any(f.split("/")[-1] == name for f in files)]
    settings = [name for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "artifact.metadata"] if name in files]
    modules = [module["type"].split(".")[-1] for module in entry["modules"] or []]
    return weights, words, settings, modules


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    entries = json.loads((ROOT / "scripts/compare/published-models.json").read_text())
    entries = [entry for entry in entries if not arguments.words or any(word.lower() in entry["name"].lower() for word in arguments.words)]
    layouts, types, rows, good = set(), set(), [], 0
    with tempfile.TemporaryDirectory(prefix="annulus-published-") as scratch:
        base = arguments.keep or pathlib.Path(scratch)
        for entry in entries:
            name, (kind, words, settings, modules) = entry["name"], layout(entry)
            path = base / name.replace("/", "--")
            shutil.rmtree(path, ignore_errors=True)
            try:
                folder = Folder(entry, path)
                what, error = compare(folder)
                result = f"✓ {error:.0e}" if error < 2e-5 else f"✗ {error:.0e}"
                good += error < 2e-5
            except Refusal as refusal:
                what, result = "", "refused: " + str(refusal).replace(str(path), "MODEL")[:300]
            except Exception as error:  # noqa: BLE001  # The reference itself may refuse a folder.
                what, result = "", f"not compared: the reference says {type(error).__name__}: {str(error)[:200]}"
                if os.environ.get("VERBOSE"):
                    raise
            layouts.add((kind, tuple(words), tuple(settings), tuple(modules)))
            types.add(entry["config"]["model_type"])
            shown = " + ".join([kind, *words, *settings]).replace("_", "\\_")
            rows.append(f"| [{name}]({entry['source']}) | {entry['config']['model_type']} | {shown}{'; ' + ' → '.join(modules) if modules else ''} | {what} | {result} |")
            print(name, what, result, file=sys.stderr, flush=True)
    versions = f"transformers {transformers.__version__}, sentence-transformers {__import__('sentence_transformers').__version__}"
    print(f"Layout only, random weights. {len(rows)} models, {len(types)} types, {len(layouts)} layouts; {good} as {versions} have them.\n")
    print("| model, and its file list | type | files that count; modules | the same | largest difference |\n| --- | --- | --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
