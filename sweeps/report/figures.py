"""Make the figures of a report from the events of the ledger, drawn and as tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.scoring.metrics.registry import METRICS, Metric
from sweeps.planning.plan import Plan, Trial
from sweeps.report.ema_width_plots import WIDTH, grid, lines
from sweeps.report.svg import Chart, Series, Upright, figure, line_chart, parallel_coordinates, swatch
from sweeps.results.importance import distinct, numeric
from sweeps.results.ranking import Row
from sweeps.spec.paths import short_name, value_text
from sweeps.storage.events import Event, Progress
from sweeps.storage.ledger import only

MOST_LINES = 12  # more make a picture unreadable
MOST_PANELS = 6
MOST_STRANDS = 500  # more lie on each other
MOST_ROWS = 50  # of a table of numbers
FEW_MARKS = 8  # so many swept values are written along an axis themselves
LEAST_DRIFT = 0.1  # what an axis of magnitude drift shows at least: less is none
SEVERAL = 3.0  # standard deviations around a magnitude, as in Figure 5 of arXiv 2505.19122


@dataclass(frozen=True)
class Table:
    """A table of numbers: a header, and lines whose first entry is the name."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """One figure: drawings side by side, a legend of their colours, a caption and the table of their numbers."""

    name: str
    title: str
    drawings: Sequence[tuple[str, str]]  # (title, SVG)
    legend: Sequence[tuple[str, str]]  # (class of the colour, label)
    caption: str
    table: Table
    made_by: str  # the command that shows the numbers


@dataclass(frozen=True)
class Map:
    """The best value for each pair of two axes: a table whose cells are coloured from 1 (best) to 0 (worst)."""

    title: str
    across: str
    down: str
    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[tuple[str, float, bool] | None]]]  # (value, good, cannot be told from best)


@dataclass(frozen=True)
class SweepData:
    """What a report is made from: the plan, the ranking, the events, and each trial's progress in order of step."""

    plan: Plan
    rows: list[Row]
    events: list[Event]
    progress: dict[str, list[Progress]] = field(default_factory=dict)

    @property
    def scored(self) -> list[Row]:
        """The rows that were scored in full."""
        return [row for row in self.rows if row.is_scored]

    @property
    def trials(self) -> list[Trial]:
        """The trials in order of their best row; those without any last."""
        order = {trial: at for at, row in reversed(list(enumerate(self.rows))) for trial in row.trials}
        return sorted(self.plan.trials, key=lambda trial: order.get(trial.id, len(self.rows)))

    @property
    def metric(self) -> str:
        """The name of the values, as fd_digits_2k."""
        return next((row.metric for row in self.rows if row.metric), "value")

    @property
    def kind(self) -> Metric:
        """The metric that the values are of."""
        return next((row.kind for row in self.rows if row.metric), METRICS["frechet"])


def sweep_data(plan: Plan, rows: list[Row], events: list[Event]) -> SweepData:
    """Collect what the report of a sweep is made from."""
    progress: dict[str, list[Progress]] = {}
    for report in only(events, Progress):
        progress.setdefault(report.trial, []).append(report)
    return SweepData(
        plan, rows, events, {trial: sorted(same, key=lambda p: p.step) for trial, same in progress.items()}
    )


def label(params: dict[str, Any], axes: Sequence[str]) -> str:
    """The values of some axes as text: `rotation+gate, lr 0.04`."""
    said = [
        str(params[axis]) if isinstance(params[axis], str) else f"{short(axis)} {value_text(params[axis])}"
        for axis in axes
        if axis in params
    ]
    return ", ".join(said) or "the recipe"


def short(axis: str) -> str:
    """An axis's last name; the EMA width by its letter."""
    return "σ_rel" if axis == WIDTH else short_name(axis)


def split_axis(data: SweepData) -> str | None:
    """The axis that gets a panel for each value: the first that is not a number, such as the modulation."""
    training = [axis for axis in data.plan.spec.training_axes if axis != "seed"]
    values = {axis: distinct(data.rows, axis) for axis in training}
    return next((axis for axis in training if axis not in numeric(values) and len(values[axis]) > 1), None)


def interval(row: Row) -> float:
    """Half the 95 % interval of a row's value; 0 where no error is known."""
    return row.interval or 0.0


