"""Which points are trained on: a function of the cells that the ledger holds, so that a restart changes nothing."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from mpdit.scoring.intervals import error_over_samples
from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.plan import Plan, Trial
from sweeps.search.observations import first_round
from sweeps.spec.model import SweepSpec
from sweeps.spec.space import STEPS, Point, identity
from sweeps.storage.events import Event
from sweeps.storage.ledger import by_trial


@dataclass(frozen=True)
class Standing:
    """Where a point stands: the mean over its seeds of its best cell; smaller is better.

    left_out: the same without each fold of samples; None for a metric that has no folds.
    """

    point: Point
    cost: float
    left_out: list[float] | None


def promoted(plan: Plan, events: Iterable[Event]) -> list[Point]:
    """The points that go on to more steps, once all trials of a plan have ended; none where there is nothing to decide.

    Of the points with so many steps the best 1/factor go on, and those that the errors over samples cannot tell from
    the last one of these.
    """
    spec, events_of = plan.spec, by_trial(events)
    groups: dict[int, dict[str, list[Trial]]] = {steps: {} for steps in spec.lengths}
    for trial in plan.trials:
        groups[trial.recipe.steps].setdefault(identity(_at(trial, spec, 0)), []).append(trial)
    for here, further in itertools.pairwise(spec.lengths):
        found = (_standing(spec, trials, [events_of[t.id] for t in trials]) for trials in groups[here].values())
        ranked = sorted((standing for standing in found if standing), key=lambda standing: standing.cost)
        going = [standing.point for standing in _with_ties(ranked, spec.scheduler.places(len(groups[here])))]
        new = [point for point in going if identity(point | {STEPS: 0}) not in groups[further]]
        if new:
            return [point | {STEPS: further} for point in new]
    return []


def _at(trial: Trial, spec: SweepSpec, steps: int) -> Point:
    return spec.space.active({axis: trial.params[axis] for axis in spec.space.domains}) | {STEPS: steps}


def _with_ties(ranked: Sequence[Standing], places: int) -> list[Standing]:
    last = ranked[places - 1] if len(ranked) > places else None
    return [*ranked[:places], *(one for one in ranked[places:] if last and _is_tie(one, last))]


def _is_tie(one: Standing, other: Standing) -> bool:
    """Whether a paired difference, on the same noise and folds, is within its error at 95 %."""
    if one.left_out is None or other.left_out is None:
        return one.cost == other.cost
    error = error_over_samples([a - b for a, b in zip(one.left_out, other.left_out, strict=True)])
    return abs(one.cost - other.cost) <= error.interval


def _standing(spec: SweepSpec, trials: Sequence[Trial], events: Sequence[Sequence[Event]]) -> Standing | None:
    """A point's standing by its first round of scoring; None where a seed has no value."""
    metric = METRICS[spec.metrics[0]]
    cells: dict[str, list[tuple[float, list[float] | None]]] = {}
    for cell, found in first_round(spec, trials, events, [metric.name]):
        if (value := found[metric.name]) is not None:
            cells.setdefault(cell.key, []).append((metric.cost(value), cell.left_out if metric.has_folds else None))
    whole = [seeds for seeds in cells.values() if len(seeds) == len(trials)]
    if not whole:
        return None
    best = min(whole, key=lambda seeds: mean(cost for cost, _ in seeds))
    folds = [left_out for _, left_out in best if left_out is not None]
    left_out = [mean(parts) for parts in zip(*folds, strict=True)] if len(folds) == len(best) else None
    return Standing(_at(trials[0], spec, 0), mean(cost for cost, _ in best), left_out)
