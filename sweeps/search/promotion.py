"""Which points are trained on: a function of the cells that the ledger holds, so that a restart changes nothing."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from mpdit.scoring.intervals import error_over_samples
from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.plan import Plan, Trial
from sweeps.search.observations import over_seeds, whole_cells
from sweeps.spec.constraint import keeps_all
from sweeps.spec.model import SweepSpec
from sweeps.spec.space import STEPS, Point, identity
from sweeps.storage.events import CellScored, Event
from sweeps.storage.ledger import by_trial


@dataclass(frozen=True)
class Standing:
    """Where a point stands: the mean over its seeds of its best cell; smaller is better.

    left_out: the same without each fold of samples; None for a metric that has no folds. keeps_limits: whether the cell
    keeps the sweep's constraints; the best one that does is taken, if any does.
    """

    point: Point
    cost: float
    left_out: list[float] | None
    keeps_limits: bool = True

    @property
    def order(self) -> tuple[bool, float]:
        """What points are ranked by."""
        return not self.keeps_limits, self.cost


def promoted(plan: Plan, events: Iterable[Event]) -> list[Point]:
    """The points that go on to more steps, once all trials of a plan have ended; none where there is nothing to decide.

    Of the points with so many steps the best 1/factor go on, and those that the errors over samples cannot tell from
    the last one of these. Points that keep the constraints come before those that do not.
    """
    spec, events_of = plan.spec, by_trial(events)
    groups: dict[int, dict[str, list[Trial]]] = {steps: {} for steps in spec.lengths}
    for trial in plan.trials:
        groups[trial.recipe.steps].setdefault(identity(_at(trial, spec, 0)), []).append(trial)
    for here, further in itertools.pairwise(spec.lengths):
        found = (_standing(spec, trials, [events_of[t.id] for t in trials]) for trials in groups[here].values())
        ranked = sorted((standing for standing in found if standing), key=lambda standing: standing.order)
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
    if one.keeps_limits != other.keeps_limits:
        return False
    if one.left_out is None or other.left_out is None:
        return one.cost == other.cost
    error = error_over_samples([a - b for a, b in zip(one.left_out, other.left_out, strict=True)])
    return abs(one.cost - other.cost) <= error.interval


def _standing(spec: SweepSpec, trials: Sequence[Trial], events: Sequence[Sequence[Event]]) -> Standing | None:
    """A point's standing by its first round of scoring; None where a seed has no value."""
    standings = (_of_cell(spec, trials[0], seeds) for seeds in whole_cells(spec, trials, events))
    return min(standings, key=lambda standing: standing.order, default=None)


def _of_cell(spec: SweepSpec, trial: Trial, seeds: Sequence[tuple[CellScored, dict[str, float]]]) -> Standing:
    """The standing of a trial's point by one of its cells: its events and metrics, one for each seed."""
    metric = METRICS[spec.metrics[0]]
    means = over_seeds(seeds)
    folds = [cell.left_out for cell, _ in seeds if metric.has_folds and cell.left_out is not None]
    left_out = None
    if len(folds) == len(seeds):
        left_out = [mean(map(metric.cost, parts)) for parts in zip(*folds, strict=True)]
    keeps = keeps_all(means, spec.limits)
    return Standing(_at(trial, spec, 0), metric.cost(means[metric.name]), left_out, keeps)
