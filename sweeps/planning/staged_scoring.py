"""Staged scoring: every cell with few samples first, then the promising ones with more (successive halving over cells).

A round's samples are the first of the next round's, and are not drawn again. A cell that does not reach the last round
stays `screened`, and is never ranked among cells that were scored in full.
"""

import math
from collections.abc import Collection, Iterator
from statistics import mean

from pipelines.scoring.cell import Cell
from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.cell_metrics import CellRecord
from sweeps.planning.confirmation import confirming_cell, confirms
from sweeps.planning.plan import Plan, PlannedCell, Trial
from sweeps.spec.constraint import keeps_all
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import CellScored, Event, TrialEnded, WeightsDropped
from sweeps.storage.ledger import only, trial_statuses

Results = dict[tuple[str, str], float | None]  # by trial and cell
Contender = tuple[list[Trial], PlannedCell]  # the seeds of one point of the sweep, and one of its cells


def rounds(spec: SweepSpec) -> list[int]:
    """The number of samples in each round; the last is the evaluation's own number, and by default the only one."""
    full, screening = spec.evaluation.samples, spec.screening
    counts, samples = [], screening.samples or full
    while samples < full:
        counts.append(samples)
        samples = math.ceil(samples / screening.keep / (screening.samples or 1)) * (screening.samples or 1)
    return [*counts, full]


def seed_groups(plan: Plan) -> list[list[Trial]]:
    """The plan's trials in groups that differ in their seed alone."""
    groups: dict[str, list[Trial]] = {}
    for trial in plan.trials:
        groups.setdefault(point_of(trial), []).append(trial)
    return list(groups.values())


def point_of(trial: Trial) -> str:
    """A name for what a trial shares with those that differ in their seed alone."""
    return repr([(axis, value) for axis, value in trial.params.items() if axis != "seed"])


def missing_cells(plan: Plan, events: list[Event], given_up: Collection[str] = ()) -> dict[str, list[Cell]]:
    """The cells that each trial has to score next, by the trial's id; none for trials cut short or given up.

    A round begins when every trial has finished the round before, which follows from the ledger alone.
    """
    statuses = trial_statuses(events)
    out = {trial.id for trial in plan.trials if statuses[trial.id].is_cut_short} | set(given_up)
    results = _results(plan, events)
    counts = rounds(plan.spec)
    field: list[Contender] = [(group, planned) for group in seed_groups(plan) for planned in plan.cells]
    if len(counts) > 1:  # what was scored in full without having been screened needs no screening
        field = [
            c for c in field if not _is_known(c, counts[-1], results, out) or _is_known(c, counts[0], results, out)
        ]
    for samples in counts:
        missing: dict[str, list[Cell]] = {}
        cells = {id(planned): planned.cell.with_samples(samples) for planned in plan.cells}
        key_of = {planned: cell.key for planned, cell in cells.items()}
        for group, planned in field:
            cell, key = cells[id(planned)], key_of[id(planned)]
            for trial in group:
                if trial.id not in out and (trial.id, key) not in results:
                    missing.setdefault(trial.id, []).append(cell)
        if missing:
            return missing
        if samples == counts[-1]:
            return _to_confirm(plan, events, field, results)
        values = {at: _value(contender, samples, results) for at, contender in enumerate(field)}
        best_first = sorted((at for at in values if values[at] < math.inf), key=values.__getitem__)
        field = [field[at] for at in best_first[: math.ceil(len(field) * plan.spec.screening.keep)]]
    return {}


def _to_confirm(plan: Plan, events: list[Event], field: list[Contender], results: Results) -> dict[str, list[Cell]]:
    """The cells of the first contenders on fresh noise that are not scored yet, by trial; all others are known.

    What breaks a constraint, and what has lost its weights, is not scored again.
    """
    missing: dict[str, list[Cell]] = {}
    if not confirms(plan):
        return missing
    full, left = plan.spec.evaluation.samples, plan.spec.confirm.best
    last = {event.trial: event for event in events if isinstance(event, (TrialEnded, WeightsDropped))}
    values = [_value(contender, full, results) for contender in field]
    breaking = _breaking(plan, events) if plan.spec.limits else set()
    for at in sorted(range(len(field)), key=values.__getitem__):
        group, planned = field[at]
        if left == 0 or values[at] == math.inf:
            break
        if any((trial.id, planned.cell.key) in breaking for trial in group):
            continue
        left -= 1
        cell = confirming_cell(plan, planned)
        for trial in group:
            if (trial.id, cell.key) not in results and not isinstance(last.get(trial.id), WeightsDropped):
                missing.setdefault(trial.id, []).append(cell)
    return missing


def _breaking(plan: Plan, events: list[Event]) -> set[tuple[str, str]]:
    """The scored cells that break a constraint, by trial and key."""
    trials, names = {trial.id: trial for trial in plan.trials}, [limit.metric for limit in plan.spec.limits]
    found = set()
    for event in only(events, CellScored):
        if event.trial in trials:
            record = CellRecord(trials[event.trial], event, None)
            if not keeps_all({name: METRICS[name].of(record) for name in names}, plan.spec.limits):
                found.add((event.trial, event.key))
    return found


def _results(plan: Plan, events: list[Event]) -> Results:
    """What every scored cell would be kept for: the first objective, as a cost; None where it is not known."""
    objective, trials = METRICS[plan.spec.metrics[0]], {trial.id: trial for trial in plan.trials}
    found: Results = {}
    for event in only(events, CellScored):
        value = None
        if event.trial in trials and (len(rounds(plan.spec)) > 1 or confirms(plan)):
            value = objective.of(CellRecord(trials[event.trial], event, None))
        found[event.trial, event.key] = None if value is None else objective.cost(value)
    return found


def _is_known(contender: Contender, samples: int, results: Results, out: set[str]) -> bool:
    group, planned = contender
    key = planned.cell.with_samples(samples).key
    return all((trial.id, key) in results for trial in group if trial.id not in out)


def _value(contender: Contender, samples: int, results: Results) -> float:
    """The mean cost over seeds, or infinity where a seed has no value."""
    group, planned = contender
    values = [results.get((trial.id, planned.cell.with_samples(samples).key)) for trial in group]
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(group) else math.inf


def planned_samples(plan: Plan) -> int:
    """How many samples the whole plan draws; each round continues the samples of the round before."""
    cells, before, total = len(seed_groups(plan)) * len(plan.cells), 0, 0.0
    seeds = len(plan.trials) / max(1, len(seed_groups(plan)))
    for samples in rounds(plan.spec):
        total += cells * seeds * (samples - before)
        cells, before = math.ceil(cells * plan.spec.screening.keep), samples
    return round(total)


def keys(plan: Plan) -> Iterator[tuple[int, int, str]]:
    """Yield (the cell's position in the plan, samples, key) of every result that a trial may have."""
    for at, planned in enumerate(plan.cells):
        for samples in rounds(plan.spec):
            yield at, samples, planned.cell.with_samples(samples).key
