#!/usr/bin/env python3
"""Makes the goldens of the tests from the Python reference implementations, and checks a build against them.

    scripts/goldens/make.py                 everything below
    scripts/goldens/make.py tables          Sources/Tokenization/UnicodeTables, probed out of `tokenizers`
    scripts/goldens/make.py tokenizers      Tests/TokenizationTests/Goldens
    scripts/goldens/make.py tokenizer-folders
                                    Tests/TokenizationTests/Goldens/folders, vocabularies and settings as folders have them
    scripts/goldens/make.py formats         Tests/TransformersTests/Goldens/formats, files by the reference writers
    scripts/goldens/make.py tiny            Tests/TransformersTests/Goldens/tiny-bert*, random BERTs with their hidden states
    scripts/goldens/make.py families        Tests/TransformersTests/Goldens/tiny-*, a random model of every family with its hidden states
    scripts/goldens/make.py attention       Tests/TransformersTests/Goldens/attention, weights of every head of those models
    scripts/goldens/make.py tasks           Tests/TransformersTests/Goldens/heads-* and tasks-*, task heads: logits, losses, pipelines
    scripts/goldens/make.py gradients       Tests/TransformersTests/Goldens/*/gradients.safetensors, gradients of all parameters of those models
    scripts/goldens/make.py dropout         Tests/TransformersTests/Goldens/*/dropout.safetensors, hidden states and logits of those models with dropout
    scripts/goldens/make.py folders         Tests/CommandTests/Goldens/folders, model folders as people have them, with what they give
    scripts/goldens/make.py training        Tests/TrainingTests/Goldens, losses, schedules and the optimizer by PyTorch in float64
    scripts/goldens/make.py minilm          Tests/TransformersTests/Goldens/minilm, hidden states of all-MiniLM-L6-v2
    scripts/goldens/make.py bfloat16        Tests/RingAttentionTests/Goldens/bfloat16.json, the errors of PyTorch's bfloat16 attention
    scripts/goldens/make.py tokenizer-corpus FOLDER
                                    tokenizers of every kind, trained on this machine's texts, and what they make of
                                    24,000 lines, for the tests: ANNULUS_TOKENIZER_CORPUS=FOLDER swift test
    scripts/goldens/make.py check-minilm ANNULUS [--launch "mpirun -np 2"]
                                    runs ANNULUS on the MiniLM texts, compares every row with transformers

The packages named below are installed into a virtual environment of its own in the user's cache
(${XDG_CACHE_HOME:-~/.cache}/annulus/goldens, several gigabytes because of PyTorch). Set
ANNULUS_GOLDENS_PYTHON to a python3 that has them already to use that one.

Tokenizers are always asked with no_truncation() and no_padding().
"""

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = [
    "numpy==2.4.6",
    "safetensors==0.8.0",
    "protobuf",
    "sentence-transformers==6.2.0",
    "scikit-learn",
    "scipy",
    "sentencepiece==0.2.3",
    "tokenizers==0.23.3",
    "torch==2.15.0",
    "transformers==5.24.0",
]
ROOT = Path(__file__).resolve().parents[2]
TOKENIZER_GOLDENS = ROOT / "Tests/TokenizationTests/Goldens"
ENCODER_GOLDENS = ROOT / "Tests/TransformersTests/Goldens"
RING_GOLDENS = ROOT / "Tests/RingAttentionTests/Goldens"


def enter_environment():
    """Runs this script again inside its virtual environment, making that first where it is missing."""
    if os.environ.get("ANNULUS_GOLDENS_INSIDE") == "1":
        return
    python = os.environ.get("ANNULUS_GOLDENS_PYTHON")
    if not python:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "annulus" / "goldens"
        python = cache / "bin" / "python"
        stamp = cache / "requirements.txt"
        wanted = "\n".join(REQUIREMENTS) + "\n"
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"goldens: installing {', '.join(REQUIREMENTS)} into {cache}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
            stamp.write_text(wanted)
    environment = dict(
        os.environ, ANNULUS_GOLDENS_INSIDE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false"
    )
    os.execve(str(python), [str(python), __file__, *sys.argv[1:]], environment)


if __name__ == "__main__":
    enter_environment()

import json
import random
import shlex
import struct
import tempfile
import unicodedata

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# ---------------------------------------------------------------------------------------------------------------
# Texts

# Each names what it is there for. They are also what the small vocabularies are taken from.
TEXTS = [
    "",
    " ",
    " \t\r\n\u00a0\u2003\u3000 ",
    "a",
    "Hello, world! It's a test; isn't it?",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    # accents, composed and decomposed, and what lowercases or decomposes into several characters
    "Café naïve façade Ångström Łódź Øresund straße œuvre",
    "Cafe\u0301 nai\u0308ve fac\u0327ade A\u030angstro\u0308m",
    "İstanbul DIYARBAKIR ıI İİ i\u0307 \u0130\u0307",
    "ﬁnance ﬂow oﬃce ﬆ Ǆ ǅ ǆ ẞß ŉ ǰ ΐ ΰ և",
    "Ậậ Ệệ ố ự ỡ tiếng Việt Nguyễn Phương",
    "ὈΔΥΣΣΕΎΣ Ὀδυσσεύς ᾳ ᾼ ᾲ ΑΣ ας σς",
    # order of combining marks
    "a\u0301\u0323 a\u0323\u0301 q\u0307\u0323 \u0344\u0323 \u1ea5\u0323 \u0f71\u0f73\u0f75 o\u0302\u0323\u0301",
    "\u0301 leading mark, \u0300\u0316\u0301\u0317 many",
    "Z" + "".join(chr(0x300 + i % 0x70) for i in range(60)) + "algo",
    # CJK with extensions, compatibility ideographs, Japanese, Korean, conjoining jamo
    "北京大学生前来应聘。我是中国人，你好！",
    "東京都にアイウエオ ﾊﾟﾋﾟﾌﾟ がぎぐ か\u3099 ハ\u309a々〇ヶ",
    "\U00020000\U0002a6d6\U0002a700\U0002b740\U0002b820\U0002ceb0\U0002ebf0\U00030000\U00031350\U000323b0 \uf900\ufa0e\U0002f800",
    "한국어 토큰화 각 값 \u1100\u1161\u11a8 \uac00\u11a8 \ua960\ud7b0",
    # right-to-left, South and South-East Asian scripts
    "السَّلَامُ عَلَيْكُمْ مرحبا بالعالم ١٢٣ ﷺ ﻻ",
    "שָׁלוֹם עולם בְּרֵאשִׁית",
    "नमस्ते दुनिया क्षत्रिय क\u093c \u0958 हिन्दी",
    "สวัสดีชาวโลก ภาษาไทย ำ น้ำ เก้า ๑๒๓",
    "தமிழ் కన్నడ ಕನ್ನಡ മലയാളം සිංහල বাংলা \u09c7\u09be ਪੰਜਾਬੀ",
    "မြန်မာ ភាសាខ្មែរ ລາວ བོད་སྐད།",
    "Привет, мир! Ёлка йод Київ їжак",
    "გამარჯობა ᲡᲐᲥᲐᲠᲗᲕᲔᲚᲝ Հայերեն አማርኛ",
    # emoji: joined sequences, skin tones, flags, keycaps, variation selectors
    "I ❤️ 🍕! 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ☺︎ ©®™",
    "👨🏿‍🚀👩‍💻🧑‍🤝‍🧑",
    # controls, zero width characters, NUL, byte order mark, replacement, separators, specials
    "nul\x00l \x01\x02bell\x07 tab\tnew\nline\rreturn\x0b\x0cform\x1f\x7f\x80\x85\x9f end",
    "zero\u200bwidth\u200cnon\u200djoin\u2060er\ufeff soft\u00adhyphen \u180e \u061c\u200e\u200f\u202a\u202e\u2066",
    "\ufeffbyte order mark \ufffd replacement \u2028line\u2029paragraph \ufffc \ufff9a\ufffa\ufffb",
    "\x00",
    "private \ue000\uf8ff\U000f0000\U0010fffd noncharacters \ufffe\uffff\U0001fffe unassigned \u0378\U000e0080 tags \U000e0001\U000e0061",
    # Unicode 15, 15.1, 16 and 17
    "\U0001e4d0\U0001e4d1\U0001e4ec \U00011f00\U00011f04\U00011f5a \u1c89\u1c8a \U00010d50\U00010d70\U00010d69 \ua7cb\ua7da\ua7dc \U0001fae8\U0001fae9 \U00016ea0\U00016ebb",
    # special tokens inside the text, whole, in pieces, in another case
    "[CLS] hello [SEP] world [MASK] [PAD] [UNK]",
    "a[MASK]b [MASK][MASK] [mask] [ MASK ] [MASK [CLS",
    "[NEW] x[NEW]y [new] [Left]  z  [right]   end [word] sub[word]token [word]s _[word] é[word]",
    "   [LEFT]   [RIGHT]   [LEFT][RIGHT]\u3000[right]\u2003\n[left]",
    "中token 中中 token中 longer longest long lon",
    # words at and beyond the limit of 100 characters
    "x" * 99 + " " + "x" * 100 + " " + "x" * 101 + " after",
    "é" * 100 + " " + "e\u0301" * 60 + " " + "한" * 40,
    "unbelievable" * 40,
    "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    # punctuation and symbols
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ¡¿«»‹›„“”‘’–—…‰†‡•§¶ ،؛؟ ।॥ 。、「」",
    "3.14159 1,000,000 €5 £10 ¥100 50% x²+y³=z⁴ ½ Ⅷ ① ≠ ∞ ∑ → ⇒ 2025-01-31T23:59:59Z https://example.org/a?b=c&d=e#f user@example.org",
    "snake_case camelCase kebab-case C++ F# .NET node.js #hashtag @mention $HOME ~/dir C:\\path\\to",
    "¨ ˘ ˙ ¸ ` ^ ´ \u1fbd \u1fbf \u1fc1 \u2126 \u212a \u212b \u0340 \u0374 \u037e \u0387 \u1fef",
    "Ａｆｕｌｌ ｗｉｄｔｈ　１２３ 𝐀𝒜𝔸𝖠 𐐀𐐨 Ꭰꭰ Ⅷ ⓐ",
    "Licensed under the Apache License, Version 2.0: you may not use this file except in compliance with the License.",
    "Attention is computed over the whole sequence, one tile of keys at a time, and merged on a fixed tree.",
    "Der Fluß fließt; die Straße führt über Brücken. El niño comió piñas. Où êtes-vous allés, garçons ?",
]

