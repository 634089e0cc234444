from pathlib import Path

from sweeps.planning.known_work import known_events, unfinished, untrained
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Plan
from sweeps.planning.staged_scoring import missing_cells
from sweeps.storage.events import SweepStarted, TrialRetried, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from tests.sweeps.conftest import ended, plan_of, scored


def done(plan: Plan, trial: int) -> list:
    start = TrialStarted(plan.trials[trial].id)
    return [start, *(scored(plan, trial, cell, 1.0) for cell in range(len(plan.cells))), ended(plan, trial)]


def test_what_is_done_needs_no_worker(small_plan: Plan) -> None:
    assert unfinished(small_plan, []) == small_plan.trials
    assert unfinished(small_plan, done(small_plan, 0)) == small_plan.trials[1:]


def test_a_new_width_needs_only_its_cells_while_the_weights_are_there(tmp_path: Path, small_plan: Plan) -> None:
    events = done(small_plan, 0)
    wider = plan_of({**small_plan.spec.axes, "ema.sigma_rel": [0.05, 0.1, 0.2]})
    missing = missing_cells(wider, events)[wider.trials[0].id]
    assert [cell.sigma_rel for cell in missing] == [0.2]
    assert wider.trials[0] in unfinished(wider, events)
    storage = Storage(tmp_path)
    assert wider.trials[0] in untrained(wider, storage, events)
    (storage.trial(wider.trials[0].id) / "ema").mkdir(parents=True)
    (storage.trial(wider.trials[0].id) / "ema" / "raw.safetensors").touch()
    assert wider.trials[0] not in untrained(wider, storage, events)


def test_a_diverged_trial_is_final_and_a_failed_one_is_not(small_plan: Plan) -> None:
    events = [ended(small_plan, 0, "diverged"), ended(small_plan, 1, "failed")]
    assert small_plan.trials[0] not in unfinished(small_plan, events)
    assert small_plan.trials[1] in unfinished(small_plan, events)


def test_a_stopped_trial_is_left_until_it_is_retried(small_plan: Plan) -> None:
    events = [ended(small_plan, 0, "stopped")]
    assert small_plan.trials[0] not in unfinished(small_plan, events)
    again = [*events, TrialRetried(small_plan.trials[0].id)]
    assert small_plan.trials[0] in unfinished(small_plan, again)
    assert small_plan.trials[0].id in missing_cells(small_plan, again)


def test_finished_trials_of_other_sweeps_are_found_with_their_origin(tmp_path: Path, small_plan: Plan) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    storage.sweep("other").mkdir()
    other = Ledger(storage.ledger("other"))
    for line in [SweepStarted("s"), *done(small_plan, 0), TrialStarted(small_plan.trials[1].id)]:
        other.append(line)
    found = OtherSweeps(storage, "made").finished(small_plan.trials)
    assert {line.trial for line in found} == {small_plan.trials[0].id}
    assert {line.origin for line in found} == {"other"}
    assert unfinished(small_plan, known_events(storage, small_plan)) == small_plan.trials[1:]
