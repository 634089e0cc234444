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
        falls: whether the rate changes at all.
        knows_the_end: whether the factor depends on `steps`.
    """

    name: str
    doc: str
    factor: Callable[[int, float, int], float]
    falls: bool = True
    knows_the_end: bool = True


LR_SCHEDULES: Registry[LrSchedule] = Registry("schedule", __package__)
