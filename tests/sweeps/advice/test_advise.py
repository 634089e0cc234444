"""Advice on made-up ledgers whose truth is known."""

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from mpdit.scoring.intervals import StandardError
from mpdit.scoring.student_t import chance
from sweeps.advice.advise import advise
from sweeps.advice.next_steps import first_to_follow, why_it_ends
from sweeps.advice.registry import Advice, Situation, chance_below
from sweeps.planning.plan import Plan
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, RungScored, RungWidth
from tests.sweeps.conftest import ended, plan_of, scored

RATES = [0.01, 0.02, 0.04, 0.08]
SEEDS = [0, 1, 2, 3]
REPETITIONS = 12
Distance = Callable[[dict[str, Any]], float]


def events_of(plan: Plan, distance: Distance, noise: random.Random | None = None, error: float = 0.05) -> list[Event]:
    """A finished sweep whose cells have this distance, moved by noise over samples and over training seeds."""
    events: list[Event] = []
    for at, trial in enumerate(plan.trials):
        own = noise.gauss(0, error) if noise else 0.0
        for number, planned in enumerate(plan.cells):
            value = distance({**trial.params, **planned.params}) + own
            drawn = [value + (noise.gauss(0, error / 30) if noise else 0.0) for _ in range(10)]
            events.append(scored(plan, at, number, value, stderr=error / 10, left_out=drawn))
        events.append(ended(plan, at))
    return events


def situation_of(plan: Plan, events: list[Event]) -> Situation:
    return Situation(plan, rank(plan, events), events, "made.yaml")


def parabola(best: float) -> Distance:
    """A parabola in the logarithm of the learning rate: 1 at its minimum, 1.5 a factor of two beside it."""
    return lambda params: 1 + 0.5 * math.log2(params["optimizer.lr"] / best) ** 2


def first_advice(plan: Plan, distance: Distance, seed: int) -> Advice:
    return advise(situation_of(plan, events_of(plan, distance, random.Random(seed))))[0]


@pytest.mark.parametrize(
    ("best", "kind", "tried"),
    [
        (0.028, "settled", None),
        (0.16, "edge", "[0.01, 0.02, 0.04, 0.08, 0.16]"),
        (0.08, "edge", "[0.01, 0.02, 0.04, 0.08, 0.16]"),
        (0.01, "edge", "[0.005, 0.01, 0.02, 0.04, 0.08]"),
        (0.003, "edge", "[0.005, 0.01, 0.02, 0.04, 0.08]"),
    ],
)
def test_a_parabola_is_followed_beyond_an_end_and_left_inside(best: float, kind: str, tried: str | None) -> None:
    plan = plan_of({"optimizer.lr": RATES, "seed": SEEDS})
    found = [first_advice(plan, parabola(best), seed) for seed in range(REPETITIONS)]
    assert sum(advice.kind == kind for advice in found) == REPETITIONS
    if tried:
        assert found[0].axis == "optimizer.lr"
        assert found[0].command == f"mpdit sweep made.yaml --set 'axes.optimizer.lr={tried}'"


def test_an_ema_width_is_extended_without_a_training() -> None:
    plan = plan_of({"optimizer.lr": RATES, "ema.sigma_rel": [0.05, 0.1, 0.2]})

    def distance(params: dict[str, Any]) -> float:
        return parabola(0.028)(params) + 3 * params["ema.sigma_rel"]

    found = advise(situation_of(plan, events_of(plan, distance)))[0]
    assert (found.kind, found.axis) == ("edge", "ema.sigma_rel")
    assert "try 0.025 too (no new training)" in found.text


def test_a_free_axis_of_a_search_needs_no_more_points() -> None:
    axes: dict[str, Any] = {"optimizer.lr": {"log_uniform": [0.01, 0.08]}, "ema.sigma_rel": [0.05, 0.1, 0.2]}
    plan = plan_of(axes, search={"algorithm": "random", "trials": 3})
    found = advise(situation_of(plan, events_of(plan, lambda params: 1 + 5 * params["ema.sigma_rel"])))
    edge = next(advice for advice in found if advice.axis == "ema.sigma_rel")
    assert edge.settings == ("axes.ema.sigma_rel=[0.025, 0.05, 0.1, 0.2]",)
    assert "(no new training)" in edge.text


