"""Halving in virtual time: the trial scheduler is the real one, and a longer trial continues a shorter one."""

import math
from collections import Counter
from typing import Any

import pytest

from mpdit.errors import InputError
from pipelines.yaml_file import Document
from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.results.contest import losers
from sweeps.results.ranking import rank
from sweeps.search.promotion import promoted
from sweeps.search.simulator import Curve, simulate, steps_taken
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import checked_spec
from sweeps.storage.events import Event, Suggested, TrialEnded, TrialStarted
from sweeps.storage.ledger import only
from tests.sweeps.search.test_simulator import scores

RATES = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256]
IN_STEPS = {"warmup": 3, "decay_from": 40}


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "name": "halved",
        "recipe": {"steps": 90, "optimizer": IN_STEPS},
        "axes": {"optimizer.lr": RATES, "ema.sigma_rel": [0.05, 0.1]},
        "scheduler": {"kind": "halving", "start": 10, "factor": 3},
    } | changes


def halved(**changes: Any) -> Plan:
    return make_plan(SweepSpec.model_validate(fields(**changes)))


def curve(trial: Trial, spread: float = 0.001) -> Curve:
    """Falls with the steps; the best rate is 0.032 at each length."""
    away = abs(math.log10(trial.recipe.optimizer.lr / 0.032))
    value = 1 + away + 10 / trial.recipe.steps + 0.01 * trial.recipe.seed
    return Curve([scores(value, spread), scores(value + 1, spread)])


def lengths(plan: Plan) -> dict[int, int]:
    return dict(Counter(trial.recipe.steps for trial in plan.trials))


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_the_best_third_goes_on_each_time_and_no_step_is_taken_twice(slots: int) -> None:
    plan = halved()
    assert lengths(plan) == {10: 9}
    events = simulate(plan, curve, slots)
    assert lengths(plan) == {10: 9, 30: 3, 90: 1}
    assert steps_taken(plan, events)[-1] == 9 * 10 + 3 * 20 + 60
    assert [end.steps_trained for end in only(events, TrialEnded)] == [10] * 9 + [20] * 3 + [60]
    best = rank(plan, events)[0]
    assert (best.params["optimizer.lr"], best.params["steps"]) == (0.032, 90)
    assert plan.open == 0


def test_every_completed_training_is_ranked_with_its_steps() -> None:
    plan = halved()
    rows = rank(plan, simulate(plan, curve))
    assert Counter(row.params["steps"] for row in rows if row.value is not None) == {10: 18, 30: 6, 90: 2}


def test_who_cannot_be_told_from_the_last_one_in_is_promoted_too() -> None:
    """Folds that differ from point to point by more than the points do: all are alike."""
    plan = halved()

    def noisy(trial: Trial) -> Curve:
        value, turn = curve(trial).cells[0]["value"], RATES.index(trial.recipe.optimizer.lr)
        left_out = [value + ((fold * 7 + turn * 3) % 10 - 4.5) for fold in range(10)]
        cell = scores(value) | {"left_out": left_out}
        return Curve([cell, cell | {"value": value + 1}])

    simulate(plan, noisy)
    assert lengths(plan) == {10: 9, 30: 9, 90: 9}


def test_points_that_diverge_are_not_promoted() -> None:
    plan = halved()

    def wild(trial: Trial) -> Curve:
        return Curve([], diverges_at=5) if trial.recipe.optimizer.lr > 0.03 else curve(trial)

    events = simulate(plan, wild)
    best = rank(plan, events)[0]
    assert (best.params["optimizer.lr"], best.params["steps"]) == (0.016, 90)


def test_where_all_diverge_nothing_goes_on() -> None:
    plan = halved()
    simulate(plan, lambda trial: Curve([], diverges_at=5))
    assert lengths(plan) == {10: 9}


def test_seeds_go_on_together_and_are_judged_by_their_mean() -> None:
    axes = {"optimizer.lr": RATES, "seed": [0, 1], "ema.sigma_rel": [0.05, 0.1]}
    plan = halved(axes=axes)
    simulate(plan, curve)
    assert lengths(plan) == {10: 18, 30: 6, 90: 2}


