"""Asynchronous successive halving in its stopping variant: no trial waits for others (arXiv 1810.05934)."""

import math
from collections.abc import Sequence

from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind, Score


def asha(mine: Score, others: Sequence[Score], reduction: float) -> str | None:
    """Stop unless the score is among the best ⌈n / reduction⌉ of the n that have come to the rung so far."""
    places = math.ceil((len(others) + 1) / reduction)
    better = sum(other.value < mine.value for other in others)
    return None if better < places else f"{better} of {len(others)} others are better at this rung"


ASHA = SCHEDULERS.register(
    SchedulerKind(
        name="asha", doc="a trial goes on when it is among the best 1/`reduction` at its rung so far", rule=asha
    )
)
