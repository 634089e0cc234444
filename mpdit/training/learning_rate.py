"""The learning rate of each step: a linear warm-up, a plateau, then the schedule's decay."""

from dataclasses import dataclass

from mpdit.training.lr_schedules.registry import LR_SCHEDULES


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of a training.

    Attributes:
        peak: the rate after the warm-up.
        schedule: the name of the schedule by which it falls.
        warmup: the fraction of the training's steps over which the rate rises linearly.
        decay_from: the fraction of the training's steps after which it falls.
    """

    peak: float
    schedule: str = "inverse_sqrt"
    warmup: float = 0.0
    decay_from: float = 1.0

    def at(self, step: int, steps: int) -> float:
        """Return the rate at one of `steps` steps, which count from 1."""
        start = max(1.0, self.decay_from * steps)
        rate = self.peak * min(1.0, step / max(1.0, self.warmup * steps))
        return rate if step <= start else rate * LR_SCHEDULES[self.schedule].factor(step, start, steps)
