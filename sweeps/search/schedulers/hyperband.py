"""Successive halving in brackets, of which the b-th passes its first b rungs without a decision (arXiv 1603.06560)."""

from sweeps.search.schedulers.asha import asha
from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind

HYPERBAND = SCHEDULERS.register(
    SchedulerKind(
        name="hyperband",
        doc="the rule of `asha` in brackets, each of which begins to stop trials one rung later",
        rule=asha,
        in_brackets=True,
    )
)
