"""The blocks that do least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from mpdit.inference.block_choices.registry import BLOCK_CHOICES, check_count


@BLOCK_CHOICES.register
@dataclass(frozen=True)
class Importance:
    """The `count` blocks that turn their tokens least are left out: the block influence of arXiv 2403.03853."""

    name: ClassVar[str] = "importance"
    doc: ClassVar[str] = "without as many blocks, those that turn their tokens least (arXiv 2403.03853)"
    count: Annotated[int, Ge(0)] = 1

    def left_out(self, depth: int, influences: Callable[[], list[float]]) -> list[int]:
        """Leave out those of the least influence."""
        check_count(self.count, depth)
        measured = influences()
        return sorted(sorted(range(depth), key=measured.__getitem__)[: self.count])