# Ranges that the fuzz lines draw from, each with the weight of a script in the mixture.
POOLS = [
    (8, "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ"),
    (3, [0x20, 0x7F]),
    (3, [0xA0, 0x250]),
    (3, [0x300, 0x370]),
    (2, [0x370, 0x400]),
    (2, [0x400, 0x530]),
    (2, [0x590, 0x780]),
    (2, [0x900, 0xE00]),
    (2, [0xE00, 0x1100]),
    (1, [0x1100, 0x1200]),
    (1, [0x1200, 0x1DC0]),
    (1, [0x1DC0, 0x1E00]),
    (3, [0x1E00, 0x2000]),
    (2, [0x2000, 0x2070]),
    (1, [0x2070, 0x2E80]),
    (1, [0x2E80, 0x3400]),
    (2, [0x4E00, 0xA000]),
    (1, [0xA000, 0xAC00]),
    (2, [0xAC00, 0xD7A4]),
    (1, [0xD7B0, 0xD800]),
    (1, [0xE000, 0x10000]),
    (1, [0x10000, 0x12000]),
    (1, [0x16000, 0x19000]),
    (1, [0x1B000, 0x1D300]),
    (1, [0x1D300, 0x1F000]),
    (2, [0x1F000, 0x1FB00]),
    (1, [0x20000, 0x32400]),
    (1, [0xE0000, 0xE01F0]),
    (1, [0x0, 0xA0]),
    (1, [0x0, 0x110000]),
    (2, ["\u0323", "\u0301", "\u0302", "\u0327", "\u0345", "\u200d", "\u200b", "\ufe0f", "\u3099", "\u0f71", "\u05b4"]),
    (3, [" ", "\u00a0", "\t", "\n", "\u3000", " ", " ", "\u2028", "\x85"]),
    (1, ["[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[mask]", "[NEW]", "[left]", "[RIGHT]", "[word]", "[", "]", "中token"]),
    (3, ["the", "token", "attention", "Café", "Straße", "İ", "ﬁ", "ing", "NAÏVE", "under", "한국", "ß"]),
]


def fuzz_lines(count=2200, seed=20240607):
    """Random mixtures of scripts; a line keeps to a few pools so that words have neighbours of their kind."""
    generator = random.Random(seed)
    weights = [weight for weight, _ in POOLS]
    lines = []
    for _ in range(count):
        chosen = generator.choices([pool for _, pool in POOLS], weights, k=generator.randint(1, 4))
        pieces = []
        for _ in range(generator.randint(1, 16)):
            pool = generator.choice(chosen)
            if isinstance(pool, list) and isinstance(pool[0], int):
                value = generator.randrange(pool[0], pool[1])
                pieces.append(chr(value) if not 0xD800 <= value < 0xE000 else "?")
            else:
                pieces.append(generator.choice(pool))
        lines.append("".join(pieces))
    return lines


# ---------------------------------------------------------------------------------------------------------------
# Small tokenizers


