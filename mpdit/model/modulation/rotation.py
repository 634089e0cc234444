"""Rotation: pairs of channels of a sub-layer's input are turned, which keeps every magnitude."""

from typing import TYPE_CHECKING

from mpdit.model.design import Design
from mpdit.model.modulation.registry import MODULATIONS, Effect, ModulationPart

if TYPE_CHECKING:
    from torch import Tensor


def rotate(x: "Tensor", angle: "Tensor") -> "Tensor":
    """Turn the channel pairs (i, i + channels/2) by the given angles; an isometry.

    x: (..., channels), angle: (..., channels/2) in radians → (..., channels).
    Eq. 6 and Lemma 2 of arXiv 2505.19122.
    """
    import torch

    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _effect(amount: "Tensor", gain: "Tensor | None", _design: Design) -> Effect:
    return Effect(amount=amount if gain is None else gain * amount)


MODULATIONS.register(
    ModulationPart(
        "rotation", "turns pairs of channels", lambda channels: channels // 2, _effect, apply=rotate, order=2
    )
)
