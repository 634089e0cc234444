"""Guidance whose images keep the contrast of the conditional prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from mpdit.diffusion.guidance_rules.cfg import Cfg
from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES, Predictions, each_image

if TYPE_CHECKING:
    from torch import Tensor


@GUIDANCE_RULES.register
@dataclass(frozen=True)
class Rescale:
    """D·(φ·std(D_c)/std(D) + 1 − φ) of classifier-free guidance's D. Eq. 15 and 16 of arXiv 2305.08891.

    share: φ; 0 is classifier-free guidance, 1 has the conditional prediction's standard deviation.
    """

    name: ClassVar[str] = "rescale"
    doc: ClassVar[str] = "guidance brought back to the conditional prediction's contrast (arXiv 2305.08891)"
    objectives: ClassVar[tuple[str, ...] | None] = None
    share: Annotated[float, Ge(0), Le(1)] = 0.7

    def combine(self, predictions: Predictions, scale: float) -> Tensor:
        """Guide, then scale each image's standard deviation."""
        conditional, guided = predictions.conditional, Cfg().combine(predictions, scale)
        wanted, found = (images.std(each_image(images), keepdim=True) for images in (conditional, guided))
        return guided * (self.share * wanted / found.clamp_min(1e-12) + (1 - self.share))
