"""Write the report of a sweep: one HTML file that needs no network. Every number is from the ledger."""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mpdit.errors import input_error
from mpdit.run_folder import PICTURES
from pipelines.scoring.metrics.registry import METRICS, Metric
from sweeps.advice.advise import in_words
from sweeps.advice.registry import Situation
from sweeps.planning.plan import Plan, PlannedCell, Trial
from sweeps.report.class_distances import by_class
from sweeps.report.figures import (
    SweepData,
    curves,
    interval,
    label,
    learning,
    magnitudes,
    maps,
    parallel,
    short,
    split_axis,
    sweep_data,
)
from sweeps.report.memorising import memorising
from sweeps.report.pareto_front import front, front_answer, front_figure, objectives, written, written_name
from sweeps.report.svg import figure, in_column
from sweeps.results.importance import Importance, distinct, importances, local_importances
from sweeps.results.ranking import Row, noise_floor, winner_said
from sweeps.results.seed_spread import spread_said
from sweeps.spec.paths import value_text
from sweeps.storage.events import CellScored, Event, Progress, SweepStarted, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import by_trial, only
from sweeps.storage.trial_status import TrialStatus

TEMPLATE = Path(__file__).with_name("report.html")
MOST_LINES = 500  # of a table: a page of more opens slowly, and the commands below it list them all
SHOWN = 15  # rows of the ranking that are not folded away


