"""Rank the cells of a sweep by what its ledger holds: seeds merged, with errors, and what errors cannot tell apart."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from mpdit.errors import input_error
from pipelines.scoring.metrics.registry import METRICS, Metric, measured_metrics
from sweeps.planning.cell_metrics import metrics_of
from sweeps.planning.confirmation import confirming_cell
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.reuse import kinds_of_trials, recorded_codes
from sweeps.planning.staged_scoring import rounds, seed_groups
from sweeps.results.pareto import front
from sweeps.results.seed_spread import PRIOR, Point, SeedSpread, pooled, storage_spread
from sweeps.results.uncertainty import Measured, difference, mean_of, ties, value_error, what_would_tell_apart
from sweeps.spec.constraint import keeps_all
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import CellScored, Event, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import by_trial, only, trial_statuses
from sweeps.storage.trial_status import TrialStatus

SCREENED = "screened"  # the status of a row that was scored with fewer samples only; every other is a trial's


@dataclass(frozen=True)
class Row:
    """One point of the sweep, on every axis but the seed. `trial` is that of the seed with the best value.

    to_tell_apart: for a row that is tied with the best, what would separate the two. values, pareto: with several
    objectives each one's mean, and whether no row beats this one in all of them. feasible: with constraints, whether
    it keeps them. metrics: the mean of each further metric that the sweep measures, constrains or is asked for.
    freedom: degrees of freedom of `stderr`; interval: half the 95 % interval that follows. seed_spread: how far
    another training seed was taken to move a value, as a share of it, and seed_spread_from: where that is known from.
    confirmed, confirmed_interval: its value on fresh noise, which did not choose it, and half its 95 % interval.
    gap_error, gap_freedom: the standard error of its difference from the best, if both are scored in full, and its
    degrees of freedom.
    other_code: where trials of the same kinds have different code, whether any of its has not that of the best one.
    """

    rank: int
    trial: str
    status: str
    params: dict[str, Any]
    metric: str | None
    value: float | None
    stderr: float | None
    seeds: int
    trials: list[str]
    tied_with_best: bool
    magnitude_drift: float | None
    to_tell_apart: str | None = None
    freedom: float | None = None
    interval: float | None = None
    seed_spread: float | None = None
    seed_spread_from: str | None = None
    values: dict[str, float | None] | None = None
    pareto: bool | None = None
    feasible: bool | None = None
    metrics: dict[str, float | None] | None = None
    other_code: bool | None = None
    confirmed: float | None = None
    confirmed_interval: float | None = None
    gap_error: float | None = None
    gap_freedom: float | None = None

    @property
    def kind(self) -> Metric:
        """The metric that its value is of; a distance has a name of its own, as fd_digits_2k."""
        return METRICS[self.metric if self.metric is not None and self.metric in METRICS else "frechet"]

    @property
    def cost(self) -> float | None:
        """The value, or its negative where larger is better: the smaller the better."""
        return None if self.value is None else self.kind.cost(self.value)

    @property
    def is_scored(self) -> bool:
        """Whether it has a value of as many samples as the evaluation asks for."""
        return self.status == TrialStatus.COMPLETED and self.value is not None

    @property
    def is_open(self) -> bool:
        """Whether it waits for a trial that is not over."""
        return self.status != SCREENED and TrialStatus(self.status).is_open

    def as_dict(self) -> dict[str, Any]:
        """As `rank --json` shows it; what only some sweeps have is left out in the others."""
        some = {"values", "pareto", "feasible", "metrics", "seed_spread", "seed_spread_from", "other_code"}
        some |= {"confirmed", "confirmed_interval", "gap_error", "gap_freedom"}
        return {name: value for name, value in vars(self).items() if name not in some or value is not None}


@dataclass(frozen=True)
class ScoredCell:
    """A cell's event, and every metric of it that the ranking needs."""

    event: CellScored
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class _Results:
    """What rows are made of: the scored cells by trial and key, each trial's status, the metric ranked by, columns.

    keys: of each cell of the plan, by its number of samples.
    """

    cells: dict[tuple[str, str], ScoredCell]
    keys: list[dict[int, str]]
    statuses: dict[str, TrialStatus]
    by: Metric
    columns: list[str]


@dataclass(frozen=True)
class Asked:
    """What a ranking is asked for.

    by: a metric; None: the first objective. alive: whether the driver of the sweep is running. columns: metrics to give
    besides those that the sweep names. known: the spread between training seeds elsewhere.
    """

    by: str | None = None
    alive: bool = False
    columns: Iterable[str] = ()
    known: SeedSpread = PRIOR


