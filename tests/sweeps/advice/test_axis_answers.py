"""What a ranking says of each axis."""

import pytest

from sweeps.advice.axis_answers import Verdict, axis_answers
from sweeps.results.ranking import rank
from tests.sweeps.conftest import ended, plan_of, scored

BEYOND = ", at the end of the axis: a {} one may be better"


def answers(axis: str, values: list, distances: list[float], error: float = 0.01) -> list:  # type: ignore[type-arg]
    plan = plan_of({axis: values})
    post_hoc = len(plan.cells) > 1
    events = [
        scored(plan, 0 if post_hoc else at, at if post_hoc else 0, value, stderr=error)
        for at, value in enumerate(distances)
    ]
    return axis_answers(plan.spec.axes, rank(plan, events + [ended(plan, at) for at in range(len(plan.trials))]))


@pytest.mark.parametrize(
    ("axis", "values", "distances", "text"),
    [
        ("optimizer.lr", [0.02, 0.04, 0.08], [3, 1, 2], "lr: 0.04, bracketed"),
        ("optimizer.lr", [0.02, 0.04, 0.08], [3, 2, 1], "lr: 0.08" + BEYOND.format("larger")),
        ("optimizer.lr", [0.08, 0.02, 0.04], [3, 1, 2], "lr: 0.02" + BEYOND.format("smaller")),
        ("optimizer.lr", [0.01, 0.02, 0.04, 0.08], [3, 1, 1.01, 2], "lr: 0.02–0.04 equal"),
        ("optimizer.lr", [0.01, 0.02, 0.04, 0.08, 0.1], [3, 1, 2, 1.01, 2], "lr: undecided between 0.02, 0.08"),
        ("model.modulation", ["scale", "shift", "gate"], [3, 1, 2], "modulation: shift"),
        ("model.modulation", ["scale", "shift", "gate"], [1.01, 1, 2], "modulation: undecided between shift, scale"),
        ("ema.sigma_rel", [0.05, 0.1, 0.2], [1, 1.001, 2], "sigma_rel: 0.05–0.1 equal" + BEYOND.format("smaller")),
    ],
)  # fmt: skip
def test_an_axis_is_answered(axis: str, values: list, distances: list[float], text: str) -> None:  # type: ignore[type-arg]
    assert [answer.text for answer in answers(axis, values, distances)] == [text]


def test_an_axis_of_one_value_has_no_answer_and_no_scores_give_none() -> None:
    assert answers("optimizer.lr", [0.02], [1]) == []
    assert axis_answers({"optimizer.lr": [0.01, 0.02]}, rank(plan_of({"optimizer.lr": [0.01, 0.02]}), [])) == []


def test_the_verdicts_are_words() -> None:
    assert {str(verdict) for verdict in Verdict} == {"decided", "bracketed", "edge", "equal", "undecided"}


def test_the_end_of_a_range_is_near_enough() -> None:
    search = {"algorithm": "random", "trials": 4}
    for best, verdict in ((0.075, Verdict.EDGE), (0.02, Verdict.BRACKETED)):
        first = [{"optimizer.lr": rate} for rate in (best, 0.011, 0.05, 0.03)]
        plan = plan_of({"optimizer.lr": {"log_uniform": [0.01, 0.08]}}, search=search | {"first": first})  # type: ignore[dict-item]
        events = [scored(plan, at, 0, 1.0 + 2 * at, stderr=0.001) for at in range(4)]
        found = axis_answers(plan.spec.axes, rank(plan, events + [ended(plan, at) for at in range(4)]))
        assert [answer.verdict for answer in found] == [verdict]