def small_vocabulary(lowercase, size):
    """Characters, then frequent pieces of words, of the texts above: chosen by counting alone, so that every run
    makes the same vocabulary (a trainer breaks ties as it likes)."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    characters, pieces = {}, {}
    for text in TEXTS:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            for start in range(len(word)):
                prefix = "##" if start else ""
                characters[prefix + word[start]] = characters.get(prefix + word[start], 0) + 1
                if len(word) > 24:  # the texts with long runs of one letter would fill the vocabulary
                    continue
                for end in range(start + 2, min(len(word), start + 9) + 1):
                    piece = prefix + word[start:end]
                    pieces[piece] = pieces.get(piece, 0) + 1

    def ranked(counts, worth):
        return sorted(counts, key=lambda piece: (-worth(piece) * counts[piece], piece))

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += sorted(ranked(characters, lambda piece: 1)[: size * 6 // 10])
    frequent = [piece for piece in ranked(pieces, lambda piece: len(piece.removeprefix("##")) - 1) if pieces[piece] > 1]
    return {token: index for index, token in enumerate((tokens + frequent)[:size])}


def special_tokens():
    return [AddedToken(name, special=True, normalized=False) for name in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]]


def small_tokenizers():
    """Tokenizers that between them use every component and flag that the package supports."""
    uncased, cased = small_vocabulary(True, 640), small_vocabulary(False, 560)

    def make(vocabulary, limit=100):
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=limit))
        return tokenizer

    result = {}

    tokenizer = make(uncased)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special_tokens())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    result["uncased"] = tokenizer

    tokenizer = make(cased)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special_tokens())
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_tokens(
        [
            AddedToken("[NEW]", normalized=True),
            AddedToken("[LEFT]", lstrip=True, normalized=False),
            AddedToken("[RIGHT]", rstrip=True, normalized=False),
            AddedToken("[word]", single_word=True, normalized=False),
            AddedToken("long", normalized=True),
            AddedToken("longer", normalized=True),
        ]
    )
    result["cased"] = tokenizer

    # Added tokens that are matched after normalisation, which changes their own content too.
    tokenizer = make(uncased)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special_tokens()[:4] + [AddedToken("[MASK]", special=True, lstrip=True, normalized=True)])
    tokenizer.add_tokens(
        [
            AddedToken("[NEW]", normalized=True),
            AddedToken("[LEFT]", lstrip=True, rstrip=True, normalized=True),
            AddedToken("[RIGHT]", rstrip=True, normalized=True),
            AddedToken("[word]", single_word=True, lstrip=True, normalized=True),
            AddedToken("中token", normalized=True),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 3)]
    )
    result["added"] = tokenizer

    tokenizer = make(uncased)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special_tokens())
    result["decomposed"] = tokenizer

    tokenizer = make(cased, limit=12)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous")]
    )
    tokenizer.add_special_tokens(special_tokens())
    result["composed"] = tokenizer

    tokenizer = make(uncased)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")]
    )
    tokenizer.add_special_tokens(special_tokens())
    result["stripped"] = tokenizer

    for tokenizer in result.values():
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return result


def encoded(tokenizer, text):
    encoding = tokenizer.encode(text)
    return encoding.ids, encoding.offsets, encoding.special_tokens_mask


def digest(encoding):
    """32-bit FNV-1a over id, start, end, special mask, type id, word (-1 for none) and sequence (-1 for special tokens) of
    each token as little-endian 32-bit integers."""
    value = 0x811C9DC5
    columns = (
        encoding.ids, encoding.offsets, encoding.special_tokens_mask, encoding.type_ids, encoding.word_ids, encoding.sequence_ids
    )
    for token, (start, end), mask, kind, word, sequence in zip(*columns):
        word = -1 if word is None else word
        sequence = -1 if sequence is None or mask else sequence
        for byte in struct.pack("<iiiiiii", token, start, end, mask, kind, word, sequence):
            value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"


def write_json(path, value, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), **options) + "\n", encoding="utf-8")


def make_formats():
    """One safetensors file with every type that is read, and the headers that NumPy writes."""
    import io

    import torch
    from safetensors.torch import save_file

    folder = ENCODER_GOLDENS / "formats"
    folder.mkdir(parents=True, exist_ok=True)
    values = [0.0, -0.0, 1.0, -1.5, 65504.0, 6.103515625e-05, 5.960464477539063e-08, float("inf"), float("-inf"), 3.140625]
    exact = torch.tensor(values, dtype=torch.float64)
    tensors = {
        "double": torch.cat([exact, torch.tensor([0.1, 1e300, -1e-300], dtype=torch.float64)]),
        "long": torch.tensor([[0, -1, 2**40], [2**63 - 1, -(2**63), 7]]),
        "float": torch.cat([exact.float(), torch.tensor([0.1, 1e-45], dtype=torch.float32)]).reshape(3, 4),
        "int": torch.tensor([2**31 - 1, -(2**31), 0], dtype=torch.int32),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "brain": exact.to(torch.bfloat16),
        "half": exact.to(torch.float16).reshape(2, 5),
        "byte": torch.tensor([1, 2, 255], dtype=torch.uint8),
    }
    save_file(tensors, str(folder / "reference.safetensors"), metadata={"format": "pt", "quote": 'a"b\\c\n'})
    (folder / "reference.safetensors").chmod(0o644)
    headers = {}
    shapes = [(3, 4), (1, 1), (0, 384), (123456789, 384), (10**9, 1), (5,), (), (2, 3, 4)]
    # Headers on both sides of a multiple of the alignment.
    for shape in shapes + [(3, 10**18, 10**digits) for digits in range(19)]:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        headers[",".join(map(str, shape))] = stream.getvalue().hex()
    write_json(folder / "numpy.json", headers)


def save(path, tensors, metadata=None):
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata=metadata)
    path.chmod(0o644)


def write_tokenizer_goldens(name, tokenizer, lines):
    full = []
    for text in TEXTS:
        ids, offsets, mask = encoded(tokenizer, text)
        full.append({"ids": ids, "offsets": [value for pair in offsets for value in pair], "mask": "".join(map(str, mask))})
    # Every text with the one behind it, with special tokens and without.
    pairs = list(zip(TEXTS, TEXTS[1:] + TEXTS[:1]))
    write_json(TOKENIZER_GOLDENS / name / "goldens.json", {
        "texts": full,
        "fuzz": "".join(digest(tokenizer.encode(line)) for line in lines),
        "pairs": "".join(digest(tokenizer.encode(*pair)) for pair in pairs),
        "bare": "".join(digest(tokenizer.encode(*pair, add_special_tokens=False)) for pair in pairs),
    })


def make_tokenizers():
    lines = fuzz_lines()
    write_json(TOKENIZER_GOLDENS / "texts.json", TEXTS)
    write_json(TOKENIZER_GOLDENS / "fuzz.json", lines)
    for name, tokenizer in small_tokenizers().items():
        folder = TOKENIZER_GOLDENS / name
        write_json(folder / "tokenizer.json", json.loads(tokenizer.to_str()))
        write_tokenizer_goldens(name, Tokenizer.from_file(str(folder / "tokenizer.json")), lines)
    write_tokenizer_goldens("minilm", minilm_tokenizer(minilm_folder()), lines)
    make_tokenizer_sample()
    write_normalization_goldens()
    write_pattern_goldens()
    write_cluster_goldens()


def write_normalization_goldens():
    """For every supported component one digest per 4,096 scalars of what it makes of `a`, the scalar, `b`, and so on."""
    bert = normalizers.BertNormalizer
    shape = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    normalize = {
        "clean": bert(**{**shape, "clean_text": True}),
        "ideographs": bert(**{**shape, "handle_chinese_chars": True}),
        "accents": bert(**{**shape, "strip_accents": True}),
        "lowercase": normalizers.Lowercase(),
        "nfd": normalizers.NFD(),
        "nfc": normalizers.NFC(),
        "nfkd": normalizers.NFKD(),
        "nfkc": normalizers.NFKC(),
        "nmt": normalizers.Nmt(),
        "bytes": normalizers.ByteLevel(),
        "marks": normalizers.StripAccents(),
        "bert": bert(),
    }
    split = {
        "bert": pre_tokenizers.BertPreTokenizer(),
        "whitespace": pre_tokenizers.Whitespace(),
        "whitespace-split": pre_tokenizers.WhitespaceSplit(),
        "punctuation": pre_tokenizers.Punctuation(),
        "digits": pre_tokenizers.Digits(),
        "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "words": pre_tokenizers.Split(Regex(r"\w"), "isolated"),
        "boundaries": pre_tokenizers.Split(Regex(r"\b"), "isolated"),
        "cl100k": pre_tokenizers.Split(Regex(CL100K), "isolated"),
        "o200k": pre_tokenizers.Split(Regex(O200K), "isolated"),
    }
    blocks = []
    for block in range(0, 0x110000, 4096):
        blocks.append([chr(value) for value in range(block, block + 4096) if not 0xD800 <= value < 0xE000])

    def component(part):
        return json.loads(part.__getstate__())

    # Marks of several classes around the scalar show its place in the canonical order.
    result = {"normalize": [], "order": [], "split": []}
    canonical = {name: normalize[name] for name in ("nfd", "nfc", "nfkd", "nfkc")}
    for key, parts, before, after in (
        ("normalize", normalize, "a", "b"),
        ("order", canonical, "a\u0345\u0301\u0327", "\u0334\u0323\u0308"),
        ("order", canonical, "a\u0310", "\u0301\u0338"),  # the first does not compose and blocks the second
    ):
        for name, part in parts.items():
            texts = ["".join(before + character + after for character in block) for block in blocks]
            digests = "".join(f"{fnv(part.normalize_str(text)):08x}" for text in texts)
            entry = {"name": name, "component": component(part), "before": before, "after": after, "digests": digests}
            result[key].append(entry)
    for name, part in split.items():
        digests = ""
        for block in blocks:
            pieces = part.pre_tokenize_str(" ".join(f"a{character}b" for character in block))
            digests += f"{fnv(chr(1).join(piece for piece, _ in pieces)):08x}"
        result["split"].append({"name": name, "component": component(part), "digests": digests})
    write_json(TOKENIZER_GOLDENS / "scalars.json", result)


# Patterns of published byte-level tokenizers.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
DIGIT_GROUPS = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"

# Patterns that published tokenizers have or that show one part of the syntax each.
PATTERNS = [
    CL100K, O200K, CLIP, DIGIT_GROUPS, r"\d{1,3}(?=(?:\d{3})*\b)", r"[一-龥\u3040-ゟ゠-ヿ]+", r"\s+(?!\S)|\s+",
    "", "|a", "a{", "a{1", "a{,2}", "x*",
    "^", "$", r"\A|\z", r"\Z", r"\b", r"\B", ".", "(?m:.)", "(?-m:.)", r"\p{N}{1,3}+", "a?+a", "a{1,2}+a", "(?>a|ab)b", "(?:a|b){2,3}?",
    r"\x41|\x{e9}|\u0061", "[]a]", "[a-]", r"[\w-]", "[a-z&&[^b-d]]", "[^[:alpha:]]", "[[:^alpha:]]", r"\p{^L}", r"\P{^L}", r"[\b\t]",
    "(?i:'s|'k)", "(?i)a|B", "b(?i)a|c", "(?i:[^a])", "(?<name>a)", "a(?#comment)b", "(?<=a)b|(?<!a)x", r"(?=a+b)a|b(?!\w*x)", r"\h+",
    r"\p{Uppercase_Letter}|\p{lowercase letter}", r"\p{Han}+|\p{Hiragana}+|\p{Latin}+", r"(?:x*y|x)", r"(?:a+b?)*c|a", "[+--]", r"\-|\.",
]


def random_patterns(count, generator):
    atoms = [
        "a", "b", r"\p{L}", r"\p{N}", r"\s", r"\S", r"\w", r"\W", r"\d", ".", "[ab]", r"[^a\s]", r"[\p{Lu}\p{M}]", r"[^\r\n\p{L}\p{N}]",
        r"\p{P}", "'", "é", "日", "[A-Z]", r"\n", " ", "x", "1", "(?i:k)", "(?i:'s|'t)", r"[\w-]", "[[:alpha:]_]",
    ]
    quantifiers = ["", "", "", "", "*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "*?", "+?", "??", "++", "*+", "?+", "{1,2}?"]

    def pattern(depth):
        kind = generator.random()
        if depth == 0 or kind < 0.45:
            return generator.choice(atoms) + generator.choice(quantifiers)
        parts = [pattern(depth - 1) for _ in range(generator.randint(1, 3))]
        if kind < 0.65:
            return "".join(parts)
        if kind < 0.8:
            return f"(?:{'|'.join(parts)})" + generator.choice(quantifiers)
        if kind < 0.88:
            return generator.choice(["(?=%s)", "(?!%s)"]) % parts[0]
        if kind < 0.93:
            return generator.choice(["(?<=%s)", "(?<!%s)"]) % generator.choice(["a", r"\s", r"\p{L}"])
        return generator.choice(["^", "$", r"\b", r"\B", r"\Z", "(?>a|ab)"])

    return ["|".join(pattern(2) for _ in range(generator.randint(1, 4))) for _ in range(count)]


def write_pattern_goldens():
    """What splits at patterns make of texts: one digest a text."""
    generator = random.Random(20240801)
    pieces = "a b x 1 23 é 日 A B 's 'T \u017f \u212a k \u0301 ² ab ba aab - _ . か K s".split() + [" ", "  ", "\n", "\r\n", "\u00a0", "\t"]
    texts = ["".join(generator.choice(pieces) for _ in range(generator.randint(0, 25))) for _ in range(24)] + ["1234567", "a\nb\n", "xxxxxxy x"]
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    cases = []
    for number, pattern in enumerate(PATTERNS + random_patterns(120, generator)):
        behavior = "isolated" if number < len(PATTERNS) else generator.choice(behaviors)
        try:
            split = pre_tokenizers.Split(Regex(pattern), behavior, number % 3 == 2)
        except Exception:
            assert number >= len(PATTERNS), pattern
            continue  # a random pattern that is none
        digests = "".join(f"{fnv(chr(1).join(piece for piece, _ in split.pre_tokenize_str(text))):08x}" for text in texts)
        cases.append({"component": json.loads(split.__getstate__()), "digests": digests})
    write_json(TOKENIZER_GOLDENS / "patterns.json", {"texts": texts, "cases": cases})


def write_cluster_goldens():
    """What a Precompiled normalizer, which replaces clusters of fewer than 6 bytes as a whole, makes of clusters."""
    sources = dict.fromkeys("aé©®\r\u0301\u0600\u1100\u1161\u11a8\uac00\u0915\u0937\u0958\u200dﾊﾟｶ")
    rules = {source: f"[{number}]" for number, source in enumerate(sources)}
    rules |= {"\x01": "", "e\u0301": "é", "a\u0301b": "never", "\u200b": " ", "ﬁ": "fi", "\u00ad": ""}
    others = "b❤👩🇩🇪\n\ufe0f\u0302\u094d\u093c\u06dd\u0301\u0302\u200d\u200d\uac01\u3099か\u0e33\u0e01\u0903\u0d4e\U0001133a\U00011314 "
    pool = [*rules, *others]
    generator = random.Random(20240901)
    texts = ["".join(generator.choice(pool) for _ in range(generator.randint(1, 10))) for _ in range(400)]
    # Each decides by a cluster's end whether a sign is replaced: Indic conjuncts, pictures, syllables.
    texts += [
        "\u0915\u094d\u0915\u0301", "\u0915\u094d\u093c\u0915\u0301", "\u0915\u0903\u0915\u0301", "©\u200d©\u0301",
        "©\ufe0f\u200d©\u0301", "©\u0903\u200d©\u0301", "\u0600\u1100\u1161", "\u0600\u1100\u11a8\u0301", "\u0600\uac00\u11a8",
        "\u0600\uac01\u1161\u0301", "\r\n", "\n\u0301\u0302",
    ]
    normalizer = normalizers.Precompiled(charsmap(rules))
    digests = "".join(f"{fnv(normalizer.normalize_str(text)):08x}" for text in texts)
    component = json.loads(normalizer.__getstate__())
    write_json(TOKENIZER_GOLDENS / "clusters.json", {"component": component, "texts": texts, "digests": digests})


def fnv(text):
    value = 0x811C9DC5
    for byte in text.encode("utf-8"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


# ---------------------------------------------------------------------------------------------------------------
# Tokenizers of every kind, trained

def sentencepiece_rules():
    """Rules like those of sentencepiece's `nmt_nfkc`: compatibility composition, odd spaces, controls."""
    rules = {chr(value): "" for value in [*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F]}
    rules.update({chr(value): " " for value in [9, 0xA, 0xC, 0xD, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD]})
    nfkc = normalizers.NFKC()
    for value in [*range(0xA0, 0x530), *range(0x900, 0xE00), *range(0x1E00, 0x2200), *range(0x3000, 0x3400), *range(0xF900, 0x10000)]:
        composed = nfkc.normalize_str(chr(value))
        if composed != chr(value) and chr(value) not in rules:
            rules[chr(value)] = composed
        parts = unicodedata.normalize("NFD", chr(value))
        if 1 < len(parts) and unicodedata.normalize("NFC", parts) == chr(value):
            rules[parts] = chr(value)
    return rules


