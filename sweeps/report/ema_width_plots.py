"""Pictures of a sweep over EMA widths: the distance (or what it ranks by) against σ_rel, and a map with another axis.

The first is Figure 4 of arXiv 2312.02696 for the sweep at hand; both are drawn from the ranking's rows alone.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.planning.plan import Plan
from sweeps.results.ranking import Row
from sweeps.spec.paths import short_name, value_text

WIDTH = "ema.sigma_rel"
CURVES, MAP = "ema_width.png", "ema_width_map.png"
CHARACTER = 0.085  # inches, of a tick's name
MOST_CURVES = 12  # more make a picture unreadable


def write_figures(plan: Plan, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw the pictures of a sweep as PNG files in `folder`; none when EMA width is not one of its axes.

    The curves have one line for each value of the other axes, with its 95 % interval; the map shows the best distance
    for each pair of learning rate (or of the training axis with most values) and width.
    """
    scored = [row for row in rows if row.is_scored]
    if len({row.params.get(WIDTH) for row in scored}) < 2:
        return []
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = [_curves(scored, _other_axes(plan), folder / CURVES)]
    axis = _map_axis(plan)
    if axis is not None:
        written.append(_map(scored, axis, folder / MAP))
    return written


def _other_axes(plan: Plan) -> list[str]:
    return [axis for axis in plan.spec.axes if axis not in (WIDTH, "seed")]


def _map_axis(plan: Plan) -> str | None:
    """The axis that the map sets against the width: the learning rate, or that with the most values."""
    axes = [axis for axis in _other_axes(plan) if axis in plan.spec.training_axes]
    counts = {axis: len({str(trial.params[axis]) for trial in plan.trials}) for axis in axes}
    counts |= {axis: len(plan.spec.axes[axis]) for axis in _other_axes(plan) if axis not in axes}
    if counts.get("optimizer.lr", 1) > 1:
        return "optimizer.lr"
    return max((axis for axis in counts if counts[axis] > 1), key=counts.__getitem__, default=None)


def lines(rows: Sequence[Row], axes: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of each curve by its label, in order of width; the curve with the best row comes first."""
    found: dict[str, list[Row]] = {}
    for row in rows:  # best first
        label = ", ".join(f"{short_name(axis)} {value_text(row.params[axis])}" for axis in axes)
        found.setdefault(label or "distance", []).append(row)
    return {label: sorted(same, key=lambda row: float(row.params[WIDTH])) for label, same in found.items()}


def grid(rows: Sequence[Row], axis: str) -> tuple[list[Any], list[float], list[list[float | None]]]:
    """The map as a table: the values of the axis, the widths, and the best value of each pair or None."""
    values = sorted({row.params[axis] for row in rows}, key=lambda value: (str(type(value)), value))
    widths = sorted({float(row.params[WIDTH]) for row in rows})
    best: dict[tuple[Any, float], float] = {}
    for row in rows:
        if row.value is not None:
            key = (row.params[axis], float(row.params[WIDTH]))
            best[key] = min(row.value, best.get(key, row.value), key=row.kind.cost)
    return values, widths, [[best.get((value, width)) for width in widths] for value in values]


def _curves(rows: Sequence[Row], axes: Sequence[str], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    plot = figure.add_subplot()
    known = lines(rows, axes)
    for label, same in list(known.items())[:MOST_CURVES]:
        x, y = [float(row.params[WIDTH]) for row in same], [float(row.value or 0.0) for row in same]
        spread = [row.interval or 0.0 for row in same]
        (line,) = plot.plot(x, y, marker="o", markersize=3, label=label)
        band = [v - s for v, s in zip(y, spread, strict=True)], [v + s for v, s in zip(y, spread, strict=True)]
        plot.fill_between(x, *band, alpha=0.15, color=line.get_color(), linewidth=0)
        at = y.index(min(y, key=rows[0].kind.cost))
        plot.plot(x[at], y[at], marker="*", markersize=11, color=line.get_color())
    plot.set_xlabel("EMA width σ_rel (0: raw weights)")
    plot.set_ylabel(f"{rows[0].metric}")
    if min(row.value or 0.0 for row in rows) > 0:
        plot.set_yscale("log")
    left = f"; the best {MOST_CURVES} of {len(known)}" if len(known) > MOST_CURVES else ""
    plot.set_title(f"band: 95 % interval; star: a curve's best{left}", fontsize=9)
    plot.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def _map(rows: Sequence[Row], axis: str, path: Path) -> Path:
    from matplotlib.figure import Figure

    values, widths, table = grid(rows, axis)
    names = [str(value) for value in values]
    wide = 2.2 + 0.75 * len(widths) + CHARACTER * max(map(len, names))  # else long names leave the map no room
    figure = Figure(figsize=(wide, 1.5 + 0.5 * len(values)), layout="constrained")
    plot = figure.add_subplot()
    shown = [[float("nan") if value is None else value for value in line] for line in table]
    known = [row.value for row in rows if row.value is not None]
    colors = "viridis" if rows[0].kind.larger_is_better else "viridis_r"  # dark is best
    log = min(known) > 0
    image = plot.imshow(shown, aspect="auto", origin="lower", cmap=colors, norm="log" if log else None)
    first = min(rows, key=lambda row: row.rank)
    tied = {(row.params[axis], float(row.params[WIDTH])) for row in rows if row.tied_with_best or row is first}
    middle = math.sqrt(min(known) * max(known)) if log else (min(known) + max(known)) / 2  # of the colours
    for y, value in enumerate(values):
        for x, width in enumerate(widths):
            found = table[y][x]
            if found is not None:
                text = ("=" if (value, width) in tied else "") + f"{found:.3g}"
                color = "white" if (found > middle) != rows[0].kind.larger_is_better else "black"
                plot.text(x, y, text, ha="center", va="center", color=color, fontsize=8)
    plot.set_xticks(range(len(widths)), [f"{width:g}" for width in widths])
    plot.set_yticks(range(len(values)), names)
    plot.set_xlabel("EMA width σ_rel")
    plot.set_ylabel(axis)
    title = f"{rows[0].metric}; = cannot be told from the best"
    plot.set_title(textwrap.fill(title, int(0.75 * len(widths) / CHARACTER) + 12), fontsize=9)
    figure.colorbar(image)
    figure.savefig(path, dpi=130)
    return path
