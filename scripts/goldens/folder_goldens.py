"""Small model folders as people have them, with what the reference makes of them: sentence-transformers and transformers.

Imported by scripts/goldens/make.py, inside its environment. Each folder of the target holds a model in `model` and checks in
`checks.json`, a list of objects:

  arguments   of annulus, with MODEL for the model's folder; HERE is the folder of the checks
  input       what it reads on standard input
  ranks       on how many ranks, one by default
  lines       what the lines of standard output hold: JSON; objects may have more members than are named
  status      of a refusal, with words that its line holds in `says`
  notes       words that standard error holds though the status is 0

The words are made up, the weights come from seeds, and the models know nothing.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

torch.set_num_threads(1)
WIDTH = 12
SHAPE = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, max_position_embeddings=48)
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
WORDS = "a bird flies over green hills when rain falls and river runs cold ask answer : . , ? !".split()
LETTERS = "abcdefghiklmnoprstuvwy"
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"


def wordpiece(lowercases=True):
    """A BERT tokenizer of some words and of letters."""
    vocabulary = {}
    for token in [*NAMES.values(), *WORDS, *LETTERS, *LETTERS.upper(), *("##" + letter for letter in LETTERS), "é", "i̇", "##i̇"]:
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercases)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in NAMES.values()])
    return tokenizer


def bytes_tokenizer(prefix_space=False, pair="<s> $A </s> </s> $B </s>"):
    """A RoBERTa tokenizer of bytes and a few merges."""
    vocabulary = {}
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    for token in [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ra", "rai", "rain", "Ġr", "ri"]:
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, [("r", "a"), ("ra", "i"), ("rai", "n"), ("Ġ", "r"), ("r", "i")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer


def random_model(kind, rows, seed=1, **options):
    """A model of a transformers class, its weights normal numbers of a seed that float16 holds."""
    kind = getattr(transformers, kind)
    model = kind(kind.config_class(**(SHAPE | {"vocab_size": rows} | options)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            scale = 0.2 if parameter.dim() == 1 else 0.4 if "embeddings" in name else 1.3 / parameter.shape[-1] ** 0.5
            value = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_((value + (1 if parameter.dim() == 1 and name.endswith("weight") else 0)).half().float())
    return model.eval()


def write_json(path, value):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def numbers(values, digits=7):
    """Rounded far below what is compared, so that the file stays small."""
    return np.asarray(values, np.float64).round(digits).tolist()


class Case:
    """A folder under the target: a model, and checks."""

    def __init__(self, target, name):
        self.folder = Path(target) / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.model = self.folder / "model"
        self.model.mkdir(parents=True)
        self.checks = []

    def store(self, model, tokenizer, settings, folder=None, **changes):
        """As transformers writes it; the changes go into config.json."""
        folder = folder or self.model
        folder.mkdir(parents=True, exist_ok=True)
        if model is not None:
            model.save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", settings)
        if changes:
            config = json.loads((folder / "config.json").read_text())
            write_json(folder / "config.json", config | changes)
        (folder / "generation_config.json").unlink(missing_ok=True)

    def modules(self, *names, pooling=None, prefix="sentence_transformers.models."):
        write_json(self.model / "modules.json", [
            {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": prefix + name} for i, name in enumerate(names)])
        for place, name in enumerate(names):
            if name == "Pooling":
                settings = {"word_embedding_dimension": WIDTH} | (pooling or {"pooling_mode_mean_tokens": True})
                write_json(self.model / f"{place}_Pooling/config.json", settings)

    def dense(self, place, inputs, outputs, seed, activation=TANH, binary=False, **settings):
        """A dense module behind the others."""
        folder = self.model / f"{place}_Dense"
        settings = {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": activation} | settings
        write_json(folder / "config.json", settings)
        generator = torch.Generator().manual_seed(seed)
        weights = {"linear.weight": torch.randn(outputs, inputs, generator=generator)}
        if settings["bias"]:
            weights["linear.bias"] = torch.randn(outputs, generator=generator)
        if settings.get("use_residual") and inputs != outputs:
            weights["residual.weight"] = torch.randn(outputs, inputs, generator=generator)
        if binary:
            torch.save(weights, folder / "pytorch_model.bin")
        else:
            save_file(weights, str(folder / "model.safetensors"))

    def check(self, arguments, input="", lines=None, **more):
        """A run; the lines hold what the reference says."""
        check = {"arguments": arguments, "input": input} | ({"lines": lines} if lines is not None else {}) | more
        self.checks.append(check)

    def vectors(self, texts, arguments=(), **more):
        """Vectors equal what sentence-transformers encodes."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(self.model), device="cpu")
        with torch.no_grad():
            expected = model.encode(list(texts), **more.pop("encode", {}))
        self.check(["embed", "-m", "MODEL", *arguments], lines_of(texts), [{"embedding": numbers(row)} for row in expected], **more)

    def finish(self):
        for path in [*self.model.rglob("README.md"), *self.model.rglob(".gitattributes")]:
            path.unlink()
        for path in self.folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        write_json(self.folder / "checks.json", self.checks)