def trainable(lines, characters):
    """Lines with their most frequent characters alone, so that a vocabulary holds these and others stay unknown."""
    counts = {}
    for line in lines:
        for character in line:
            counts[character] = counts.get(character, 0) + 1
    kept = set(sorted(counts, key=lambda character: (-counts[character], character))[:characters])
    return ["".join(filter(kept.__contains__, line)) for line in lines]


def trained_tokenizers(lines, size, characters, rules):
    """One tokenizer of every kind that published encoders have, and some that use what those leave out.

    `size` is the number of tokens, `characters` how many different ones are not unknown, `rules` those of sentencepiece."""
    from tokenizers import trainers

    lines = trainable([line for line in lines if len(line) < 2000], characters)
    special = lambda *names: [AddedToken(name, special=True, normalized=False) for name in names]
    bert, spaces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    charsmap_of = lambda: normalizers.Precompiled(charsmap(rules))
    result = {}

    def make(name, model, trainer, normalizer=None, splitter=None, processor=None, tokens=(), fields=None):
        tokenizer = Tokenizer(model)
        if normalizer:
            tokenizer.normalizer = normalizer
        if splitter:
            tokenizer.pre_tokenizer = splitter
        tokenizer.train_from_iterator(lines, trainer)
        if processor:
            tokenizer.post_processor = processor(tokenizer.token_to_id)
        tokenizer.add_tokens(list(tokens))
        if fields:
            value = json.loads(tokenizer.to_str())
            fields(value)
            tokenizer = Tokenizer.from_str(json.dumps(value))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        result[name] = tokenizer

    def pieces(names=bert, **options):
        return trainers.WordPieceTrainer(vocab_size=size, special_tokens=special(*names), show_progress=False, **options)

    def merges(names, byte_level=True, **options):
        if byte_level:
            options["initial_alphabet"] = alphabet
        return trainers.BpeTrainer(vocab_size=size, special_tokens=special(*names), show_progress=False, **options)

    def unigram(names=spaces, **options):
        return trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special(*names), unk_token="<unk>", show_progress=False, **options
        )

    def template(first, last, pair):
        return lambda id_of: processors.TemplateProcessing(
            single=f"{first} $A {last}", pair=pair, special_tokens=[(first, id_of(first)), (last, id_of(last))]
        )

    bert_template = template("[CLS]", "[SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    xlm_template = template("<s>", "</s>", "<s> $A </s> </s> $B </s>")

    def roberta(**options):
        return lambda id_of: processors.RobertaProcessing(("</s>", id_of("</s>")), ("<s>", id_of("<s>")), **options)

    # WordPiece: BERT, cased and uncased, and MPNet with RoBERTa's special tokens.
    make("bert-uncased", models.WordPiece(unk_token="[UNK]"), pieces(), normalizers.BertNormalizer(),
         pre_tokenizers.BertPreTokenizer(), bert_template)
    make("bert-cased", models.WordPiece(unk_token="[UNK]"), pieces(), normalizers.BertNormalizer(lowercase=False, strip_accents=False),
         pre_tokenizers.BertPreTokenizer(), lambda id_of: processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)))
    make("mpnet", models.WordPiece(unk_token="<unk>"), pieces(spaces), normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(),
         roberta(trim_offsets=True, add_prefix_space=False), [AddedToken("<mask>", lstrip=True, special=True, normalized=False)])

    # Byte-level BPE: RoBERTa, with and without a space in front, GPT-2's trimming, ModernBERT's runs of spaces.
    mask = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
    make("roberta", models.BPE(), merges(spaces), None, pre_tokenizers.ByteLevel(add_prefix_space=False), roberta(add_prefix_space=False), [mask])
    make("roberta-prefix", models.BPE(continuing_subword_prefix="", end_of_word_suffix=""), merges(spaces), None,
         pre_tokenizers.ByteLevel(add_prefix_space=True), roberta(), [mask, AddedToken("the\t", normalized=False), AddedToken(" attention ")])
    make("byte-level-trimmed", models.BPE(), merges(spaces), normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()]),
         pre_tokenizers.ByteLevel(add_prefix_space=True),
         lambda id_of: processors.Sequence([processors.ByteLevel(trim_offsets=True, add_prefix_space=True), xlm_template(id_of)]),
         [AddedToken("token", single_word=True, rstrip=True)])
    make("modernbert", models.BPE(), merges(bert), normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False), bert_template,
         [*(AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)), AddedToken("|||IP_ADDRESS|||"),
          AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    byte_pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    make("cl100k", models.BPE(ignore_merges=True), merges(spaces), None,
         pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"), byte_pieces]),
         lambda id_of: processors.Sequence([processors.ByteLevel(trim_offsets=False), xlm_template(id_of)]))
    make("o200k", models.BPE(), merges(spaces), None,
         pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(O200K), "removed", invert=True), byte_pieces]), xlm_template)
    make("digit-groups", models.BPE(), merges(spaces), normalizers.Sequence([]),
         pre_tokenizers.Sequence([
             pre_tokenizers.Split(Regex(DIGIT_GROUPS), "isolated"), pre_tokenizers.Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated"),
             pre_tokenizers.Split(Regex(r"[!-/:-~]?[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
             byte_pieces]),
         xlm_template)
    make("byte-normalizer", models.BPE(), merges(spaces), normalizers.Sequence([normalizers.NFD(), normalizers.ByteLevel()]),
         pre_tokenizers.Split("Ġ", "merged_with_next"), xlm_template, [AddedToken("Straße"), AddedToken("[NEW] [NEW]")])

    # BPE of characters: CLIP's ends of words, sentencepiece's fallback to bytes, prefixes, no unknown token.
    make("clip", models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), merges(spaces, False, end_of_word_suffix="</w>"),
         normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
         pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", invert=True)]),
         roberta(add_prefix_space=False, trim_offsets=False))

    def fall_back(value):
        vocabulary = value["model"]["vocab"]
        for byte in range(256):
            vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
        value["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")

    make("llama", models.BPE(unk_token="<unk>", fuse_unk=True), merges(spaces, False),
         normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, xlm_template, fields=fall_back)

    def few_bytes(value):
        fall_back(value)
        for byte in range(0x80, 0x100, 3):
            del value["model"]["vocab"][f"<0x{byte:02X}>"]
        value["model"]["fuse_unk"] = False
        value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]

    make("few-bytes", models.BPE(unk_token="<unk>"), merges(spaces, False), normalizers.Nmt(),
         pre_tokenizers.Metaspace(prepend_scheme="first"), xlm_template, fields=few_bytes)
    make("bpe-prefix", models.BPE(unk_token="<unk>", fuse_unk=True, continuing_subword_prefix="##"),
         merges(spaces, False, continuing_subword_prefix="##"), normalizers.NFKD(),
         pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True),
                                  pre_tokenizers.Punctuation("merged_with_next")]))
    make("bpe-dropping", models.BPE(), merges(spaces, False), None, pre_tokenizers.Whitespace(), xlm_template)

    # Unigram: XLM-RoBERTa, ALBERT, DeBERTa, and bytes for what is unknown.
    make("xlm-roberta", models.Unigram(), unigram(), charsmap_of(),
         pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]), xlm_template, [mask])
    make("albert", models.Unigram(), unigram((*bert, "<unk>")),
         normalizers.Sequence([
             normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
             normalizers.Lowercase(), charsmap_of(), normalizers.Replace(Regex(" {2,}"), " ")]),
         pre_tokenizers.Metaspace(prepend_scheme="always"), bert_template)
    make("deberta", models.Unigram(), unigram((*bert, "<unk>")),
         normalizers.Sequence([normalizers.Strip(), charsmap_of(), normalizers.Replace(Regex(" {2,}"), " ")]),
         pre_tokenizers.Sequence([pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Metaspace(prepend_scheme="first")]), bert_template,
         [AddedToken("[MASK]", special=True, lstrip=True, rstrip=True, normalized=False), AddedToken("ß", single_word=True)])

    def unigram_bytes(value):
        value["model"]["vocab"] += [[f"<0x{byte:02X}>", -12.0 - byte / 7] for byte in range(256)]
        value["model"]["byte_fallback"] = True

    make("unigram-bytes", models.Unigram(), unigram(), normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False)]),
         pre_tokenizers.Metaspace(prepend_scheme="never", split=False), xlm_template, fields=unigram_bytes)

    # Whole words; residues of proteins, as ESM-2 has them, are added tokens of a BPE without merges.
    make("words", models.WordLevel(unk_token="<unk>"),
         trainers.WordLevelTrainer(vocab_size=size, special_tokens=special(*spaces), show_progress=False),
         normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
         pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(), pre_tokenizers.Split("e", "contiguous")]),
         lambda id_of: processors.Sequence([processors.ByteLevel(), roberta()(id_of)]))
    residues = Tokenizer(models.BPE(vocab={}, merges=[]))
    residues.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    residues.add_tokens([AddedToken(letter) for letter in "LAGVSERTIDPKQNFYMHWCXBUZO.-"])
    residues.add_special_tokens(special("<cls>", "<eos>", "<mask>"))
    residues.post_processor = template("<cls>", "<eos>", "<cls> $A <eos> $B <eos>")(residues.token_to_id)
    result["esm"] = residues

    # Every behavior of a split, straight and inverted, of a pattern that also matches nothing.
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    for number, behavior in enumerate(behaviors):
        make(f"split-{behavior.replace('_', '-')}", models.BPE(unk_token="<unk>"), merges(spaces, False), None,
             pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[aeiou]|\d*|(?<=t)h"), behavior, invert=number % 2 == 1),
                                      pre_tokenizers.Split(Regex(r"\b|(?=[A-Z][a-z])|\s"), behaviors[-number], invert=number % 3 == 1)]))
    return result