def curves(data: SweepData) -> Figure | None:
    """Distance against EMA width: Figure 4 of arXiv 2312.02696."""
    rows = data.scored
    if len(distinct(rows, WIDTH)) < 2:
        return None
    others = [axis for axis in rows[0].params if axis != WIDTH and len(distinct(rows, axis)) > 1]
    found = {label(same[0].params, others): same for same in lines(rows, others).values()}
    series = []
    for name, same in list(found.items())[:MOST_LINES]:
        values = [row.value or 0.0 for row in same]
        band = [(v - interval(row), v + interval(row)) for v, row in zip(values, same, strict=True)]
        points = [(float(row.params[WIDTH]), v) for row, v in zip(same, values, strict=True)]
        series.append(Series(name, points, band, values.index(min(values, key=rows[0].kind.cost))))
    left = f" The best {MOST_LINES} of {len(found)} are drawn." if len(found) > MOST_LINES else ""
    left += f" The table has the best {MOST_ROWS}." if len(found) > MOST_ROWS else ""
    extreme = "highest" if rows[0].kind.larger_is_better else "lowest"
    says = f"{len(series)} curves; the {extreme} point is {figure(rows[0].value)} at {rows[0].params[WIDTH]}"
    log = min(row.value or 0.0 for row in rows) > 0
    widths = distinct(rows, WIDTH)
    marks = widths if len(widths) <= FEW_MARKS else ()
    across = "EMA width σ_rel (0: raw weights)"
    chart = Chart(f"{data.metric} against EMA width", says, across, data.metric, log_y=log, marks=marks)
    table = Table(
        ["", *[f"σ_rel {width:g}" for width in widths]],
        [[name, *_by_width(same, widths)] for name, same in list(found.items())[:MOST_ROWS]],
    )
    return Figure(
        "widths",
        "Distance against EMA width",
        [("", line_chart(chart, series))],
        [(swatch(at), one.label) for at, one in enumerate(series)],
        f"Each curve is one training read at every width; the band is its 95 % interval, the star its {extreme}.{left}",
        table,
        f"mpdit rank {data.plan.spec.name} --csv",
    )


def _by_width(rows: Sequence[Row], widths: Sequence[float]) -> list[str]:
    known = {row.params[WIDTH]: row for row in rows}
    return [f"{figure(known[w].value)} ± {figure(interval(known[w]))}" if w in known else "–" for w in widths]


def maps(data: SweepData) -> list[Map]:
    """Learning rate (or the numeric training axis with most values) × EMA width, one map for each modulation."""
    rows = data.scored
    axes = [axis for axis in data.plan.spec.training_axes if axis != "seed" and len(distinct(rows, axis)) > 1]
    numbers = [axis for axis in axes if axis in numeric({axis: distinct(rows, axis)})]
    if len(distinct(rows, WIDTH)) < 2 or not (numbers or axes):
        return []
    down = next((a for a in numbers if a == "optimizer.lr"), max(numbers or axes, key=lambda a: len(distinct(rows, a))))
    split = split_axis(data)
    panels = distinct(rows, split) if split and split != down else [None]
    worth = [row.value for row in rows if row.value is not None]
    return [_map(rows, down, split, value, (min(worth), max(worth))) for value in panels[:MOST_PANELS]]


def _map(rows: list[Row], down: str, split: str | None, value: Any, span: tuple[float, float]) -> Map:
    same = [row for row in rows if value is None or (split and row.params[split] == value)]
    values, widths, table = grid(same, down)
    tied = {(row.params[down], float(row.params[WIDTH])) for row in same if row.tied_with_best or row.rank == 1}
    filled = [
        (
            str(at),
            [
                None if found is None else (figure(found), _goodness(rows[0].kind, found, span), (at, width) in tied)
                for width, found in zip(widths, line, strict=True)
            ],
        )
        for at, line in zip(values, table, strict=True)
    ]
    return Map(str(value or ""), short(WIDTH), short(down), [f"{width:g}" for width in widths], filled)


def _goodness(kind: Metric, value: float, span: tuple[float, float]) -> float:
    """1 for the best value of the span, 0 for the worst."""
    low, high = span
    if low == high:
        return 1.0
    place = math.log(value / low) / math.log(high / low) if low > 0 else (value - low) / (high - low)
    return place if kind.larger_is_better else 1 - place