def test_a_learning_search_counts_the_points_that_it_is_to_suggest() -> None:
    axes: dict[str, Any] = {"optimizer.lr": {"log_uniform": [0.01, 0.08]}, "seed": [0, 1]}
    first = [{"optimizer.lr": rate} for rate in (0.011, 0.04, 0.075)]
    plan = plan_of(axes, search={"algorithm": "tpe", "trials": 4, "first": first})
    found = advise(situation_of(plan, events_of(plan, parabola(0.4))))
    edge = next(advice for advice in found if advice.kind == "edge")
    assert edge.settings[-1] == "search.trials=5"
    assert "(2 new trainings)" in edge.text


def test_an_axis_is_not_extended_beyond_what_there_is() -> None:
    """No EMA is wider than σ_rel 0.288, and of raw weights (0) there is nothing below."""
    for values, slope in (([0.05, 0.1, 0.27], -2), ([0, 0.1, 0.2], 2)):
        plan = plan_of({"ema.sigma_rel": values})
        events = events_of(plan, lambda params, slope=slope: 1 + slope * params["ema.sigma_rel"])  # type: ignore[misc]
        assert [advice.kind for advice in advise(situation_of(plan, events))] == ["settled"]


def test_a_flat_end_is_not_worth_a_training() -> None:
    plan = plan_of({"optimizer.lr": RATES, "seed": [0, 1]})
    found = advise(situation_of(plan, events_of(plan, lambda params: 1 + 0.01 * params["optimizer.lr"])))
    assert "edge" not in {advice.kind for advice in found}


def test_a_search_gets_a_wider_range_and_more_points() -> None:
    axes: dict[str, Any] = {"optimizer.lr": {"log_uniform": [0.01, 0.08]}}
    first = [{"optimizer.lr": rate} for rate in (0.011, 0.02, 0.04, 0.075)]
    plan = plan_of(axes, search={"algorithm": "random", "trials": 4, "first": first})
    found = advise(situation_of(plan, events_of(plan, parabola(0.2))))[0]
    assert found.settings[0] == "axes.optimizer.lr={log_uniform: [0.01, 0.16]}"
    assert found.settings[1].endswith(", {optimizer.lr: 0.16}]")  # where every point is listed, so is the new one
    assert found.settings[2] == "search.trials=5"
    plan = plan_of(axes, search={"algorithm": "random", "trials": 6, "first": first})
    found = advise(situation_of(plan, events_of(plan, parabola(0.2))))[0]
    assert found.settings == ("axes.optimizer.lr={log_uniform: [0.01, 0.16]}", "search.trials=8")


def test_tied_modulations_want_more_seeds_and_settled_ones_do_not() -> None:
    """Two modulations 0.01 apart are tied at one seed, 5 apart they are not."""
    for apart, kind in ((0.01, "seeds"), (5.0, "settled")):
        plan = plan_of({"model.modulation": ["scale", "shift"]})
        events: list[Event] = [
            scored(plan, trial, 0, 1 + trial * apart, stderr=0.1, left_out=[1.0 + 0.03 * (at % 2) for at in range(10)])
            for trial in (0, 1)
        ]
        events += [ended(plan, trial) for trial in (0, 1)]
        assert [advice.kind for advice in advise(situation_of(plan, events))] == [kind]


def test_the_best_of_single_trainings_is_never_settled() -> None:
    """Of equal points the best of nine single seeds is a lucky one: it and those that are tied get three seeds."""
    plan = plan_of({"model.modulation": ["scale", "shift", "gate"], "optimizer.lr": [0.02, 0.04, 0.08]})
    for seed in range(REPETITIONS):
        found = advise(situation_of(plan, events_of(plan, lambda params: 1.0, random.Random(seed), error=0.13)))
        assert [advice.kind for advice in found if advice.kind != "edge"] == ["seeds"]
        assert "name=made-confirm" in found[-1].settings
        assert "train the best 6 with 3 (12 new trainings)" in found[-1].text


