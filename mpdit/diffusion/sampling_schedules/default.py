"""The objective's own levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mpdit.diffusion.sampling_schedules.registry import SAMPLING_SCHEDULES


@SAMPLING_SCHEDULES.register
@dataclass(frozen=True)
class Default:
    """What the model's objective gives."""

    name: ClassVar[str] = "default"
    doc: ClassVar[str] = "the objective's own: see model.md"

    def levels(self, steps: int, own: Callable[[int], list[float]]) -> list[float]:
        """The objective's levels."""
        return own(steps)
