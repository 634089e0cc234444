"""Half a cosine, from the peak to 0 at the end of the training."""

import math

from mpdit.training.lr_schedules.registry import LR_SCHEDULES, LrSchedule


def _factor(step: int, start: float, steps: int) -> float:
    """½·(1 + cos(π·progress)), as in Eq. 5 of arXiv 1608.03983; 0 one step after the last."""
    return 0.5 * (1 + math.cos(math.pi * (step - start) / (steps + 1 - start)))


LR_SCHEDULES.register(LrSchedule("cosine", "half a cosine down to 0 (arXiv 1608.03983)", _factor))
