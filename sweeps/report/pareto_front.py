"""The Pareto front of several objectives in a report: named, drawn and as numbers."""

from collections.abc import Sequence

from pipelines.scoring.metric import METRICS
from sweeps.report.figures import Figure, Table, Told, interval, label
from sweeps.report.svg import Chart, Series, figure, line_chart, swatch
from sweeps.results.importance import distinct
from sweeps.results.ranking import Row
from sweeps.storage.events import CellScored


def written_name(told: Told, metric: str) -> str:
    """A metric as the report writes it: a distance by its features."""
    distance = next((event.metric for event in told.events if isinstance(event, CellScored)), "frechet")
    return distance if metric == "frechet" else METRICS[metric].label


def objectives(told: Told) -> list[str]:
    """The objectives as the report writes them."""
    return [written_name(told, metric) for metric in told.plan.spec.metrics]


def value(row: Row, metric: str) -> float | None:
    """A row's mean of one metric in the unit of the report, as parameters in millions."""
    found = {**(row.metrics or {}), **(row.values or {})}.get(metric)
    return None if found is None else found / METRICS[metric].unit_size


def written(row: Row, metric: str) -> str:
    """The same as text."""
    unit = METRICS[metric].unit
    return figure(value(row, metric)) + (f" {unit}" if unit else "")


def front(told: Told) -> list[Row]:
    """The rows on the Pareto front, the best in the first objective first."""
    first = METRICS[told.plan.spec.metrics[0]]
    return sorted((row for row in told.scored if row.pareto), key=lambda row: first.cost(value(row, first.name) or 0.0))


def front_answer(told: Told) -> list[str]:
    """Two sentences: which cells no other beats, and what the front does not say."""
    best, names = front(told), objectives(told)
    axes = [axis for axis in told.rows[0].params if len(distinct(told.rows, axis)) > 1]

    def named(row: Row) -> str:
        values = ", ".join(f"{name} {written(row, metric)}" for name, metric in _pairs(told))
        return f"{label(row.params, axes)} ({values})"

    every = "both" if len(names) == 2 else "all"
    if len(best) == 1:
        first = f"Best in {every} of {' and '.join(names)} is {named(best[0])}."
    else:
        first = f"{len(best)} of the {len(told.scored)} cells are on the Pareto front of {' and '.join(names)}"
        first += f", from {named(best[0])} to {named(best[-1])}."
    second = "Each other cell is beaten by one of the front, which is of means and takes no error into account"
    if best[0].stderr and METRICS[told.plan.spec.metrics[0]].has_folds:
        second += f": the first's distance is known to ± {figure(interval(best[0]))} (95 % interval)"
    return [first, second + "."]


def _pairs(told: Told) -> list[tuple[str, str]]:
    return list(zip(objectives(told), told.plan.spec.metrics, strict=True))


def _better(told: Told) -> str:
    """Which direction is better, in words."""
    kinds = [METRICS[metric] for metric in told.plan.spec.metrics]
    if not any(kind.larger_is_better for kind in kinds):
        return "lower is better in every objective"
    pairs = zip(objectives(told), kinds, strict=True)
    return "better is " + ", ".join(f"{'higher' if kind.larger_is_better else 'lower'} {name}" for name, kind in pairs)


def front_figure(told: Told) -> Figure | None:
    """The first objective against the second: every scored cell, those on the front joined."""
    best = front(told)
    if not best:
        return None
    (up, first), (across, second), *rest = _pairs(told)
    known = [row for row in told.scored if value(row, first) is not None and value(row, second) is not None]

    def points(rows: Sequence[Row]) -> list[tuple[float, float]]:
        return sorted((value(row, second) or 0.0, value(row, first) or 0.0) for row in rows)

    others = [row for row in known if row not in best]
    axes = [axis for axis in told.rows[0].params if len(distinct(told.rows, axis)) > 1]
    series = [
        Series("on the Pareto front", points(best), joined=not rest),
        Series("other cells", points(others), joined=False),
    ]
    says = "; ".join(f"{label(row.params, axes)}: {written(row, first)}, {written(row, second)}" for row in best)
    chart = Chart(
        f"{up} against {across}", f"The front: {says}", across, up, log_y=all(y > 0 for _, y in points(known))
    )
    drawn = " Of several objectives the first two are drawn." if rest else ""
    lines = [[label(row.params, axes), *[written(row, metric) for _, metric in _pairs(told)]] for row in best]
    return Figure(
        "front",
        "Pareto front",
        [("", line_chart(chart, series))],
        [(swatch(at), one.label) for at, one in enumerate(series) if one.points],
        f"Each point is a cell; {_better(told)}, and no cell beats one of the front in all.{drawn}",
        Table(["", *objectives(told)], lines),
        f"mpdit rank {told.plan.spec.name} --csv",
    )