def magnitudes(data: SweepData) -> Figure | None:
    """Magnitude of the residual stream per block, at the start and the end of training, ± 3 standard deviations."""
    chosen: dict[str, tuple[Trial, Progress, Progress]] = {}
    split = split_axis(data)
    for trial in data.trials:  # best first
        name, reports = str(trial.params[split]) if split else trial.id, data.progress.get(trial.id, [])
        first = next((report for report in reports if _per_block(report)), None)
        last = next((report for report in reversed(reports) if _per_block(report)), None)
        if first and last and (name not in chosen):
            chosen[name] = (trial, first, last)
        if len(chosen) == MOST_PANELS:
            break
    panels = list(chosen.items())[:MOST_PANELS]
    if not panels:
        return None
    ends = [(f"{name}: step {report.step}", _per_block(report)) for name, pair in panels for report in pair[1:]]
    seen = [y for _, pair in panels for _, y in _inputs_series(pair[2]).points]
    low = min([mean - SEVERAL * std for _, blocks in ends for mean, std in blocks] + seen)
    high = max([mean + SEVERAL * std for _, blocks in ends for mean, std in blocks] + seen)
    drawings = []
    for name, (_, first, last) in panels:
        series = [_per_block_series(first), _per_block_series(last), _inputs_series(last)]
        says = "; ".join(f"{one.label}: {', '.join(figure(y) for _, y in one.points)}" for one in series)
        marks = range(0, len(_per_block(last)), math.ceil(len(_per_block(last)) / FEW_MARKS))
        y = min(low, 0.9), max(high, 1.1)
        chart = Chart(name, says, "block", "token magnitude", y=y, marks=marks, size=(340, 240))
        drawings.append((f"{name}, {label(chosen[name][0].params, _others(data, split))}", line_chart(chart, series)))
    most = max(len(blocks) for _, blocks in ends)
    table = Table(
        ["", *[f"block {number}" for number in range(most)]],
        [[name, *[f"{figure(m)} ± {figure(SEVERAL * s)}" for m, s in blocks]] for name, blocks in ends],
    )
    ended = all(last.step == trial.recipe.steps for _, (trial, _, last) in panels)
    start = "before the first step" if panels[0][1][1].step == 0 else f"at step {panels[0][1][1].step}"
    return Figure(
        "magnitude",
        "Magnitude per block",
        drawings,
        [
            (swatch(0), f"stream, start of training ({start})"),
            (swatch(1), "stream, end of training" if ended else "stream, the latest report"),
            (swatch(2), "what attention (at the block's mark) and MLP (half-way) take in, modulated, at that step"),
        ],
        "Mean over tokens of the root mean square of the residual stream after each block, and of what each sub-layer "
        "takes in, on one fixed noised batch; bands are ± 3 standard deviations over its tokens. 1 is magnitude kept."
        + (" Residual sums are brought back to it, so that the stream stays there." if _flat(ends) else "")
        + (f" For each value of {short(split)}, its best trial." if split else ""),
        table,
        "the magnitude/block… metrics of the ledger's progress lines; mpdit ui shows all steps",
    )


def _others(data: SweepData, split: str | None) -> list[str]:
    return [axis for axis in data.plan.spec.training_axes if axis not in (split, "seed")]


def _per_block(report: Progress) -> list[tuple[float, float]]:
    """(mean, standard deviation) of the stream after each block, up to the first that is not finite."""
    found: list[tuple[float, float]] = []
    while (mean := report.metrics.get(f"{(name := f'magnitude/block{len(found)}/mlp/residual')}/mean")) is not None:
        found.append((mean, report.metrics.get(f"{name}/std") or 0.0))
    return found


def _per_block_series(report: Progress) -> Series:
    blocks = _per_block(report)
    points = [(float(number), mean) for number, (mean, _) in enumerate(blocks)]
    return Series(f"step {report.step}", points, [(m - SEVERAL * s, m + SEVERAL * s) for m, s in blocks])


def _inputs_series(report: Progress) -> Series:
    """The magnitude of the inputs of attention and MLP, block by block, up to the first that is not finite."""
    points: list[tuple[float, float]] = []
    while True:
        layer = "mlp" if len(points) % 2 else "attention"
        mean = report.metrics.get(f"magnitude/block{len(points) // 2}/{layer}/input/mean")
        if mean is None:
            return Series(f"inputs at step {report.step}", points)
        points.append((len(points) / 2, mean))


