"""Tiny random checkpoints with the heads of all tasks, and what transformers makes of them: logits, losses, pipelines.

Imported by scripts/goldens/make.py, inside its environment. A checkpoint holds the parameters of the four task models of its
family at once, those of one name being the same, so that each Auto class reads what it needs from the one file.

transformers 5 has no question-answering pipeline any more; `answers` below decodes spans by the description of that of
transformers 4: shares of the starts and ends over the context and the first token, the best product of at most 15 tokens,
widened to whole words.
"""

import copy
import json
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from encoder_goldens import JinaReference, evenly_spaced, in_double, jina_config, lifted
from safetensors.numpy import save_file

torch.set_num_threads(1)
SHAPE = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, max_position_embeddings=72)
TASKS = {
    "sequenceClassification": "AutoModelForSequenceClassification",
    "tokenClassification": "AutoModelForTokenClassification",
    "maskedLanguage": "AutoModelForMaskedLM",
    "questionAnswering": "AutoModelForQuestionAnswering",
}
# Two labels, as the head of a question has them, so that heads of one name have one shape.
LABELS = ["NEGATIVE", "POSITIVE"]
ENTITIES = ["B-PER", "I-PER"]


def families():
    t = transformers
    plain = dict(SHAPE, vocab_size=64)
    roberta = dict(plain, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    return {
        "heads-bert": t.BertConfig(**plain),
        "heads-roberta": t.RobertaConfig(**roberta),
        "heads-distilbert": t.DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=72, vocab_size=64),
        "heads-albert": t.AlbertConfig(**plain, embedding_size=12),
        "heads-electra": t.ElectraConfig(**plain, embedding_size=12),
        "heads-mpnet": t.MPNetConfig(**plain),
        "heads-deberta": t.DebertaV2Config(
            **plain, relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
            pos_att_type="p2c|c2p", position_biased_input=False,
        ),
        "heads-modernbert": t.ModernBertConfig(
            **plain, classifier_pooling="mean", pad_token_id=0, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3,
        ),
        "heads-esm": t.EsmConfig(
            **plain, mask_token_id=4, pad_token_id=1, position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
        ),
        "heads-nomic": t.NomicBertConfig(**plain, rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
    }


def randomize(model):
    """As encoder_goldens.randomize, by the name of each parameter alone."""
    named = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # A tied parameter goes by its name among the embeddings.
        if id(parameter) not in named or "embeddings" in name:
            named[id(parameter)] = (name, parameter)
    with torch.no_grad():
        for name, parameter in named.values():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            scale = 0.3 if parameter.dim() == 1 or "embeddings" in name else 1.5 / parameter.shape[-1] ** 0.5
            value = torch.randn(parameter.shape, generator=generator) * scale
            if parameter.dim() == 1 and name.endswith("weight"):
                value += 1
            parameter.copy_(value.half().float())
    return model


def write_checkpoint(folder, config, labels=LABELS):
    """config.json and one model.safetensors with all heads."""
    from safetensors.torch import load_file, save_file as save

    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config._attn_implementation = "eager"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for class_name in TASKS.values():
        try:
            model = randomize(getattr(transformers, class_name).from_config(copy.deepcopy(config)))
        except ValueError:  # the family has no such model
            continue
        with tempfile.TemporaryDirectory() as scratch:
            model.save_pretrained(scratch)
            for name, value in load_file(str(Path(scratch) / "model.safetensors")).items():
                narrow = value.half() if value.is_floating_point() and "inv_freq" not in name else value
                assert name not in weights or torch.equal(weights[name], narrow), name
                weights[name] = narrow.contiguous()
            shutil.copy(Path(scratch) / "config.json", folder / "config.json")
    save(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    for path in folder.iterdir():
        path.chmod(0o644)


def logits_of(output):
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)[0]
    return output.logits[0]


def run(model, ids, **inputs):
    tokens = torch.tensor(np.array([ids], np.int64))
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **inputs)


class JinaHeads(torch.nn.Module):
    """The heads of Jina BERT v2, which are BERT's (Devlin et al. 2019), over the reference of its layers."""

    def __init__(self, config):
        super().__init__()
        linear, hidden = torch.nn.Linear, config.hidden_size
        self.bert = JinaReference(config)
        self.bert.pooler = torch.nn.ModuleDict({"dense": linear(hidden, hidden)})
        self.classifier = linear(hidden, 2)
        self.qa_outputs = linear(hidden, 2)
        transform = torch.nn.ModuleDict({"dense": linear(hidden, hidden), "LayerNorm": torch.nn.LayerNorm(hidden, eps=config.layer_norm_eps)})
        self.cls = torch.nn.ModuleDict({"predictions": torch.nn.ModuleDict({"transform": transform})})
        self.cls["predictions"].register_parameter("bias", torch.nn.Parameter(torch.zeros(config.vocab_size)))

    def logits(self, task, ids):
        x = self.bert(torch.tensor(np.array([ids], np.int64))).last_hidden_state[0]
        if task == "sequenceClassification":
            return self.classifier(torch.tanh(self.bert.pooler["dense"](x[:1])))
        if task != "maskedLanguage":
            return (self.classifier if task == "tokenClassification" else self.qa_outputs)(x)
        head = self.cls["predictions"]
        transformed = head["transform"]["LayerNorm"](torch.nn.functional.gelu(head["transform"]["dense"](x)))
        return transformed @ self.bert.embeddings["word_embeddings"].weight.T + head.bias


