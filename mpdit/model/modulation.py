"""How the condition steers a layer: any combination of scale, shift, rotation and gate.

Source: arXiv 2505.19122, Eq. 4 (scale, shift, gate) and Eq. 6 (rotation). In design E all gains start
at 0, so every modulation starts as the identity. Where the published code lets the magnitude grow as
√(1 + gain²), ours divides by it: `(1 + g·s)/√(1 + g²)` keeps unit magnitude at any gain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.errors import input_error, nearest
from mpdit.model.design import Design
from mpdit.model.layers import Linear, MPLinear, WNLinear, mp_silu

KINDS = ("scale", "shift", "rotation", "gate")


def parse_modulation(text: str) -> tuple[str, ...]:
    """`"gate+scale"` → ("scale", "gate"): the kinds named, each once, in canonical order; `"none"` → ().

    Raises InputError for an unknown or repeated kind.
    """
    given = [] if text.strip() == "none" else [part.strip() for part in text.split("+")]
    allowed = "any of " + ", ".join(KINDS) + " joined by +, or none"
    for part in given:
        if part not in KINDS:
            raise input_error(f"unknown modulation {part!r}", given=text, nearest=nearest(part, KINDS), allowed=allowed)
        if given.count(part) > 1:
            raise input_error(f"modulation {part!r} is named twice", given=text, allowed=allowed)
    return tuple(kind for kind in KINDS if kind in given)


def modulation_name(kinds: Sequence[str]) -> str:
    """The canonical spelling: ("scale", "gate") → "scale+gate", () → "none"."""
    return "+".join(kinds) or "none"


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn the channel pairs (i, i + channels/2) by the given angles; an isometry.

    x: (..., channels), angle: (..., channels/2) in radians → (..., channels).
    Eq. 6 and Lemma 2 of arXiv 2505.19122.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Modulation(NamedTuple):
    """What a condition does to one sub-layer; None leaves that part out."""

    scale: Tensor | None = None  # (batch, 1, channels), a factor
    shift: Tensor | None = None  # (batch, 1, channels)
    angle: Tensor | None = None  # (batch, 1, channels/2), in radians
    gate: Tensor | None = None  # (batch, 1, channels), a factor


def amplification(amount: Tensor, gain: Tensor) -> Tensor:
    """The factor (1 + g·s)/√(1 + g²) of scale and gate: amount: (..., channels), gain: () → (..., channels)."""
    return (1 + gain * amount) * torch.rsqrt(1 + gain.square())


def _sizes(channels: int, kinds: Sequence[str]) -> list[int]:
    return [channels // 2 if kind == "rotation" else channels for kind in kinds]


class MPConditioner(nn.Module):
    """From a condition, the modulation of one sub-layer: one normalised matrix, and one scalar gain per kind.

    condition: (batch, channels) → Modulation. All gains start at 0. In an `exact` design magnitude is kept at any
    gain: scale and gate are `amplification`s, shift is (x + g·b)/√(1 + g²). A design with plain residual sums has
    gates that start closed, as adaLN-Zero's; with blended sums they start open.
    """

    def __init__(self, channels: int, kinds: Sequence[str], design: Design) -> None:
        super().__init__()
        self.kinds, self.design = tuple(kinds), design
        self.sizes = _sizes(channels, kinds)
        layer = MPLinear if design.forced_normalization else WNLinear
        self.project = layer(channels, sum(self.sizes)) if kinds else None
        self.gains = nn.ParameterDict({kind: nn.Parameter(torch.zeros(())) for kind in kinds})

    def forward(self, condition: Tensor) -> Modulation:
        if self.project is None:
            return Modulation()
        g, exact = self.gains, self.design.exact
        silu = mp_silu if self.design.mp_silu else F.silu
        amounts = self.project(silu(condition)).unsqueeze(1).split(self.sizes, dim=-1)
        raw = dict(zip(self.kinds, amounts, strict=True))
        made: dict[str, Tensor] = {}
        if "scale" in raw:
            made["scale"] = amplification(raw["scale"], g["scale"]) if exact else 1 + g["scale"] * raw["scale"]
        if "shift" in raw:
            made["shift"] = g["shift"] * raw["shift"]
            if exact:
                keep = torch.rsqrt(1 + g["shift"].square())
                made["shift"] = keep * made["shift"]
                made["scale"] = keep * made["scale"] if "scale" in made else keep
        if "rotation" in raw:
            made["angle"] = g["rotation"] * raw["rotation"]
        if "gate" in raw and exact:
            made["gate"] = amplification(raw["gate"], g["gate"])
        elif "gate" in raw:
            made["gate"] = g["gate"] * raw["gate"] + float(self.design.mp_residual)
        return Modulation(**made)


class AdaLNZero(nn.Module):
    """DiT's conditioner: one linear map that starts at 0. condition: (batch, channels) → Modulation.

    Scale is x·(1 + s), shift x + b, gate g: the branch starts closed (open where residual sums are blended).
    Eq. 4 of arXiv 2505.19122; arXiv 2212.09748, §3.2.
    """

    def __init__(self, channels: int, kinds: Sequence[str], design: Design) -> None:
        super().__init__()
        self.kinds, self.design = tuple(kinds), design
        self.sizes = _sizes(channels, kinds)
        self.project = Linear(channels, sum(self.sizes), spread=0.0) if kinds else None

    def forward(self, condition: Tensor) -> Modulation:
        if self.project is None:
            return Modulation()
        silu = mp_silu if self.design.mp_silu else F.silu
        amounts = self.project(silu(condition)).unsqueeze(1).split(self.sizes, dim=-1)
        raw = dict(zip(self.kinds, amounts, strict=True))
        made = {{"rotation": "angle"}.get(kind, kind): amount for kind, amount in raw.items()}
        if "scale" in made:
            made["scale"] = 1 + made["scale"]
        if "gate" in made and self.design.mp_residual:
            made["gate"] = 1 + made["gate"]
        return Modulation(**made)


class Modulate(nn.Module):
    """Apply scale, then shift, then rotation to a sub-layer's input x: (batch, tokens, channels)."""

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        scale, shift, angle, _ = modulation
        if scale is not None:
            x = x * scale
        if shift is not None:
            x = x + shift
        return x if angle is None else rotate(x, angle)


def gate(x: Tensor, modulation: Modulation) -> Tensor:
    """Scale a sub-layer's output x: (batch, tokens, channels)."""
    return x if modulation.gate is None else x * modulation.gate
