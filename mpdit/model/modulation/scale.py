"""Scale: each channel of a sub-layer's input is multiplied by a factor near 1."""

from typing import TYPE_CHECKING

from mpdit.model.design import Design
from mpdit.model.modulation.registry import MODULATIONS, Effect, ModulationPart

if TYPE_CHECKING:
    from torch import Tensor


def _effect(amount: "Tensor", gain: "Tensor | None", design: Design) -> Effect:
    """Multiply x by 1 + s, with s = gain·amount where there is a gain. Eq. 4 of arXiv 2505.19122."""
    from mpdit.model.layers import amplification

    if gain is None:
        return Effect(factor=1 + amount)
    return Effect(factor=amplification(amount, gain) if design.renormalized else 1 + gain * amount)


MODULATIONS.register(ModulationPart("scale", "multiplies each channel", lambda channels: channels, _effect, order=0))