def rank(
    plan: Plan, events: list[Event], by: str | None = None, alive: bool = False, *, columns: Iterable[str] = ()
) -> list[Row]:
    """Rank all cells of the plan: the best first, then those only screened, then those without a value.

    Args:
        plan: Trials and cells.
        events: The events of the ledger.
        by: A metric; None: the first objective, and with several the Pareto front before the rest. What breaks a
            constraint comes after what keeps all.
        alive: Whether the driver of the sweep is running.
        columns: Metrics to give besides those that the sweep names.

    Raises:
        InputError: For a metric that was not measured in this sweep.
    """
    return _ranked(plan, events, Asked(by, alive, columns))


def rank_in(
    storage: Storage, plan: Plan, events: list[Event], by: str | None = None, columns: Iterable[str] = ()
) -> list[Row]:
    """Rank a sweep as `rank` does, with what the storage's other sweeps tell of the spread between training seeds."""
    known = storage_spread(storage, plan)
    return _ranked(plan, events, Asked(by, storage.is_running(plan.spec.name), columns, known))


def _ranked(plan: Plan, events: list[Event], asked: Asked) -> list[Row]:
    by = asked.by
    kind = METRICS[by or plan.spec.metrics[0]]
    shown = [name for name in dict.fromkeys([*plan.spec.columns, *asked.columns]) if name != kind.name]
    limited = [limit.metric for limit in plan.spec.limits]
    cells = _scored(plan, events, {*plan.spec.metrics, *shown, *limited, kind.name})
    for name in (kind.name, *asked.columns):
        _check_measured(plan, METRICS[name], cells.values())
    keys = [
        {samples: planned.cell.with_samples(samples).key for samples in rounds(plan.spec)} for planned in plan.cells
    ]
    results = _Results(cells, keys, trial_statuses(events, asked.alive), kind, shown)
    found = [_row(plan, trials, at, results) for trials in seed_groups(plan) for at in range(len(plan.cells))]
    if len(plan.spec.objective) > 1:
        found = _with_front(plan, found)
    found.sort(key=lambda pair: _order(pair[0], pair[1], front_first=by is None))
    if kind.name == plan.spec.metrics[0] and plan.spec.confirm.best:
        found = _confirmed_first(plan, found, results)
    placed = [(replace(row, rank=at), values) for at, (row, values) in enumerate(found, start=1)]
    return _with_code(plan, _compared(plan, placed, kind, asked.known), events)


def _confirmed_first(
    plan: Plan, found: list[tuple[Row, Measured | None]], results: _Results
) -> list[tuple[Row, Measured | None]]:
    """Add what fresh noise says of the first rows; those that it is known of come in its order, before all others.

    A row that has not been confirmed keeps its place, and with it those behind: its turn is still to come.
    """
    trials = {trial.id: trial for trial in plan.trials}
    axes = plan.spec.post_hoc_axes
    planned_cells = {_post_hoc(axes, planned.params): planned for planned in plan.cells}
    first: list[tuple[Row, Measured | None]] = []
    for row, measured in found[: plan.spec.confirm.best]:
        key = confirming_cell(plan, planned_cells[_post_hoc(axes, row.params)]).key
        cells = {trials[name].recipe.seed: cell for name in row.trials if (cell := results.cells.get((name, key)))}
        if not row.is_scored or len(cells) < len(row.trials):
            break
        if any(cell.metrics[results.by.name] is None for cell in cells.values()):
            break
        again = _measured(cells, results.by)
        error = value_error(again)
        confirmed = replace(row, confirmed=again.value, confirmed_interval=error.interval if error else None)
        first.append((confirmed, measured))
    first.sort(key=lambda pair: results.by.cost(pair[0].confirmed or 0.0))
    return [*first, *found[len(first) :]]


def _post_hoc(axes: list[str], params: dict[str, Any]) -> tuple[str, ...]:
    """The values of the post-hoc axes, by which a row's cell is found."""
    return tuple(str(params[axis]) for axis in axes)


