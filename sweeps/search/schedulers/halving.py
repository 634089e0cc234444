"""Successive halving, as it was meant: all points are trained a little, the best of them on (arXiv 1502.07943).

A promoted trial continues where it stands, so no step is taken twice, and what is not promoted is a complete, shorter
training. Points that the errors cannot tell from the last one in are promoted too. See sweeps/search/promotion.py.
"""

from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind

HALVING = SCHEDULERS.register(
    SchedulerKind(
        name="halving",
        doc="all points are trained for `start` steps, the best 1/`factor` of them (and who ties) for `factor` times "
        "as many, and so on",
        rule=None,
        promotes=True,
    )
)
