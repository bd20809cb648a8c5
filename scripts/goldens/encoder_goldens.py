"""Tiny random checkpoints of every family, with the hidden states that transformers computes from them.

Imported by scripts/goldens/make.py, inside its environment. The states are those of float64; beside them stands how far
transformers' own float32 is from them on the same rows, which is what the tests allow twice of.

Some models of transformers fall back to float32 inside a float64 model (rotary angles, softmax). The reference lifts
these islands: attention is computed by scaled_dot_product_attention, and Tensor.float() gives float64 meanwhile.

Jina BERT v2 has no class in transformers: `JinaReference` below is written from its description (Günther et al. 2023,
arXiv 2310.19923; Press et al. 2022; Shazeer 2020) and the names of its published parameters.
"""

import copy
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compare"))
import dropout_twin
from dropout_twin import lifted

# One thread, so that every run rounds alike.
torch.set_num_threads(1)

LENGTHS = [1, 2, 17, 64, 255, 256, 257, 300]
SMALL = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, vocab_size=48)
POSITIONS = 304
ROTARY_HEADS = dict(SMALL, hidden_size=32, num_attention_heads=2)


def tiny_families():
    """By name: the class, its configuration, and how weights are stored."""
    t = transformers
    roberta = dict(SMALL, max_position_embeddings=POSITIONS, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    return {
        "tiny-roberta": (t.RobertaModel, t.RobertaConfig(**roberta), torch.float16),
        "tiny-xlm-roberta": (t.XLMRobertaModel, t.XLMRobertaConfig(**roberta, hidden_act="gelu_new"), torch.bfloat16),
        "tiny-camembert": (t.CamembertModel, t.CamembertConfig(**roberta, layer_norm_eps=1e-5), torch.float16),
        "tiny-distilbert": (
            t.DistilBertModel,
            t.DistilBertConfig(dim=24, n_layers=2, n_heads=3, hidden_dim=40, vocab_size=48, max_position_embeddings=POSITIONS),
            torch.float16,
        ),
        # Two groups of two layers each, six rounds: twelve layers from four.
        "tiny-albert": (
            t.AlbertModel,
            t.AlbertConfig(
                **dict(SMALL, num_hidden_layers=6), embedding_size=16, max_position_embeddings=POSITIONS, num_hidden_groups=2,
                inner_group_num=2,
            ),
            torch.float16,
        ),
        "tiny-electra": (
            t.ElectraModel, t.ElectraConfig(**SMALL, embedding_size=16, max_position_embeddings=POSITIONS), torch.float16,
        ),
        "tiny-mpnet": (t.MPNetModel, t.MPNetConfig(**SMALL, max_position_embeddings=POSITIONS), torch.float16),
        # Six layers: the first and the fourth see everything, the others eight keys on either side.
        "tiny-modernbert": (
            t.ModernBertModel,
            t.ModernBertConfig(
                **dict(ROTARY_HEADS, num_hidden_layers=5, vocab_size=48), max_position_embeddings=512, local_attention=17, pad_token_id=0,
                bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3,
            ),
            torch.float16,
        ),
        "tiny-nomic-bert": (
            t.NomicBertModel, t.NomicBertConfig(**ROTARY_HEADS, max_position_embeddings=512, rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
            torch.float16,
        ),
        "tiny-esm": (
            t.EsmModel,
            t.EsmConfig(
                **dict(ROTARY_HEADS, vocab_size=33), mask_token_id=32, pad_token_id=1, position_embedding_type="rotary", token_dropout=True,
                emb_layer_norm_before=True, max_position_embeddings=512, layer_norm_eps=1e-5,
            ),
            torch.float16,
        ),
        "tiny-esm-absolute": (
            t.EsmModel,
            t.EsmConfig(
                **dict(SMALL, vocab_size=33), mask_token_id=32, pad_token_id=1, position_embedding_type="absolute",
                max_position_embeddings=POSITIONS, emb_layer_norm_before=False,
            ),
            torch.float16,
        ),
        # As published: shared projections, logarithmic buckets, no absolute positions.
        "tiny-deberta-v3": (
            t.DebertaV2Model,
            t.DebertaV2Config(
                **SMALL, max_position_embeddings=512, relative_attention=True, position_buckets=16, max_relative_positions=100,
                norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False,
            ),
            torch.float16,
        ),
        # Everything the other way round.
        "tiny-deberta-v2": (
            t.DebertaV2Model,
            t.DebertaV2Config(
                **SMALL, embedding_size=16, max_position_embeddings=POSITIONS, relative_attention=True, max_relative_positions=20,
                share_att_key=False, pos_att_type=["c2p", "p2c"], position_biased_input=True, type_vocab_size=2,
            ),
            torch.bfloat16,
        ),
        "tiny-jina-bert": (JinaReference, jina_config(), torch.float16),
    }


def jina_config():
    return transformers.BertConfig(
        **SMALL, max_position_embeddings=512, position_embedding_type="alibi", feed_forward_type="geglu", emb_pooler="mean",
        architectures=["JinaBertForMaskedLM"], hidden_act="gelu",
        auto_map={"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    )


class JinaReference(torch.nn.Module):
    """Jina BERT v2 by its description: BERT's layers with norms after, ALiBi without a direction, GeGLU."""

    # Whether attention is PyTorch's scaled_dot_product_attention, not softmax and products by themselves.
    attends_at_once = False

    class Gated(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.gated_layers = torch.nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
            self.wo = torch.nn.Linear(config.intermediate_size, config.hidden_size)
            self.layernorm = torch.nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

        def forward(self, x):
            activated, other = self.gated_layers(x).chunk(2, dim=-1)
            return self.layernorm(self.wo(torch.nn.functional.gelu(activated) * other) + x)

    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden, heads = config.hidden_size, config.num_attention_heads
        linear, norm = torch.nn.Linear, lambda: torch.nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.embeddings = torch.nn.ModuleDict({
            "word_embeddings": torch.nn.Embedding(config.vocab_size, hidden),
            "token_type_embeddings": torch.nn.Embedding(config.type_vocab_size, hidden),
            "LayerNorm": norm(),
        })
        layers = [
            torch.nn.ModuleDict({
                "attention": torch.nn.ModuleDict({
                    "self": torch.nn.ModuleDict({name: linear(hidden, hidden) for name in ["query", "key", "value"]}),
                    "output": torch.nn.ModuleDict({"dense": linear(hidden, hidden), "LayerNorm": norm()}),
                }),
                "mlp": self.Gated(config),
            })
            for _ in range(config.num_hidden_layers)
        ]
        self.encoder = torch.nn.ModuleDict({"layer": torch.nn.ModuleList(layers)})
        self.slopes = self.alibi_slopes(heads)

    @staticmethod
    def alibi_slopes(heads):
        powers = lambda count: [2 ** (-8 * (i + 1) / count) for i in range(count)]
        below = 2 ** int(math.log2(heads))
        return powers(below) + powers(2 * below)[::2][: heads - below]

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        heads = self.config.num_attention_heads
        x = self.embeddings["word_embeddings"](input_ids) + self.embeddings["token_type_embeddings"].weight[0]
        x = self.embeddings["LayerNorm"](x)
        batch, length, hidden = x.shape
        place = torch.arange(length)
        distance = (place[None, :] - place[:, None]).abs().to(x.dtype)
        bias = -torch.tensor(self.slopes, dtype=torch.float32).to(x.dtype)[:, None, None] * distance
        for layer in self.encoder["layer"]:
            attention = layer["attention"]
            split = lambda name: attention["self"][name](x).view(batch, length, heads, -1).transpose(1, 2)
            q, k, v = split("query"), split("key"), split("value")
            if self.attends_at_once:
                context = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].expand(batch, -1, -1, -1).contiguous())
            else:
                context = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(hidden // heads) + bias, dim=-1) @ v
            context = context.transpose(1, 2).reshape(batch, length, hidden)
            x = attention["output"]["LayerNorm"](attention["output"]["dense"](context) + x)
            x = layer["mlp"](x)
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=x)


def randomize(model, seed, dtype):
    """Weights large enough that attention is far from uniform, exact in the type in which they are stored."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, scale):
        return torch.randn(parameter.shape, generator=generator) * scale

    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            isNorm = parameter.dim() == 1 and name.endswith("weight")
            width = parameter.shape[-1]
            if "embeddings" in name and parameter.dim() == 2:
                value = normal(parameter, 0.3)
            elif parameter.dim() == 1:
                value = normal(parameter, 0.1) + (1 if isNorm else 0)
            else:
                value = normal(parameter, 1.2 / width**0.5)
            if "relative_attention_bias" in name:
                value = normal(parameter, 1.0)
            parameter.copy_(value.to(dtype).to(torch.float32))
    return model.eval()


def in_double(model):
    """The same model in float64, with attention whose softmax is float64 too."""
    double = copy.deepcopy(model).double()
    if hasattr(double, "set_attn_implementation") and double._supports_sdpa:
        double.set_attn_implementation("sdpa")
    return double


def states(model, ids, **inputs):
    tokens = torch.tensor(np.array([ids], np.int64))
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **inputs).last_hidden_state[0].numpy()


def double_states(model, ids, **inputs):
    with lifted():
        return states(model, ids, **inputs)


def evenly_spaced(count, limit=8):
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int32))


def documents(name, config, generator):
    """Token ids by a name: every length, and for some families ids that have a meaning of their own."""
    first = 5 if config.vocab_size > 40 else 4
    last = config.vocab_size if config.vocab_size > 40 else 24
    result = {}
    for length in LENGTHS:
        ids = generator.integers(first, last, length)
        ids[0] = 2 if first == 5 else 0
        if length > 1:
            ids[-1] = 3 if first == 5 else 2
        result[str(length)] = ids
    marked = generator.integers(first, last, 40)
    padding = getattr(config, "pad_token_id", None)
    if padding is not None:  # the padding token inside of a text
        marked[[7, 8, 30]] = padding
    if getattr(config, "mask_token_id", None) is not None:
        marked[[3, 19]] = config.mask_token_id
    result["marked"] = marked
    return result


def store(model, folder, dtype, config=None):
    """config.json and model.safetensors as transformers writes them, the weights in a type of two bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, transformers.PreTrainedModel):
        with tempfile.TemporaryDirectory() as scratch:
            model.save_pretrained(scratch)
            shutil.copy(Path(scratch) / "config.json", folder / "config.json")
            from safetensors.torch import load_file as load

            weights = load(str(Path(scratch) / "model.safetensors"))
    else:
        weights = dict(model.state_dict())
        model.config.save_pretrained(str(folder))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    from safetensors.torch import save_file as save

    narrow = {key: value.to(dtype).contiguous() if value.is_floating_point() and not key.endswith("inv_freq") else value for key, value in weights.items()}
    save(narrow, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").chmod(0o644)
    return weights


def published_deberta_rows():
    """The row of the table for distances −700 … 700 with the 256 buckets of the published models."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = torch.arange(-700, 701)
    return torch.clamp(make_log_bucket_position(distances, 256, 512).long() + 256, 0, 511).numpy().astype(np.int32)


def write_states(folder, name, model, generator):
    """For each document NAME.input_ids, NAME.rows and NAME.last_hidden_state of those rows."""
    double = in_double(model)
    goldens, error, scale = {}, 0.0, 0.0
    if name == "tiny-deberta-v3":
        goldens["published_rows"] = published_deberta_rows()
    for document, ids in documents(name, model.config, generator).items():
        exact, rounded = double_states(double, ids), states(model, ids)
        rows = evenly_spaced(len(ids))
        error = max(error, float(np.abs(exact - rounded)[rows].max()))
        scale = max(scale, float(np.abs(exact).max()))
        goldens[f"{document}.input_ids"] = ids.astype(np.int32)
        goldens[f"{document}.rows"] = rows
        goldens[f"{document}.last_hidden_state"] = exact[rows].astype(np.float32)
    save_file(goldens, str(folder / "goldens.safetensors"), metadata={"float32_error": f"{error:.3e}", "scale": f"{scale:.4g}"})
    (folder / "goldens.safetensors").chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1024
    print(f"goldens: {folder.name}: float32 differs from float64 by {error:.3e} of {scale:.3g}; {size:.0f} KB", file=sys.stderr)


# The keys that older files have, for the same model.
OLD_MODERNBERT = {"layer_types": None, "rope_parameters": None, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}


def published_nomic(config):
    """The keys of the published config.json, whose model code lives beside the weights."""
    return {
        "model_type": "nomic_bert", "architectures": ["NomicBertModel"], "n_embd": config.hidden_size, "n_head": config.num_attention_heads,
        "n_layer": config.num_hidden_layers, "n_inner": config.intermediate_size, "n_positions": config.max_position_embeddings,
        "vocab_size": config.vocab_size, "pad_vocab_size_multiple": 16, "type_vocab_size": config.type_vocab_size,
        "activation_function": "swiglu", "layer_norm_epsilon": config.layer_norm_eps, "prenorm": False, "parallel_block": False,
        "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "use_rms_norm": False, "causal": False,
        "max_trained_positions": 2048, "scale_attn_by_inverse_layer_idx": False,
    }


def make_families(target, only=()):
    for index, (name, (model_class, config, dtype)) in enumerate(tiny_families().items()):
        if only and name not in only:
            continue
        generator = np.random.default_rng(100 + index)
        if isinstance(config, transformers.PreTrainedConfig) and model_class is not JinaReference:
            config._attn_implementation = "eager"
        model = randomize(model_class(config), seed=100 + index, dtype=dtype)
        folder = target / name
        store(model, folder, dtype, published_nomic(config) if name == "tiny-nomic-bert" else None)
        if name == "tiny-modernbert":
            old = json.loads((folder / "config.json").read_text())
            old = {key: value for key, value in {**old, **OLD_MODERNBERT}.items() if value is not None}
            (folder / "config-old.json").write_text(json.dumps(old, indent=2, sort_keys=True) + "\n")
        write_states(folder, name, model, generator)
