"""A sweep after a change of the code: what a driver trains again. Ray, which only carries events, is left out."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from sweeps.execution import driver
from sweeps.execution.cluster import Cluster
from sweeps.execution.driver import RunOptions, SweepEnd, run
from sweeps.execution.ray_tune import TuneJob
from sweeps.execution.recorder import Recorder
from sweeps.execution.worker import run_trial
from sweeps.planning.plan import Plan
from sweeps.planning.reuse import Reuse, reuse_warning
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, TrialEnded, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only, read
from tests.sweeps.conftest import plan_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MLflow's own

SMALL: dict[str, Any] = {
    "recipe": {"steps": 2, "batch": 4, "runtime": {"device": "cpu"}},
    "evaluation": {"samples": 20, "steps": 1},
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_after_another(job: TuneJob, recorder: Recorder) -> None:
        while trial := job.scheduler.next():
            recorder.record(TrialStarted(trial.id))
            run_trial(job.trial_job(trial, 0.0), recorder.record)

    monkeypatch.setattr(driver, "tune_trials", one_after_another)
    monkeypatch.setattr(driver, "local_ray", lambda: nullcontext(Cluster(driver.this_machine(), "", {})))


def ran(plan: Plan, storage: Storage, reuse: Reuse) -> tuple[SweepEnd, list[str]]:
    """How the sweep ended, and the trials that it trained."""
    events: list[Event] = []
    end = run(plan, storage, events.append, RunOptions(reuse=reuse))
    return end, [start.trial for start in only(events, TrialStarted)]


def use_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("pipelines.training.training_folder", "sweeps.planning.reuse"):
        monkeypatch.setattr(f"{place}.training_code", lambda _recipe: "other code")


def test_after_a_change_of_the_code_a_trial_is_reused_or_trained_again_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, plan = Storage(tmp_path), plan_of({"seed": [0]}, **SMALL)
    ledger, trial = storage.ledger("made"), plan.trials[0].id
    assert ran(plan, storage, Reuse.SAME_CODE)[1] == [trial]
    first = only(read(ledger), CellScored)
    weights = (storage.trial(trial) / "ema" / "raw.safetensors").stat().st_mtime_ns
    assert ran(plan, storage, Reuse.SAME_CODE) == (SweepEnd("completed", 0), [])

    use_other_code(monkeypatch)
    assert ran(plan, storage, Reuse.ANY) == (SweepEnd("completed", 0), [])
    assert reuse_warning(plan, read(ledger)) is not None
    assert ran(plan, storage, Reuse.SAME_CODE) == (SweepEnd("completed", 1), [trial])
    assert only(read(ledger), TrialEnded)[-1].code == "other code"
    assert reuse_warning(plan, read(ledger)) is None
    assert (storage.trial(trial) / "ema" / "raw.safetensors").stat().st_mtime_ns != weights
    again = only(read(ledger), CellScored)
    assert [cell.value for cell in again] == [cell.value for cell in first]  # the code was not really another
    assert again[0].time != first[0].time
    assert rank(plan, read(ledger))[0].status == "completed"
    assert ran(plan, storage, Reuse.SAME_CODE) == (SweepEnd("completed", 0), [])


def test_nothing_is_reused_of_another_sweep_where_nothing_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    one, other = (plan_of({"seed": [0]}, **{**SMALL, "name": name}) for name in ("one", "other"))
    ran(one, storage, Reuse.ANY)
    assert ran(other, storage, Reuse.ANY)[1] == []
    use_other_code(monkeypatch)
    third = plan_of({"seed": [0]}, **{**SMALL, "name": "third"})
    assert ran(third, storage, Reuse.SAME_CODE)[1] == [trial.id for trial in third.trials]
    assert ran(third, storage, Reuse.NONE)[1] == [trial.id for trial in third.trials]
