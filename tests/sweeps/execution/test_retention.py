"""What is let go, and what is not: weights of losers, leftovers of kills; nothing that a sweep still needs."""

import os
from pathlib import Path

import pytest

from pipelines.yaml_file import write_yaml
from sweeps.execution.retention import drop_losers, removable, remove
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Plan
from sweeps.results.contest import Contest, losers
from sweeps.storage.events import Event, SweepStarted, TrialStarted
from sweeps.storage.layout import Storage, locked
from sweeps.storage.ledger import Ledger
from tests.sweeps.conftest import ended, plan_of, scored


def with_results(plan: Plan, values: list[float]) -> list[Event]:
    """Every trial has ended; trial i's cells have the value values[i]."""
    cells = [scored(plan, i, cell, value) for i, value in enumerate(values) for cell in range(len(plan.cells))]
    return [SweepStarted("s"), *cells, *(ended(plan, i) for i in range(len(values)))]


def stored(plan: Plan, root: Path, events: list[Event]) -> Storage:
    """A storage with the sweep's file and ledger, and a kilobyte of weights for each of its trials."""
    storage = Storage(root)
    storage.prepare()
    storage.sweep(plan.spec.name).mkdir()
    write_yaml(storage.spec(plan.spec.name), plan.spec.model_dump())
    ledger = Ledger(storage.ledger(plan.spec.name))
    for line in events:
        ledger.append(line)
    for trial in plan.trials:
        (storage.trial(trial.id) / "ema").mkdir(parents=True, exist_ok=True)
        (storage.trial(trial.id) / "ema" / "raw.safetensors").write_bytes(bytes(1000))
        (storage.trial(trial.id) / "recipe.yaml").touch()
    return storage


def test_the_best_stay_and_the_seeds_of_a_point_stay_together(small_plan: Plan) -> None:
    events = with_results(small_plan, [1.0, 9.0, 4.0, 4.0])  # means over seeds: 5 and 4
    ids = [trial.id for trial in small_plan.trials]
    assert losers(small_plan, events, 1) == ids[:2]
    assert losers(small_plan, events, 2) == []


def test_a_point_with_a_seed_that_still_runs_may_win_yet(small_plan: Plan) -> None:
    events = with_results(small_plan, [9.0, 9.0, 1.0, 1.0])
    assert losers(small_plan, [*events, TrialStarted(small_plan.trials[1].id)], 1) == []


def test_losers_go_and_the_ranking_stays(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02, 0.03]}, retention={"best": 1})
    events = with_results(plan, [2.0, 1.0, 3.0])
    storage = stored(plan, tmp_path, events)
    first, best, third = (trial.id for trial in plan.trials)
    assert drop_losers(Contest(plan, events), storage, OtherSweeps(storage, "made")) == [first, third]
    assert storage.is_trained(best)
    assert not storage.is_trained(first)
    assert drop_losers(Contest(plan, events), storage, OtherSweeps(storage, "made")) == []


def test_what_another_sweep_ranks_stays(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, retention={"best": 1})
    events = with_results(plan, [2.0, 1.0])
    storage = stored(plan, tmp_path, events)
    stored(plan_of({"optimizer.lr": [0.01, 0.02]}, name="other"), tmp_path, events)
    assert drop_losers(Contest(plan, events), storage, OtherSweeps(storage, "made")) == []
    assert removable(storage) == []


def test_without_a_rule_every_weight_stays(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]})
    storage = stored(plan, tmp_path, with_results(plan, [2.0, 1.0]))
    assert removable(storage) == []
    assert [removal.path.parent.name for removal in removable(storage, best=1)] == [plan.trials[0].id]


def test_leftovers_of_kills_are_found_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]})
    storage = stored(plan, tmp_path / "runs", with_results(plan, [2.0, 1.0]))
    trial = storage.trial(plan.trials[0].id)
    (trial / "checkpoints" / "partial-00000003").mkdir(parents=True)
    (trial / "ema" / "step-00000003.partial").touch()
    orphan = storage.trial("0123456789")
    orphan.mkdir()
    (orphan / "recipe.yaml").write_text("steps: 1")
    dead = tmp_path / "mpdit-ray-999999999"
    dead.mkdir()
    monkeypatch.setattr("sweeps.execution.cluster._temporary", lambda: tmp_path)
    (tmp_path / f"mpdit-ray-{os.getpid()}").mkdir()
    found = removable(storage)
    assert {removal.path.name for removal in found} == {
        "partial-00000003",
        "step-00000003.partial",
        "0123456789",
        dead.name,
    }
    with locked(orphan / "lock", "the orphan"):
        assert orphan not in [removal.path for removal in removable(storage)]
    remove(storage, found)
    assert not any(removal.path.exists() for removal in found)
    assert removable(storage) == []
    assert storage.is_trained(plan.trials[0].id)


def test_a_running_sweep_is_left_alone(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, retention={"best": 1})
    storage = stored(plan, tmp_path, with_results(plan, [2.0, 1.0]))
    assert removable(storage)
    with locked(storage.lock("made"), "sweep made"):
        assert removable(storage) == []


def test_what_a_sweep_has_come_to_need_since_the_user_was_asked_stays(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02, 0.03]}, retention={"best": 1})
    events = with_results(plan, [2.0, 1.0, 3.0])
    storage = stored(plan, tmp_path, events)
    orphan = storage.trial("0123456789")
    orphan.mkdir()
    (orphan / "recipe.yaml").write_text("steps: 1")
    found, (first, _best, third) = removable(storage), (trial.id for trial in plan.trials)
    assert {storage.trial(first) / "ema", storage.trial(third) / "ema", orphan} <= {one.path for one in found}
    Ledger(storage.ledger("made")).append(TrialStarted("0123456789"))
    stored(plan_of({"optimizer.lr": [0.01]}, name="other"), tmp_path, [TrialStarted(first)])
    left = {removal.path for removal in remove(storage, found)}
    assert left == {storage.trial(first) / "ema", orphan}
    assert storage.is_trained(first)
    assert orphan.exists()
    assert not storage.is_trained(third)


def test_a_sweep_that_started_since_the_user_was_asked_keeps_what_it_has(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, retention={"best": 1})
    storage = stored(plan, tmp_path, with_results(plan, [2.0, 1.0]))
    found = removable(storage)
    with locked(storage.lock("made"), "sweep made"):
        assert remove(storage, found) == found
    with locked(storage.trial(plan.trials[0].id) / "lock", "its trial"):
        assert remove(storage, found) == found
    assert remove(storage, found) == []
    assert not storage.is_trained(plan.trials[0].id)
