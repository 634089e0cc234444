"""The Pareto front of several objectives in a report: named, drawn and as numbers."""

from collections.abc import Sequence

from pipelines.scoring.metrics.registry import METRICS
from sweeps.report.figures import Figure, SweepData, Table, interval, label
from sweeps.report.svg import Chart, Series, figure, line_chart, swatch
from sweeps.results.importance import distinct
from sweeps.results.ranking import Row
from sweeps.storage.events import CellScored


def written_name(data: SweepData, metric: str) -> str:
    """A metric as the report writes it: a distance by its features."""
    distance = next((event.metric for event in data.events if isinstance(event, CellScored)), "frechet")
    return distance if metric == "frechet" else METRICS[metric].label


def objectives(data: SweepData) -> list[str]:
    """The objectives as the report writes them."""
    return [written_name(data, metric) for metric in data.plan.spec.metrics]


def value(row: Row, metric: str) -> float | None:
    """A row's mean of one metric in the unit of the report, as parameters in millions."""
    found = {**(row.metrics or {}), **(row.values or {})}.get(metric)
    return None if found is None else found / METRICS[metric].unit_size


def written(row: Row, metric: str) -> str:
    """The same as text."""
    unit = METRICS[metric].unit
    return figure(value(row, metric)) + (f" {unit}" if unit else "")


def front(data: SweepData) -> list[Row]:
    """The rows on the Pareto front, the best in the first objective first."""
    first = METRICS[data.plan.spec.metrics[0]]
    return sorted((row for row in data.scored if row.pareto), key=lambda row: first.cost(value(row, first.name) or 0.0))


def front_answer(data: SweepData) -> list[str]:
    """Two sentences: which cells no other beats, and what the front does not say."""
    best, names = front(data), objectives(data)
    axes = [axis for axis in data.rows[0].params if len(distinct(data.rows, axis)) > 1]

    def named(row: Row) -> str:
        values = ", ".join(f"{name} {written(row, metric)}" for name, metric in _pairs(data))
        return f"{label(row.params, axes)} ({values})"

    every = "both" if len(names) == 2 else "all"
    if len(best) == 1:
        first = f"Best in {every} of {' and '.join(names)} is {named(best[0])}."
    else:
        first = f"{len(best)} of the {len(data.scored)} cells are on the Pareto front of {' and '.join(names)}"
        first += f", from {named(best[0])} to {named(best[-1])}."
    second = "Each other cell is beaten by one of the front, which is of means and takes no error into account"
    if best[0].stderr and METRICS[data.plan.spec.metrics[0]].has_folds:
        second += f": the first's distance is known to ± {figure(interval(best[0]))} (95 % interval)"
    return [first, second + "."]


def _pairs(data: SweepData) -> list[tuple[str, str]]:
    return list(zip(objectives(data), data.plan.spec.metrics, strict=True))


def _better(data: SweepData) -> str:
    """Which direction is better, in words."""
    kinds = [METRICS[metric] for metric in data.plan.spec.metrics]
    if not any(kind.larger_is_better for kind in kinds):
        return "lower is better in every objective"
    pairs = zip(objectives(data), kinds, strict=True)
    return "better is " + ", ".join(f"{'higher' if kind.larger_is_better else 'lower'} {name}" for name, kind in pairs)


def front_figure(data: SweepData) -> Figure | None:
    """The first objective against the second: every scored cell, those on the front joined."""
    best = front(data)
    if not best:
        return None
    (up, first), (across, second), *rest = _pairs(data)
    known = [row for row in data.scored if value(row, first) is not None and value(row, second) is not None]

    def points(rows: Sequence[Row]) -> list[tuple[float, float]]:
        return sorted((value(row, second) or 0.0, value(row, first) or 0.0) for row in rows)

    others = [row for row in known if row not in best]
    axes = [axis for axis in data.rows[0].params if len(distinct(data.rows, axis)) > 1]
    series = [
        Series("on the Pareto front", points(best), joined=not rest),
        Series("other cells", points(others), joined=False),
    ]
    says = "; ".join(f"{label(row.params, axes)}: {written(row, first)}, {written(row, second)}" for row in best)
    chart = Chart(
        f"{up} against {across}", f"The front: {says}", across, up, log_y=all(y > 0 for _, y in points(known))
    )
    drawn = " Of several objectives the first two are drawn." if rest else ""
    lines = [[label(row.params, axes), *[written(row, metric) for _, metric in _pairs(data)]] for row in best]
    return Figure(
        "front",
        "Pareto front",
        [("", line_chart(chart, series))],
        [(swatch(at), one.label) for at, one in enumerate(series) if one.points],
        f"Each point is a cell; {_better(data)}, and no cell beats one of the front in all.{drawn}",
        Table(["", *objectives(data)], lines),
        f"mpdit rank {data.plan.spec.name} --csv",
    )
