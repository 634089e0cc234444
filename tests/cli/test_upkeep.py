"""stop, retry, sync, clean: what they say where there is nothing to do or nobody to do it with."""

from pathlib import Path

import pytest

from pipelines.yaml_file import write_yaml
from sweeps.execution import driver
from sweeps.execution.driver import RunOptions, SweepEnd
from sweeps.execution.recorder import Listener
from sweeps.planning.plan import Plan
from sweeps.storage.events import SweepEnded, SweepStarted, TrialStarted
from sweeps.storage.layout import Storage, locked
from sweeps.storage.ledger import Ledger
from sweeps.storage.stop_requests import EVERYTHING, ask_to_stop, take_requests
from sweeps.storage.trial_status import TrialStatus
from tests.cli.conftest import Command, Refused
from tests.sweeps.conftest import ended, made, plan_of, scored

PLAN = plan_of({"optimizer.lr": [0.01, 0.02]})
FIRST, SECOND = (trial.id for trial in PLAN.trials)


@pytest.fixture
def finished(tmp_path: Path) -> Storage:
    """A storage with a finished sweep whose ledger is made up."""
    storage = Storage(tmp_path / "runs")
    storage.prepare()
    storage.sweep("made").mkdir()
    write_yaml(storage.spec("made"), PLAN.spec.model_dump())
    ledger = Ledger(storage.ledger("made"))
    ledger.append(SweepStarted("s", 2))
    for trial in (0, 1):
        ledger.append(scored(PLAN, trial, 0, 1.0 + trial))
        ledger.append(ended(PLAN, trial))
    return storage


def test_only_a_running_sweep_can_be_stopped(finished: Storage, refused: Refused) -> None:
    assert "made is not running" in refused("stop", "made", "--storage", finished.root)
    with locked(finished.lock("made"), "made"):
        assert "has no trial 'x'" in refused("stop", "made", "x", "--storage", finished.root)
        assert f"trial {FIRST} is completed already" in refused("stop", "made", FIRST, "--storage", finished.root)
    assert take_requests(finished, "made") == set()


def test_what_is_asked_is_heard_once(finished: Storage) -> None:
    ask_to_stop(finished, "made", FIRST)
    ask_to_stop(finished, "made")
    assert take_requests(finished, "made") == {FIRST, EVERYTHING}
    assert take_requests(finished, "made") == set()


def test_a_running_trial_is_asked_to_stop(finished: Storage, mpdit: Command) -> None:
    Ledger(finished.ledger("made")).append(TrialStarted(SECOND))
    with locked(finished.lock("made"), "made"):
        done = mpdit("stop", "made", SECOND, "--storage", finished.root)
    assert done.returncode == 0
    assert "stops at its next report" in done.stderr
    assert take_requests(finished, "made") == {SECOND}


def test_a_finished_sweep_has_nothing_to_retry(finished: Storage, mpdit: Command) -> None:
    assert "every trial of made is finished" in mpdit("retry", "--storage", finished.root).stdout
    assert "every trial of made has not failed" in mpdit("retry", "made", "--failed", "--storage", finished.root).stdout


def test_a_command_in_a_stored_spec_is_not_run_only_one_in_the_user_s_own_file(
    tmp_path: Path, mpdit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path / "runs")
    told = plan_of({"optimizer.lr": [0.01, 0.02]}, notify={"command": f"echo ran >> {tmp_path / 'ran'}"})
    made(storage, told).append(SweepStarted("s", 2))
    write_yaml(tmp_path / "own.yaml", {"name": "made", **told.spec.model_dump(include={"axes", "notify"})})

    def run(plan: Plan, where: Storage, listener: Listener, options: RunOptions) -> SweepEnd:
        listener(SweepEnded(TrialStatus.COMPLETED))
        return SweepEnd(TrialStatus.COMPLETED, 1)

    monkeypatch.setattr(driver, "run", run)
    done = mpdit("retry", "--storage", storage.root)
    assert done.returncode == 0
    assert "no notices are sent" in done.stderr
    assert not (tmp_path / "ran").exists()
    mpdit("sweep", tmp_path / "own.yaml", "--storage", storage.root)
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_a_tracking_server_that_does_not_answer_is_told(finished: Storage, refused: Refused) -> None:
    said = refused("sync", "--tracking-uri", "http://me:secret@127.0.0.1:9", "--storage", finished.root)
    assert "MLflow cannot be brought up to date" in said
    assert "127.0.0.1:9" in said
    assert "me:secret" not in said
    assert "cannot be used" in refused("sync", "--tracking-uri", "nonsense", "--storage", finished.root)


def test_clean_shows_before_it_removes(finished: Storage, mpdit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.execution.retention.dead_folders", list)  # those of this machine are not the test's
    assert mpdit("clean", "--storage", finished.root).stdout == "nothing to remove\n"
    weights = finished.trial(SECOND) / "ema" / "raw.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(2_000_000))
    done = mpdit("clean", "--best", "1", "--storage", finished.root)
    assert f"trials/{SECOND}/ema  2.0  not among the best 1 of made" in done.stdout
    assert "nothing is removed" in done.stderr
    assert weights.exists()
    mpdit("clean", "--best", "1", "--yes", "--storage", finished.root)
    assert not weights.parent.exists()


def test_other_buckets_than_those_of_s3_are_refused_as_a_storage(refused: Refused) -> None:
    assert "a folder, or s3://BUCKET/PREFIX" in refused("status", "--storage", "gs://bucket/runs")
