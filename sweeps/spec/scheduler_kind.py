"""What every scheduler declares about itself; the schedulers are the modules of sweeps/search/schedulers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpdit.registry import Registry
from pipelines.scoring.metrics.registry import Metric


@dataclass(frozen=True)
class Score:
    """What a trial scored at a rung with its best EMA width, also without each fold of samples; smaller is better."""

    trial: str
    value: float
    left_out: list[float] | None


# why a trial with this score stops, given the scores of the others and the scheduler's reduction; None: it goes on
StopRule = Callable[[Score, Sequence[Score], float], str | None]


@dataclass(frozen=True, kw_only=True)
class SchedulerKind:
    """A rule that stops trials at a rung, or that trains points to a first length and the best of them on.

    Args:
        promotes: Whether it trains all points to the first number of steps, the best of them to the next, and so on.
        rule: Decides from the scores at one rung, the smaller the better; None: no trial is stopped.
        in_brackets: Whether trials are dealt to brackets; those of the b-th pass their first b rungs in any case.
        needs_folds: Whether it needs the values without each fold of samples, which not every metric has.
    """

    name: str
    doc: str
    rule: StopRule | None
    promotes: bool = False
    in_brackets: bool = False
    needs_folds: bool = False

    def can_stop_by(self, metric: Metric) -> bool:
        """Whether the metric is known at a rung, with all that the rule needs."""
        return metric.at_rung is not None and (metric.has_folds or not self.needs_folds)


SCHEDULERS: Registry[SchedulerKind] = Registry("scheduler", "sweeps.search.schedulers")
