"""What a learning-rate schedule is, and the registry of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from mpdit.registry import Registry


@dataclass(frozen=True)
class LrSchedule:
    """How the learning rate falls.

    Attributes:
        name: how a recipe names it.
        doc: what it is.
        factor: `factor(step, start, steps)` multiplies the peak rate at a step beyond `start`, where the decay begins,
            of a training of `steps` steps.
    """

    name: str
    doc: str
    factor: Callable[[int, float, int], float]


LR_SCHEDULES: Registry[LrSchedule] = Registry("schedule", __package__)
