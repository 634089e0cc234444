"""Staged scoring as a function of the ledger: who is scored next, and with how many samples."""

from collections.abc import Callable

import pytest

from mpdit.errors import InputError
from sweeps.planning.plan import Plan
from sweeps.planning.staged_scoring import missing_cells, planned_samples, rounds
from sweeps.results.ranking import rank
from sweeps.spec.reading import read_spec
from sweeps.storage.events import CellScored, Event
from tests.sweeps.conftest import ended, plan_of, scored

AXES = {"optimizer.lr": [0.01, 0.02, 0.04], "ema.sigma_rel": [0.03, 0.05, 0.1, 0.2]}


def staged(**changes: object) -> Plan:
    return plan_of({**AXES, **changes}, screening={"samples": 250})  # type: ignore[dict-item]


def played(plan: Plan, truth: Callable[[int, int, int], float | None], out: tuple[int, ...] = ()) -> list[Event]:
    """The whole ledger of a sweep whose cells score truth(trial, cell, samples); trials in `out` diverge."""
    events = [ended(plan, trial, "diverged") for trial in out]
    events += [ended(plan, trial) for trial in range(len(plan.trials)) if trial not in out]
    number = {trial.id: at for at, trial in enumerate(plan.trials)}
    while missing := missing_cells(plan, events):
        for trial, cells in missing.items():
            for cell in cells:
                at = next(i for i, p in enumerate(plan.cells) if p.cell.sigma_rel == cell.sigma_rel)
                samples = cell.evaluation.samples
                events.append(scored(plan, number[trial], at, truth(number[trial], at, samples), samples=samples))
    return events


def counts(events: list[Event]) -> dict[int, int]:
    found: dict[int, int] = {}
    for line in events:
        if isinstance(line, CellScored):
            samples = line.params["evaluation.samples"]
            found[samples] = found.get(samples, 0) + 1
    return found


def test_rounds_grow_by_what_is_left_out() -> None:
    assert rounds(staged().spec) == [250, 750, 2000]
    assert rounds(plan_of(AXES).spec) == [2000]
    assert rounds(plan_of(AXES, screening={"samples": 2500}).spec) == [2000]


def test_the_best_third_goes_on_and_the_winner_is_found() -> None:
    plan = staged()
    events = played(plan, lambda trial, cell, samples: 1 + abs(trial - 1) + 0.3 * abs(cell - 2) + 40 / samples)
    assert counts(events) == {250: 12, 750: 4, 2000: 2}
    best = rank(plan, events)[0]
    assert best.params == {"optimizer.lr": 0.02, "ema.sigma_rel": 0.1}
    assert [row.status for row in rank(plan, events)].count("screened") == 10
    assert planned_samples(plan) == 12 * 250 + 4 * 500 + 2 * 1250
    assert planned_samples(plan) <= 12 * 2000 / 3


def test_without_screening_every_cell_is_scored_in_full() -> None:
    assert counts(played(plan_of(AXES), lambda *_: 1.0)) == {2000: 12}


def test_a_round_waits_for_every_trial() -> None:
    plan = staged()
    first = missing_cells(plan, [])
    assert {len(cells) for cells in first.values()} == {4}
    events = [scored(plan, trial, cell, 1.0, samples=250) for trial in range(2) for cell in range(4)]
    assert set(missing_cells(plan, events)) == {plan.trials[2].id}
    assert missing_cells(plan, events, given_up={plan.trials[2].id})  # a trial that failed holds nobody up
    diverged = [*events, ended(plan, 2, "diverged")]
    assert {cell.evaluation.samples for cells in missing_cells(plan, diverged).values() for cell in cells} == {750}


def test_seeds_go_on_together() -> None:
    plan = staged(seed=[0, 1])
    events = played(plan, lambda trial, cell, _samples: float(trial // 2 + cell))
    assert counts(events) == {250: 24, 750: 8, 2000: 4}
    assert rank(plan, events)[0].seeds == 2


def test_what_has_no_value_or_diverged_does_not_go_on() -> None:
    plan = staged()
    events = played(plan, lambda trial, cell, samples: None if cell == 0 else 1.0 + trial, out=(0,))
    assert counts(events)[250] == 8
    assert rank(plan, events)[0].params["optimizer.lr"] == 0.02


def test_a_finished_screening_is_finished() -> None:
    plan = staged()
    events = played(plan, lambda trial, cell, samples: trial + cell + 100 / samples)
    assert missing_cells(plan, events) == {}
    wider = staged(**{"ema.sigma_rel": [0.03, 0.05, 0.1, 0.2, 0.15]})
    assert {len(cells) for cells in missing_cells(wider, events).values()} == {1}  # the new width, screened first


def test_cells_that_were_scored_in_full_before_are_not_screened() -> None:
    plan = staged()
    events = [scored(plan, 0, cell, 1.0) for cell in range(4)] + [ended(plan, 0)]
    assert set(missing_cells(plan, events)) == {plan.trials[1].id, plan.trials[2].id}


@pytest.mark.parametrize(("text", "says"), [("{samples: 300}", "multiple of 250"), ("{samples: 250, keep: 1}", "less")])
def test_a_round_is_whole_batches(text: str, says: str, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text(f"name: a\naxes: {{seed: [0]}}\nscreening: {text}\n")
    with pytest.raises(InputError, match=says):
        read_spec(tmp_path / "a.yaml")
