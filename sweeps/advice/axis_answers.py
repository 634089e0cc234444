"""What a sweep has answered about each of its axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from sweeps.results.importance import distinct
from sweeps.results.ranking import Row
from sweeps.spec.consistency import is_number
from sweeps.spec.paths import short_name, value_text
from sweeps.spec.space import SEED, Axis, Domain

NEAR_AN_END = 0.1  # of a range, or what one of its points stands for: drawn points do not lie on the end itself
End = Literal["lower", "upper"]


class Verdict(StrEnum):
    """What is known about an axis."""

    DECIDED = "decided"  # one value that is no number beats all others
    BRACKETED = "bracketed"  # one number beats its neighbours on both sides
    EDGE = "edge"  # the best number is the last one on its side, so a better one may lie beyond
    EQUAL = "equal"  # several numbers in a row cannot be told apart, and lie inside the axis
    UNDECIDED = "undecided"  # several values that are no numbers, or numbers that are no neighbours


@dataclass(frozen=True)
class AxisAnswer:
    """The answer to one axis.

    Attributes:
        axis: its path.
        verdict: what is known.
        best: the value of the best cell.
        values: every value whose best cell is the best of all or cannot be told from it, in the axis's order.
        end: the open end, where the verdict is edge.
    """

    axis: str
    verdict: Verdict
    best: Any
    values: list[Any]
    end: End | None = None

    @property
    def text(self) -> str:
        """The answer in words, as `lr: 0.08, bracketed`."""
        name = short_name(self.axis)
        several = len(self.values) > 1
        match self.verdict:
            case Verdict.EDGE:
                beyond = "a smaller" if self.end == "lower" else "a larger"
                shown = f"{self.values[0]}–{self.values[-1]} equal" if several else f"{self.best}"
                return f"{name}: {shown}, at the end of the axis: {beyond} one may be better"
            case Verdict.EQUAL:
                return f"{name}: {self.values[0]}–{self.values[-1]} equal"
            case Verdict.UNDECIDED:
                return f"{name}: undecided between {', '.join(map(value_text, self.values))}"
            case _:
                return f"{name}: {value_text(self.best)}" + (", bracketed" if self.verdict is Verdict.BRACKETED else "")


def axis_answers(axes: Mapping[str, Axis], rows: Sequence[Row]) -> list[AxisAnswer]:
    """Answer every axis that has several scored values, from the ranked rows.

    A value counts as its best cell does. An axis of numbers is bracketed where that cell is better than those of
    both neighbours.
    """
    scored = [row for row in rows if row.is_scored]
    several = [axis for axis in axes if axis != SEED and len(distinct(scored, axis)) > 1]
    return [_answer(axis, axes[axis], scored) for axis in several]


def profile(axis: str, rows: Sequence[Row]) -> dict[Any, Row]:
    """The best row of each value of an axis; rows come best first, and numbers in order."""
    return {value: next(row for row in rows if row.params.get(axis) == value) for value in distinct(rows, axis)}


def _answer(name: str, axis: Axis, rows: Sequence[Row]) -> AxisAnswer:
    found = profile(name, rows)
    order, best = list(found), rows[0].params.get(name, next(iter(found)))
    running = [value for value, row in found.items() if row is rows[0] or row.tied_with_best] or [best]
    if not all(map(is_number, order)):
        return AxisAnswer(name, Verdict.UNDECIDED if len(running) > 1 else Verdict.DECIDED, best, running)
    if end := _end_at(axis, best, order):
        return AxisAnswer(name, Verdict.EDGE, best, running, end)
    if len(running) == 1:
        return AxisAnswer(name, Verdict.BRACKETED, best, running)
    first, last = order.index(running[0]), order.index(running[-1])
    in_a_row = running == order[first : last + 1]
    return AxisAnswer(name, Verdict.EQUAL if in_a_row else Verdict.UNDECIDED, best, running)


def _end_at(axis: Axis, best: float, scored: Sequence[float]) -> End | None:
    """The end of an axis that the best value lies at; None inside. scored: the values that have cells, in order."""
    if not isinstance(axis, Domain) or axis.kind == "values":
        values = (axis.values or []) if isinstance(axis, Domain) else axis
        return "lower" if best == min(values) else "upper" if best == max(values) else None
    low, high = axis.ends
    position = (
        math.log(best / low) / math.log(high / low) if axis.kind == "log_uniform" else (best - low) / (high - low)
    )
    near = max(NEAR_AN_END, 1 / len(scored))
    if best == scored[0] and position < near:
        return "lower"
    return "upper" if best == scored[-1] and position > 1 - near else None
