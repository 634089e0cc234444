"""The median stopping rule (Golovin et al., 2017)."""

import statistics
from collections.abc import Sequence

from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind, Score

FEWEST_OTHERS = 3  # others at a rung, below which nobody is stopped


def worse_than_median(mine: Score, others: Sequence[Score], reduction: float) -> str | None:
    """Stop when the score is worse than the median of the others at the rung."""
    if len(others) < FEWEST_OTHERS:
        return None
    middle = statistics.median(other.value for other in others)
    return f"worse than the median {middle:.4g}" if mine.value > middle else None


MEDIAN = SCHEDULERS.register(
    SchedulerKind(
        name="median",
        doc="a trial goes on when it is no worse than the median of the others at its rung",
        rule=worse_than_median,
    )
)
