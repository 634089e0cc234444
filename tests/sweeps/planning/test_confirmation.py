"""The first cells are scored again on fresh noise, as a function of the ledger."""

from pathlib import Path

import pytest

from mpdit.errors import InputError
from sweeps.planning.confirmation import confirming_cell, confirming_samples
from sweeps.planning.plan import Plan
from sweeps.planning.staged_scoring import missing_cells
from sweeps.results.contest import losers
from sweeps.results.ranking import rank, winner_said
from sweeps.spec.model import Confirm, SweepSpec
from sweeps.spec.reading import read_spec
from sweeps.storage.events import CellScored, Event, WeightsDropped
from tests.sweeps.conftest import ended, plan_of, scored, scored_as

THREE = {"confirm": {"best": 3}}  # the default

AXES = {"optimizer.lr": [0.01, 0.02, 0.04], "ema.sigma_rel": [0.05, 0.1]}
FIRST = {(0, 0): 3.0, (0, 1): 2.0, (1, 0): 2.1, (1, 1): 5.0, (2, 0): 2.2, (2, 1): 6.0}


def again(plan: Plan, trial: int, cell: int, value: float) -> CellScored:
    """The event of a cell that was scored on fresh noise."""
    return scored_as(plan, trial, confirming_cell(plan, plan.cells[cell]), value)


def first_round(plan: Plan, values: dict[tuple[int, int], float]) -> list[Event]:
    return [scored(plan, *at, value) for at, value in values.items()] + [ended(plan, at) for at in range(3)]


def asked(plan: Plan, events: list[Event]) -> set[tuple[int, float]]:
    """Trial and width of what is to be scored next."""
    number = {trial.id: at for at, trial in enumerate(plan.trials)}
    missing = missing_cells(plan, events).items()
    return {(number[trial], cell.sigma_rel) for trial, cells in missing for cell in cells}


def test_the_first_cells_are_scored_again_when_all_are_known() -> None:
    plan = plan_of(AXES, **THREE)
    events = first_round(plan, FIRST)
    assert {at for at, _ in asked(plan, events[1:])} == {0}  # one is still missing: no fresh noise yet
    assert asked(plan, events) == {(0, 0.1), (1, 0.05), (2, 0.05)}
    fresh = next(iter(missing_cells(plan, events).values()))[0].evaluation
    assert (fresh.seed, fresh.samples) == (1, 2000)
    events.append(again(plan, 0, 1, 2.4))  # then the driver is killed
    assert asked(plan, events) == {(1, 0.05), (2, 0.05)}
    events += [again(plan, 1, 0, 2.3), again(plan, 2, 0, 2.5)]
    assert missing_cells(plan, events) == {}
    assert confirming_samples(plan) == 3 * 2000


def test_the_winner_is_the_one_that_fresh_noise_confirms_and_a_change_is_told() -> None:
    plan = plan_of(AXES, **THREE)
    events = first_round(plan, FIRST)
    assert [row.confirmed for row in rank(plan, events)] == [None] * 6
    events += [again(plan, 0, 1, 2.4), again(plan, 1, 0, 2.3), again(plan, 2, 0, 2.5)]
    rows = rank(plan, events)
    assert [(row.rank, row.value, row.confirmed) for row in rows[:4]] == [
        (1, 2.1, 2.3),
        (2, 2.0, 2.4),
        (3, 2.2, 2.5),
        (4, 3.0, None),
    ]
    assert rows[1].tied_with_best  # better by the noise that chose it: never told apart
    said = winner_said(rows)
    assert said is not None
    assert rows[0].trial in said
    assert rows[1].trial in said
    assert rows[0].confirmed_interval == pytest.approx(0.1 * 2.2622, rel=1e-4)
    same = [*first_round(plan, FIRST), again(plan, 0, 1, 2.1), again(plan, 1, 0, 2.3), again(plan, 2, 0, 2.5)]
    assert winner_said(rank(plan, same)) is None


def test_by_another_metric_nothing_is_confirmed() -> None:
    plan = plan_of(AXES, **THREE)
    events = [*first_round(plan, FIRST), again(plan, 0, 1, 2.4), again(plan, 1, 0, 2.3), again(plan, 2, 0, 2.5)]
    assert all(row.confirmed is None for row in rank(plan, events, by="magnitude_drift"))


@pytest.mark.parametrize(
    "fields",
    [
        {"confirm": {"best": 0}},
        {"objective": [{"metric": "frechet"}, {"metric": "magnitude_drift"}]},  # a front has no one winner
    ],
)
def test_there_may_be_nothing_to_confirm(fields: dict) -> None:
    plan = plan_of(AXES, **{**THREE, **fields})
    assert missing_cells(plan, first_round(plan, FIRST)) == {}
    assert confirming_samples(plan) == 0


def test_fewer_samples_and_all_seeds_are_confirmed() -> None:
    plan = plan_of({**AXES, "seed": [0, 1]}, confirm={"best": 1, "samples": 500})
    events: list[Event] = [scored(plan, at, cell, 1.0 + at // 2 + cell) for at in range(6) for cell in range(2)]
    events += [ended(plan, at) for at in range(6)]
    assert asked(plan, events) == {(0, 0.05), (1, 0.05)}
    assert {cell.evaluation.samples for cells in missing_cells(plan, events).values() for cell in cells} == {500}
    assert confirming_samples(plan) == 1000


def test_what_has_lost_its_weights_is_not_trained_again_to_be_confirmed() -> None:
    plan = plan_of(AXES, **THREE)
    events = [*first_round(plan, FIRST), WeightsDropped(plan.trials[0].id)]
    assert asked(plan, events) == {(1, 0.05), (2, 0.05)}


def test_weights_are_kept_until_fresh_noise_has_had_its_say() -> None:
    plan = plan_of(AXES, retention={"best": 1}, **THREE)
    events = first_round(plan, FIRST)
    assert losers(plan, events, 1) == []
    events += [again(plan, 0, 1, 2.4), again(plan, 1, 0, 2.3), again(plan, 2, 0, 2.5)]
    assert losers(plan, events, 1) == [plan.trials[0].id, plan.trials[2].id]


@pytest.mark.parametrize(
    ("text", "says"), [("{best: 7}", "0 to 6"), ("{samples: 0}", "10"), ("{best: -1}", "0"), ("{first: 2}", "best")]
)
def test_more_than_there_are_or_without_samples_is_refused(text: str, says: str, tmp_path: Path) -> None:
    axes = "{optimizer.lr: [0.01, 0.02, 0.04], ema.sigma_rel: [0.05, 0.1]}"
    (tmp_path / "a.yaml").write_text(f"name: a\naxes: {axes}\nconfirm: {text}\n")
    with pytest.raises(InputError, match=says):
        read_spec(tmp_path / "a.yaml")


def test_three_cells_are_confirmed_by_default() -> None:
    assert SweepSpec.model_validate({"name": "made"}).confirm == Confirm(best=3, samples=None)
