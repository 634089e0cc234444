"""Axes that are more than lists: what they hold, what is drawn from them, what they refuse."""

import itertools
from typing import Any

import pytest

from mpdit.errors import InputError
from sweeps.spec.space import Domain, Space, parse_axis


def space(**axes: Any) -> Space:
    return Space({name: parse_axis(axis) for name, axis in axes.items()}, dict.fromkeys(axes, "own"))


def test_the_ends_of_a_range_belong_to_it_and_steps_are_kept() -> None:
    quantised = Domain(uniform=[0.1, 0.55], step=0.1)
    assert quantised.ends == (0.1, pytest.approx(0.5))
    assert {quantised.at(share / 20) for share in range(21)} == {0.1, 0.2, 0.3, 0.4, 0.5}
    whole = Domain(int=[2, 9], step=3)
    assert {whole.at(share / 20) for share in range(21)} == {2, 5, 8}
    assert whole.holds(5) and not whole.holds(6) and not whole.holds(True)
    log = Domain(log_uniform=[0.001, 0.1])
    assert [log.at(share) for share in (0.0, 0.5, 1.0)] == [0.001, 0.01, 0.1]


def test_an_axis_counts_only_where_its_condition_holds() -> None:
    s = space(kind=["a", "b"], extra={"values": [1, 2], "when": {"kind": "b"}})
    assert s.grid() == [{"kind": "a"}, {"kind": "b", "extra": 1}, {"kind": "b", "extra": 2}]
    assert s.whole({"kind": "a"}) == {"kind": "a", "extra": "own"}


@pytest.mark.parametrize("kind", ["random", "quasi_random"])
def test_draws_are_reproducible_distinct_and_end_with_the_space(kind: str) -> None:
    s = space(x=[1, 2, 3], y=["a", "b"])
    every = getattr(s, kind)(100, 0)
    assert sorted(every, key=str) == sorted(s.grid(), key=str)
    ranged = space(x={"uniform": [0.0, 1.0]}, y={"int": [0, 1000]})
    assert getattr(ranged, kind)(9, 1) == getattr(ranged, kind)(20, 1)[:9]
    assert getattr(ranged, kind)(9, 1) != getattr(ranged, kind)(9, 2)


def test_quasi_random_points_leave_fewer_gaps() -> None:
    s = space(x={"uniform": [0.0, 1.0]})

    def gap(points: list[dict[str, Any]]) -> float:
        at = sorted([0.0, 1.0, *[point["x"] for point in points]])
        return max(b - a for a, b in itertools.pairwise(at))

    assert gap(s.quasi_random(32, 0)) < 2.1 / 32 < gap(s.random(32, 0))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (0.02, "a list of values, or a range"),
        ({"uniform": [0.1, 0.2], "log_uniform": [0.1, 0.2]}, "one of values, uniform"),
        ({}, "none of them"),
        ({"log_unifrom": [0.1, 0.2]}, "log_uniform"),
        ({"uniform": [0.2, 0.1]}, "lower end to a higher"),
        ({"log_uniform": [0.0, 0.1]}, "above 0"),
        ({"log_uniform": [0.1, 0.2], "step": 0.1}, "no step"),
        ({"int": [1, 8], "step": 0.5}, "whole number"),
        ({"int": [1.5, 8]}, "whole number"),
        ({"uniform": [0, 1, 2]}, "at most 2"),
        ({"uniform": [0.0, 0.1], "step": 0.5}, "one value only"),
    ],
)
def test_what_is_no_axis_is_refused(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_axis(given)