@pytest.mark.parametrize("cut", [5, 20, 27, 33, 36, 40, 44])
def test_a_killed_sweep_goes_on_where_its_ledger_ends(cut: int) -> None:
    def told(events: list[Event]) -> list[Any]:
        return [line.params for line in only(events, Suggested)]

    spec = SweepSpec.model_validate(fields())
    whole = simulate(make_plan(spec), curve)
    plan = make_plan(spec, whole[:cut])
    again = simulate(plan, curve, past=whole[:cut])
    assert told(again) == told(whole)
    assert lengths(plan) == {10: 9, 30: 3, 90: 1}


def test_points_that_break_a_constraint_go_on_only_where_too_few_keep_it() -> None:
    def drifting(broken: set[float]) -> dict[int, set[float]]:
        """The rates at each length, where the networks of some rates drift."""
        plan = halved(constraints=["magnitude_drift <= 0.2"])

        def drifts(trial: Trial) -> Curve:
            drift = 0.3 if trial.recipe.optimizer.lr in broken else 0.1
            return Curve([{**cell, "magnitude_drift": drift} for cell in curve(trial).cells])

        simulate(plan, drifts)
        rates: dict[int, set[float]] = {}
        for trial in plan.trials:
            rates.setdefault(trial.recipe.steps, set()).add(trial.recipe.optimizer.lr)
        return rates

    assert drifting({0.032, 0.064}) == {10: {*RATES}, 30: {0.008, 0.016, 0.128}, 90: {0.016}}
    assert drifting({*RATES} - {0.001}) == {10: {*RATES}, 30: {0.001, 0.016, 0.032, 0.064}, 90: {0.001, 0.032}}


def test_a_decision_is_made_once_and_only_when_all_have_ended() -> None:
    plan = halved()
    events = simulate(plan, curve)
    assert promoted(plan, events) == []
    before = make_plan(plan.spec)
    firsts = [line for line in events if line.trial in {trial.id for trial in before.trials}]
    assert {point["optimizer.lr"] for point in promoted(before, firsts)} == {0.016, 0.032, 0.064}


def test_weights_stay_until_the_last_decision() -> None:
    plan = halved(retention={"best": 1}, confirm={"best": 0})
    events = simulate(plan, curve)
    at_last = [at for at, line in enumerate(events) if isinstance(line, TrialStarted)][-1]
    early = make_plan(plan.spec, events[: at_last + 1])
    assert losers(early, events[: at_last + 1], 1) == []
    assert len(losers(plan, events, 1)) == 12


def test_the_plan_is_estimated_with_what_will_be_promoted() -> None:
    plan = halved()
    assert plan.open == 4
    assert lengths(plan.expected) == {10: 9, 30: 3, 90: 1}


def test_the_lengths_may_be_listed_as_an_axis() -> None:
    axes = {"optimizer.lr": RATES, "steps": [20, 90], "ema.sigma_rel": [0.05, 0.1]}
    plan = halved(axes=axes)
    simulate(plan, curve)
    assert lengths(plan) == {20: 9, 90: 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"steps": 90}}, "laid out for one number of steps"),
        ({"recipe": {"steps": 90, "optimizer": IN_STEPS | {"schedule": "cosine"}}}, "laid out for one number of steps"),
        ({"recipe": {"steps": 10, "optimizer": IN_STEPS}}, "at least two numbers of steps"),
        ({"search": {"algorithm": "tpe", "trials": 5}}, "points that are known from the start"),
        ({"objective": [{"metric": "frechet"}, {"metric": "parameters"}]}, "promotes by one objective"),
        (
            {"axes": {"steps": {"int": [10, 90]}}, "search": {"algorithm": "random", "trials": 2}},
            "at least two numbers",
        ),
    ],
)
def test_what_cannot_be_promoted_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_spec(Document(fields(**changes), "sweep.yaml", {}), [])
