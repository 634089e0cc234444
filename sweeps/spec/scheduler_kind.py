"""What every scheduler declares about itself; the schedulers are the modules of sweeps/search/schedulers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpdit.registry import Registry


@dataclass(frozen=True)
class Score:
    """What a trial scored at a rung: the value of its best EMA width, and the values without each fold of samples."""

    trial: str
    value: float
    left_out: list[float] | None


# why a trial with this score stops, given the scores of the others and the scheduler's reduction; None: it goes on
StopRule = Callable[[Score, Sequence[Score], float], str | None]


@dataclass(frozen=True, kw_only=True)
class SchedulerKind:
    """A rule that stops a trial at a rung.

    Args:
        rule: Decides from the scores at one rung, the smaller the better; None: no trial is stopped.
        in_brackets: Whether trials are dealt to brackets; those of the b-th pass their first b rungs in any case.
        metrics: The metrics that it can stop a training by.
    """

    name: str
    doc: str
    rule: StopRule | None
    in_brackets: bool = False
    metrics: tuple[str, ...] = ("frechet", "magnitude_drift")


SCHEDULERS: Registry[SchedulerKind] = Registry("scheduler", "sweeps.search.schedulers")