def winner_said(rows: list[Row]) -> str | None:
    """One sentence where fresh noise has changed the winner."""
    confirmed = [row for row in rows if row.confirmed is not None and row.cost is not None]
    if len(confirmed) < 2:
        return None
    first = min(confirmed, key=lambda row: row.cost or 0.0)
    if first is confirmed[0]:
        return None
    return (
        f"fresh noise changes the winner: the first choice, {first.trial} with {first.value:.3f}, has "
        f"{first.confirmed:.3f} there, and {confirmed[0].trial} has {confirmed[0].confirmed:.3f}"
    )


def _with_code(plan: Plan, rows: list[Row], events: list[Event]) -> list[Row]:
    """Mark the rows that other code has trained than the best one of the same kinds, where there is more than one code.

    Trainings of different kinds (modulations, say) use different modules, so that their codes always differ.
    """
    kinds = kinds_of_trials(plan, codes := recorded_codes(events))
    if len({(kinds[trial.id], codes.get(trial.id)) for trial in plan.trials}) == len(set(kinds.values())):
        return rows
    best: dict[Any, str | None] = {}
    for row in rows:
        best.setdefault(kinds[row.trial], codes.get(row.trial))
    return [
        replace(row, other_code=any(codes.get(t) not in (None, best[kinds[t]]) for t in row.trials)) for row in rows
    ]


def noise_floor(events: list[Event]) -> float | None:
    """The score of a perfect model with as many samples as the fully scored cells have."""
    cells = only(events, CellScored)
    return max(cells, key=lambda cell: cell.samples).noise_floor if cells else None


def _check_measured(plan: Plan, kind: Metric, cells: Collection[ScoredCell]) -> None:
    is_asked = kind in measured_metrics(plan.spec.evaluation.metrics)
    if kind.measure and cells and not is_asked and all(cell.metrics[kind.name] is None for cell in cells):
        raise input_error(
            f"{kind.name} was not measured in the sweep {plan.spec.name}",
            given=kind.name,
            hint=f"a sweep of another name with evaluation: {{metrics: [{kind.name}]}} measures it",
        )


def _scored(plan: Plan, events: list[Event], asked: Collection[str]) -> dict[tuple[str, str], ScoredCell]:
    """Each scored cell by its trial and key."""
    cells = by_trial(only(events, CellScored))
    ends = by_trial(only(events, TrialEnded))
    return {
        (trial.id, event.key): ScoredCell(event, metrics_of(trial, event, ends[trial.id], asked))
        for trial in plan.trials
        for event in only(cells[trial.id], CellScored)
    }


def _with_front(plan: Plan, found: list[tuple[Row, Measured | None]]) -> list[tuple[Row, Measured | None]]:
    """Mark the rows on the Pareto front of those that are scored in full and keep the constraints."""
    points: list[list[float] | None] = []
    for row, _ in found:
        means = (row.values or {}).items()
        values = [METRICS[name].cost(value) for name, value in means if value is not None]
        counts = (
            row.status == TrialStatus.COMPLETED
            and row.feasible is not False
            and len(values) == len(plan.spec.objective)
        )
        points.append(values if counts else None)
    return [(replace(row, pareto=best), known) for (row, known), best in zip(found, front(points), strict=True)]


def _order(row: Row, measured: Measured | None, front_first: bool) -> tuple[int, bool, bool, int, float]:
    if row.cost is None or measured is None:
        return (2, False, False, 0, 0.0)
    behind = front_first and row.pareto is False
    if row.status == TrialStatus.COMPLETED:
        return (0, row.feasible is False, behind, 0, row.cost)
    return (1, False, False, -measured.samples, row.cost)


