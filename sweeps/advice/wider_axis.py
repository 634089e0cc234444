"""Widen an axis of numbers beyond one of its ends."""

import math
from typing import Any

from sweeps.advice.axis_answers import End
from sweeps.spec.consistency import is_number
from sweeps.spec.space import Axis, Domain

GEOMETRIC_FROM = 3.0  # the ratio of largest to smallest from which an axis is taken as evenly spaced in its logarithm
RATIOS = (1.25, 4.0)  # of a new value to the end: no closer, and no farther


def wider(axis: Axis, end: End) -> tuple[Any, Axis] | None:
    """The next value beyond an end of an axis, and the axis with it; None for an axis that has no such value.

    A list continues with the spacing that it has at that end: by a ratio where its numbers span a factor of 3 or
    more, or where a difference would lead from positive numbers to 0 or below, else by a difference. A range
    moves its end as far as a quarter of itself.
    """
    if isinstance(axis, Domain) and axis.kind != "values":
        return _wider_range(axis, end)
    values = axis.values or [] if isinstance(axis, Domain) else axis
    if len(values) < 2 or not all(map(is_number, values)):
        return None
    value = next_value(sorted(values), end)
    if value is None:
        return None
    longer = sorted([*values, value])
    return value, axis.model_copy(update={"values": longer}) if isinstance(axis, Domain) else longer


def next_value(values: list[float], end: End) -> float | None:
    """The next number beyond an end of sorted numbers, with two significant digits; None where that is no new one."""
    last, before = (values[-1], values[-2]) if end == "upper" else (values[0], values[1])
    is_geometric = values[0] > 0 and (values[-1] / values[0] >= GEOMETRIC_FROM or 2 * last <= before)
    if is_geometric:
        ratio = min(max(max(last, before) / min(last, before), RATIOS[0]), RATIOS[1])
        value = last * ratio if end == "upper" else last / ratio
    else:
        value = last + (last - before)
    rounded = _rounded(value, all(isinstance(known, int) for known in values))
    beyond = rounded > values[-1] if end == "upper" else rounded < values[0]
    return rounded if beyond else None


def _wider_range(domain: Domain, end: End) -> tuple[Any, Axis] | None:
    low, high = domain.ends
    if domain.kind == "log_uniform":
        factor = max(2.0, (high / low) ** 0.25)
        value = high * factor if end == "upper" else low / factor
    else:
        value = high + (high - low) / 4 if end == "upper" else low - (high - low) / 4
    value = _rounded(value, domain.kind == "int")
    ends = [low, value] if end == "upper" else [value, high]
    return (value, domain.model_copy(update={domain.kind: ends})) if ends[0] < ends[1] else None


def _rounded(value: float, whole: bool) -> Any:
    if whole:
        return round(value)
    return round(value, 1 - math.floor(math.log10(abs(value)))) if value else 0.0