def write_corpus_goldens(folder, tokenizer, lines):
    """A tokenizer, and a digest for each line, alone, and for each tenth as a pair with the one behind it."""
    write_json(folder / "tokenizer.json", json.loads(tokenizer.to_str()))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    write_json(folder / "goldens.json", {
        "lines": "".join(digest(tokenizer.encode(line)) for line in lines),
        "pairs": "".join(digest(tokenizer.encode(*pair)) for pair in list(zip(lines, lines[1:]))[::10]),
    })


def natural_lines(count):
    """Lines of translations, documentation and licences that this machine has, mixed by a seed."""
    import gettext

    lines = set()
    for path in sorted(Path("/usr/share/locale").glob("*/LC_MESSAGES/*.mo")):
        try:
            with open(path, "rb") as file:
                catalog = gettext.GNUTranslations(file)._catalog
        except (OSError, ValueError, LookupError):
            continue  # catalogues of odd encodings or plural forms
        lines.update(line for text in catalog.values() if isinstance(text, str) for line in text.split("\n") if len(line) > 20)
    for pattern in ("common-licenses/*", "perl/**/*.pod", "doc/*/*.txt", "doc/*/README*"):
        for path in sorted(Path("/usr/share").glob(pattern)):
            if path.is_file():
                lines.update(line for line in path.read_text(errors="ignore").split("\n") if len(line) > 20)
    lines = sorted(lines)
    random.Random(20240711).shuffle(lines)
    return lines[:count]


def make_tokenizer_corpus(folder):
    """Trains a tokenizer of every kind on this machine's texts, and encodes 24,000 lines with each."""
    folder = Path(folder)
    natural = natural_lines(12_000)
    lines = TEXTS + natural + fuzz_lines(12_000, seed=7)
    write_json(folder / "lines.json", lines)
    for name, tokenizer in trained_tokenizers(natural, 6000, 2500, sentencepiece_rules()).items():
        print(f"goldens: {name}: {len(lines)} lines", file=sys.stderr)
        write_corpus_goldens(folder / name, tokenizer, lines)
    make_tokenizer_folders(folder / "folders", natural, 6000, lines)


def make_tokenizer_folders(target, training, size, lines):
    """Folders as people have them, with what AutoTokenizer makes of the lines."""
    import tokenizer_folders

    tokenizer_folders.make_tokenizer_folders(target, training, size, lines, digest)


def make_tokenizer_sample():
    """The same in small: few tokens, few lines, few rules. Trainers break ties as they like, so the vocabularies differ from
    run to run."""
    lines = TEXTS + fuzz_lines()[:600]
    rules = {source: target for source, target in sentencepiece_rules().items() if len(source) > 1 or source < "\u0180"}
    rules = dict(sorted(rules.items())[:40]) | {"ﬁ": "fi", "\u3000": " ", "\u200b": " ", "ﾊﾟ": "パ", "İ": "I", "\x7f": "", "\r": " "}
    for name, tokenizer in trained_tokenizers(TEXTS * 2, 380, 120, rules).items():
        write_corpus_goldens(TOKENIZER_GOLDENS / "kinds" / name, tokenizer, lines)


def make_tokenizer_folder_sample():
    """Small ones, of the letters and the words that are most common."""
    training = trainable(TEXTS * 3, 90)
    make_tokenizer_folders(TOKENIZER_GOLDENS / "folders", training, 320, TEXTS + fuzz_lines()[:600])


# ---------------------------------------------------------------------------------------------------------------
# Unicode tables


def scalars():
    return (value for value in range(0x110000) if not 0xD800 <= value < 0xE000)


def ranges_of(predicate):
    """Inclusive ranges over which the predicate holds; the surrogates, which no text holds, join what surrounds them."""
    found = []
    previous = None
    for value in scalars():
        if predicate(value):
            if found and (found[-1][1] == value - 1 or (found[-1][1] == 0xD7FF and value == 0xE000)):
                found[-1][1] = value
            else:
                found.append([value, value])
    return found


