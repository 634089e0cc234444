"""How the condition steers a layer: any combination of scale, shift, rotation and gate.

Source: arXiv 2505.19122, Eq. 4 (scale, shift, gate) and Eq. 6 (rotation). All gains start at 0, so
every modulation starts as the identity. Where the published code lets the magnitude grow as
√(1 + gain²), ours divides by it: `(1 + s)/√(1 + g²)` keeps unit magnitude at any gain.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpdit.errors import nearest, refusal
from mpdit.layers import MPLinear, mp_silu

KINDS = ("scale", "shift", "rotation", "gate")


def parse_modulation(text: str) -> tuple[str, ...]:
    """`"gate+scale"` → ("scale", "gate"): the kinds named, each once, in canonical order; `"none"` → ().

    Raises BadInput for an unknown or repeated kind.
    """
    given = [] if text.strip() == "none" else [part.strip() for part in text.split("+")]
    allowed = "any of " + ", ".join(KINDS) + " joined by +, or none"
    for part in given:
        if part not in KINDS:
            raise refusal(f"unknown modulation {part!r}", given=text, nearest=nearest(part, KINDS), allowed=allowed)
        if given.count(part) > 1:
            raise refusal(f"modulation {part!r} is named twice", given=text, allowed=allowed)
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


def amplification(amount: Tensor, gain: Tensor) -> Tensor:
    """The factor (1 + g·s)/√(1 + g²) of scale and gate: amount: (..., channels), gain: () → (..., channels)."""
    return torch.addcmul(torch.ones_like(amount), gain, amount) * torch.rsqrt(1 + gain.square())


def offset(x: Tensor, amount: Tensor, gain: Tensor) -> Tensor:
    """Shift: (x + g·b)/√(1 + g²); x, amount: (..., channels), gain: () → (..., channels)."""
    keep = torch.rsqrt(1 + gain.square())
    return torch.addcmul(gain * keep * amount, x, keep)


class Conditioner(nn.Module):
    """From a condition, the amounts by which one sub-layer is modulated: one matrix, one gain per kind.

    condition: (batch, channels) → {kind: (batch, 1, channels)}, {"rotation": (batch, 1, channels/2)}
    """

    def __init__(self, channels: int, kinds: Sequence[str]) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.sizes = [channels // 2 if kind == "rotation" else channels for kind in kinds]
        self.project = MPLinear(channels, sum(self.sizes)) if kinds else None
        self.gains = nn.ParameterDict({kind: nn.Parameter(torch.zeros(())) for kind in kinds})

    def forward(self, condition: Tensor) -> dict[str, Tensor]:
        if self.project is None:
            return {}
        amounts = self.project(mp_silu(condition)).unsqueeze(1).split(self.sizes, dim=-1)
        return dict(zip(self.kinds, amounts, strict=True))


class Modulate(nn.Module):
    """Apply scale, then shift, then rotation to a sub-layer's input x: (batch, tokens, channels)."""

    def forward(self, x: Tensor, amounts: dict[str, Tensor], gains: nn.ParameterDict) -> Tensor:
        if "scale" in amounts:
            x = x * amplification(amounts["scale"], gains["scale"])
        if "shift" in amounts:
            x = offset(x, amounts["shift"], gains["shift"])
        if "rotation" in amounts:
            x = rotate(x, gains["rotation"] * amounts["rotation"])
        return x


def gate(x: Tensor, amounts: dict[str, Tensor], gains: nn.ParameterDict) -> Tensor:
    """Scale a sub-layer's output x: (batch, tokens, channels); the identity at initialisation."""
    return x * amplification(amounts["gate"], gains["gate"]) if "gate" in amounts else x