def _flat(ends: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> bool:
    return all(abs(mean - 1) < 0.01 for _, blocks in ends for mean, _ in blocks)


def learning(data: SweepData) -> Figure | None:
    """Loss and magnitude drift over the steps of each trial."""
    trials = [trial for trial in data.trials if data.progress.get(trial.id)][:MOST_LINES]
    panels = (("loss", "loss", True), ("magnitude_drift", "magnitude drift, largest |ln M|", False))
    named = {trial.id: label(trial.params, data.plan.spec.training_axes) for trial in trials}
    drawings, table = [], []
    for metric, up, log in panels:
        found = {trial.id: _over_steps(data, trial, metric) for trial in trials}
        series = [Series(named[trial], points) for trial, points in found.items()]
        if not any(one.points for one in series):
            continue
        says = "; ".join(f"{one.label}: {figure(one.points[-1][1])} at the end" for one in series if one.points)
        values = [y for one in series for _, y in one.points]
        log, y = log and min(values) > 0, None if log else (0.0, max([LEAST_DRIFT, *values]))
        drawings.append((up, line_chart(Chart(up, says, "step", up, log_y=log, y=y, size=(480, 280)), series)))
        table += [[f"{named[t]}: {metric}", *_firsts_and_last(points)] for t, points in found.items() if points]
    if not drawings:
        return None
    left = (
        f" The best {MOST_LINES} of {len(data.progress)} trials are drawn." if len(data.progress) > MOST_LINES else ""
    )
    return Figure(
        "learning",
        "Learning curves",
        drawings,
        [(swatch(at), named[trial.id]) for at, trial in enumerate(trials)],
        "The mean loss since the report before, and the largest |ln M| over blocks (0: magnitude is kept)." + left,
        Table(["", "first", "half-way", "last"], table),
        "the ledger's progress lines; mpdit ui shows all metrics",
    )


def _over_steps(data: SweepData, trial: Trial, metric: str) -> list[tuple[float, float]]:
    reports = data.progress.get(trial.id, [])
    return [(float(p.step), value) for p in reports if (value := p.metrics.get(metric)) is not None]


def _firsts_and_last(points: Sequence[tuple[float, float]]) -> list[str]:
    return [f"{figure(points[at][1])} (step {points[at][0]:.0f})" for at in (0, len(points) // 2, -1)]


def parallel(data: SweepData) -> Figure | None:
    """Every scored cell as one line over the axes that have several values."""
    rows = data.scored
    axes = [axis for axis in data.plan.spec.axes if axis != "seed" and len(distinct(rows, axis)) > 1]
    if len(rows) < 3 or not axes:
        return None
    uprights = [_upright(short(axis), distinct(rows, axis)) for axis in axes]
    uprights.append(_upright(data.metric, sorted(row.value or 0.0 for row in rows), few=True))
    strands: list[tuple[Sequence[Any], float, str]] = [
        (
            [*[row.params[axis] for axis in axes], row.value],
            1 - (row.rank - 1) / max(1, len(data.rows) - 1),
            f"{row.rank}: {label(row.params, axes)}: {figure(row.value)}",
        )
        for row in rows[:MOST_STRANDS]
    ]
    says = f"{len(rows)} cells; the best is {label(rows[0].params, axes)} with {figure(rows[0].value)}"
    chart = Chart("Parallel coordinates", says, "", "", size=(720, 320))
    return Figure(
        "parallel",
        "Parallel coordinates",
        [("", parallel_coordinates(chart, uprights, strands))],
        [],
        "Each line is a cell; the strongest are the best. The numbers are those of the ranking."
        + (f" The best {MOST_STRANDS} of {len(rows)} are drawn." if len(rows) > MOST_STRANDS else ""),
        Table([], []),
        f"mpdit rank {data.plan.spec.name} --csv",
    )


def _upright(name: str, values: list[Any], few: bool = False) -> Upright:
    if not numeric({name: values}):
        places = {str(value): at / max(1, len(values) - 1) for at, value in enumerate(values)}
        return Upright(name, lambda value: places[str(value)], places)
    low, high = float(values[0]), float(values[-1])
    log = low > 0 and high / low >= 4

    def place(value: float) -> float:
        if low == high:
            return 0.5
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    written: dict[str, float] = {}
    for value in [low, high] if few or len(values) > 10 else values:
        if all(abs(place(value) - other) > 0.045 for other in written.values()):
            written[figure(float(value))] = place(value)
    return Upright(name, place, written)
