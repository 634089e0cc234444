"""Which points have lost: asked after each trial as at the end, and at a cost that does not grow with the sweep."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.planning.plan import Plan
from sweeps.planning.staged_scoring import missing_cells
from sweeps.results import contest
from sweeps.results.contest import Contest, losers
from sweeps.results.ranking import rank
from sweeps.storage.events import Event, TrialStarted, WeightsDropped
from tests.sweeps.conftest import ended, plan_of, scored, scored_as

AXES: dict[str, list[Any]] = {"optimizer.lr": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06], "ema.sigma_rel": [0.05, 0.1]}


def run_through(plan: Plan, values: random.Random, best: int) -> tuple[list[Event], set[str]]:
    """A sweep that drops its losers after each trial, to the last cell on fresh noise; and what it has dropped."""
    numbers = {trial.id: at for at, trial in enumerate(plan.trials)}
    events: list[Event] = []
    asked, gone = Contest(plan, events), set[str]()
    while missing := missing_cells(plan, events):
        trial = values.choice(sorted(missing))
        assert trial not in gone  # what still has cells to score has its weights
        is_new = trial not in {event.trial for event in events}
        events.append(TrialStarted(trial))
        for cell in missing[trial]:
            events.append(scored_as(plan, numbers[trial], cell, values.choice([None, *range(1, 40)])))
        events.append(ended(plan, numbers[trial], values.choice(["completed"] * 9 + ["diverged"] * is_new)))
        for lost in asked.losers(best):
            gone.add(lost)
            events.append(WeightsDropped(lost))
    return events, gone


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 3), st.sampled_from([[0], [0, 1]]))
def test_losers_that_go_one_after_the_other_are_those_of_the_end(
    seed: int, best: int, confirm: int, seeds: list[int]
) -> None:
    plan = plan_of({**AXES, "seed": seeds}, confirm={"best": confirm})
    events, gone = run_through(plan, random.Random(seed), best)
    kept = [event for event in events if not isinstance(event, WeightsDropped)]
    assert gone == set(losers(plan, kept, best))
    first = [row for row in rank(plan, events) if row.is_scored][:1]
    assert not gone & {trial for row in first for trial in row.trials}


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_where_samples_are_drawn_in_rounds_everything_stays_until_the_last(seed: int) -> None:
    plan = plan_of(AXES, screening={"samples": 250, "keep": 0.5}, confirm={"best": 2})
    events, gone = run_through(plan, random.Random(seed), best=1)
    first = [row for row in rank(plan, events) if row.is_scored][:1]
    assert not gone & {trial for row in first for trial in row.trials}


def test_an_answer_costs_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of({"optimizer.lr": [0.001 * (1 + at) for at in range(200)]})
    events: list[Event] = []
    asked, sizes = Contest(plan, events), list[int]()
    monkeypatch.setattr(contest, "rank", lambda part, known: (sizes.append(len(part.trials)), rank(part, known))[1])
    for at in random.Random(0).sample(range(200), 200):
        events += [scored(plan, at, 0, 1 + at), ended(plan, at)]
        events += map(WeightsDropped, asked.losers(2))
    assert max(sizes) == 3