@pytest.mark.parametrize(("error", "kinds"), [(0.02, {"settled"}), (0.6, {"unsettled"})])
def test_what_a_dozen_seeds_do_not_tell_is_unsettled(error: float, kinds: set[str]) -> None:
    plan = plan_of({"model.modulation": ["scale", "shift"], "seed": list(range(12))})
    runs = [events_of(plan, lambda params: 1.0, random.Random(seed), error=error) for seed in range(3)]
    found = [advise(situation_of(plan, events)) for events in runs]
    assert {advice.kind for each in found for advice in each} == kinds
    assert found[0][0].command == "mpdit best made --export"


def test_finalists_whose_seeds_spread_far_are_unsettled() -> None:
    """They were chosen from single trainings, as if a seed moved a value by 13 %."""
    for name, kind in (("made-confirm", "unsettled"), ("made", "settled")):
        plan = plan_of({"model.modulation": ["scale", "shift"], "seed": [0, 1, 2, 3]}, name=name)
        values = [0.5, 1.0, 0.6, 1.4, 20.0, 23.0, 40.0, 30.0]
        events: list[Event] = [scored(plan, at, 0, value, left_out=[value] * 10) for at, value in enumerate(values)]
        events += [ended(plan, at) for at in range(8)]
        assert [advice.kind for advice in advise(situation_of(plan, events))] == [kind]


def test_the_risk_of_a_rival_is_that_of_students_t() -> None:
    """A rival that is measured as equal is better by more than 10 % with t's tail beyond 0.1/error."""
    plan = plan_of({"model.modulation": ["scale", "shift"], "seed": [0, 1, 2]})
    situation = situation_of(plan, events_of(plan, lambda params: 1.0))
    best, rival = (dataclasses.replace(situation.best, value=1.0) for _ in range(2))
    for error, freedom in ((0.1, 4.0), (0.05, math.inf)):
        made = dataclasses.replace(situation, rows=[best])
        rows = [dataclasses.replace(rival, gap_error=error, gap_freedom=freedom)]
        assert made.risk(rows) == pytest.approx(chance(0.1 / error, freedom) / 2)
        assert made.risk([*rows, *rows]) == pytest.approx(chance(0.1 / error, freedom))
    assert made.risk([dataclasses.replace(rival, value=5.0, gap_error=0.0)]) == 0
    assert made.risk([dataclasses.replace(rival, gap_error=None)]) == 0
    assert chance_below(0.0, -1.0, StandardError(0.5, math.inf)) == pytest.approx(1 - chance(2.0, math.inf) / 2)


def test_a_changed_sweep_is_planned_once() -> None:
    situation = situation_of(plan := plan_of({"optimizer.lr": RATES}), events_of(plan, parabola(0.3)))
    advice, changed = first_to_follow(advise(situation), situation) or pytest.fail("an edge is followed")
    assert situation.changed(advice.settings) is changed
    assert situation.changed(["axes.nothing=[1]"]) is None


def test_why_a_sweep_ends() -> None:
    def one(kind: str, settings: tuple[str, ...] = ()) -> Advice:
        return Advice(kind, None, "so it is", "mpdit", settings)

    assert why_it_ends([one("seeds", ("axes.seed=[0]",))]).startswith("not settled within the hours")
    assert why_it_ends([one("short", ("recipe.steps=9",)), one("unsettled")]) == "so it is"
    assert why_it_ends([one("unfinished"), one("settled")]) == "nothing is left that is worth it"


