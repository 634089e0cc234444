"""Learning rates that transfer across width: the role of each parameter under µP, and the rules that follow from it.

Tune at one width (the base width), train at another with the same `lr`. The roles and the rules of plain maps are
those of arXiv 2203.03466 (Table 3, Adam) as arXiv 2505.15270 applies them to DiT. Normalised maps keep W at rows of
unit magnitude and use W/√inputs, so an update of W acts √inputs times stronger than it looks: their hidden rate goes
with 1/√width. The seven presets of EDM2 (arXiv 2312.02696) follow it: 0.01·√(192/width), to within 4 %.

The rules hold for the width alone, at one size of attention heads. Depth, patch, batch and steps are not covered.
"""

import math
from typing import Literal, NamedTuple

from torch import nn

from mpdit.model.layers import Embedding, MPEmbedding, MPLinear, WNLinear

PARAMETRIZATIONS = ("sp", "mup")
Role = Literal["input", "hidden", "output", "gain", "embedding"]


class Rule(NamedTuple):
    """What a parameter's role asks for at one width."""

    init_std: float | None  # standard deviation of the first weights; None: rows of unit magnitude
    multiplier: float  # of what the map gives, beside the layer's own
    rate: float  # factor on the learning rate


def parameter_roles(network: nn.Module, wider: nn.Module) -> dict[str, Role]:
    """{name: role} from which dimensions grow with the width: the same network at two widths.

    Comparing is safe where reading sizes is not: 256 noise-level channels are no width, also at width 256.
    """
    tables = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, (Embedding, MPEmbedding))}
    there = dict(wider.named_parameters())
    roles: dict[str, Role] = {}
    for name, parameter in network.named_parameters():
        grows = [here != wide for here, wide in zip(parameter.shape, there[name].shape, strict=True)]
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
    """The parameters that are used as rows of unit magnitude."""
    kinds = (MPLinear, WNLinear, MPEmbedding)
    return {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, kinds)}


def rule(role: Role, normalised: bool, inputs: int, ratio: float) -> Rule:
    """The rule of one parameter. inputs: of its map, 0 for a bias or a gain; ratio: base width / width.

    Both kinds of map let an update change what comes out by an amount that the width does not change, and let the
    network's answer start at 0. Plain readouts and hidden rates shrink with 1/width; normalised maps carry 1/√inputs
    in themselves already, which leaves 1/√width to each.
    """
    kept = math.sqrt(ratio) if normalised else ratio
    init_std = 1.0 if role == "embedding" else 0.0 if role == "output" or not inputs else 1 / math.sqrt(inputs)
    return Rule(None if normalised else init_std, kept if role == "output" else 1.0, kept if role == "hidden" else 1.0)