def lines_of(texts):
    return "".join(text + "\n" for text in texts)


def objects(values):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


TEXTS = ["a bird flies over green hills", "rain falls", "when rain falls and a cold river runs , ask a bird !"]
BERT = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **NAMES}
ROBERTA = {
    "tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
    "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}


def bert(case, kind="BertModel", seed=1, settings=BERT, changes={}, lowercases=True, **options):
    tokenizer = wordpiece(lowercases)
    case.store(random_model(kind, tokenizer.get_vocab_size(), seed, **options), tokenizer, settings, **changes)


def logits(folder, first, second=None, kind="AutoModelForSequenceClassification", **options):
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = getattr(transformers, kind).from_pretrained(str(folder), dtype=torch.float32).eval()
    inputs = tokenizer(first, second, return_tensors="pt", **options)
    with torch.no_grad():
        return model(**inputs).logits[0].numpy()


# ---------------------------------------------------------------------------------------------------------------
# sentence-transformers


def rerankers(target):
    from sentence_transformers import CrossEncoder

    pair = {"text": "ask a bird", "text_pair": "a bird flies over cold hills"}
    for name, activation in [("identity", torch.nn.Identity()), ("sigmoid", torch.nn.Sigmoid()), ("tanh", torch.nn.Tanh())]:
        case = Case(target, f"reranker-saved-{name}")
        base = Case(target, "base")
        bert(base, "BertForSequenceClassification", num_labels=1)
        CrossEncoder(str(base.model), device="cpu", activation_fn=activation).save_pretrained(str(case.model))
        shutil.rmtree(base.folder)
        score = CrossEncoder(str(case.model), device="cpu").predict([(pair["text"], pair["text_pair"])])
        case.check(["classify", "-m", "MODEL"], objects([pair]), [{"score": numbers(score)[0]}])
        case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=["Pooling"])
        case.finish()
    for name, changes in [
        ("nested", {"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"}}),
        ("older", {"sbert_ce_default_activation_function": IDENTITY}),
    ]:
        case = Case(target, f"reranker-config-{name}")
        bert(case, "BertForSequenceClassification", num_labels=3 if name == "nested" else 1, changes=changes)
        score = np.ravel(CrossEncoder(str(case.model), device="cpu").predict([(pair["text"], pair["text_pair"])]))
        order = sorted(range(len(score)), key=lambda i: -score[i])
        lines = [{"label": f"LABEL_{i}", "score": numbers(score[i])} for i in order]
        case.check(["classify", "-m", "MODEL", "--top-k", "9"], objects([pair]), [lines])
        case.finish()
    case = Case(target, "reranker-foreign-activation")
    bert(case, "BertForSequenceClassification", num_labels=1, changes={"sbert_ce_default_activation_function": "mine.Own"})
    case.check(["classify", "-m", "MODEL"], objects([pair]), status=65, says=["mine.Own"])
    case.finish()


