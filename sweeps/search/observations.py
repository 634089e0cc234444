"""Observations, from which a search learns: each point that was tried, and its values in the ledger."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean

from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.cell_metrics import metrics_of
from sweeps.planning.confirmation import is_of_fresh_noise
from sweeps.planning.plan import Plan, Trial
from sweeps.search.rung_decisions import score_of
from sweeps.spec.constraint import keeps_all
from sweeps.spec.model import SweepSpec
from sweeps.spec.space import Point, identity
from sweeps.storage.events import CellScored, Event, RungScored, TrialEnded
from sweeps.storage.ledger import by_trial, only
from sweeps.storage.trial_status import TrialStatus


@dataclass(frozen=True)
class Observation:
    """What is known of a point: it is running, or has ended as completed, stopped, or failed without a value.

    values: of its best cell, one for each objective. limits: by how much each constraint is broken; it is
    kept where that is at most 0. rungs: (number, value) of the scores at the rungs.
    """

    point: Point
    status: TrialStatus
    values: list[float] | None = None
    limits: dict[str, float] = field(default_factory=dict)
    rungs: list[tuple[int, float]] = field(default_factory=list)


def observations(plan: Plan, events: Iterable[Event]) -> list[Observation]:
    """An observation of each point from the events, in the order in which they were suggested."""
    events_of = by_trial(events)
    groups: dict[str, list[Trial]] = {}
    space = plan.spec.space
    for trial in plan.trials:
        point = space.active({axis: trial.params[axis] for axis in space.domains})
        groups.setdefault(identity(point), []).append(trial)
    return [_observation(plan, trials, [events_of[trial.id] for trial in trials]) for trials in groups.values()]


def _observation(plan: Plan, trials: list[Trial], events: list[list[Event]]) -> Observation:
    """One point from its trials, one for each seed: failed or stopped if one is; values are means over seeds."""
    space, spec = plan.spec.space, plan.spec
    point = space.active({axis: trials[0].params[axis] for axis in space.domains})
    ends = [only(own, TrialEnded) for own in events]
    outcomes = [own[-1].outcome if own else TrialStatus.RUNNING for own in ends]
    if any(outcome.has_no_value for outcome in outcomes):
        return Observation(point, TrialStatus.FAILED)
    if TrialStatus.STOPPED in outcomes:
        return Observation(point, TrialStatus.STOPPED, rungs=_rungs(spec, events))
    if any(outcome.is_open for outcome in outcomes):
        return Observation(point, TrialStatus.RUNNING)
    best = best_cell(spec, trials, events)
    if best is None:
        return Observation(point, TrialStatus.FAILED)
    limits = {limit.name: limit.excess(best[limit.metric]) for limit in spec.limits}
    return Observation(point, TrialStatus.COMPLETED, [best[metric] for metric in spec.metrics], limits)


def _rungs(spec: SweepSpec, events: list[list[Event]]) -> list[tuple[int, float]]:
    objective, found = METRICS[spec.metrics[0]], dict[float, list[float]]()
    for rung in (rung for own in events for rung in only(own, RungScored)):
        score = score_of(rung, objective)
        if score:
            found.setdefault(rung.rung_fraction, []).append(objective.cost(score.value))  # back to a value
    return [(number, mean(values)) for number, (_, values) in enumerate(sorted(found.items()), start=1)]


def first_round(
    spec: SweepSpec, trials: Sequence[Trial], events: Sequence[Sequence[Event]], asked: Collection[str]
) -> Iterator[tuple[CellScored, dict[str, float | None]]]:
    """Yield the cells of a point's first round of scoring, which all points have, with the metrics that are asked for.

    trials, events: one for each seed.
    """
    fewest = min((cell.samples for own in events for cell in only(own, CellScored)), default=0)
    for trial, own in zip(trials, events, strict=True):
        for cell in only(own, CellScored):
            if cell.samples == fewest and not is_of_fresh_noise(spec, cell):
                yield cell, metrics_of(trial, cell, own, asked)


def whole_cells(
    spec: SweepSpec, trials: Sequence[Trial], events: Sequence[Sequence[Event]]
) -> list[list[tuple[CellScored, dict[str, float]]]]:
    """The cells that each seed of a point has scored in its first round: each seed's event and metrics.

    The metrics are the objectives and what constraints limit; a cell that lacks one of them is left out.
    """
    asked = {*spec.metrics, *(limit.metric for limit in spec.limits)}
    cells: dict[str, list[tuple[CellScored, dict[str, float]]]] = {}
    for cell, found in first_round(spec, trials, events, asked):
        known = {metric: value for metric, value in found.items() if value is not None}
        if len(known) == len(asked):
            cells.setdefault(cell.key, []).append((cell, known))
    return [seeds for seeds in cells.values() if len(seeds) == len(trials)]


def over_seeds(seeds: Sequence[tuple[CellScored, dict[str, float]]]) -> dict[str, float]:
    """Every metric of a cell, each the mean over the seeds."""
    return {metric: mean(known[metric] for _, known in seeds) for metric in seeds[0][1]}


def best_cell(spec: SweepSpec, trials: Sequence[Trial], events: Sequence[Sequence[Event]]) -> dict[str, float] | None:
    """Every metric of a point's best cell, each the mean over its seeds.

    Best is the cell with the best first objective among those that keep the constraints, or among all if none does.
    Where cells were scored in several rounds, the first round counts, which all points have.
    """
    means = [over_seeds(seeds) for seeds in whole_cells(spec, trials, events)]

    def order(cell: dict[str, float]) -> tuple[bool, float]:
        objective = METRICS[spec.metrics[0]]
        return not keeps_all(cell, spec.limits), objective.cost(cell[objective.name])

    return min(means, key=order, default=None)
