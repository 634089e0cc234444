"""Blocks at equal distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from mpdit.inference.block_choices.registry import BLOCK_CHOICES, check_count


@BLOCK_CHOICES.register
@dataclass(frozen=True)
class Uniform:
    """The middle block of each of `count` equal parts is left out."""

    name: ClassVar[str] = "uniform"
    doc: ClassVar[str] = "without as many blocks, at equal distances"
    count: Annotated[int, Ge(0)] = 1

    def left_out(self, depth: int, influences: Callable[[], list[float]]) -> list[int]:
        """Leave out the middle one of each part."""
        check_count(self.count, depth)
        return [(2 * part + 1) * depth // (2 * self.count) for part in range(self.count)]
