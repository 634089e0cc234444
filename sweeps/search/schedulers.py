"""Which trial stops at a rung: functions of the scores that the ledger holds, so that a restart changes nothing.

asha       is among the best ⌈n / reduction⌉ of the n that have come to the rung so far, or stops (arXiv 1810.05934,
           its stopping variant: nothing waits for others)
hyperband  the same in brackets, of which the b-th passes its first b rungs unjudged (arXiv 1603.06560)
median     stops when worse than the median of those that have come to the rung (Golovin et al., 2017)
paired     stops when worse than the trial at rank ⌈n / reduction⌉ by more than the error of their difference, taken in
           pairs: the same noise, the same labels, the same folds; so a close call is left open. With reduction 2 that
           trial is the median.

A score that is not finite is judged by none and judges none.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from mpdit.scoring.frechet import FOLDS, jackknife_error, margin
from sweeps.spec.model import Scheduler, SweepSpec
from sweeps.storage.ledger import Event

ENOUGH = 3  # others at a rung, below which median and paired stop nobody


@dataclass(frozen=True)
class Score:
    """What a trial scored at a rung: its best width's value, and the values without each fold."""

    trial: str
    value: float
    left_out: list[float] | None


Rule = Callable[[Score, Sequence[Score], Scheduler], str | None]  # why the trial stops, or None


def score_of(line: Event, metric: str) -> Score | None:
    """The score in a `rung` event; None where no width has a finite value."""
    key = "value" if metric == "frechet" else metric
    known = [width for width in line["widths"] if width[key] is not None and math.isfinite(width[key])]
    if not known:
        return None
    best = min(known, key=lambda width: width[key])
    return Score(line["trial"], best[key], best["left_out"])


def verdict(spec: SweepSpec, events: Iterable[Event], line: Event) -> str | None:
    """Why the trial of a `rung` event is to stop, judged by the rungs before it in the ledger; None: it goes on."""
    scheduler, mine = spec.scheduler, score_of(line, spec.metrics[0])
    if scheduler.kind == "none" or mine is None:
        return None
    others: dict[str, Score] = {}
    starts: list[str] = []
    for other in events:
        if other["event"] == "trial_started" and other["trial"] not in starts:
            starts.append(other["trial"])
        if other["event"] == "rung" and other["trial"] != mine.trial and _is_comparable(other, line):
            score = score_of(other, spec.metrics[0])
            others |= {score.trial: score} if score else {}
    if scheduler.kind == "hyperband":
        brackets = len(scheduler.rungs) + 1
        bracket = {trial: place % brackets for place, trial in enumerate(starts)}
        if scheduler.rungs.index(line["share"]) < bracket.get(mine.trial, 0):
            return None
        others = {trial: s for trial, s in others.items() if bracket.get(trial) == bracket.get(mine.trial)}
    return RULES[scheduler.kind](mine, list(others.values()), scheduler)


def _is_comparable(one: Event, other: Event) -> bool:
    """Whether both are scores at one share of the training, of as many samples at the same widths."""
    same = one["share"] == other["share"] and one["samples"] == other["samples"]
    return same and [w["sigma_rel"] for w in one["widths"]] == [w["sigma_rel"] for w in other["widths"]]


def asha(mine: Score, others: Sequence[Score], scheduler: Scheduler) -> str | None:
    """Stop unless among the best share of those that have come here."""
    places = math.ceil((len(others) + 1) / scheduler.reduction)
    better = sum(other.value < mine.value for other in others)
    return None if better < places else f"{better} of {len(others)} others are better at this rung"


def beyond_median(mine: Score, others: Sequence[Score], scheduler: Scheduler) -> str | None:
    """Stop when worse than the median of the others."""
    middle = median(other.value for other in others) if others else math.inf
    return f"worse than the median {middle:.4g}" if len(others) >= ENOUGH and mine.value > middle else None


def paired(mine: Score, others: Sequence[Score], scheduler: Scheduler) -> str | None:
    """Stop when worse than a trial in the middle by more than the error of the difference."""
    if len(others) < ENOUGH or mine.left_out is None:
        return None
    ranked = sorted([mine, *others], key=lambda score: score.value)
    against = ranked[math.ceil(len(ranked) / scheduler.reduction) - 1]
    if against is mine or against.left_out is None:
        return None
    difference = mine.value - against.value
    error = jackknife_error([a - b for a, b in zip(mine.left_out, against.left_out, strict=True)])
    if difference <= margin(FOLDS - 1) * error:
        return None
    return f"worse than {against.trial} by {difference:.3g} ± {error:.2g}"


RULES: dict[str, Rule] = {"asha": asha, "hyperband": asha, "median": beyond_median, "paired": paired}