def prompts(target):
    from sentence_transformers import SentenceTransformer

    question, documents = "ask a bird", ["rain falls", "answer : a river runs", "green hills", "when a bird flies"]
    for name, settings, notes in [
        ("both", {"prompts": {"query": "ask : ", "document": "answer : "}}, ["ask : ", "answer : "]),
        ("one", {"prompts": {"query": "ask : "}, "default_prompt_name": "query"}, ["ask : ", "nothing before passages"]),
        ("dot", {"prompts": {}, "similarity_fn_name": "dot"}, []),
        ("euclidean", {"prompts": {}, "similarity_fn_name": "euclidean"}, []),
    ]:
        case = Case(target, f"search-{name}")
        bert(case)
        case.modules("Transformer", "Pooling")
        write_json(case.model / "config_sentence_transformers.json", {"default_prompt_name": None} | settings)
        model = SentenceTransformer(str(case.model), device="cpu")
        # A text that begins with its prompt is not prefixed twice.
        put = settings["prompts"].get("document", "")
        bare = [text.removeprefix(put) for text in documents]
        scores = model.similarity(model.encode_query([question]), model.encode_document(bare))[0].tolist()
        order = sorted(range(len(documents)), key=lambda i: -scores[i])
        lines = [{"document": i, "score": numbers(scores[i])} for i in order]
        case.check(["search", question, "-m", "MODEL", "--format", "json", "--top-k", "9"], lines_of(documents), lines, notes=notes)
        case.finish()
    case = Case(target, "prompts")
    bert(case)
    case.modules("Transformer", "Pooling", pooling={"pooling_mode_weightedmean_tokens": True, "include_prompt": False})
    write_json(case.model / "config_sentence_transformers.json", {
        "prompts": {"ask": "ask : ", "answer": "answer a bird : "}, "default_prompt_name": "ask"})
    case.vectors(TEXTS)
    case.vectors(TEXTS, ["--prompt-name", "answer"], encode={"prompt_name": "answer"}, ranks=3)
    case.check(["embed", "-m", "MODEL", "--prompt-name", "other"], "rain\n", status=64, says=["other", "answer, ask"])
    case.finish()


def modules(target):
    case = Case(target, "dense")
    bert(case)
    case.modules("Transformer", "Pooling", "Dense", "Normalize")
    case.dense(2, WIDTH, 5, seed=2)
    case.vectors(TEXTS)
    case.vectors(TEXTS, ranks=3)
    case.check(["embed", "-m", "MODEL", "--truncate-dim", "6"], "rain\n", status=64, says=["5 values"])
    case.finish()

    case = Case(target, "dense-residual-norm")
    bert(case)
    case.modules("Transformer", "Pooling", "Dense", "LayerNorm", "Dense", "Dropout", pooling={"pooling_mode": ["max", "mean"]})
    case.dense(2, 2 * WIDTH, 8, seed=3, activation="torch.nn.modules.activation.GELU", use_residual=True, binary=True)
    write_json(case.model / "3_LayerNorm/config.json", {"dimension": 8})
    generator = torch.Generator().manual_seed(4)
    save_file({"norm.weight": torch.randn(8, generator=generator), "norm.bias": torch.randn(8, generator=generator)},
              str(case.model / "3_LayerNorm/model.safetensors"))
    case.dense(4, 8, 8, seed=5, activation="torch.nn.modules.activation.Sigmoid", bias=False, use_residual=True)
    write_json(case.model / "5_Dropout/config.json", {"dropout": 0.5})
    case.vectors(TEXTS)
    case.check(["embed", "-m", "MODEL", "--pooling", "mean"], "rain\n", status=65, says=["24 values", "12"])
    case.finish()

    case = Case(target, "two-poolings")
    bert(case)
    case.modules("Transformer", "Pooling", pooling={
        "pooling_mode_lasttoken": True, "pooling_mode_cls_token": True, "pooling_mode_mean_sqrt_len_tokens": True})
    case.vectors(TEXTS)
    case.finish()

    case = Case(target, "dimensions")
    bert(case)
    case.modules("Transformer", "Pooling", "Normalize")
    write_json(case.model / "config_sentence_transformers.json", {"truncate_dim": 7, "prompts": {}})
    case.vectors(TEXTS)
    case.vectors(TEXTS, ["--normalize"], encode={"normalize_embeddings": True})
    case.finish()

    case = Case(target, "unknown-module")
    bert(case)
    case.modules("Transformer", "Pooling", "WordWeights")
    case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=["WordWeights"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(case.model))
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(str(case.model))(**tokenizer("rain", return_tensors="pt")).last_hidden_state[0]
    case.check(["embed", "-m", "MODEL", "--pooling", "none"], "rain\n", [{"embeddings": numbers(states)}])
    case.finish()