def write_jina(folder, generator):
    from safetensors.torch import save_file as save

    config = jina_config()
    for key, value in SHAPE.items():
        setattr(config, key, value)
    config.vocab_size = 64
    config.id2label, config.label2id = dict(enumerate(LABELS)), {label: index for index, label in enumerate(LABELS)}
    model = randomize(JinaHeads(config)).eval()
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save({name: value.half().contiguous() for name, value in model.state_dict().items()}, str(folder / "model.safetensors"), metadata={"format": "pt"})
    double = copy.deepcopy(model).double()

    def run(task, ids):
        with torch.no_grad():
            return double.logits(task, ids).numpy(), model.logits(task, ids).numpy()

    write_rows(folder, generator, list(TASKS), run)
    for path in folder.iterdir():
        path.chmod(0o644)


def write_logits(folder, generator):
    config = json.loads((folder / "config.json").read_text())
    # These families have no model for questions.
    tasks = [task for task in TASKS if config["model_type"] not in ["esm", "nomic_bert"] or task != "questionAnswering"]

    def both(task, ids):
        model = getattr(transformers, TASKS[task]).from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()
        with lifted():
            exact = run(in_double(model), ids)
        return logits_of(exact).numpy(), logits_of(run(model, ids)).numpy()

    write_rows(folder, generator, tasks, both)


def write_rows(folder, generator, tasks, both):
    """For each length and task some rows of the float64 logits; `both` gives float64 and float32 ones."""
    goldens, error, scale = {}, {}, {}
    kept = [1, 5, 40]
    # The others are not kept: a head of a sequence has one row a document, and the error of three of them says little.
    for length in kept + list(range(3, 72, 6)):
        ids = generator.integers(5, 64, length)
        ids[0] = 2
        for task in tasks:
            a, b = (a.reshape(-1, a.shape[-1]) for a in both(task, ids))
            rows = evenly_spaced(len(a), 4)
            error[task] = max(error.get(task, 0), float(np.abs(a - b)[rows].max()))
            scale[task] = max(scale.get(task, 0), float(np.abs(a).max()))
            if length in kept:
                goldens[f"{length}.input_ids"] = ids.astype(np.int32)
                goldens[f"{length}.{task}.rows"] = rows
                goldens[f"{length}.{task}"] = a[rows].astype(np.float32)
    metadata = {f"{task}.float32_error": f"{error[task]:.3e}" for task in error} | {f"{task}.scale": f"{scale[task]:.4g}" for task in scale}
    save_file(goldens, str(folder / "goldens.safetensors"), metadata=metadata)
    (folder / "goldens.safetensors").chmod(0o644)


TEXTS = [
    "Hello, my dog is cute",
    "Attention is computed over the whole sequence, one tile of keys at a time, and merged on a fixed tree.",
    "Café naïve façade Ångström Łódź Øresund straße œuvre",
    "unbelievable 北京大学 3.14159 🍕!",
    "",
]
MASKED = ["Hello, my [MASK] is cute", "The quick [MASK] fox [MASK] over the lazy dog.", "[MASK]"]
QUESTIONS = [("What is merged on a tree?", TEXTS[1] * 1), ("Who?", "The quick brown fox jumps over the lazy dog. " * 6)]