@pytest.mark.parametrize(("training", "gained", "kind"), [(90, 0.02, "edge"), (90, 0.01, None), (1, 0.02, None)])
def test_an_end_of_a_free_axis_is_told_by_its_gain_for_its_cost(
    training: float, gained: float, kind: str | None
) -> None:
    """One of three widths costs a third of the scoring: 1/30 of a trial that trains for nine tenths of its time."""
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1, 0.2]})
    events: list[Event] = [scored(plan, 0, at, 1 + gained * at, left_out=[1.0 + gained * at] * 10) for at in range(3)]
    events.append(ended(plan, 0, training_seconds=float(training), scoring_seconds=10.0))
    edges = [advice.axis for advice in advise(situation_of(plan, events)) if advice.kind == "edge"]
    assert edges == (["ema.sigma_rel"] if kind else [])


def test_finalists_at_an_end_get_the_best_of_them_with_the_next_value() -> None:
    axes: dict[str, Any] = {"model.modulation": ["scale", "shift"], "optimizer.lr": RATES, "seed": [0, 1, 2]}
    first = [{"model.modulation": m, "optimizer.lr": r} for m, r in (("shift", 0.08), ("scale", 0.04))]
    plan = plan_of(axes, search={"algorithm": "random", "trials": 2, "first": first})
    situation = situation_of(plan, events_of(plan, parabola(0.16)))
    found = next(advice for advice in advise(situation) if advice.axis == "optimizer.lr")
    assert "try 0.16 too (3 new trainings)" in found.text
    changed = situation.changed(found.settings)
    assert changed
    new = [trial.params for trial in changed.trials if trial.id not in {known.id for known in plan.trials}]
    assert {(params["model.modulation"], params["optimizer.lr"]) for params in new} == {("shift", 0.16)}


def test_far_above_the_noise_floor_means_train_longer() -> None:
    plan = plan_of({"optimizer.lr": RATES, "seed": SEEDS})
    near, far = (advise(situation_of(plan, events_of(plan, lambda p, t=t: t * parabola(0.028)(p)))) for t in (1, 20))  # type: ignore[misc]
    assert [advice.kind for advice in near] == ["settled"]  # the made-up noise floor is 0.2
    assert [advice.kind for advice in far] == ["short"]
    assert far[0].settings == ("name=made-4x", "recipe.steps=2400")


@pytest.mark.parametrize(("at_half", "kind"), [(2.5, "short"), (1.55, "settled")])
def test_a_distance_that_still_falls_means_train_longer(at_half: float, kind: str) -> None:
    """The rung is scored with 250 samples: its bias, 0.2·(2000·m/(2000 + m))/250 more or less, is taken out."""
    plan = plan_of({"model.modulation": ["scale"], "optimizer.lr": [0.01, 0.02, 0.04], "seed": [0, 1, 2]})
    events = events_of(plan, parabola(0.02))
    events = [replace(e, provenance={"reference_count": 2000}) if isinstance(e, CellScored) else e for e in events]
    rung = RungScored(plan.trials[3].id, 300, 0.5, 250, [RungWidth(0.1, at_half)])
    assert [advice.kind for advice in advise(situation_of(plan, [*events, rung]))] == [kind]


def test_the_most_steps_of_an_axis_are_no_edge_but_too_short() -> None:
    plan = plan_of({"steps": [100, 200, 400], "seed": [0, 1]})
    found = advise(situation_of(plan, events_of(plan, lambda params: 400 / params["steps"], random.Random(0))))
    assert [(advice.kind, advice.settings) for advice in found] == [("short", ("axes.steps=[100, 200, 400, 800]",))]


def test_what_is_not_finished_comes_first() -> None:
    plan = plan_of({"optimizer.lr": RATES})
    events = [event for event in events_of(plan, parabola(0.16)) if event.trial != plan.trials[0].id]
    found = advise(situation_of(plan, events))
    assert [advice.kind for advice in found] == ["unfinished", "edge"]
    assert found[0].command == "mpdit sweep made.yaml"
    failed = advise(situation_of(plan, [*events, ended(plan, 0, "failed")]))
    assert failed[0].command == "mpdit retry made --failed"


def test_nothing_scored_is_unfinished_too() -> None:
    plan = plan_of({"optimizer.lr": RATES})
    assert [advice.kind for advice in advise(situation_of(plan, []))] == ["unfinished"]
