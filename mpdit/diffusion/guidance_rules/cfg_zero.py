"""CFG-Zero*: guidance of a flow's velocity, with the unconditional one at its best length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES, Predictions, each_image

if TYPE_CHECKING:
    from torch import Tensor


@GUIDANCE_RULES.register
@dataclass(frozen=True)
class CfgZero:
    """v = s·v_∅ + scale·(v_c − s·v_∅) with s = ⟨v_c, v_∅⟩/‖v_∅‖² of each image; 0 in the first steps. arXiv 2503.18886.

    With z = x/(1 + σ) and t = σ/(1 + σ), D = z − t·v: a velocity of 0 leaves z as it is.

    zeroed: the share of the time, from noise on, in which the steps start whose velocity is 0.
    """

    name: ClassVar[str] = "cfg_zero"
    doc: ClassVar[str] = "guidance of the velocity, which is 0 at first (arXiv 2503.18886); objective flow only"
    objectives: ClassVar[tuple[str, ...] | None] = ("flow",)
    zeroed: Annotated[float, Ge(0), Le(1)] = 0.04

    def combine(self, predictions: Predictions, scale: float) -> Tensor:
        """Scale the unconditional velocity of each image, and guide."""
        z = predictions.x / (1 + predictions.sigma)
        if predictions.step / (1 + predictions.step) > 1 - self.zeroed:
            return z
        axes = each_image(z)
        with_class, without = z - predictions.conditional, z - predictions.unconditional  # the velocities, times t
        size = without.square().sum(axes, keepdim=True).clamp_min(1e-12)
        without = without * (with_class * without).sum(axes, keepdim=True) / size
        return z - (without + scale * (with_class - without))
