"""Weights of 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mpdit.inference.weight_formats.registry import WEIGHT_FORMATS, rounded_to_bits

if TYPE_CHECKING:
    from torch import Tensor


@WEIGHT_FORMATS.register
@dataclass(frozen=True)
class Int8:
    """Whole numbers of 8 bits times a scale, symmetric; the arithmetic is that of the rounded weights.

    group: how many inputs of a row share a scale; 0: all of them.
    """

    name: ClassVar[str] = "int8"
    doc: ClassVar[str] = "8 bits and a scale for each `group` of inputs, or each row; shows the quality, saves no time"
    is_exact: ClassVar[bool] = False
    group: Annotated[int, Ge(0)] = 0

    def rounded(self, weight: Tensor) -> Tensor:
        """Round to the nearest multiple of the scale."""
        return rounded_to_bits(weight, 8, self.group)
