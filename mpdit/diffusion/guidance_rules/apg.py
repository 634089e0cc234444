"""Adaptive projected guidance: no step along the image itself, and none that is too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES, Predictions, each_image

if TYPE_CHECKING:
    from torch import Tensor


@GUIDANCE_RULES.register
@dataclass(frozen=True)
class Apg:
    """D_c + (scale − 1)·(Δ⊥ + η·Δ∥), where Δ = D_c − D_∅ is at most `norm` long and split along D_c.

    arXiv 2410.02416, without its momentum, which would count the evaluations of a sampler.

    Attributes:
        norm: the longest Δ, as the root mean square of its pixels, so that one serves every resolution; 0: no limit.
        parallel: η, how much of what lies along D_c is kept; it is this part that oversaturates.
    """

    name: ClassVar[str] = "apg"
    doc: ClassVar[str] = "guidance across the image, of bounded length (arXiv 2410.02416)"
    objectives: ClassVar[tuple[str, ...] | None] = None
    norm: Annotated[float, Ge(0)] = 0.0
    parallel: Annotated[float, Ge(0)] = 0.0

    def combine(self, predictions: Predictions, scale: float) -> Tensor:
        """Shorten the difference, split it, and add it to the conditional prediction."""
        conditional, unconditional = predictions[:2]
        axes = each_image(conditional)
        difference = conditional - unconditional
        if self.norm:
            length = difference.square().mean(axes, keepdim=True).sqrt()
            difference = difference * (self.norm / length.clamp_min(1e-12)).clamp_max(1.0)
        along = (difference * conditional).sum(axes, keepdim=True)
        along = along / conditional.square().sum(axes, keepdim=True).clamp_min(1e-12) * conditional
        return conditional + (scale - 1) * (difference - along + self.parallel * along)