def probe_tables():
    bert = normalizers.BertNormalizer
    clean = bert(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    chinese = bert(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    accents = bert(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    marks, lower = normalizers.StripAccents(), normalizers.Lowercase()
    nfd, nfc = normalizers.NFD(), normalizers.NFC()
    bert_split, regex_split = pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace()

    def pieces(splitter, value):
        return len(splitter.pre_tokenize_str("a" + chr(value) + "b"))

    tables = {
        "whitespace": ranges_of(lambda value: pieces(bert_split, value) == 2),
        "removed": ranges_of(lambda value: clean.normalize_str("a" + chr(value) + "b") == "ab"),
        "punctuation": ranges_of(lambda value: pieces(bert_split, value) == 3),
        "word": ranges_of(lambda value: pieces(regex_split, value) == 1),
        "numeric": ranges_of(lambda value: pieces(pre_tokenizers.Digits(), value) == 3),
        "ideograph": ranges_of(lambda value: chinese.normalize_str(chr(value)) != chr(value)),
        "mark": ranges_of(lambda value: marks.normalize_str("a" + chr(value) + "b") == "ab"),
    }

    decompositions = {}
    for value in scalars():
        if 0xAC00 <= value < 0xAC00 + 11172:
            continue
        decomposed = nfd.normalize_str(chr(value))
        if decomposed != chr(value):
            decompositions[value] = [ord(c) for c in decomposed]

    nfkd, nfkc = normalizers.NFKD(), normalizers.NFKC()
    compatibility = {}
    for value in scalars():
        if 0xAC00 <= value < 0xAC00 + 11172:
            continue
        decomposed = nfkd.normalize_str(chr(value))
        if decomposed != nfd.normalize_str(chr(value)):
            compatibility[value] = [ord(c) for c in decomposed]
        assert nfkc.normalize_str(chr(value)) == nfc.normalize_str(decomposed), hex(value)

    # Nonspacing as the accent stripper sees it; a scalar that decomposes is judged by its parts.
    tables["nonspacing"] = ranges_of(
        lambda value: value not in decompositions and accents.normalize_str("a" + chr(value) + "b") == "ab"
    )

    # What whitespace becomes must agree between the cleaner and the splitters, or one table would not do.
    for value in scalars():
        cleaned = clean.normalize_str("a" + chr(value) + "b")
        is_space = pieces(bert_split, value) == 2
        if cleaned == "ab":
            continue
        assert (cleaned == "a b") == is_space, hex(value)

    # Canonical combining classes: which of a ladder of marks of known class a scalar moves across. A mark that the
    # package does not know yet moves across none and is of no use as a step.
    low, high = "\u0334", "\u0345"
    ladder = {}
    for value in scalars():
        known, mark = unicodedata.combining(chr(value)), chr(value)
        if known in (0, *ladder) or value in decompositions:
            continue
        if nfd.normalize_str("a" + high + mark) == "a" + mark + high or nfd.normalize_str("a" + mark + low) == "a" + low + mark:
            ladder[known] = mark
    steps = sorted(ladder.items())
    assert steps[0] == (unicodedata.combining(low), low) and steps[-1][0] == unicodedata.combining(high)

    def combining_class(value):
        if value in decompositions or 0xAC00 <= value < 0xAC00 + 11172:
            return 0
        character = chr(value)
        moves_before_high = nfd.normalize_str("a" + high + character) == "a" + character + high
        moves_behind_low = nfd.normalize_str("a" + character + low) == "a" + low + character
        if not moves_before_high and not moves_behind_low:
            return 0
        if character in ladder.values():
            return unicodedata.combining(character)
        behind = [known for known, mark in steps if nfd.normalize_str("a" + character + mark) == "a" + mark + character]
        before = [known for known, mark in steps if nfd.normalize_str("a" + mark + character) == "a" + character + mark]
        between = [known for known, mark in steps if known not in behind and known not in before]
        assert len(between) == 1, (hex(value), behind, before)
        return between[0]

    classes = {value: combining_class(value) for value in scalars()}
    classes = {value: known for value, known in classes.items() if known}
    for value, known in classes.items():
        python = unicodedata.combining(chr(value))
        assert python in (0, known) , (hex(value), known, python)

    lowercase = {}
    for value in scalars():
        lowered = lower.normalize_str(chr(value))
        if lowered != chr(value):
            lowercase[value] = [ord(c) for c in lowered]

    # Pairs that compose: a scalar that is its own composed form, split before the last part of its decomposition.
    compositions = {}
    for value, parts in decompositions.items():
        if len(parts) < 2 or nfc.normalize_str(chr(value)) != chr(value):
            continue
        first = nfc.normalize_str("".join(map(chr, parts[:-1])))
        if len(first) == 1:
            compositions[(ord(first), parts[-1])] = value
    for (first, second), value in compositions.items():
        assert nfc.normalize_str(chr(first) + chr(second)) == chr(value)

    return tables, decompositions, compatibility, classes, lowercase, compositions


def swift_numbers(numbers):
    lines, line = [], "        "
    for number in numbers:
        text = (str(number) if number < 10 else f"0x{number:X}") + ", "
        if len(line) + len(text) > 132:
            lines.append(line.rstrip())
            line = "        "
        line += text
    return "\n".join([*lines, line.rstrip()])


CATEGORIES = (
    "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn"  # CharacterClass has the same order
).split()
SCRIPTS = "Arabic Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana Katakana Latin Thai".split()
EVERYTHING = "".join(map(chr, scalars()))


def pattern_set(pattern):
    """The scalars that a regular expression for one scalar matches in a Split."""
    left = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed").pre_tokenize_str(EVERYTHING)
    found, done = set(), 0
    for _, (start, end) in [*left, ("", (len(EVERYTHING), None))]:
        found.update(map(ord, EVERYTHING[done:start]))
        done = end
    return found


def ranges_in(values):
    return [value for pair in ranges_of(values.__contains__) for value in pair]


def pattern_tables():
    """What the classes of regular expressions hold, and that those made of others in CharacterClass are right."""
    known = {name: pattern_set(rf"\p{{{name}}}") for name in CATEGORIES if name != "Cs"}
    group = lambda initial: set().union(*(values for name, values in known.items() if name[0] == initial))
    alphabetic = pattern_set("[[:alpha:]]")
    for bracket, values in {
        "alnum": alphabetic | known["Nd"], "ascii": set(range(128)), "blank": known["Zs"] | {9}, "cntrl": known["Cc"],
        "digit": known["Nd"], "punct": group("P") | group("S"), "space": pattern_set(r"\s"),
        "word": alphabetic | known["Nd"] | group("M") | known["Pc"], "xdigit": set(map(ord, "0123456789abcdefABCDEF")),
    }.items():
        assert pattern_set(f"[[:{bracket}:]]") == values, bracket
        assert pattern_set(rf"[\p{{{bracket}}}]") == (group("P") if bracket == "punct" else values), bracket
    assert pattern_set(r"[\w]") == pattern_set("[[:word:]]")
    assert pattern_set(r"\w") == pattern_set(r"\p{word}") == pattern_set(r"[\w]") | set(map(ord, "²³¹¼½¾"))
    assert pattern_set(r"\d") == known["Nd"] and pattern_set(r"\h") == pattern_set("[[:xdigit:]]")
    for initial in "LMNPSZC":
        assert pattern_set(rf"\p{{{initial}}}") == group(initial)

    numbers = {value: number for number, name in enumerate(CATEGORIES) for value in known.get(name, ())}
    numbers.update(dict.fromkeys(range(0xD800, 0xE000), CATEGORIES.index("Cs")))
    runs = [value << 5 | numbers[value] for value in range(0x110000) if value == 0 or numbers[value] != numbers[value - 1]]
    tables = {
        "patternCategories": ("General categories: first scalar of a run · 32 + number of its category.", runs),
        "patternSpace": ("\\s: inclusive ranges.", ranges_in(pattern_set(r"\s"))),
        "patternAlphabetic": ("[:alpha:]: inclusive ranges.", ranges_in(alphabetic)),
        "patternLowercase": ("[:lower:]: inclusive ranges.", ranges_in(pattern_set("[[:lower:]]"))),
        "patternUppercase": ("[:upper:]: inclusive ranges.", ranges_in(pattern_set("[[:upper:]]"))),
    }
    for name in SCRIPTS:
        tables["script" + name] = (f"\\p{{{name}}}: inclusive ranges.", ranges_in(pattern_set(rf"\p{{{name}}}")))
    return tables


def charsmap(rules):
    """Rules from strings to strings as a Precompiled normalizer has them: the size of a double array, the array, and
    the replacements, each ended by a zero byte."""
    texts, trie = b"", {}
    for source, target in rules.items():
        node = trie
        for byte in source.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += target.encode() + b"\0"
    units, bases, taken = {}, set(), {0}

    def lay(node, at, label):
        """Puts a node's unit at `at` and its children where they all find room, at a base of their own."""
        base = next(
            base for base in range(len(bases) // 2, 1 << 21)
            if base not in bases and not any(base ^ byte in taken for byte in node)
        )
        bases.add(base)
        taken.update(base ^ byte for byte in node)
        units[at] = label | (0 in node) << 8 | (at ^ base) << 10
        for byte, child in node.items():
            if byte == 0:
                units[base] = 1 << 31 | child
            else:
                lay(child, base ^ byte, byte)

    lay(trie, 0, 0)
    units = [units.get(at, 0) for at in range(max(units) + 256)]  # labels may be looked for beyond the last child
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def grapheme_table():
    """Classes of scalars for grapheme clusters (UAX #29), found through the Precompiled normalizer: it looks up whole
    clusters of fewer than 6 bytes and takes the replacement of the shortest prefix, so the rest of a cluster vanishes.

    A number per run: first scalar · 64 + class of Indic conjuncts · 16 + class."""
    mark, ka, virama, joiner = "\u0301", "\u0915", "\u094d", "\u200d"

    def probe(rules, text, joined):
        """Scalars with which `text`, where ? stands for the scalar, becomes `joined`."""
        normalizer = normalizers.Precompiled(charsmap(rules))
        values = [value for value in scalars() if value != 0xA]
        results = normalizer.normalize_str("\n".join(text.replace("?", chr(value)) for value in values)).split("\n")
        assert len(results) == len(values)
        return {value for value, result in zip(values, results) if result == joined.replace("?", chr(value))}

    follows = probe({"a": "x"}, "a?", "x") - {0x61}
    precedes = probe({"a": "x"}, f"?a{mark}", f"?x{mark}") - {0x61}
    controls = (set(scalars()) - probe({mark: "y"}, f"?{mark}\u0302", "?y\u0302")) - follows
    in_emoji = probe({"©": "z"}, f"©?{joiner}©{mark}", f"z?{joiner}z{mark}") & follows
    pictures = probe({"©": "z"}, f"©{joiner}?", f"z{joiner}?") - follows | {0xA9}
    before = {
        jamo: probe({jamo: "y"}, f"?{jamo}{mark}", f"?y{mark}") - precedes - {ord(jamo)} for jamo in ("\u1100", "\u1161", "\u11a8")
    }
    syllables = set(range(0xAC00, 0xAC00 + 11172))
    leading = before["\u1100"] | {0x1100}
    vowels = before["\u1161"] & before["\u11a8"] - syllables | {0x1161}
    trailing = before["\u11a8"] - before["\u1161"] - syllables - vowels | {0x11A8}
    linkers = probe({ka: "k"}, f"{ka}?{ka}{mark}", f"k?k{mark}") & follows
    extends = probe({ka: "k"}, f"{ka}{virama}?{ka}{mark}", f"k{virama}?k{mark}") & follows - linkers
    consonants = probe({ka: "k"}, f"{ka}{virama}?{virama}{ka}{mark}", f"k{virama}?{virama}k{mark}") - follows - precedes | {0x915}

    kinds = [set(), controls | {0xA}, in_emoji - {0x200D}, {0x200D}, follows - in_emoji - {0x200D}, precedes, leading, vowels, trailing, pictures]
    conjunct = [set(), consonants, linkers, extends]

    def number(values, value):
        found = [number for number, members in enumerate(values) if value in members]
        assert len(found) <= 1, (hex(value), found)
        return found[0] if found else 0

    numbers = [number(conjunct, value) << 4 | number(kinds, value) for value in range(0x110000)]
    return [value << 6 | numbers[value] for value in range(0x110000) if value == 0 or numbers[value] != numbers[value - 1]]


def write_tables(name, subject, head, tables):
    """One file with tables: name to note and numbers."""
    import tokenizers

    out = [
        f"// {subject}",
        "//",
        f"// Generated by `scripts/goldens/make.py tables` out of tokenizers {tokenizers.__version__}, whose parts follow different",
        "// versions of Unicode: every scalar was put through every component. Do not edit.",
        "// swift-format-ignore-file",
        "",
        head + " {",
    ]
    for table, (note, numbers) in tables.items():
        out += [f"    /// {note}", f"    static let {table}: [UInt32] = [", swift_numbers(numbers), "    ]", ""]
    out[-1] = "}"
    (ROOT / "Sources/Tokenization/UnicodeTables" / name).write_text("\n".join(out) + "\n", encoding="utf-8")


def packed(mapping):
    return [number for value, parts in sorted(mapping.items()) for number in (value | len(parts) << 24, *parts)]


def make_tables():
    tables, decompositions, compatibility, classes, lowercase, compositions = probe_tables()
    notes = {
        "whitespace": "Scalars that split words and that cleaning turns into spaces: inclusive ranges.",
        "removed": "Scalars that cleaning removes: controls, formats, private use, U+FFFD: inclusive ranges.",
        "punctuation": "ASCII punctuation and general category P: inclusive ranges.",
        "word": "Scalars of the regular expression class \\w: inclusive ranges.",
        "numeric": "General category N: inclusive ranges.",
        "ideograph": "Ideographs that are set apart by spaces: inclusive ranges.",
        "mark": "General category M: inclusive ranges.",
        "nonspacing": "General category Mn, without those that decompose: inclusive ranges.",
    }
    main = {name: (notes[name], [value for pair in ranges for value in pair]) for name, ranges in tables.items()}

    runs = []
    for value, known in sorted(classes.items()):
        if runs and runs[-1][1] == value - 1 and runs[-1][2] == known:
            runs[-1][1] = value
        else:
            runs.append([value, value, known])
    main["combiningClass"] = (
        "Canonical combining classes other than 0: first, last, class.", [value for run in runs for value in run]
    )
    main["decomposition"] = (
        "Full canonical decompositions, Hangul syllables apart: scalar with the count in the top byte, then the parts.",
        packed(decompositions),
    )
    main["composition"] = (
        "Canonical compositions, Hangul syllables apart: first, second, composed.",
        [value for (first, second), result in sorted(compositions.items()) for value in (first, second, result)],
    )

    runs, several = [], {}
    for value, parts in sorted(lowercase.items()):
        if len(parts) > 1:
            several[value] = parts
            continue
        change = (parts[0] - value) & 0xFFFFFFFF
        if runs and runs[-1][2] == change and value - runs[-1][1] == (runs[-1][3] or value - runs[-1][1]) <= 2:
            runs[-1][3] = value - runs[-1][1]
            runs[-1][1] = value
        else:
            runs.append([value, value, change, 0])
    main["lowercaseRuns"] = (
        "Lowercase of one scalar: first, last, step, and what is added (wrapping) to every step-th scalar between.",
        [value for first, last, change, step in runs for value in (first, last, step or 1, change)],
    )
    main["lowercaseSeveral"] = ("Lowercase of several scalars: scalar with the count in the top byte, then the parts.", packed(several))

    subject = "Unicode tables of the tokenizers, the same on every platform and for every version of the standard library."
    write_tables("UnicodeTables.swift", subject, "enum UnicodeTables", main)
    note = "Full compatibility decompositions where they are not the canonical ones: scalar with the count in the top byte, then the parts."
    write_tables(
        "CompatibilityTables.swift", "Compatibility decompositions of Unicode scalars.", "extension UnicodeTables",
        {"compatibility": (note, packed(compatibility))},
    )
    write_tables("PatternTables.swift", "Classes of regular expressions.", "extension UnicodeTables", pattern_tables())
    note = "Classes for grapheme clusters: first scalar of a run · 64 + class of Indic conjuncts · 16 + class."
    write_tables(
        "GraphemeTables.swift", "Classes of Unicode scalars for grapheme clusters.", "extension UnicodeTables",
        {"graphemes": (note, grapheme_table())},
    )


# ---------------------------------------------------------------------------------------------------------------
# Tiny random BERTs


def random_bert(generator, shape, prefix="", old_names=False):
    """Weights large enough that attention is far from uniform and every position matters."""
    hidden, intermediate = shape["hidden_size"], shape["intermediate_size"]

    def normal(*dimensions, scale):
        return (generator.standard_normal(dimensions) * scale).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": normal(shape["vocab_size"], hidden, scale=0.2),
        "embeddings.position_embeddings.weight": normal(shape["max_position_embeddings"], hidden, scale=0.1),
        "embeddings.token_type_embeddings.weight": normal(shape["type_vocab_size"], hidden, scale=0.1),
    }

    def dense(name, rows, columns, scale):
        weights[f"{name}.weight"] = normal(rows, columns, scale=scale)
        weights[f"{name}.bias"] = normal(rows, scale=0.1)

    def layer_norm(name):
        weights[f"{name}.{'gamma' if old_names else 'weight'}"] = 1 + normal(hidden, scale=0.1)
        weights[f"{name}.{'beta' if old_names else 'bias'}"] = normal(hidden, scale=0.1)

    layer_norm("embeddings.LayerNorm")
    for layer in range(shape["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        for part in ["query", "key"]:
            dense(f"{name}.attention.self.{part}", hidden, hidden, 0.2)
        dense(f"{name}.attention.self.value", hidden, hidden, 0.15)
        dense(f"{name}.attention.output.dense", hidden, hidden, 0.15)
        layer_norm(f"{name}.attention.output.LayerNorm")
        dense(f"{name}.intermediate.dense", intermediate, hidden, 0.15)
        dense(f"{name}.output.dense", hidden, intermediate, 0.15)
        layer_norm(f"{name}.output.LayerNorm")
    dense("pooler.dense", hidden, hidden, 0.15)
    return {prefix + name: value for name, value in weights.items()}


def write_model(folder, shape, weights):
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "model_type": "bert",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        **shape,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save(folder / "model.safetensors", weights, {"format": "pt"})
    source = TOKENIZER_GOLDENS / "uncased" / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(source.read_bytes())


def loaded(folder, dtype):
    """The model as transformers reads it, with attention by its definition, every tensor accounted for."""
    import torch
    from transformers import BertModel

    model, report = BertModel.from_pretrained(str(folder), dtype=dtype, attn_implementation="eager", output_loading_info=True)
    unread = {name for name in report["unexpected_keys"] if not name.endswith("position_ids")}
    assert not report["missing_keys"] and not unread and not report["mismatched_keys"], report
    assert all(parameter.dtype == dtype for parameter in model.parameters())
    return model.eval()


def hidden_states(model, ids):
    import torch

    with torch.no_grad():
        tokens = torch.tensor(np.array([ids], np.int64))
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0].numpy()


def evenly_spaced(count, limit=8):
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int32))


def write_hidden_goldens(folder, lengths, generator):
    """N.input_ids, N.last_hidden_state (float64, rounded to float32), and float32's own result in rows N.rows."""
    import torch

    shape = json.loads((folder / "config.json").read_text())
    double, single = loaded(folder, torch.float64), loaded(folder, torch.float32)
    goldens, largest = {}, 0.0
    for length in lengths:
        ids = generator.integers(5, shape["vocab_size"], length)
        ids[0] = 2
        if length > 1:
            ids[-1] = 3
        exact, rounded = hidden_states(double, ids), hidden_states(single, ids)
        largest = max(largest, float(np.abs(exact - rounded).max()))
        rows = evenly_spaced(length)
        goldens[f"{length}.input_ids"] = ids.astype(np.int32)
        goldens[f"{length}.last_hidden_state"] = exact.astype(np.float32)
        goldens[f"{length}.rows"] = rows
        goldens[f"{length}.last_hidden_state_float32"] = rounded[rows]
    save(folder / "goldens.safetensors", goldens, {"float32_error": f"{largest:.3e}"})
    print(f"goldens: {folder.name}: float32 differs from float64 by at most {largest:.3e}", file=sys.stderr)


def make_tiny():
    if not (TOKENIZER_GOLDENS / "uncased" / "tokenizer.json").exists():
        make_tokenizers()
    generator = np.random.default_rng(7)
    vocabulary = Tokenizer.from_file(str(TOKENIZER_GOLDENS / "uncased" / "tokenizer.json")).get_vocab_size()

    def shape(hidden, layers, heads, intermediate, positions):
        return {
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "max_position_embeddings": positions,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "type_vocab_size": 2,
            "vocab_size": vocabulary,
        }

    # Half precision for the positions alone keeps the file small and shows that mixed files are read.
    folder = ENCODER_GOLDENS / "tiny-bert"
    long = shape(48, 3, 4, 96, 8192)
    weights = random_bert(generator, long)
    name = "embeddings.position_embeddings.weight"
    weights[name] = weights[name].astype(np.float16)
    write_model(folder, long, weights)
    write_hidden_goldens(folder, [1, 2, 17, 64, 255, 256, 257, 600], generator)

    folder = ENCODER_GOLDENS / "tiny-bert-prefixed"
    short = shape(32, 2, 2, 64, 64)
    write_model(folder, short, random_bert(generator, short, prefix="bert.", old_names=True))
    write_hidden_goldens(folder, [1, 2, 17, 64], generator)

    folder = ENCODER_GOLDENS / "tiny-bert-sentence"
    write_model(folder, short, random_bert(generator, short))
    write_hidden_goldens(folder, [1, 2, 17, 64], generator)
    write_sentence_goldens(folder, short)


def write_sentence_goldens(folder, shape):
    """The files of sentence-transformers, and the vectors that it makes of some texts with them."""
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

    modules = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{module}"}
            for index, (module, path) in enumerate(zip(modules, paths))
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": shape["hidden_size"],
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None},
    )
    texts = ["a", "Attention is computed over the whole sequence.", "Café naïve 北京 한국어 👍🏽", "The quick brown fox [MASK] over the lazy dog."]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model"
        subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
        special = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special).save_pretrained(str(copy))
        model = SentenceTransformer(str(copy), device="cpu", local_files_only=True)
        vectors = {"vectors": model.encode(texts), "query": model.encode(texts, prompt_name="query")}
    save(folder / "sentences.safetensors", vectors)
    write_json(folder / "sentences.json", texts)