def layouts(target):
    case = Case(target, "old-layout")
    tokenizer = wordpiece(lowercases=False)
    settings = BERT | {"do_lower_case": False}
    case.store(random_model("BertModel", tokenizer.get_vocab_size()), tokenizer, settings, folder=case.model / "0_Transformer")
    case.modules("Transformer", "Pooling", pooling={"pooling_mode_cls_token": True})
    modules = json.loads((case.model / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(case.model / "modules.json", modules)
    write_json(case.model / "config.json", {"__version__": "0.3.8"})
    write_json(case.model / "0_Transformer/sentence_roberta_config.json", {"max_seq_length": 40, "do_lower_case": True})
    case.vectors(TEXTS + ["A BIRD flies"])
    case.finish()

    case = Case(target, "trained-length")
    bert(case, settings=BERT | {"model_max_length": 6})
    case.modules("Transformer", "Pooling")
    case.vectors(TEXTS, ["--max-length", "model", "--truncate", "right"], notes=["cut to the limit of 6 tokens"])
    case.check(["embed", "-m", "MODEL"], lines_of(TEXTS), notes=["more than the 6 that the model was trained for", "model_max_length"])
    case.check(["embed", "-m", "MODEL", "--max-length", "model"], lines_of(TEXTS), status=65, says=["the limit is 6"])
    case.finish()


def other_models(target):
    from sentence_transformers import SparseEncoder

    base = Case(target, "base")
    bert(base, "BertForMaskedLM")
    case = Case(target, "splade")
    SparseEncoder(str(base.model), device="cpu").save_pretrained(str(case.model))
    shutil.rmtree(base.folder)
    text = "rain [MASK]"
    expected = transformers.pipeline("fill-mask", model=str(case.model), tokenizer=str(case.model), device="cpu")(text)
    case.check(["fill-mask", "-m", "MODEL"], text + "\n", [[
        {"token": one["token"], "token_str": one["token_str"], "sequence": one["sequence"], "score": numbers(one["score"])}
        for one in expected]])
    case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=["SpladePooling"])
    case.finish()

    case = Case(target, "colbert")
    bert(case)
    write_json(case.model / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"}])
    case.dense(1, WIDTH, 4, seed=6, activation=IDENTITY, bias=False)
    projection = load_file(str(case.model / "1_Dense/model.safetensors"))["linear.weight"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(case.model))
    model = transformers.AutoModel.from_pretrained(str(case.model)).eval()
    lines = []
    for text in TEXTS:
        with torch.no_grad():
            lines.append({"embeddings": numbers(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] @ projection.T)})
    case.check(["embed", "-m", "MODEL", "--pooling", "none"], lines_of(TEXTS), lines)
    case.check(["embed", "-m", "MODEL", "--pooling", "none"], lines_of(TEXTS), lines, ranks=3)
    case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=["Pooling"])
    case.finish()


# ---------------------------------------------------------------------------------------------------------------
# Weights and configurations


