"""What a sampling schedule is, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from mpdit.registry import Registry


class SamplingSchedule(Protocol):
    """One schedule with its settings: a frozen dataclass with a `name` and a `doc`."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def levels(self, steps: int, own: Callable[[int], list[float]]) -> list[float]:
        """Return the noise levels of some steps.

        Args:
            steps: how many are asked for.
            own: the levels that the model's objective gives for so many steps.

        Returns:
            The level at which each step starts, descending, and 0.
        """


SAMPLING_SCHEDULES: Registry[type[SamplingSchedule]] = Registry("schedule", "mpdit.diffusion.sampling_schedules")
