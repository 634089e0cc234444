"""Classifier-free guidance as it was proposed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES, Predictions

if TYPE_CHECKING:
    from torch import Tensor


@GUIDANCE_RULES.register
@dataclass(frozen=True)
class Cfg:
    """D(x; ∅) + scale·(D(x; c) − D(x; ∅)). Eq. 6 of arXiv 2207.12598."""

    name: ClassVar[str] = "cfg"
    doc: ClassVar[str] = "classifier-free guidance (Eq. 6 of arXiv 2207.12598)"
    objectives: ClassVar[tuple[str, ...] | None] = None

    def combine(self, predictions: Predictions, scale: float) -> Tensor:
        """Move from the unconditional prediction through the conditional one."""
        conditional, unconditional = predictions[:2]
        return unconditional + scale * (conditional - unconditional)
