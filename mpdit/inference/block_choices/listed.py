"""Blocks by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mpdit.errors import input_error
from mpdit.inference.block_choices.registry import BLOCK_CHOICES, check_count


@BLOCK_CHOICES.register
@dataclass(frozen=True)
class Listed:
    """The blocks of these numbers are left out; the first one has the number 0."""

    name: ClassVar[str] = "list"
    doc: ClassVar[str] = "without the blocks of these numbers, from 0"
    numbers: tuple[int, ...]

    def left_out(self, depth: int, influences: Callable[[], list[float]]) -> list[int]:
        """Leave out those that are listed."""
        unknown = [number for number in self.numbers if not 0 <= number < depth]
        if unknown:
            raise input_error(
                f"there is no block {unknown[0]}",
                given=f"evaluation.blocks.numbers: {list(self.numbers)}",
                allowed=f"0 to {depth - 1}",
            )
        chosen = sorted(set(self.numbers))
        check_count(len(chosen), depth)
        return chosen
