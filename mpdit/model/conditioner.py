"""Conditioners: from the condition of a sample to the modulation of one sub-layer.

Source: arXiv 2505.19122, Eq. 4 (scale, shift, gate) and Eq. 6 (rotation). In designs E and F all gains start
at 0, so every modulation starts as the identity. In E, as published, the magnitude grows as √(1 + gain²); F divides
by it: `(1 + g·s)/√(1 + g²)` keeps unit magnitude at any gain.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import Linear, MPLinear, WNLinear, mp_silu
from mpdit.model.modulation.registry import MODULATIONS, Effect, ModulationPart


class Change(NamedTuple):
    """A change of x (batch, tokens, channels): a factor, then each part's `apply` with its amount."""

    factor: Tensor | None = None
    steps: tuple[tuple[Callable[[Tensor, Tensor], Tensor], Tensor], ...] = ()

    def of(self, x: Tensor) -> Tensor:
        """Return the changed x, of the same shape."""
        if self.factor is not None:
            x = x * self.factor
        for apply, amount in self.steps:
            x = apply(x, amount)
        return x


class Modulation(NamedTuple):
    """What a condition does to one sub-layer: to its input and to its output."""

    input: Change = Change()
    output: Change = Change()


def _modulation(parts: Sequence[ModulationPart], effects: Sequence[Effect]) -> Modulation:
    changes = []
    for place in ("input", "output"):
        pairs = [(part, effect) for part, effect in zip(parts, effects, strict=True) if part.place == place]
        factor: Tensor | None = None
        for _, effect in pairs:
            if effect.factor is not None:
                factor = effect.factor if factor is None else factor * effect.factor
        steps = tuple((part.apply, effect.amount) for part, effect in pairs if part.apply and effect.amount is not None)
        changes.append(Change(factor, steps))
    return Modulation(*changes)


class MPConditioner(nn.Module):
    """One normalised matrix, and one scalar gain for each part: condition (batch, channels) → Modulation.

    All gains start at 0. Where `design.renormalized`, magnitude is kept at any gain.
    """

    def __init__(self, channels: int, parts: Sequence[str], design: Design) -> None:
        super().__init__()
        self.parts, self.design = [MODULATIONS[name] for name in parts], design
        self.sizes = [part.size(channels) for part in self.parts]
        layer = MPLinear if design.forced_normalization else WNLinear
        self.project = layer(channels, sum(self.sizes)) if parts else None
        self.gains = nn.ParameterDict({part.key: nn.Parameter(torch.zeros(())) for part in self.parts})

    def forward(self, condition: Tensor) -> Modulation:
        if self.project is None:
            return Modulation()
        silu = mp_silu if self.design.mp_silu else F.silu
        amounts = self.project(silu(condition)).unsqueeze(1).split(self.sizes, dim=-1)
        pairs = zip(self.parts, amounts, strict=True)
        return _modulation(
            self.parts, [part.effect(amount, self.gains[part.key], self.design) for part, amount in pairs]
        )


class AdaLNZero(nn.Module):
    """DiT's conditioner, one linear map that starts at 0: condition (batch, channels) → Modulation.

    Scale is x·(1 + s), shift x + b, gate g: the branch starts closed (open where residual sums are blended).
    Eq. 4 of arXiv 2505.19122; arXiv 2212.09748, §3.2.
    """

    def __init__(self, channels: int, parts: Sequence[str], design: Design) -> None:
        super().__init__()
        self.parts, self.design = [MODULATIONS[name] for name in parts], design
        self.sizes = [part.size(channels) for part in self.parts]
        self.project = Linear(channels, sum(self.sizes), init_std=0.0) if parts else None

    def forward(self, condition: Tensor) -> Modulation:
        if self.project is None:
            return Modulation()
        silu = mp_silu if self.design.mp_silu else F.silu
        amounts = self.project(silu(condition)).unsqueeze(1).split(self.sizes, dim=-1)
        pairs = zip(self.parts, amounts, strict=True)
        return _modulation(self.parts, [part.effect(amount, None, self.design) for part, amount in pairs])


def conditioner(design: Design, width: int, parts: Sequence[str]) -> MPConditioner | AdaLNZero:
    """Build the design's conditioner for a network of that width."""
    return (MPConditioner if design.weight_normalization else AdaLNZero)(width, parts, design)


class Modulate(nn.Module):
    """Apply the input's part of a modulation to x: (batch, tokens, channels). A module, so that it can be observed."""

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        return modulation.input.of(x)
