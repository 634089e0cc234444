"""Every kind of a layer, as it is by default and with other settings, for tests that go over all of them."""

from typing import Any

from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.mlp.registry import MLPS
from mpdit.model.norm.registry import NORMS
from mpdit.model.positions.registry import POSITIONS
from mpdit.registry import choose_from

OTHER_SETTINGS: list[dict[str, Any]] = [
    {"name": "linear", "convolution": 3},
    {"name": "window", "radius": 1.0},
    {"name": "window", "radius": 2.5, "pooled": 2},
    {"name": "window", "radius": 1.5, "pooled": 3},
    {"name": "conv", "kernel": 5},
]


def _all(registry: Any) -> dict[str, Any]:
    ours = [{"name": name} for name in registry.names() if "." not in name]
    fields = ours + [other for other in OTHER_SETTINGS if other["name"] in registry]
    texts = [", ".join(str(value) for value in chosen.values()) for chosen in fields]
    return {text: choose_from(registry, chosen) for text, chosen in zip(texts, fields, strict=True)}


ATTENTION_KINDS = _all(ATTENTIONS)
MLP_KINDS = _all(MLPS)
POSITION_KINDS = _all(POSITIONS)
NORM_KINDS = _all(NORMS)
