"""The learning rate of each step: a linear warm-up, a plateau, then the schedule's decay."""

from dataclasses import dataclass

from mpdit.training.lr_schedules.registry import LR_SCHEDULES


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of a training.

    Attributes:
        peak: the rate after the warm-up.
        schedule: the name of the schedule by which it falls.
        warmup: over how many steps the rate rises linearly.
        decay_from: after how many steps it falls.

    Both are numbers of steps; up to 1 they are fractions of the training's steps.
    """

    peak: float
    schedule: str = "inverse_sqrt"
    warmup: float = 0.0
    decay_from: float = 1.0

    def at(self, step: int, steps: int) -> float:
        """Return the rate at one of `steps` steps, which count from 1."""
        start = max(1.0, _in_steps(self.decay_from, steps))
        rate = self.peak * min(1.0, step / max(1.0, _in_steps(self.warmup, steps)))
        return rate if step <= start else rate * LR_SCHEDULES[self.schedule].factor(step, start, steps)

    @property
    def knows_the_end(self) -> bool:
        """Whether a rate depends on the training's length, so that a longer training is another one from its start."""
        schedule = LR_SCHEDULES[self.schedule]
        falls_by_fraction = schedule.falls and self.decay_from < 1
        return 0 < self.warmup <= 1 or schedule.knows_the_end or falls_by_fraction


def _in_steps(length: float, steps: int) -> float:
    return length if length > 1 else length * steps
