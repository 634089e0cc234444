"""Several objectives: which points no other beats in all of them. Constraints: which points are allowed at all."""

from collections.abc import Mapping, Sequence


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one is no worse in any objective and better in one; the smaller the better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Sequence[Sequence[float] | None]) -> list[bool]:
    """For each point whether it is on the Pareto front; None, of which too little is known, never is."""
    known = [point for point in points if point is not None]
    return [point is not None and not any(dominates(other, point) for other in known) for point in points]


def is_within(values: Mapping[str, float | None], limits: Mapping[str, float]) -> bool:
    """Whether every constrained metric is known and at most its limit."""
    found = {metric: values.get(metric) for metric in limits}
    return all(value is not None and value <= limits[metric] for metric, value in found.items())
