"""Weights as they were trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.inference.weight_formats.registry import WEIGHT_FORMATS

if TYPE_CHECKING:
    from torch import Tensor


@WEIGHT_FORMATS.register
@dataclass(frozen=True)
class Fp32:
    """No rounding."""

    name: ClassVar[str] = "fp32"
    doc: ClassVar[str] = "as they were trained"
    is_exact: ClassVar[bool] = True

    def rounded(self, weight: Tensor) -> Tensor:
        """The matrix itself."""
        return weight
