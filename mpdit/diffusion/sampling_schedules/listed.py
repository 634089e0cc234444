"""Levels by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from mpdit.diffusion.sampling_schedules.registry import SAMPLING_SCHEDULES
from mpdit.errors import input_error


@SAMPLING_SCHEDULES.register
@dataclass(frozen=True)
class Listed:
    """A step starts at each of these levels, whatever `steps` says; the last one ends at 0, which is not written."""

    name: ClassVar[str] = "list"
    doc: ClassVar[str] = "these levels, in place of as many steps; 0 follows"
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        levels = self.sigmas
        if not levels or not all(0 < level < math.inf for level in levels) or any(a <= b for a, b in pairwise(levels)):
            raise input_error(
                "the levels of a schedule descend, and are above 0",
                given=f"sigmas: {list(levels)}",
                allowed="as [80.0, 10.0, 2.0, 0.5, 0.1]",
            )

    def levels(self, steps: int, own: Callable[[int], list[float]]) -> list[float]:
        """The levels that are listed, and 0."""
        return [*self.sigmas, 0.0]