def write_report(storage: Storage, plan: Plan, rows: list[Row], events: list[Event], output: Path) -> Path:
    """Write the report of a sweep's ranking and ledger to `output`. Raises InputError when there are no events."""
    if not any(isinstance(event, (Progress, CellScored)) for event in events):
        raise input_error(f"nothing of {plan.spec.name} has been reported yet", hint=f"mpdit status {plan.spec.name}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(storage, plan, rows, events), encoding="utf-8")
    return output


def render(storage: Storage, plan: Plan, rows: list[Row], events: list[Event]) -> str:
    """The report's HTML."""
    import jinja2

    data = sweep_data(plan, rows, events)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"figure": figure, "in_column": in_column, "short": short}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    axes = [axis for axis in plan.spec.axes if axis != "seed"]
    spent = costs(data)
    found = (front_figure(data), curves(data), by_class(data, _keys(data, 2)), magnitudes(data), learning(data))
    listed = [row for row in rows if row.value is not None or not row.is_open]
    return page.render(
        name=plan.spec.name,
        when=_span(events),
        question=question(data),
        answer=answer(data),
        advice=in_words(Situation(plan, rows, events, str(storage.spec(plan.spec.name)))),
        memorising=memorising(data, next(iter(_keys(data, 1)), "")),
        facts=_facts(data),
        axes=axes,
        metric=data.metric,
        better="Higher is better. " if data.kind.larger_is_better else "Lower is better. ",
        others=[name for name, _ in _others(data)],
        front=" and ".join(objectives(data)) if front(data) else "",
        ranking=[_line(data, row, axes) for row in listed[:MOST_LINES]],
        unlisted=max(0, len(listed) - MOST_LINES),
        to_come=sum(row.value is None and row.is_open for row in rows),
        shown=SHOWN,
        maps=maps(data),
        figures=[one for one in found if one],
        importances=_importances(plan, rows),
        parallel=parallel(data),
        samples=samples(storage, data),
        trials=spent[:MOST_LINES],
        more_trials=max(0, len(spent) - MOST_LINES),
        cost=_total(spent, events),
        outcomes=Counter(line.outcome for line in spent),
        provenance=_provenance(data, spent),
        spec=yaml.safe_dump(plan.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _importances(plan: Plan, rows: list[Row]) -> list[tuple[str, float, str, str]]:
    """For each axis its share overall, that with its interval, and that around the best cell, as text."""
    overall, local = importances(plan, rows), local_importances(rows)

    def said(found: Importance | None) -> str:
        if found is None:
            return "–"
        return f"{found.share:.2f}" + ("" if found.low is None else f" ({found.low:.2f}–{found.high:.2f})")

    axes = dict.fromkeys([*overall, *local])
    return [
        (axis, (overall.get(axis) or local[axis]).share, said(overall.get(axis)), said(local.get(axis)))
        for axis in axes
    ]


def question(data: SweepData) -> str:
    """The question of the sweep in one sentence."""
    recipe, spec = data.plan.spec.recipe, data.plan.spec
    asked = [f"{axis} ({len(values)} values)" for axis in spec.axes if len(values := _values(data, axis)) > 1]
    what = _listed(asked) or "this recipe"
    model = "" if "model.size" in spec.axes else f"a {recipe.model.size}/{recipe.model.patch} model "
    kinds = [METRICS[name] for name in spec.metrics] if len(spec.objective) > 1 else [data.kind]
    names = [data.metric if kind.has_folds else kind.label for kind in kinds]
    aim = _listed([f"the {_superlative(kind)} {name}" for kind, name in zip(kinds, names, strict=True)])
    steps = "" if "steps" in spec.axes else f" after {recipe.steps:,} steps of {recipe.batch} images"
    return f"Which {what} give {model}trained on {recipe.data.title} {aim}{steps}?"


def _superlative(kind: Metric) -> str:
    words = ("most", "fewest") if kind.is_count else ("highest", "lowest")
    return words[0 if kind.larger_is_better else 1]


def _values(data: SweepData, axis: str) -> list[Any]:
    return sorted({trial.recipe.seed for trial in data.plan.trials}) if axis == "seed" else distinct(data.rows, axis)


def answer(data: SweepData) -> list[str]:
    """The answer in two sentences: the best with its interval, and what cannot be told from it."""
    if not data.scored:
        return ["No cell has been scored in full yet.", "The figures below show what has been reported so far."]
    if front(data):
        return front_answer(data)
    best = data.scored[0]
    around = f" ± {figure(interval(best))} (95 % interval)" if best.stderr else ", of unknown error"
    what = label(best.params, [axis for axis in best.params if len(distinct(data.rows, axis)) > 1])
    seeds = f"the mean of {best.seeds} training seeds" if best.seeds > 1 else "one training seed"
    first = f"Best is {what}, with {data.metric} {figure(best.value)}{around}, {seeds}."
    tied = sum(row.tied_with_best for row in data.rows)
    others = len(data.scored) - 1
    if tied:
        second = f"{tied} of the {others} other cells cannot be told from it at these errors"
        second += ": more seeds would tell" if best.seeds == 1 else ": more seeds or samples would tell"
    else:
        second = f"It is better than each of the {others} other cells by more than the error of their difference"
    if best.confirmed is not None:
        within = f" ± {figure(best.confirmed_interval)}" if best.confirmed_interval else ""
        first += f" On fresh noise, which did not choose it, it has {figure(best.confirmed)}{within}."
    if changed := winner_said(data.rows):
        first += f" {changed[0].upper()}{changed[1:]}."
    if len(data.plan.trials) > 1 and best.seed_spread is not None:
        second += f"; {spread_said(best.seed_spread, best.seed_spread_from or '')}"
    return [first, second + "."]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _facts(data: SweepData) -> list[tuple[str, str]]:
    """The numbers at the top of the report, each with its name."""
    floor, best = noise_floor(data.events), data.scored[0] if data.scored else None
    found = [("best " + data.metric, figure(best.value) if best else "–")]
    if floor is not None and data.metric.startswith(("fd_", "fid_")):
        found.append(("noise floor: real images would score", figure(floor)))
    if best:
        found.append(("its magnitude drift", figure(best.magnitude_drift)))
    if front(data):
        found.append(("cells on the Pareto front", str(len(front(data)))))
    found.append(("trials", f"{sum(bool(data.progress.get(t.id)) for t in data.plan.trials)}"))
    found.append(("cells scored", f"{len(data.scored)} of {len(data.rows)}"))
    return found


def _others(data: SweepData) -> list[tuple[str, str]]:
    """The metrics that the ranking has no column of yet: as they are written, and their names."""
    known = (data.metric, "magnitude_drift")
    objectives_ = data.plan.spec.metrics if len(data.plan.spec.objective) > 1 else []
    shown = dict.fromkeys([*objectives_, *(data.rows[0].metrics or {} if data.rows else {})])
    pairs = [(written_name(data, metric), metric) for metric in shown]
    return [(name, metric) for name, metric in pairs if name not in known and metric not in known]


def _line(data: SweepData, row: Row, axes: Sequence[str]) -> dict[str, Any]:
    values = [value_text(row.params.get(axis, "–")) for axis in axes]
    others = [written(row, metric) for _, metric in _others(data)]
    mark = "!" if row.feasible is False else "*" if row.pareto else "=" if row.tied_with_best else ""
    mark += "~" if row.other_code else ""
    interval_ = interval(row) if row.stderr else None
    return {
        **row.as_dict(),
        "other_code": row.other_code,
        "values": values,
        "others": others,
        "mark": mark,
        "interval": interval_,
    }


@dataclass(frozen=True)
class TrialCost:
    """What one trial cost; None where the ledger does not say. reused: the other sweep that it was trained in."""

    trial: str
    settings: str
    outcome: str
    reason: str
    steps: str
    training: float | None
    scoring: float | None
    gpu_seconds: float
    watt_hours: float | None
    device: str
    reused: str


def costs(data: SweepData) -> list[TrialCost]:
    """The cost of each trial, best first."""
    events_of = by_trial(data.events)
    return [_cost(data, trial, events_of[trial.id]) for trial in data.trials]


def _cost(data: SweepData, trial: Trial, own: Sequence[Event]) -> TrialCost:
    ends = only(own, TrialEnded)
    trained = [end.training_seconds for end in ends if end.training_seconds is not None]
    scored = [cell.scoring_seconds for cell in only(own, CellScored) if cell.scoring_seconds is not None]
    energy = next((joules for event in reversed(own) if (joules := _energy_joules(event)) is not None), None)
    machine: dict[str, Any] = next((end.machine for end in reversed(ends) if end.machine), {})
    training, scoring = trained[-1] if trained else None, sum(scored) if scored else None
    asked = data.plan.spec.resources.gpus_per_trial
    gpus = (1.0 if asked == "auto" else float(asked)) if machine.get("device") == "cuda" else 0.0
    step = max((report.step for report in data.progress.get(trial.id, [])), default=0)
    return TrialCost(
        trial=trial.id,
        settings=label(trial.params, data.plan.spec.training_axes),
        outcome=ends[-1].outcome if ends else TrialStatus.RUNNING if own else TrialStatus.PENDING,
        reason=(ends[-1].reason or "") if ends else "",
        steps=f"{step:,} of {trial.recipe.steps:,}",
        training=training,
        scoring=scoring,
        gpu_seconds=gpus * ((training or 0.0) + (scoring or 0.0)),
        watt_hours=None if energy is None else energy / 3600,  # counted over all the starts of its training
        device=str(machine.get("device_name", "")),
        reused=next((event.origin for event in own if event.origin), ""),
    )


def _energy_joules(event: Event) -> float | None:
    """The energy in joules that the training had used when this event was reported."""
    if isinstance(event, Progress):
        return event.metrics.get("energy_joules")
    return event.energy_joules if isinstance(event, TrialEnded) else None


def _total(trials: Sequence[TrialCost], events: Sequence[Event]) -> list[tuple[str, str]]:
    """The cost of the sweep as a whole; trials of other sweeps cost it nothing."""
    own = [line for line in trials if not line.reused]
    energy = [line.watt_hours for line in own if line.watt_hours is not None]
    training, scoring = (sum(getattr(line, part) or 0.0 for line in own) for part in ("training", "scoring"))
    return [
        ("wall time", _hours(_wall(events))),
        ("training, all trials", _hours(training)),
        ("scoring, all trials", _hours(scoring)),
        ("GPU-hours", figure(sum(line.gpu_seconds for line in own) / 3600)),
        ("energy", _energy(energy, len([line for line in own if line.training is not None]))),
    ]


def _energy(watt_hours: Sequence[float], trained: int) -> str:
    if not watt_hours:
        return "not told by the driver"
    part = f" of {len(watt_hours)} of {trained} trials" if len(watt_hours) < trained else ""
    return f"{figure(sum(watt_hours) / 1000)} kWh{part}"


def _wall(events: Sequence[Event]) -> float:
    """Seconds in which a driver ran: from each start to the last event before the next start."""
    total, began, last = 0.0, None, None
    for event in events:
        if event.origin is not None:
            continue
        now = event.moment
        if isinstance(event, SweepStarted):
            total += (last - began).total_seconds() if began and last else 0.0
            began = now
        last = now
    return total + ((last - began).total_seconds() if began and last else 0.0)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def samples(storage: Storage, data: SweepData) -> list[dict[str, str]]:
    """The sample pictures of the best cell and of the baseline that exist, drawn from the same noise, as data URIs.

    The baseline is the first value of the first training axis that is no number (or the first trial) at its own best.
    """
    if not data.scored:
        return []
    best, split = data.scored[0], split_axis(data)
    first = data.plan.trials[0]
    same = [row for row in data.scored if row.params[split] == first.params[split]] if split else []
    base = (same or [row for row in data.scored if first.id in row.trials] or [best])[0]
    found = [("best", best)] + ([("baseline", base)] if base != best else [])
    first_named = f"the best with the first {short(split)} of the sweep file" if split else "the first trial's best"
    axes = [axis for axis in best.params if len(distinct(data.rows, axis)) > 1]
    pictures = [(what, row, _picture(storage, data, row)) for what, row in found]
    return [
        {
            "what": what,
            "note": f" ({first_named})" if what == "baseline" else "",
            "settings": label(row.params, axes),
            "value": f"{data.metric} {figure(row.value)}",
            "address": address,
            "command": f"mpdit sample {row.trial} --ema {row.params.get('ema.sigma_rel', 0)} -o {what}.png",
        }
        for what, row, address in pictures
        if address
    ]


def _picture(storage: Storage, data: SweepData, row: Row) -> str | None:
    key = planned(data.plan, row).cell.key
    cells = [cell for cell in only(data.events, CellScored) if cell.trial == row.trial and cell.key == key]
    name = cells[-1].picture if cells else None
    path = storage.trial(row.trial) / PICTURES / (name or "none")
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def _keys(data: SweepData, count: int) -> list[str]:
    """The keys of the first cells that were scored in full."""
    return [planned(data.plan, row).cell.key for row in data.scored[:count]]


def planned(plan: Plan, row: Row) -> PlannedCell:
    """The planned cell that a row is of."""
    return next(cell for cell in plan.cells if cell.params.items() <= row.params.items())


def _provenance(data: SweepData, spent: Sequence[TrialCost]) -> list[tuple[str, str]]:
    """The provenance of the best cell's value."""
    best = data.scored[0] if data.scored else None
    key = planned(data.plan, best).cell.key if best else ""
    cells = only(data.events, CellScored)
    cell = next((c for c in cells if best and (c.trial, c.key) == (best.trial, key)), None)
    facts = {**cell.params, **cell.provenance} if cell else {}
    starts = [start.sweep for start in only(data.events, SweepStarted)]
    devices = dict.fromkeys(cost.device for cost in spent if cost.device)
    found = [("sweep", starts[0] if starts else ""), ("device", ", ".join(devices)), *facts.items()]
    return [(name, str(value)) for name, value in found if value not in ("", None, [])]


def _span(events: Sequence[Event]) -> str:
    first, last = (event.moment for event in (events[0], events[-1]))
    days = [moment.strftime("%Y-%m-%d %H:%M") for moment in (first, last)]
    return f"{days[0]} to {days[1]} UTC"
