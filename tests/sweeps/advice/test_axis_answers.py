"""What a ranking says of each axis."""

import pytest

from sweeps.advice.axis_answers import Verdict, axis_answers
from sweeps.results.ranking import rank
from tests.sweeps.conftest import ended, plan_of, scored


def answers(axis: str, values: list, distances: list[float], error: float = 0.01) -> list:  # type: ignore[type-arg]
    plan = plan_of({axis: values})
    post_hoc = len(plan.cells) > 1
    events = [
        scored(plan, 0 if post_hoc else at, at if post_hoc else 0, value, stderr=error)
        for at, value in enumerate(distances)
    ]
    return axis_answers([axis], rank(plan, events + [ended(plan, at) for at in range(len(plan.trials))]))


@pytest.mark.parametrize(
    ("axis", "values", "distances", "text"),
    [
        ("optimizer.lr", [0.02, 0.04, 0.08], [3, 1, 2], "lr: 0.04, bracketed"),
        ("optimizer.lr", [0.02, 0.04, 0.08], [3, 2, 1], "lr: 0.08, at the end of the axis: a larger one may be better"),
        ("optimizer.lr", [0.08, 0.02, 0.04], [3, 1, 2], "lr: 0.02, at the end of the axis: a smaller one may be better"),
        ("optimizer.lr", [0.01, 0.02, 0.04, 0.08], [3, 1, 1.01, 2], "lr: 0.02–0.04 equal"),
        ("optimizer.lr", [0.01, 0.02, 0.04, 0.08, 0.1], [3, 1, 2, 1.01, 2], "lr: undecided between 0.02, 0.08"),
        ("model.modulation", ["scale", "shift", "gate"], [3, 1, 2], "modulation: shift"),
        ("model.modulation", ["scale", "shift", "gate"], [1.01, 1, 2], "modulation: undecided between shift, scale"),
        ("ema.sigma_rel", [0.05, 0.1, 0.2], [1, 1.001, 2], "sigma_rel: 0.05–0.1 equal, at the end of the axis: a smaller one may be better"),
    ],
)  # fmt: skip
def test_an_axis_is_answered(axis: str, values: list, distances: list[float], text: str) -> None:  # type: ignore[type-arg]
    assert [answer.text for answer in answers(axis, values, distances)] == [text]


def test_an_axis_of_one_value_has_no_answer_and_no_scores_give_none() -> None:
    assert answers("optimizer.lr", [0.02], [1]) == []
    assert axis_answers(["optimizer.lr"], rank(plan_of({"optimizer.lr": [0.01, 0.02]}), [])) == []


def test_the_verdicts_are_words() -> None:
    assert {str(verdict) for verdict in Verdict} == {"decided", "bracketed", "edge", "equal", "undecided"}
