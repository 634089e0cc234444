"""The best recipe is one of the mean of its seeds, the best weights are one training's."""

import pytest

from sweeps.planning.plan import Plan
from sweeps.results.best_weights import best_weights
from sweeps.results.ranking import rank
from sweeps.storage.events import Event
from tests.sweeps.conftest import ended, plan_of, scored
from tests.sweeps.planning.test_confirmation import again

AXES = {"optimizer.lr": [0.01, 0.02], "seed": [0, 1]}
FIRST = [3.0, 2.0, 2.4, 2.4]  # the recipe with the better mean does not have the best training


@pytest.fixture
def plan() -> Plan:
    return plan_of(AXES, confirm={"best": 2})


def first_round(plan: Plan) -> list[Event]:
    return [event for at, value in enumerate(FIRST) for event in (scored(plan, at, 0, value), ended(plan, at))]


def test_the_best_weights_are_those_of_the_training_that_fresh_noise_finds_best(plan: Plan) -> None:
    events = first_round(plan) + [again(plan, at, 0, value) for at, value in enumerate([3.1, 2.1, 2.3, 2.6])]
    rows = rank(plan, events)
    assert rows[0].params["optimizer.lr"] == 0.02
    alone = best_weights(plan, events, rows)
    assert alone.params["optimizer.lr"] == 0.01
    assert (alone.trial, alone.trials, alone.seeds) == (plan.trials[1].id, [plan.trials[1].id], 1)
    assert (alone.value, alone.confirmed, alone.stderr) == (2.0, 2.1, 0.1)


def test_before_there_is_fresh_noise_they_are_the_best_seed_s_of_the_best_recipe(plan: Plan) -> None:
    events = first_round(plan)
    rows = rank(plan, events)
    assert best_weights(plan, events, rows) == rows[0]
    assert rows[0].trial in {plan.trials[2].id, plan.trials[3].id}
