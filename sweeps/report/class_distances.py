"""The report's figure of the distance class by class, where `frechet_by_class` was measured."""

from collections.abc import Sequence
from itertools import takewhile
from statistics import mean

from pipelines.scoring.metrics.frechet_by_class import DIMENSIONS, FEWEST, LEFT_OUT, NAME, class_distances
from sweeps.report.figures import MOST_ROWS, Figure, SweepData, Table, label
from sweeps.report.svg import Chart, Series, figure, line_chart, swatch
from sweeps.results.importance import distinct
from sweeps.results.ranking import Row
from sweeps.storage.events import CellScored
from sweeps.storage.ledger import only

MOST_MARKS = 20  # classes that are written along the axis one by one


def by_class(data: SweepData, keys: Sequence[str]) -> Figure | None:
    """Show the distance of each class, of the best cell and of the one second to it.

    keys: of the first cells in the ranking's order. None where the best has no such distances.
    """
    cells = [_cells(data, row, key) for row, key in zip(data.scored, keys, strict=False)]
    found = list(takewhile(bool, map(_means, cells)))
    if not found:
        return None
    axes = [axis for axis in data.rows[0].params if len(distinct(data.rows, axis)) > 1]
    names = [label(row.params, axes) for row in data.scored[: len(found)]]
    numbers = sorted(found[0])
    series = [
        Series(name, [(float(at), classes[at]) for at in numbers if at in classes], joined=False)
        for name, classes in zip(names, found, strict=True)
    ]
    chart = Chart(
        "Distance of each class",
        "; ".join(
            f"{name}: {figure(mean(classes.values()))} in the mean" for name, classes in zip(names, found, strict=True)
        ),
        "class",
        "Fréchet distance",
        y=(0.0, max(y for one in series for _, y in one.points)),
        marks=numbers if len(numbers) <= MOST_MARKS else (),
    )
    worst = sorted(numbers, key=lambda at: -found[0][at])
    lines = [[str(at), *[figure(classes.get(at)) for classes in found]] for at in worst[:MOST_ROWS]]
    return Figure(
        "classes",
        "Class by class",
        [("", line_chart(chart, series))],
        [(swatch(at), name) for at, name in enumerate(names)],
        _caption(len(found), cells[0][0], len(numbers)),
        Table(["class", *names], lines),
        f"the {NAME}/… metrics of the ledger's cells",
    )


def _caption(cells: int, measured: CellScored, classes: int) -> str:
    fewest, dimensions, left_out = (int(measured.more.get(name) or 0) for name in (FEWEST, DIMENSIONS, LEFT_OUT))
    text = "Fréchet distance between the samples of each class and the images of that class, of the best cell"
    text += " and of the one second to it" if cells > 1 else ""
    text += "; lower is better. Fewer samples give larger distances: compare the cells within a class, and classes only"
    text += " where they are equally large."
    if fewest < 2 * dimensions:
        text += f" The smallest class has {fewest} samples or images for {dimensions} features: below about twice as"
        text += " many, its covariance has no full rank, or barely, and its distance is much too large."
    if left_out:
        text += f" {left_out} classes with fewer than two samples or images are left out."
    if classes > MOST_ROWS:
        text += f" The table has the {MOST_ROWS} classes that are worst in the best cell."
    return text


def _cells(data: SweepData, row: Row, key: str) -> list[CellScored]:
    return [cell for cell in only(data.events, CellScored) if cell.trial in row.trials and cell.key == key]


def _means(cells: Sequence[CellScored]) -> dict[int, float]:
    """The mean over trials of each class that all of them have."""
    found = [class_distances(cell.more) for cell in cells]
    known = set.intersection(*map(set, found)) if found else set()
    return {number: mean(one[number] for one in found) for number in known}
