"""Learning rates that transfer across width: the role of each parameter under µP, and the rules that follow from it.

Tune at one width (the base width), train at another with the same `lr`. The roles and the rules of plain maps are
those of arXiv 2203.03466 (Table 3, Adam) as arXiv 2505.15270 applies them to DiT. Normalised maps keep W at rows of
unit magnitude and use W/√in_features, so an update of W acts √in_features times stronger than it looks: their hidden
rate is proportional to 1/√width. The seven presets of EDM2 (arXiv 2312.02696) follow it to 4 %: 0.01·√(192/width).

The rules hold for the width alone, at one size of attention heads. Depth, patch, batch and steps are not covered.
"""

import math
from typing import Literal, NamedTuple

from torch import nn

from mpdit.model.layers import Embedding, MPEmbedding, MPLinear, WNLinear

Role = Literal["input", "hidden", "output", "gain", "embedding"]


class Rule(NamedTuple):
    """How a parameter is drawn, scaled and trained at one width, by its role."""

    init_std: float | None  # standard deviation of the first weights; None: rows of unit magnitude
    multiplier: float  # of the map's output, besides the layer's own
    rate: float  # factor on the learning rate


def parameter_roles(network: nn.Module, wider: nn.Module) -> dict[str, Role]:
    """Find the role of each parameter, by name, from the dimensions that grow with the width.

    network, wider: the same network at two widths. Sizes alone would not do: 256 noise-level channels do not grow
    with the width, also where the width is 256.
    """
    tables = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, (Embedding, MPEmbedding))}
    wider_parameters = dict(wider.named_parameters())
    roles: dict[str, Role] = {}
    for name, parameter in network.named_parameters():
        grows = [a != b for a, b in zip(parameter.shape, wider_parameters[name].shape, strict=True)]
        if name in tables:
            roles[name] = "embedding"
        elif grows == [True, True]:
            roles[name] = "hidden"
        elif grows == [False, True]:
            roles[name] = "output"
        else:  # a bias that grows is a map from a constant
            roles[name] = "input" if any(grows) else "gain"
    return roles


def normalised_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters that are used as rows of unit magnitude."""
    kinds = (MPLinear, WNLinear, MPEmbedding)
    return {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, kinds)}


def rule(role: Role, normalised: bool, in_features: int, ratio: float) -> Rule:
    """Return the rule of one parameter.

    With both kinds of map, an update changes the output by an amount that does not depend on the width, and the
    network's output starts at 0. Plain readouts and hidden rates shrink with 1/width; normalised maps have a factor
    1/√in_features already, which leaves 1/√width to each.

    Args:
        role: of the parameter.
        normalised: whether its rows are used at unit magnitude.
        in_features: of its map; 0 for a bias or a gain.
        ratio: base width / width.
    """
    factor = math.sqrt(ratio) if normalised else ratio
    init_std = (
        1.0 if role == "embedding" else 0.0 if role == "output" or not in_features else 1 / math.sqrt(in_features)
    )
    multiplier, rate = factor if role == "output" else 1.0, factor if role == "hidden" else 1.0
    return Rule(None if normalised else init_std, multiplier, rate)
