"""From the ledger, the cells of a sweep, best first, seeds merged, with errors."""

import csv
import io
import math
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from sweeps.ledger import Event, trial_statuses
from sweeps.plan import Plan, PlannedCell, Trial

Z = 1.96  # two values are tied when they differ by less than this many standard errors of their difference
METRICS = ("frechet", "magnitude_drift")
WORST_FIRST = ("failed", "out_of_memory", "interrupted", "diverged", "stopped", "running", "pending", "completed")


@dataclass(frozen=True)
class Row:
    """One point of the sweep: every axis but the seed. `trial` is the seed with the lowest value."""

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

    def as_dict(self) -> dict[str, Any]:
        """As `rank --json` shows it."""
        return asdict(self)


def rank(plan: Plan, events: list[Event], by: str = "frechet", alive: bool = False) -> list[Row]:
    """All cells of the plan, best first; those without a value last, in the plan's order."""
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in plan.trials:
        groups.setdefault(tuple((k, v) for k, v in trial.params.items() if k != "seed"), []).append(trial)
    statuses = trial_statuses(events, alive)
    scored = {(line["trial"], line["cell"]): line for line in events if line["event"] == "cell"}
    rows = [
        _row(
            dict(params), trials, planned, [scored.get((trial.id, planned.cell.key)) for trial in trials], statuses, by
        )
        for params, trials in groups.items()
        for planned in plan.cells
    ]
    ordered = sorted(rows, key=lambda row: math.inf if row.value is None else row.value)
    return [_placed(row, number, ordered[0]) for number, row in enumerate(ordered, start=1)]


def noise_floor(events: list[Event]) -> float | None:
    """What a perfect model would score, as the newest scored cell tells it."""
    return next((line["noise_floor"] for line in reversed(events) if line["event"] == "cell"), None)


def as_csv(rows: list[Row]) -> str:
    """The rows with one column an axis, under a header."""
    text = io.StringIO()
    flat = [{**row.params, **{k: v for k, v in row.as_dict().items() if k != "params"}} for row in rows]
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**line, "trials": " ".join(line["trials"])} for line in flat)
    return text.getvalue()


def _row(
    params: dict[str, Any],
    trials: list[Trial],
    planned: PlannedCell,
    results: list[Event | None],
    statuses: dict[str, str],
    by: str,
) -> Row:
    key = "value" if by == "frechet" else by
    measured = {
        trial.id: line for trial, line in zip(trials, results, strict=True) if line and line.get(key) is not None
    }
    complete = len(measured) == len(trials)
    status = min((statuses[trial.id] for trial in trials), key=WORST_FIRST.index)
    if status == "completed" and not complete:
        status = "pending" if any(line is None for line in results) else "diverged"
    values = {trial: float(line[key]) for trial, line in measured.items()}
    error = None
    if complete:
        single = next(iter(measured.values())).get("stderr") if by == "frechet" else None
        error = stdev(values.values()) / math.sqrt(len(values)) if len(values) > 1 else single
    drifts = [line["magnitude_drift"] for line in measured.values() if line["magnitude_drift"] is not None]
    return Row(
        rank=0,
        trial=min(values, key=values.__getitem__) if values else trials[0].id,
        status=status,
        params={**params, **planned.params},
        metric=next((line["metric"] for line in results if line), None) if by == "frechet" else by,
        value=mean(values.values()) if complete else None,
        stderr=error,
        seeds=len(trials),
        trials=[trial.id for trial in trials],
        tied_with_best=False,
        magnitude_drift=mean(drifts) if drifts else None,
    )


def _placed(row: Row, number: int, best: Row) -> Row:
    tied = False
    if number > 1 and row.value is not None and best.value is not None and row.stderr and best.stderr:
        tied = row.value - best.value <= Z * math.hypot(row.stderr, best.stderr)
    return Row(**{**asdict(row), "rank": number, "tied_with_best": tied})
