"""Draw charts as SVG text. Colours are CSS classes of the page, so that a chart fits light, dark and print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

COLOURS = 8  # classes c0 … c7 of the page; further series are dashed
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 14, 42  # margins, in the drawing's units

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart: points in order of x, a band (low, high) around each, and the place of the starred point."""

    label: str
    points: Sequence[Point]
    band: Sequence[Point] = ()
    star: int | None = None
    joined: bool = True


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to coordinates from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False  # ticks are whole numbers

    def __call__(self, value: float) -> float:
        """The coordinate of a value; one outside the range lies on the border."""
        of = math.log10 if self.log else float
        share = (of(value) - of(self.low)) / ((of(self.high) - of(self.low)) or 1.0)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values between low and high."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        found: list[float] = []
        if self.log:
            found = self._within(LogLocator(subs=(1.0, 2.0, 5.0)).tick_values(self.low, self.high))
            if len(found) > 8:
                found = self._within(LogLocator(numticks=8).tick_values(self.low, self.high))
        return (
            found
            if len(found) > 2
            else self._within(MaxNLocator(6, integer=self.whole).tick_values(self.low, self.high))
        )

    def _within(self, values: Sequence[float]) -> list[float]:
        return [float(value) for value in values if self.low * 0.9999 <= value <= self.high * 1.0001]


@dataclass(frozen=True)
class Chart:
    """The title, labels and axes of a chart. y: (lowest, highest); by default the range of the series."""

    title: str
    describes: str
    across: str
    up: str
    log_x: bool = False
    log_y: bool = False
    y: Point | None = None
    marks: Sequence[float] = ()  # what is written along x; round values by default
    size: tuple[int, int] = (480, 300)


def line_chart(chart: Chart, series: Sequence[Series]) -> str:
    """Lines over two axes. Points that a logarithmic axis cannot show are left out."""
    shown = [_visible(one, chart) for one in series]
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points] + [v for one in shown for pair in one.band for v in pair]
    width, height = chart.size
    x = _scale(xs, (LEFT, width - RIGHT), chart.log_x, exact=all(one.joined for one in shown))
    y = _scale(list(chart.y or ys), (height - BOTTOM, TOP), chart.log_y)
    parts = [_axes(chart, x, y)]
    for at, one in enumerate(shown):
        parts += _series(at, one, x, y)
    return _svg(chart.title, chart.describes, chart.size, parts)


def swatch(at: int) -> str:
    """The CSS class of a series, for a legend."""
    return f"c{at % COLOURS}" + (" dashed" if at >= COLOURS else "")


def _visible(one: Series, chart: Chart) -> Series:
    kept = [at for at, (x, y) in enumerate(one.points) if (x > 0 or not chart.log_x) and (y > 0 or not chart.log_y)]
    floor = min((y for _, y in one.points if y > 0), default=1.0) / 2 if chart.log_y else -math.inf
    band = [(max(one.band[at][0], floor), one.band[at][1]) for at in kept] if one.band else []
    star = kept.index(one.star) if one.star in kept else None
    return Series(one.label, [one.points[at] for at in kept], band, star, one.joined)


def _scale(values: Sequence[float], place: tuple[float, float], log: bool, exact: bool = False) -> Scale:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    elif not exact:
        grown = (high / low) ** 0.04 if log else (high - low) * 0.04
        low, high = (low / grown, high * grown) if log else (low - grown, high + grown)
    return Scale(low, high, *place, log, exact and all(value == int(value) for value in values))


def _series(at: int, one: Series, x: Scale, y: Scale) -> list[str]:
    parts = []
    if one.band:
        upper = [f"{x(p[0]):.1f},{y(b[1]):.1f}" for p, b in zip(one.points, one.band, strict=True)]
        lower = [f"{x(p[0]):.1f},{y(b[0]):.1f}" for p, b in zip(one.points, one.band, strict=True)]
        parts.append(f'<polygon class="band {swatch(at)}" points="{" ".join(upper + lower[::-1])}"/>')
    if one.joined:
        line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in one.points)
        parts.append(f'<polyline class="line {swatch(at)}" points="{line}"/>')
    if len(one.points) <= 24 or not one.joined:
        parts += [
            f'<circle class="dot {swatch(at)}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6">'
            f"<title>{escape(one.label)}: {figure(a)}, {figure(b)}</title></circle>"
            for a, b in one.points
        ]
    if one.star is not None:
        a, b = one.points[one.star]
        parts.append(f'<text class="star {swatch(at)}" x="{x(a):.1f}" y="{y(b) + 6:.1f}">★</text>')
    return parts


def _axes(chart: Chart, x: Scale, y: Scale) -> str:
    width, height = chart.size
    bottom = height - BOTTOM
    parts = []
    for value in y.ticks:
        at = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{float(at) + 4:.1f}">{figure(value)}</text>')
    for value in chart.marks or x.ticks:
        at = f"{x(value):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick middle" x="{at}" y="{bottom + 15}">{figure(value)}</text>')
    middle = (LEFT + width - RIGHT) / 2
    parts.append(f'<text class="label middle" x="{middle:.0f}" y="{height - 8}">{escape(chart.across)}</text>')
    turn = f"translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)"
    parts.append(f'<text class="label middle" transform="{turn}">{escape(chart.up)}</text>')
    return "".join(parts)


@dataclass(frozen=True)
class Upright:
    """One axis of parallel coordinates: its name, the place of each value (0 to 1), and the labelled values."""

    name: str
    place: Callable[[Any], float]
    written: dict[str, float] = field(default_factory=dict)  # {text: place}


def parallel_coordinates(
    chart: Chart, uprights: Sequence[Upright], lines: Sequence[tuple[Sequence[Any], float, str]]
) -> str:
    """Draw parallel coordinates: a line for each point, the best on top.

    strands: for each point its values in the order of the axes, how good it is from 0 to 1, and its text.
    """
    width, height = chart.size
    top, bottom, side = 34, height - 16, 60
    apart = (width - 2 * side) / max(1, len(uprights) - 1)
    parts = []
    for values, good, text in sorted(lines, key=lambda one: one[1]):
        path = " ".join(
            f"{side + at * apart:.1f},{bottom - upright.place(value) * (bottom - top):.1f}"
            for at, (upright, value) in enumerate(zip(uprights, values, strict=True))
        )
        style = f"--t:{good:.3f}"
        parts.append(
            f'<polyline class="strand" style="{style}" points="{path}"><title>{escape(text)}</title></polyline>'
        )
    for at, upright in enumerate(uprights):
        x = side + at * apart
        parts.append(f'<line class="upright" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="label middle" x="{x:.1f}" y="16">{escape(upright.name)}</text>')
        for text, place in upright.written.items():
            y = bottom - place * (bottom - top) + 4
            parts.append(f'<text class="tick halo" x="{x + 5:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return _svg(chart.title, chart.describes, chart.size, parts)


def _svg(title: str, describes: str, size: tuple[int, int], parts: Sequence[str]) -> str:
    width, height = size
    most = f"max-width: {1.5 * width:.0f}px"  # larger, its words would shout
    head = f'<svg viewBox="0 0 {width} {height}" style="{most}" role="img"'
    head += f' aria-label="{escape(f"{title}. {describes}")}">'
    return head + "".join(parts) + "</svg>"


def in_column(value: float | None) -> str:
    """A number for a column of a table: three digits after the point where it is not too small or large for that."""
    if value is None or value == 0 or not 1e-2 <= abs(value) < 1e4:
        return figure(value)
    return f"{value:.3f}"


def figure(value: float | None) -> str:
    """A number with four significant digits; a dash for None."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:.2e}"