def weights(target):
    expected = None
    for name in ["zip", "before-1.6", "shards", "fp16", "both"]:
        case = Case(target, f"weights-{name}")
        bert(case)
        if expected is None:
            case.vectors(TEXTS)
            expected = case.checks.pop()
        path = case.model / "model.safetensors"
        state = load_file(str(path))
        # As PyTorch has a transposed matrix: not in order.
        state = {key: value.t().contiguous().t() if value.dim() == 2 and "intermediate" in key else value for key, value in state.items()}
        path.unlink()
        if name == "zip":
            torch.save(state, case.model / "pytorch_model.bin")
        elif name == "before-1.6":
            torch.save(state, case.model / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        elif name == "shards":
            names = sorted(state)
            parts = [names[: len(names) // 2], names[len(names) // 2 :]]
            for number, part in enumerate(parts):
                torch.save({key: state[key] for key in part}, case.model / f"pytorch_model-{number}.bin")
            write_json(case.model / "pytorch_model.bin.index.json", {
                "metadata": {}, "weight_map": {key: f"pytorch_model-{n}.bin" for n, part in enumerate(parts) for key in part}})
        elif name == "fp16":
            save_file({key: value.half().contiguous() for key, value in state.items()}, str(case.model / "model.fp16.safetensors"))
        else:
            # Of two files safetensors counts.
            save_file({key: value.contiguous() for key, value in state.items()}, str(path))
            torch.save({key: torch.zeros_like(value) for key, value in state.items()}, case.model / "pytorch_model.bin")
        case.checks.append(expected)
        case.finish()

    for name, state, words in [
        ("whole", {"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, ["state_dict"]),
        ("code", torch.nn.Linear(2, 2), ["the opcode 0x81"]),
    ]:
        case = Case(target, f"weights-{name}")
        bert(case)
        (case.model / "model.safetensors").unlink()
        torch.save(state, case.model / "pytorch_model.bin")
        case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=words)
        case.finish()

    case = Case(target, "adapter")
    bert(case)
    (case.model / "model.safetensors").rename(case.model / "adapter_model.safetensors")
    case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=["adapter", "merge"])
    case.finish()

    text = "rain [MASK] and"
    for name, old, new in [
        ("bias", "cls.predictions.bias", "cls.predictions.decoder.bias"),
        ("words", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("foreign", "", ""),
    ]:
        case = Case(target, f"tied-{name}")
        bert(case, "BertForMaskedLM")
        path = str(case.model / "model.safetensors")
        state = load_file(path)
        if old:
            expected = transformers.pipeline("fill-mask", model=str(case.model), tokenizer=str(case.model), device="cpu")(text)
            state = {new if key == old else key: value for key, value in state.items()}
            save_file(state, path, metadata={"format": "pt"})
            case.check(["fill-mask", "-m", "MODEL"], text + "\n", [[
                {"token": one["token"], "score": numbers(one["score"])} for one in expected]])
        else:
            save_file({"module." + key: value for key, value in state.items()}, path, metadata={"format": "pt"})
            case.check(["embed", "-m", "MODEL"], "rain\n", status=65, says=["similar: module.bert.embeddings"])
        case.finish()


def configurations(target):
    case = Case(target, "numbers-of-python")
    bert(case, changes={"classifier_dropout": float("nan"), "limits": [float("inf"), float("-inf")]})
    case.vectors(TEXTS)
    case.finish()
    for name, labels, changes in [
        ("numbers", 3, {"id2label": {"0": 10, "1": 20, "2": 30}}), ("too-few", 3, {"num_labels": 3, "id2label": {"0": "yes", "1": "no"}}),
        ("single-output", 1, {"problem_type": "single_label_classification"}),
    ]:
        case = Case(target, f"labels-{name}")
        bert(case, "BertForSequenceClassification", num_labels=labels)
        found = logits(case.model, TEXTS[0])
        config = json.loads((case.model / "config.json").read_text())
        write_json(case.model / "config.json", config | changes)
        best = int(np.argmax(found))
        label = {"numbers": str(10 * (best + 1)), "too-few": f"LABEL_{best}", "single-output": "LABEL_0"}[name]
        scores = 1 / (1 + np.exp(-found.astype(np.float64))) if labels == 1 else np.exp(found) / np.exp(found).sum()
        case.check(["classify", "-m", "MODEL"], TEXTS[0] + "\n", [{"label": label, "score": numbers(scores[best]), "logits": numbers(found)}])
        case.finish()
    case = Case(target, "labels-unneeded")
    text = "rain [MASK] and"
    bert(case, "BertForMaskedLM")
    expected = transformers.pipeline("fill-mask", model=str(case.model), tokenizer=str(case.model), device="cpu")(text)
    config = json.loads((case.model / "config.json").read_text())
    write_json(case.model / "config.json", config | {"id2label": {"1": "a", "2": "b"}, "problem_type": "masked"})
    case.check(["fill-mask", "-m", "MODEL"], text + "\n", [[{"token": one["token"], "score": numbers(one["score"])} for one in expected]])
    targets = ["rain", "bird", "hills"]
    everything = transformers.pipeline("fill-mask", model=_without(case, "problem_type"), tokenizer=str(case.model), device="cpu")(text, targets=targets)
    case.check(["fill-mask", "-m", "MODEL", "--targets", *targets], text + "\n", [[
        {"token": one["token"], "token_str": one["token_str"], "score": numbers(one["score"])} for one in everything]])
    case.check(["fill-mask", "-m", "MODEL", "--targets", "rainy", "--top-k", "1"], text + "\n", notes=["'rainy' is no token"])
    case.finish()


def _without(case, key):
    """The model without a key that transformers refuses."""
    config = json.loads((case.model / "config.json").read_text())
    config.pop(key), config.pop("id2label")
    model = transformers.BertForMaskedLM.from_pretrained(str(case.model), config=transformers.BertConfig(**config))
    return model


# ---------------------------------------------------------------------------------------------------------------
# Lengths and inputs


def lengths(target):
    case = Case(target, "pairs")
    bert(case, "BertForSequenceClassification", num_labels=3)
    first, second = "a bird flies over green hills and a cold river", "when rain falls , ask a bird !"
    for truncate, strategy in [("right", "longest_first"), ("first", "only_first"), ("second", "only_second")]:
        for limit in [14, 17]:
            found = logits(case.model, first, second, truncation=strategy, max_length=limit)
            case.check(["classify", "-m", "MODEL", "--max-length", str(limit), "--truncate", truncate],
                       objects([{"text": first, "text_pair": second}]), [{"logits": numbers(found)}], notes=["cut to the limit"])
    case.check(["classify", "-m", "MODEL", "--max-length", "10", "--truncate", "second"],
               objects([{"text": first, "text_pair": second}]), status=65, says=["would leave nothing of one of its texts"])
    case.check(["classify", "-m", "MODEL", "--max-length", "12"], objects([{"text": first, "text_pair": second}]), status=65, says=["the limit is 12"])
    found = logits(case.model, first)
    plain = {"logits": numbers(found)}
    for label in ["-1", '"sunny"', "[1, 0]"]:
        case.check(["classify", "-m", "MODEL"], f'{{"text": "{first}", "label": {label}}}\n{{"text": "{first}", "label": 1}}\n',
                   [plain, plain | {"loss": numbers(np.log(np.exp(found).sum()) - found[1])}], notes=["1 label fits no"])
    case.finish()

    case = Case(target, "protein")
    tokens = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
    model = random_model("EsmModel", 33, mask_token_id=32, pad_token_id=1, position_embedding_type="rotary", token_dropout=True,
                         emb_layer_norm_before=False)
    model.save_pretrained(case.model)
    (case.model / "vocab.txt").write_text("\n".join(tokens))
    text = "MKTAYIAKQR" * 7
    tokenizer = transformers.EsmTokenizer(str(case.model / "vocab.txt"))
    with torch.no_grad():
        mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
    case.check(["embed", "-m", "MODEL", "--max-length", "100"], text + "\n", [{"embedding": numbers(mean)}],
               notes=["72 tokens, more than the 48 that the model was trained for"])
    case.check(["embed", "-m", "MODEL"], text + "\n", status=65, says=["72 tokens", "--max-length"])
    case.finish()

    case = Case(target, "answers")
    bert(case, "BertForQuestionAnswering")
    context, question = "a bird flies over green hills . " * 9, "ask a bird ?"
    for arguments, window, stride, impossible in [([], 48, 24, False), (["--stride", "8"], 48, 8, False),
                                                  (["--impossible", "--top-k", "2000", "--max-answer-tokens", "2"], 48, 24, True)]:
        best, none = spans(case.model, question, context, window, stride, 2 if impossible else 15)
        if impossible:
            case.check(["answer", question, "-m", "MODEL", *arguments], context + "\n", has=[{"score": numbers(none), "start": 0, "end": 0, "answer": ""}])
        else:
            case.check(["answer", question, "-m", "MODEL", *arguments], context + "\n", [best])
    case.check(["answer", question, "-m", "MODEL"], objects([{"text": context, "text_pair": "rain"}]), status=65, says=["text_pair"], format="jsonl")
    case.finish()


def spans(folder, question, context, window, stride, longest):
    """The best span of all windows, and the least probability of none, as the pipeline of transformers 4 decodes them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(str(folder)).eval()
    parts = tokenizer(question, context, truncation="only_second", max_length=window, stride=stride, return_overflowing_tokens=True,
                      return_offsets_mapping=True)
    found, none = [], []
    for part in parts.encodings:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([part.ids]), token_type_ids=torch.tensor([part.type_ids]))
        inside = np.array([number == 1 for number in part.sequence_ids])
        keep = inside.copy()
        keep[0] = True
        start, end = (torch.softmax(torch.where(torch.tensor(keep), logit[0].double(), torch.tensor(-1e4, dtype=torch.double)), 0).numpy()
                      for logit in (output.start_logits, output.end_logits))
        none.append(start[0] * end[0])
        scores = np.triu(np.outer(start, end))
        scores = np.tril(scores, longest - 1) * np.outer(inside, inside)
        first, last = divmod(int(scores.argmax()), len(scores))
        word = lambda token: [part.offsets[i] for i in range(len(part.ids)) if inside[i] and part.word_ids[i] == part.word_ids[token]]
        begin, finish = word(first)[0][0], word(last)[-1][1]
        found.append({"score": numbers(scores[first, last]), "start": begin, "end": finish, "answer": context[begin:finish]})
    return max(found, key=lambda one: one["score"]), min(none)


def inputs(target):
    case = Case(target, "inputs")
    tokenizer = wordpiece()
    case.store(random_model("BertForTokenClassification", tokenizer.get_vocab_size()), tokenizer, BERT)
    one, two = tokenizer.encode("green hills").ids, tokenizer.encode("rain").ids
    both = [{"ids": one}, {"ids": two}]
    text = '{"text": "green hills"}\n'
    jsonl = ["tokenize", "-m", "MODEL", "--input-format", "jsonl"]
    case.check(jsonl, "\ufeff" + text, [{"ids": one}])
    case.check(jsonl, text + "\n", [{"ids": one}])
    case.check(jsonl, "\n" + text + " \t\r\n" + '{"text": "rain"}', both)
    case.check(jsonl, '{"text": "green hills", "text_pair": null}\n', [{"ids": one}])
    case.check(jsonl, '{"text": "green hills", "text_pair": 5}\n', status=65, says=["text_pair"])
    case.check(jsonl, '{"text": "green hills", "text_pair": "rain"}\n', [{"ids": tokenizer.encode("green hills", "rain").ids}])
    case.check(jsonl, " \n\n", status=65, says=["blank lines alone"])
    case.check(["tokenize", "-m", "MODEL"], "\ufeffgreen hills\n\nrain\n", [{"ids": one}, {"ids": tokenizer.encode("").ids}, {"ids": two}])
    case.check(["embed", "-m", "MODEL", "--input-format", "ids"], f"{one}\n\n{two}\n", [{}, {}])
    case.check(["ner", "-m", "MODEL", "--input-format", "jsonl"], '{"text": "rain", "text_pair": "rain"}\n', status=65, says=["text_pair"])
    for name, content in [("lines.json", '{"text": "green hills"}\n\n{"text": "rain"}\n'), ("LINES.JSONL", '{"text": "green hills"}\n{"text": "rain"}\n')]:
        (case.folder / name).write_text(content)
        case.check(["tokenize", "-m", "MODEL", "-i", f"HERE/{name}"], "", both)
    (case.folder / "pretty.json").write_text('{\n "text": "rain"\n}\n')
    case.check(["tokenize", "-m", "MODEL", "-i", "HERE/pretty.json"], "", status=65, says=["--input-format text"])
    case.finish()

    case = Case(target, "types")
    tokenizer = bytes_tokenizer(pair="<s> $A </s> </s>:1 $B:1 </s>:1")
    model = random_model("RobertaForSequenceClassification", tokenizer.get_vocab_size(), num_labels=3, type_vocab_size=1, pad_token_id=1,
                         bos_token_id=0, eos_token_id=2)
    case.store(model, tokenizer, ROBERTA)
    found = logits(case.model, "rain", "rivers")
    for ranks in [1, 2, 3]:
        case.check(["classify", "-m", "MODEL"], objects([{"text": "rain", "text_pair": "rivers"}]), [{"logits": numbers(found)}], ranks=ranks)
    case.finish()


def make_folders(target):
    os.environ["TQDM_DISABLE"] = "1"
    shutil.rmtree(target, ignore_errors=True)
    for part in [rerankers, prompts, modules, layouts, other_models, weights, configurations, lengths, inputs]:
        part(target)
