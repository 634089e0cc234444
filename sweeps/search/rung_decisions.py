"""Whether a trial stops at a rung: a function of the scores that the ledger holds, so that a restart changes nothing.

A score that is not finite stops nobody, and nobody is compared with it.
"""

import math
from collections.abc import Iterable

from pipelines.scoring.metrics.registry import METRICS, Metric
from sweeps.spec.model import SweepSpec
from sweeps.spec.scheduler_kind import SCHEDULERS, Score
from sweeps.storage.events import Event, RungScored, TrialStarted


def score_of(rung: RungScored, metric: Metric) -> Score | None:
    """The score at a rung, that of the best width; None where no width has a finite value."""
    if metric.at_rung is None:
        return None
    known = [(value, width) for width in rung.widths if (value := metric.at_rung(width)) is not None]
    finite = [(metric.cost(value), width) for value, width in known if math.isfinite(value)]
    if not finite:
        return None
    cost, best = min(finite, key=lambda pair: pair[0])
    return Score(rung.trial, cost, best.left_out if metric.has_folds else None)


def decide(spec: SweepSpec, events: Iterable[Event], rung: RungScored) -> str | None:
    """Why a trial is to stop at a rung, by the rungs before it in the ledger; None: it goes on."""
    kind, metric = SCHEDULERS[spec.scheduler.kind], METRICS[spec.metrics[0]]
    mine = score_of(rung, metric)
    if kind.rule is None or mine is None:
        return None
    others: dict[str, Score] = {}
    starts: dict[str, int] = {}  # the place of each trial among those that began
    for other in events:
        if isinstance(other, TrialStarted):
            starts.setdefault(other.trial, len(starts))
        if isinstance(other, RungScored) and other.trial != mine.trial and _is_comparable(other, rung):
            score = score_of(other, metric)
            others |= {score.trial: score} if score else {}
    if kind.in_brackets:
        rungs = spec.scheduler.rungs
        bracket = {trial: place % (len(rungs) + 1) for trial, place in starts.items()}
        if rungs.index(rung.rung_fraction) < bracket.get(mine.trial, 0):
            return None
        others = {trial: s for trial, s in others.items() if bracket.get(trial) == bracket.get(mine.trial)}
    return kind.rule(mine, list(others.values()), spec.scheduler.reduction)


def _is_comparable(one: RungScored, other: RungScored) -> bool:
    """Whether both are scores at the same rung, of as many samples at the same widths."""
    same = one.rung_fraction == other.rung_fraction and one.samples == other.samples
    return same and [width.sigma_rel for width in one.widths] == [width.sigma_rel for width in other.widths]