def answers(model, tokenizer, question, context, limit=72, stride=8, longest=15):
    """The best span over all windows."""
    best = None
    encoded = tokenizer(
        question, context, truncation="only_second", max_length=limit, stride=stride, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for index, ids in enumerate(encoded["input_ids"]):
        encoding = encoded.encodings[index]
        with torch.no_grad():
            inputs = {key: torch.tensor([encoded[key][index]]) for key in ["input_ids", "attention_mask", "token_type_ids"]}
            output = model(**inputs)
        inside = np.array([part == 1 for part in encoding.sequence_ids])
        counted = inside.copy()
        counted[0] = True
        shares = []
        for logits in (output.start_logits[0].numpy(), output.end_logits[0].numpy()):
            masked = np.where(counted, logits, -10000.0)
            shares.append(np.exp(masked - masked.max()) / np.exp(masked - masked.max()).sum())
        product = np.tril(np.triu(np.outer(np.where(inside, shares[0], 0), np.where(inside, shares[1], 0))), longest - 1)
        start, end = np.unravel_index(product.argmax(), product.shape)
        first, _ = encoding.word_to_chars(encoding.token_to_word(int(start)), sequence_index=1)
        _, last = encoding.word_to_chars(encoding.token_to_word(int(end)), sequence_index=1)
        if best is None or product[start, end] > best["score"]:
            best = {"score": float(product[start, end]), "start": first, "end": last, "answer": context[first:last]}
    return best


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value.item() if hasattr(value, "item") else value


def write_pipelines(folder, tokenizer_file):
    """A BERT with a cased tokenizer: logits and losses of the classic first example, and the pipelines' own output."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    config = transformers.BertConfig(**SHAPE, vocab_size=len(tokenizer))
    write_checkpoint(folder, config)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")
    load = lambda name: getattr(transformers, name).from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()
    pipe = lambda task, model, **options: transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu", **options)
    classifier, tagger = load("AutoModelForSequenceClassification"), load("AutoModelForTokenClassification")
    # Entity labels for the same weights, one of them not an entity.
    tagger.config.id2label = dict(enumerate(ENTITIES))
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        first = classifier(**inputs, labels=torch.tensor([1]))
        regression = copy.deepcopy(classifier)
        regression.config.problem_type = "multi_label_classification"
        several = regression(**inputs, labels=torch.tensor([[0.0, 1.0]]))
    result = {
        "texts": TEXTS, "masked": MASKED, "questions": QUESTIONS,
        "classic": {"logits": plain(first.logits[0].tolist()), "loss": first.loss.item(), "multi_label_loss": several.loss.item()},
        "classify": plain([pipe("text-classification", classifier)(text)[0] for text in TEXTS]),
        "ner": {
            strategy: plain([pipe("token-classification", tagger, aggregation_strategy=strategy)(text) if text else [] for text in TEXTS])
            for strategy in ["none", "simple", "first", "average", "max"]
        },
        "fill-mask": plain([pipe("fill-mask", load("AutoModelForMaskedLM"))(text) for text in MASKED]),
        "answer": plain([answers(load("AutoModelForQuestionAnswering"), tokenizer, *pair) for pair in QUESTIONS]),
    }
    (folder / "pipelines.json").write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


ESM_TOKENS = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQ", "ACDEFGHIKLMNPQRSTVWYXBUZO.-", "M", "MKLV"]
# What is unknown, special or white space, in all neighbourhoods.
PROTEIN_LINES = PROTEINS + [
    "", "mkt", "MK T", "M<mask>K", "M <mask>\t<mask> K", "MJK", "MjjK", "JJ J", "M?K**", "<cls>MK<eos>", "M\nK", "<null_1>A", "A<null_1><null_1>",
    "<unk>A", "A<pad>", "<Mask><MASK>", "é MÉK", "A<mas", "A\x1cK\x1f", "\u3000M\u00a0K\u200bT", "A.-B*",
]
MASKED_PROTEINS = ["MK<mask>AYIA", "<mask>KT<mask>", "MKJ<mask>"]


def write_proteins(folder):
    """An ESM with a vocab.txt: ids of the slow tokenizer, which is the only one that it has, and pipelines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(ESM_TOKENS))
    tokenizer = transformers.EsmTokenizer(str(folder / "vocab.txt"))
    config = transformers.EsmConfig(
        **SHAPE, vocab_size=len(ESM_TOKENS), mask_token_id=32, pad_token_id=1, position_embedding_type="rotary", token_dropout=True,
        emb_layer_norm_before=False,
    )
    write_checkpoint(folder, config)
    load = lambda name: getattr(transformers, name).from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()
    pipe = lambda task, model: transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
    tagger = load("AutoModelForTokenClassification")
    result = {
        "lines": PROTEIN_LINES, "ids": [tokenizer(line)["input_ids"] for line in PROTEIN_LINES],
        "pair": tokenizer(*PROTEINS[:2])["input_ids"], "proteins": PROTEINS, "masked": MASKED_PROTEINS,
        "classify": plain([pipe("text-classification", load("AutoModelForSequenceClassification"))(text)[0] for text in PROTEINS]),
        # A slow tokenizer knows no offsets.
        "ner": plain([
            [{key: value for key, value in token.items() if value is not None} for token in pipe("token-classification", tagger)(text)]
            for text in PROTEINS
        ]),
        "fill-mask": plain([pipe("fill-mask", load("AutoModelForMaskedLM"))(text) for text in MASKED_PROTEINS]),
    }
    (folder / "pipelines.json").write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


def make_tasks(target, tokenizer_file):
    for index, (name, config) in enumerate(families().items()):
        write_checkpoint(target / name, config)
        write_logits(target / name, np.random.default_rng(500 + index))
    write_jina(target / "heads-jina", np.random.default_rng(600))
    write_pipelines(target / "tasks-bert", tokenizer_file)
    write_proteins(target / "tasks-esm")
