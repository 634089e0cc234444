"""Several objectives: which points no other point beats in all of them."""

from collections.abc import Sequence


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point is no worse in any objective and better in one. Points are costs: the smaller the better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Sequence[Sequence[float] | None]) -> list[bool]:
    """For each point of costs, whether it is on the Pareto front; None (a point that is not known) never is."""
    known = [point for point in points if point is not None]
    return [point is not None and not any(dominates(other, point) for other in known) for point in points]