def _row(plan: Plan, trials: list[Trial], at: int, results: _Results) -> tuple[Row, Measured | None]:
    """The row of a point and the cell at a position, from its results with the most samples, and its measurements."""
    by, spec, planned = results.by, plan.spec, plan.cells[at]
    known: list[ScoredCell | None] = []
    for samples in reversed(rounds(spec)):
        known = [results.cells.get((trial.id, results.keys[at][samples])) for trial in trials]
        if any(known):
            break
    pairs = zip(trials, known, strict=True)
    cells = {trial.id: cell for trial, cell in pairs if cell and cell.metrics[by.name] is not None}
    complete = len(cells) == len(trials)
    status: str = TrialStatus.worst(results.statuses[trial.id] for trial in trials)
    if status == TrialStatus.COMPLETED and not complete:
        if None in known:
            status = TrialStatus.PENDING
        elif any(cell and cell.event.value is None for cell in known):
            status = TrialStatus.DIVERGED  # else the metric alone is not known, as in a ledger of an earlier version
    elif status == TrialStatus.COMPLETED and samples < spec.evaluation.samples:
        status = SCREENED
    measured = None
    if complete:
        measured = _measured({trial.recipe.seed: cells[trial.id] for trial in trials}, by)
    error = value_error(measured) if measured else None
    distance = next((cell.event.metric for cell in known if cell), None)
    drifts = [cell.event.magnitude_drift for cell in cells.values() if cell.event.magnitude_drift is not None]
    row = Row(
        rank=0,
        trial=min(cells, key=lambda trial: by.cost(cells[trial].metrics[by.name] or 0.0)) if cells else trials[0].id,
        status=status,
        params={**{name: value for name, value in trials[0].params.items() if name != "seed"}, **planned.params},
        metric=distance if by.name == "frechet" else by.name,
        value=measured.value if measured else None,
        stderr=error.error if error else None,
        freedom=round(error.freedom, 2) if error else None,
        interval=error.interval if error else None,
        seeds=len(trials),
        trials=[trial.id for trial in trials],
        tied_with_best=False,
        magnitude_drift=mean_of(drifts) if drifts else None,
        values=_means(cells.values(), spec.metrics) if len(spec.objective) > 1 else None,
        feasible=_is_feasible(spec, cells.values()) if spec.limits else None,
        metrics=_means(cells.values(), results.columns) if results.columns else None,
    )
    return row, measured


def _is_feasible(spec: SweepSpec, cells: Collection[ScoredCell]) -> bool:
    """Whether the means over seeds keep all constraints."""
    return keeps_all(_means(cells, [limit.metric for limit in spec.limits]), spec.limits)


def _means(cells: Collection[ScoredCell], metrics: Iterable[str]) -> dict[str, float | None]:
    """Each metric's mean over seeds; None where a seed lacks it."""
    means: dict[str, float | None] = {}
    for metric in metrics:
        values = [value for cell in cells if (value := cell.metrics[metric]) is not None]
        means[metric] = mean_of(values) if values and len(values) == len(cells) else None
    return means


def _measured(cells: dict[int, ScoredCell], by: Metric) -> Measured:
    events = [cell.event for cell in cells.values()]
    folds = [event.left_out for event in events if by.has_folds and event.left_out]
    errors = [event.stderr for event in events if by.has_folds and event.stderr is not None]
    return Measured(
        values={seed: float(cell.metrics[by.name] or 0.0) for seed, cell in cells.items()},
        left_out=[mean_of(same) for same in zip(*folds, strict=True)] if len(folds) == len(events) else None,
        sampling_error=mean_of(errors) if len(errors) == len(events) else None,
        samples=events[0].samples,
        larger_is_better=by.larger_is_better,
    )


def _compared(plan: Plan, found: list[tuple[Row, Measured | None]], by: Metric, known: SeedSpread | None) -> list[Row]:
    """Mark the rows that cannot be told from the first, among those that are scored in full."""
    full = [(row, values) for row, values in found if row.status == TrialStatus.COMPLETED and values]
    rows = [row for row, _ in found]
    if not full or full[0][0] is not rows[0]:
        return rows
    spread = pooled(_by_cell(plan, full), known if by.has_folds else None, "sweep")
    (first, best), *others = full
    differences = [difference(values, best, row.trials == first.trials, spread) for row, values in others]
    tied, level = ties(differences)
    marked: dict[int, dict[str, Any]] = {}
    for (row, values), between, is_tied in zip(others, differences, tied, strict=True):
        if between:
            text = what_would_tell_apart(between, values.samples, level) if is_tied else None
            gap = {"gap_error": between.total.error, "gap_freedom": between.total.freedom}
            marked[row.rank] = {"tied_with_best": is_tied, "to_tell_apart": text, **gap}
    common: dict[str, Any] = {"seed_spread": spread.share, "seed_spread_from": spread.source} if spread else {}
    return [replace(row, **marked.get(row.rank, {}), **common) for row in rows]


def _by_cell(plan: Plan, found: Iterable[tuple[Row, Measured]]) -> list[dict[Point, dict[int, float]]]:
    """For each cell the values of the trained points by seed."""
    cells: dict[tuple[str, ...], dict[Point, dict[int, float]]] = {}
    axes = plan.spec.post_hoc_axes
    for row, measured in found:
        cell = _post_hoc(axes, row.params)
        cells.setdefault(cell, {})[tuple(row.trials)] = measured.values
    return list(cells.values())
