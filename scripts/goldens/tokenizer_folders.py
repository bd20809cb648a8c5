"""Folders of tokenizers as people have them, and what AutoTokenizer of transformers makes of lines with each.

Imported by scripts/goldens/make.py, inside its environment. Each folder holds what the model's own folder would (config.json,
tokenizer_config.json, vocabularies) and `goldens.json`, digests as those of other tokenizers. Of the types of tokens the model
sees what `model_input_names` lets it see.
"""

import json
import os
import shutil
import types
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>",
           "mask_token": "<mask>"}
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 99}


def wordpiece(lines, size, lowercases):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercases)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(BERT.values()), show_progress=False))
    ids = {name: tokenizer.token_to_id(name) for name in BERT.values()}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    return tokenizer


def byte_pairs(lines, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return tokenizer


def pieces(lines, size, path, **options):
    """A sentencepiece model of unigrams."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), vocab_size=size, model_type="unigram", hard_vocab_limit=False,
        minloglevel=2, num_threads=1, **({"normalization_rule_name": "identity"} | options))
    path.with_suffix("").with_suffix(".vocab").unlink(missing_ok=True)
    produced = Path(str(path.with_suffix("")) + ".model")
    Path(str(path.with_suffix("")) + ".vocab").unlink(missing_ok=True)
    if produced != path:
        produced.rename(path)


def folders(lines, size):
    """(name, config.json, tokenizer_config.json or None, what writes the vocabulary)"""
    lower, cased = wordpiece(lines, size, True), wordpiece(lines, size, False)
    pairs = byte_pairs(lines, size)
    added = lambda content, **options: dict(
        content=content, lstrip=False, rstrip=False, normalized=False, single_word=False, special=False) | options

    def whole(tokenizer):
        return lambda folder: tokenizer.save(str(folder / "tokenizer.json"))

    def vocabulary(tokenizer):
        def write(folder):
            tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
            (folder / "vocab.txt").write_text("".join(token + "\n" for token, _ in tokens), encoding="utf-8")
        return write

    def merges(folder):
        model = json.loads(pairs.to_str())["model"]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
        rows = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(row + "\n" for row in rows), encoding="utf-8")

    def spm(name, **options):
        return lambda folder: pieces([line for line in lines if line.strip()], size, folder / name, **options)

    def older(folder):
        cased.save(str(folder / "tokenizer.json"))
        (folder / "special_tokens_map.json").write_text(json.dumps(
            BERT | {"mask_token": added("[MASK]", lstrip=True), "additional_special_tokens": ["[ONE]", "[TWO]"]}))
        (folder / "added_tokens.json").write_text(json.dumps({"[ONE]": cased.get_vocab_size(), "café": cased.get_vocab_size() + 1}))

    bert, roberta = SMALL | {"model_type": "bert"}, SMALL | {"model_type": "roberta"}
    next_id = lower.get_vocab_size()
    return [
        ("bert-cased-by-settings", bert, {"tokenizer_class": "BertTokenizer", "do_lower_case": False, **BERT}, whole(lower)),
        ("bert-lowered-by-settings", bert, {"do_lower_case": True, **BERT}, whole(cased)),
        ("bert-accents", bert, {"tokenizer_class": "BertTokenizerFast", "strip_accents": False, "tokenize_chinese_chars": False, **BERT}, whole(cased)),
        ("bert-list", bert, None, vocabulary(lower)),
        ("bert-list-cased", bert, {"do_lower_case": False}, vocabulary(cased)),
        ("electra-list", SMALL | {"model_type": "electra"}, {"tokenizer_class": "ElectraTokenizer"}, vocabulary(lower)),
        ("distilbert", SMALL | {"model_type": "distilbert"}, {"tokenizer_class": "DistilBertTokenizer", "strip_accents": True, "do_lower_case": False}, whole(lower)),
        ("mpnet-list", SMALL | {"model_type": "mpnet"}, {"tokenizer_class": "MPNetTokenizer", **ROBERTA, "unk_token": "[UNK]"}, vocabulary(lower)),
        ("bert-more-tokens", bert, {
            "tokenizer_class": "BertTokenizer", "do_lower_case": True, "split_special_tokens": True, **BERT, "added_tokens_decoder": {
                **{str(lower.token_to_id(name)): added(name, special=True) for name in BERT.values()},
                str(next_id): added("[E1]", special=True), str(next_id + 1): added("Café", normalized=True), str(next_id + 2): added("ab", single_word=True),
            }}, whole(lower)),
        ("fast-more-tokens", bert, {
            "tokenizer_class": "PreTrainedTokenizerFast", **BERT, "extra_special_tokens": ["<extra>"], "image_token": "<image>",
            "added_tokens_decoder": {str(next_id): added("the", rstrip=True), str(next_id + 1): added(" of", lstrip=True)}}, whole(lower)),
        ("bert-older-files", bert, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}, older),
        ("modernbert-misnamed", SMALL | {"model_type": "modernbert"}, {"tokenizer_class": "BertTokenizer", **BERT}, whole(cased)),
        ("types-by-settings", roberta, {"tokenizer_class": "PreTrainedTokenizerFast", **BERT, "model_input_names": ["input_ids", "token_type_ids"]}, whole(cased)),
        ("roberta-merges", roberta, {"tokenizer_class": "RobertaTokenizer", "trim_offsets": True, **ROBERTA}, merges),
        ("roberta-space-by-settings", roberta, {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True, **ROBERTA}, whole(pairs)),
        ("xlm-roberta-pieces", SMALL | {"model_type": "xlm-roberta"}, {"tokenizer_class": "XLMRobertaTokenizer"}, spm("sentencepiece.bpe.model", normalization_rule_name="nmt_nfkc")),
        ("camembert-pieces", SMALL | {"model_type": "camembert"}, None, spm("sentencepiece.bpe.model")),
        ("albert-pieces", SMALL | {"model_type": "albert"}, {"tokenizer_class": "AlbertTokenizer", "keep_accents": False},
         spm("spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"])),
        ("albert-pieces-cased", SMALL | {"model_type": "albert"}, {"do_lower_case": False, "keep_accents": True},
         spm("spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"], user_defined_symbols=["2", "ab"])),
        ("deberta-v2-pieces", SMALL | {"model_type": "deberta-v2"}, {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False},
         spm("spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]")),
        ("deberta-v2-punctuation", SMALL | {"model_type": "deberta-v2"}, {"do_lower_case": True, "split_by_punct": True},
         spm("spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]")),
    ]


def encodings(folder):
    """What encodes a text or a pair as the model would see it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    backend = tokenizer.backend_tokenizer
    backend.no_truncation(), backend.no_padding()
    has_types = "token_type_ids" in tokenizer.model_input_names

    def encode(*texts):
        encoding = backend.encode(*texts)
        return types.SimpleNamespace(
            ids=encoding.ids, offsets=encoding.offsets, special_tokens_mask=encoding.special_tokens_mask,
            type_ids=encoding.type_ids if has_types else [0] * len(encoding.ids), word_ids=encoding.word_ids, sequence_ids=encoding.sequence_ids)
    return encode


def make_tokenizer_folders(target, training, size, lines, digest):
    for name, config, settings, write in folders(training, size):
        folder = Path(target) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        if settings is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False))
        write(folder)
        encode = encodings(folder)
        goldens = {
            "lines": "".join(digest(encode(line)) for line in lines),
            "pairs": "".join(digest(encode(*pair)) for pair in list(zip(lines, lines[1:]))[::10]),
        }
        (folder / "goldens.json").write_text(json.dumps(goldens))
        for path in folder.iterdir():
            path.chmod(0o644)
        print(f"goldens: {name}: {len(lines)} lines", flush=True)
