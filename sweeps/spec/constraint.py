"""Constraints: limits on metrics, as `magnitude_drift <= 0.2` and `precision >= 0.5`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpdit.errors import InputError, input_error, nearest
from pipelines.scoring.metrics.registry import METRICS

RELATIONS = ("<=", ">=")


@dataclass(frozen=True)
class Limit:
    """The most (<=) or the least (>=) that a metric may be."""

    metric: str
    relation: str
    bound: float

    @property
    def name(self) -> str:
        """A name of its own among the limits of a sweep file: the metric's where it is the most that it may be."""
        return self.metric if self.relation == "<=" else f"{self.metric}, at least"

    def excess(self, value: float) -> float:
        """By how much a value breaks the limit; at most 0 where it keeps it."""
        return value - self.bound if self.relation == "<=" else self.bound - value

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"


def parse_constraint(text: Any) -> Limit:
    """The limit that a constraint of a sweep file sets. Raises InputError."""
    relation = next((sign for sign in RELATIONS if sign in str(text)), RELATIONS[0])
    metric, _, bound = (part.strip() for part in str(text).partition(relation))
    try:
        number = float(bound)
    except ValueError:
        raise _malformed(text, metric) from None
    if "." not in metric and metric not in METRICS:
        raise _malformed(text, metric)
    return Limit(METRICS[metric].name, relation, number)


def _malformed(text: Any, metric: str) -> InputError:
    names = METRICS.names()
    return input_error(
        "a constraint is a metric and the most or the least that it may be",
        given=text,
        nearest=None if metric in names else nearest(metric, names),
        allowed=f"METRIC <= NUMBER or METRIC >= NUMBER, of {', '.join(names)}",
    )


def keeps_all(values: Mapping[str, float | None], limits: Sequence[Limit]) -> bool:
    """Whether every constrained metric is known and keeps its limit."""
    known = [(limit, values.get(limit.metric)) for limit in limits]
    return all(value is not None and limit.excess(value) <= 0 for limit, value in known)
