"""Whether a trial stops at a rung: a function of the scores that the ledger holds, so that a restart changes nothing.

A score that is not finite stops nobody, and nobody is compared with it.
"""

import math
from collections.abc import Iterable

from sweeps.spec.model import SweepSpec
from sweeps.spec.scheduler_kind import SCHEDULERS, Score
from sweeps.storage.ledger import Event


def score_of(line: Event, metric: str) -> Score | None:
    """The score in a `rung` event; None where no width has a finite value."""
    key = "value" if metric == "frechet" else metric
    known = [width for width in line["widths"] if width[key] is not None and math.isfinite(width[key])]
    if not known:
        return None
    best = min(known, key=lambda width: width[key])
    return Score(line["trial"], best[key], best["left_out"])


def decide(spec: SweepSpec, events: Iterable[Event], line: Event) -> str | None:
    """Why the trial of a `rung` event is to stop, by the rungs before it in the ledger; None: it goes on."""
    kind, mine = SCHEDULERS[spec.scheduler.kind], score_of(line, spec.metrics[0])
    if kind.rule is None or mine is None:
        return None
    others: dict[str, Score] = {}
    starts: list[str] = []
    for other in events:
        if other["event"] == "trial_started" and other["trial"] not in starts:
            starts.append(other["trial"])
        if other["event"] == "rung" and other["trial"] != mine.trial and _is_comparable(other, line):
            score = score_of(other, spec.metrics[0])
            others |= {score.trial: score} if score else {}
    if kind.in_brackets:
        rungs = spec.scheduler.rungs
        bracket = {trial: place % (len(rungs) + 1) for place, trial in enumerate(starts)}
        if rungs.index(line["share"]) < bracket.get(mine.trial, 0):
            return None
        others = {trial: s for trial, s in others.items() if bracket.get(trial) == bracket.get(mine.trial)}
    return kind.rule(mine, list(others.values()), spec.scheduler.reduction)


def _is_comparable(one: Event, other: Event) -> bool:
    """Whether both are scores at one share of the training, of as many samples at the same widths."""
    same = one["share"] == other["share"] and one["samples"] == other["samples"]
    return same and [w["sigma_rel"] for w in one["widths"]] == [w["sigma_rel"] for w in other["widths"]]
