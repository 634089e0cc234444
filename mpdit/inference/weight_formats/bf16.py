"""Weights of eight bits of mantissa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.inference.weight_formats.registry import WEIGHT_FORMATS

if TYPE_CHECKING:
    from torch import Tensor


@WEIGHT_FORMATS.register
@dataclass(frozen=True)
class Bf16:
    """Weights in bfloat16, arithmetic in the evaluation's precision."""

    name: ClassVar[str] = "bf16"
    doc: ClassVar[str] = "rounded to bfloat16, 1 part in 256 or better"
    is_exact: ClassVar[bool] = False

    def rounded(self, weight: Tensor) -> Tensor:
        """Round to the nearest."""
        return weight.bfloat16().to(weight.dtype)
