"""Stop by the error of a paired difference (same noise, labels and folds), so that a close call is left open."""

import math
from collections.abc import Sequence

from mpdit.scoring.intervals import FOLDS, jackknife_error
from mpdit.scoring.student_t import t_critical
from sweeps.search.schedulers.median import FEWEST_OTHERS
from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind, Score


def paired(mine: Score, others: Sequence[Score], reduction: float) -> str | None:
    """Stop when worse than the trial at rank ⌈n / reduction⌉ by more than the error of the difference.

    With reduction 2 that trial is the median.
    """
    if len(others) < FEWEST_OTHERS or mine.left_out is None:
        return None
    ranked = sorted([mine, *others], key=lambda score: score.value)
    against = ranked[math.ceil(len(ranked) / reduction) - 1]
    if against is mine or against.left_out is None:
        return None
    difference = mine.value - against.value
    error = jackknife_error([a - b for a, b in zip(mine.left_out, against.left_out, strict=True)])
    if difference <= t_critical(FOLDS - 1) * error:
        return None
    return f"worse than {against.trial} by {difference:.3g} ± {error:.2g}"


PAIRED = SCHEDULERS.register(
    SchedulerKind(
        name="paired",
        doc="a trial goes on when it is better than the trial at 1/`reduction` of the ranking (2: the median), or "
        "within the error of their difference",
        rule=paired,
        needs_folds=True,
    )
)
