"""Gate: each channel of a sub-layer's output is multiplied by a factor."""

from typing import TYPE_CHECKING

from mpdit.model.design import Design
from mpdit.model.modulation.registry import MODULATIONS, Effect, ModulationPart

if TYPE_CHECKING:
    from torch import Tensor


def _effect(amount: "Tensor", gain: "Tensor | None", design: Design) -> Effect:
    """Multiply by a gate that starts closed before a plain residual sum, as in adaLN-Zero, and open before an mp_sum.

    Eq. 4 of arXiv 2505.19122; §3.2 of arXiv 2212.09748.
    """
    from mpdit.model.layers import amplification

    if gain is None:
        return Effect(factor=1 + amount if design.mp_residual else amount)
    if design.renormalized:
        return Effect(factor=amplification(amount, gain))
    return Effect(factor=gain * amount + float(design.mp_residual))


MODULATIONS.register(
    ModulationPart(
        "gate", "multiplies each channel of the output", lambda channels: channels, _effect, place="output", order=3
    )
)
