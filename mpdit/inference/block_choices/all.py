"""All blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mpdit.inference.block_choices.registry import BLOCK_CHOICES


@BLOCK_CHOICES.register
@dataclass(frozen=True)
class All:
    """No block is left out."""

    name: ClassVar[str] = "all"
    doc: ClassVar[str] = "the network as it was trained"

    def left_out(self, depth: int, influences: Callable[[], list[float]]) -> list[int]:
        """Leave out none."""
        return []