# ---------------------------------------------------------------------------------------------------------------
# all-MiniLM-L6-v2


def minilm_folder():
    return Path(subprocess.run([str(ROOT / "scripts/fetch-minilm")], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def minilm_tokenizer(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def minilm_texts(tokenizer):
    """Texts of 2 to exactly 512 tokens, special tokens included."""
    words = " ".join(TEXTS[-3:] + TEXTS[5:6] + [TEXTS[25], TEXTS[15], TEXTS[18], TEXTS[27]]).split(" ")

    def of_length(count):
        text, position = "", 0
        while True:
            longer = (text + " " + words[position % len(words)]).strip()
            position += 1
            size = len(tokenizer.encode(longer).ids)
            if size > count:
                continue
            text = longer
            if size == count:
                return text

    texts = [text for text in TEXTS if len(tokenizer.encode(text).ids) <= 200]
    wanted = [4, 6, 7, 9, 10, 15, 16, 17, 18, 19, 20, 27, 28, 29, 31, 35, 45]
    chosen = [TEXTS[0], TEXTS[3]] + [TEXTS[index] for index in wanted if TEXTS[index] in texts]
    return chosen + [of_length(count) for count in (64, 127, 128, 129, 255, 256, 257, 400, 511, 512)]


def make_minilm():
    import torch

    folder = minilm_folder()
    tokenizer, model = minilm_tokenizer(folder), loaded(folder, torch.float32)
    texts, goldens = minilm_texts(tokenizer), {}
    for index, text in enumerate(texts):
        ids = tokenizer.encode(text).ids
        states = hidden_states(model, ids)
        mean = states.astype(np.float64).mean(axis=0)
        rows = evenly_spaced(len(ids))
        goldens[f"{index}.input_ids"] = np.array(ids, np.int32)
        goldens[f"{index}.rows"] = rows
        goldens[f"{index}.last_hidden_state"] = states[rows]
        goldens[f"{index}.mean_normalized"] = (mean / np.linalg.norm(mean)).astype(np.float32)
    write_json(ENCODER_GOLDENS / "minilm" / "texts.json", texts)
    save(ENCODER_GOLDENS / "minilm" / "goldens.safetensors", goldens)


def check_minilm(arguments):
    import torch
    from safetensors.numpy import load_file

    if not arguments:
        sys.exit("goldens: check-minilm needs the path of the annulus executable")
    launch = shlex.split(arguments[arguments.index("--launch") + 1]) if "--launch" in arguments else []
    command = [*launch, arguments[0]]
    folder = minilm_folder()
    tokenizer, model = minilm_tokenizer(folder), loaded(folder, torch.float32)
    texts = json.loads((ENCODER_GOLDENS / "minilm" / "texts.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        source, output = os.path.join(scratch, "texts.jsonl"), os.path.join(scratch, "states.safetensors")
        with open(source, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        shared = ["-m", str(folder), "-i", source]
        subprocess.run([*command, "embed", *shared, "--pooling", "none", "-o", output], check=True)
        states = load_file(output)
        listed = subprocess.run([*command, "tokenize", *shared], check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [json.loads(line) for line in listed.splitlines()]
    largest, where, same = 0.0, 0, 0
    for index, text in enumerate(texts):
        encoding = tokenizer.encode(text)
        expected = hidden_states(model, encoding.ids)
        found = states[str(index)]
        assert found.shape == expected.shape, f"text {index}: shape {found.shape}, expected {expected.shape}"
        difference = float(np.abs(found - expected).max())
        if difference > largest:
            largest, where = difference, index
        if index < len(rows) and rows[index]["ids"] == encoding.ids and [tuple(pair) for pair in rows[index]["offsets"]] == encoding.offsets:
            same += 1
    print(f"largest absolute difference {largest:.3e} (text {where}) over all rows of {len(texts)} texts")
    print(f"ids and offsets identical for {same} of {len(texts)} texts")
    sys.exit(0 if largest <= 1e-5 and same == len(texts) and len(rows) == len(texts) else 1)


# ---------------------------------------------------------------------------------------------------------------
# bfloat16 attention

BFLOAT16_KINDS = ["random", "large", "one-hot", "constant", "denormal"]
BFLOAT16_SHAPES = [(1, 1), (1, 64), (37, 3), (300, 32), (300, 64), (257, 80), (700, 128), (130, 256), (1025, 17)]


def splitmix(seed, count):
    """Steele, Lea, Flood 2014, as numbers in [-1, 1) with 24 bits."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0).astype(np.float32)


def bfloat16_inputs(kind, length, dimension, seed):
    """Queries, keys and values [length, dimension] that bfloat16 holds exactly; BFloat16AccuracyTests makes the same."""
    import torch

    numbers = splitmix(seed, 3 * length * dimension).reshape(3, length, dimension)
    q, k, v = numbers[0] * np.float32(2), numbers[1] * np.float32(2), numbers[2]
    if kind == "large":
        q, k = q * np.float32(64), k * np.float32(64)
    if kind == "one-hot":
        token, channel = np.indices((length, dimension))
        q = np.where(token * 7 % dimension == channel, np.float32(32), np.float32(0))
        k = np.where(token % dimension == channel, np.float32(32), np.float32(0))
    if kind == "constant":
        q, k = np.full_like(q, 0.5), np.full_like(k, 0.5)
        v = np.broadcast_to((np.arange(dimension, dtype=np.float32) + np.float32(1)) * np.float32(0.1), v.shape)
    if kind == "denormal":
        q, k, v = (x * np.float32(2.0**-60) * np.float32(2.0**-70) for x in (q, k, v))
    return [torch.from_numpy(np.array(x)).to(torch.bfloat16) for x in (q, k, v)]


def make_bfloat16():
    """The root-mean-square error of PyTorch's attention with bfloat16 operands and result, against float64."""
    import torch

    torch.set_num_threads(1)
    cases = []
    for kind in BFLOAT16_KINDS:
        for seed, (length, dimension) in enumerate(BFLOAT16_SHAPES, 1):
            q, k, v = bfloat16_inputs(kind, length, dimension, seed)
            exact = torch.softmax(q.double() @ k.double().T / dimension**0.5, dim=-1) @ v.double()
            result = torch.nn.functional.scaled_dot_product_attention(*(x.reshape(1, 1, length, dimension) for x in (q, k, v)))
            error = result.reshape(length, dimension).double() - exact
            cases.append({
                "kind": kind, "length": length, "dimension": dimension, "seed": seed,
                "root_mean_square": float(exact.square().mean().sqrt()), "error": float(error.square().mean().sqrt()),
            })
    RING_GOLDENS.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    (RING_GOLDENS / "bfloat16.json").write_text(f"[\n{lines}\n]\n")


def make_families():
    """In a module of their own, which needs PyTorch and transformers as soon as it is read."""
    import encoder_goldens

    encoder_goldens.make_families(ENCODER_GOLDENS)


def make_attention():
    import attention_goldens

    attention_goldens.make_attention(ENCODER_GOLDENS)


def make_tasks():
    import task_goldens

    task_goldens.make_tasks(ENCODER_GOLDENS, TOKENIZER_GOLDENS / "cased" / "tokenizer.json")


def make_gradients():
    import gradient_goldens

    gradient_goldens.make_gradients(ENCODER_GOLDENS)


def make_dropout():
    import dropout_goldens

    dropout_goldens.make_dropout(ENCODER_GOLDENS)


def make_training():
    import training_goldens

    training_goldens.make(ROOT / "Tests/TrainingTests/Goldens")


def make_folders():
    import folder_goldens

    folder_goldens.make_folders(ROOT / "Tests/CommandTests/Goldens/folders")


def main():
    steps = {
        "tables": make_tables, "tokenizers": make_tokenizers, "tokenizer-folders": make_tokenizer_folder_sample, "formats": make_formats, "tiny": make_tiny, "families": make_families, "attention": make_attention, "tasks": make_tasks, "gradients": make_gradients,
        "dropout": make_dropout,
        "folders": make_folders, "training": make_training, "minilm": make_minilm,
        "bfloat16": make_bfloat16,
    }
    arguments = sys.argv[1:]
    if arguments[:1] == ["check-minilm"]:
        check_minilm(arguments[1:])
    if arguments[:1] == ["tokenizer-corpus"] and len(arguments) == 2:
        return make_tokenizer_corpus(arguments[1])
    unknown = [name for name in arguments if name not in steps]
    if unknown:
        sys.exit(__doc__)
    for name in arguments or steps:
        print(f"goldens: {name}", file=sys.stderr)
        steps[name]()


if __name__ == "__main__":
    main()
