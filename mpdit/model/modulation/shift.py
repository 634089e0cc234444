"""Shift: an amount is added to each channel of a sub-layer's input."""

import operator
from typing import TYPE_CHECKING

from mpdit.model.design import Design
from mpdit.model.modulation.registry import MODULATIONS, Effect, ModulationPart

if TYPE_CHECKING:
    from torch import Tensor


def _effect(amount: "Tensor", gain: "Tensor | None", design: Design) -> Effect:
    """Turn x into x + b, or into (x + g·b)/√(1 + g²) where magnitude is kept. Eq. 4 of arXiv 2505.19122."""
    if gain is None:
        return Effect(amount=amount)
    shift = gain * amount
    if not design.renormalized:
        return Effect(amount=shift)
    factor = (1 + gain.square()).rsqrt()
    return Effect(factor=factor, amount=factor * shift)


MODULATIONS.register(
    ModulationPart("shift", "adds to each channel", lambda channels: channels, _effect, apply=operator.add, order=1)
)
