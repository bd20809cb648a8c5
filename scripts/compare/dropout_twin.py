"""Dropout by the counter of Sources/Tiles/CountedDraws.swift in models of transformers, in the places where those have it.

Imported by what compares training and gradients with PyTorch. Needs numpy, torch and transformers.
"""

import contextlib
import re
import sys

import numpy as np
import torch

import draws

# Which modules drop what, by how the classes that hold them end, and by their names there. None: they are not called, or only asked for
# their probability, by functions that `place` replaces.
PLACES = [
    (r"Embeddings", "dropout|drop", "embeddings"),
    (r"SelfOutput|MPNetAttention", "dropout", "attentionOutput"),
    (r"AlbertAttention", "output_dropout", "attentionOutput"),
    (r"ModernBertAttention", "out_drop", "attentionOutput of weights"),
    (r"NomicBertLayer", "post_attention_dropout", "attentionOutput"),
    (r"ModernBertMLP", "drop", "feedForwardInner"),
    (r"NomicBertLayer", "post_mlp_dropout", "feedForwardOutput"),
    (r"Output|FFN", "dropout", "feedForwardOutput"),
    (r"MPNetSelfAttention", "dropout", "attentionWeights"),
    (r"SelfAttention|AlbertAttention", "dropout|attention_dropout", None),
    (r"AlbertLayer", "dropout", None),
    (r"ClassificationHead", "dropout", "head, twice"),
    (r"For(Sequence|Token)Classification", "dropout|drop", "head"),
]


class Dropped(torch.nn.Module):
    """Dropout by the counter, in the place of a module's own."""

    # The step and the document, and the layer that runs.
    place, layer = {}, 0

    def __init__(self, site, probability, seed, layer=None):
        super().__init__()
        self.site, self.probability, self.seed, self.own_layer = site, probability, seed, layer

    def factors(self, rows, channels, head=0):
        layer = Dropped.layer if self.own_layer is None else self.own_layer
        return np.stack([
            draws.kept(self.site, channels, self.probability, seed=self.seed, layer=layer, head=head, row=row, **Dropped.place)
            for row in range(rows)
        ])

    def forward(self, x):
        if not self.training or self.probability == 0:
            return x
        if self.site == "attentionWeights":
            factors = np.stack([self.factors(x.shape[2], x.shape[3], head) for head in range(x.shape[1])])
        else:
            # A pooled vector is that of the first token.
            rows = x.reshape(-1, x.shape[-1])
            factors = self.factors(*rows.shape)
        return x * torch.tensor(factors, dtype=x.dtype).reshape(x.shape)


class InTurn(torch.nn.Module):
    """The first of some modules when it is called first, then the second, and so on."""

    def __init__(self, *modules):
        super().__init__()
        self.modules_in_turn, self.turn = torch.nn.ModuleList(modules), 0

    def forward(self, x):
        module = self.modules_in_turn[self.turn]
        self.turn = (self.turn + 1) % len(self.modules_in_turn)
        return module(x)


def place(model, *, seed, values=0.0, weights=0.0, head=0.0):
    """Puts dropout by the counter into all places of a model, with the probabilities of hidden rows, attention weights and heads.

    `Dropped.place` then says for which step and document it is drawn."""
    made = {
        "embeddings": lambda: Dropped("embeddings", values, seed, 0),
        "attentionOutput": lambda: Dropped("attentionOutput", values, seed),
        "attentionOutput of weights": lambda: Dropped("attentionOutput", weights, seed),
        "feedForwardInner": lambda: Dropped("feedForwardInner", values, seed),
        "feedForwardOutput": lambda: Dropped("feedForwardOutput", values, seed),
        "attentionWeights": lambda: Dropped("attentionWeights", weights, seed),
        "head": lambda: Dropped("head", head, seed, 0),
        # What such a head begins with, and then what its last layer reads.
        "head, twice": lambda: InTurn(Dropped("head", head, seed, 1), Dropped("head", head, seed, 0)),
    }
    for owner in list(model.modules()):
        kind = type(owner).__name__
        for name, module in list(owner.named_children()):
            if not isinstance(module, torch.nn.Dropout) and name != "out_drop":
                continue
            found = [site for owners, names, site in PLACES if re.search(f"({owners})$", kind) and re.fullmatch(names, name)]
            if not found:
                sys.exit(f"dropout: what does {kind}.{name} drop?")
            if found[0] is not None:
                setattr(owner, name, made[found[0]]())
    of_weights = Dropped("attentionWeights", weights, seed)

    def attend(module, query, key, value, attention_mask, scaling=None, **_):
        """Attention as transformers' eager_attention_forward has it."""
        scores = torch.matmul(query, key.transpose(2, 3)) * (query.size(-1) ** -0.5 if scaling is None else scaling)
        dropped = of_weights(torch.nn.functional.softmax(scores if attention_mask is None else scores + attention_mask, dim=-1))
        return torch.matmul(dropped, value).transpose(1, 2).contiguous(), dropped

    # Layers are counted as they run, for some models run one several times.
    def begin(*_):
        Dropped.layer = -1

    def count(*_):
        Dropped.layer += 1

    model.base_model.register_forward_pre_hook(begin)
    for module in list(model.modules()):
        if re.search(r"SelfAttention$|^(Albert|ModernBert|NomicBert)Attention$", type(module).__name__):
            module.register_forward_pre_hook(count)
            sources = sys.modules[type(module).__module__]
            if hasattr(sources, "eager_attention_forward"):
                sources.eager_attention_forward = attend
    return model


@contextlib.contextmanager
def lifted():
    """Tensor.float() gives float64, so that no part of a float64 model is computed in float32."""
    narrow = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = narrow
