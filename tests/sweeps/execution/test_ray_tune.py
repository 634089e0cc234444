"""What the driver makes of what Ray tells it, without Ray's processes. With them: test_driver_faults.py."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray import cloudpickle, exceptions

from mpdit.errors import DiskFull, no_space
from sweeps.execution import ray_tune
from sweeps.execution.multi_worker import _is_preemption
from sweeps.execution.ray_tune import TuneJob, _searcher, apply_requests, end_of_dead_worker, last_error, preemption
from sweeps.execution.recorder import Recorder
from sweeps.planning.plan import Plan
from sweeps.storage.events import Event, TrialEnded, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.stop_requests import ask_to_stop
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, made


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class Failed:
    """A trial as Ray Tune keeps it: the text of all failures, and the last error that could be sent, as files."""

    error_file: str | None = None
    pickled_error_file: str | None = None

    def __init__(self, text: str | None, error: Exception | None = None) -> None:
        folder = Path(tempfile.mkdtemp())
        if text is not None:
            (folder / "error.txt").write_text(text)
            self.error_file = str(folder / "error.txt")
        if error is not None:
            (folder / "error.pkl").write_bytes(cloudpickle.dumps(error))
            self.pickled_error_file = str(folder / "error.pkl")


def raised(error: Exception) -> exceptions.RayTaskError:
    return exceptions.RayTaskError("train", f"Traceback …\n{error!r}", error, ip="here")


def failed(error: Exception) -> Failed:
    return Failed(f"Failure # 1 (occurred at noon)\nan old one\nFailure # 2 (occurred at one)\n{error}\n", error)


def told(trial: Failed) -> TrialEnded:
    return end_of_dead_worker("a", last_error(trial))


def test_an_error_outside_of_the_trial_is_told_as_it_is() -> None:
    end = told(failed(raised(PermissionError(13, "Permission denied", "/runs/trials/a"))))
    assert end.outcome == "failed"
    assert str(end.reason).startswith("PermissionError: [Errno 13] Permission denied: '/runs/trials/a'")
    assert "died" not in str(end.reason)


def test_a_worker_that_died_is_told_with_what_ray_says_of_it() -> None:
    end = told(failed(exceptions.RayActorError(error_msg="The actor died.\n\nIts process was killed by SIGKILL.\n")))
    assert end.outcome == "failed"
    assert end.reason == "its worker died 3 times, the last time: Its process was killed by SIGKILL."
    assert told(Failed(None)).reason == "its worker died 3 times"


def test_a_worker_that_ray_killed_to_free_memory_was_out_of_memory() -> None:
    text = "Memory on the node was 30GB / 31GB, which exceeds the memory usage threshold of 0.95."
    before = raised(ValueError("of an earlier failure"))
    assert told(Failed(f"Failure # 3 (occurred at one)\n{text}\n", before)).outcome == "out_of_memory"


def test_a_machine_that_is_taken_back_is_no_failure() -> None:
    taken = exceptions.RayActorError(error_msg="its node was drained", preempted=True)
    for error in (taken, raised(taken)):
        end = preemption("a", last_error(failed(error)))
        assert end is not None
        assert end.outcome is TrialStatus.PREEMPTED
        assert end.outcome.is_open
        assert not end.outcome.is_fault
    assert preemption("a", exceptions.RayActorError(error_msg="killed")) is None
    assert preemption("a", None) is None


def test_a_machine_of_a_group_that_is_taken_back_is_no_failure_of_the_group() -> None:
    taken = exceptions.RayActorError(error_msg="its node was drained", preempted=True)
    of_worker = SimpleNamespace(health_check_failure=taken)
    lost = RuntimeError("connection reset by peer")

    def group(*failures: Any) -> Exception:
        error = RuntimeError("workers failed")
        error.worker_failures = dict(enumerate(failures))  # type: ignore[attr-defined]
        return error

    assert _is_preemption(group(lost, of_worker))
    assert _is_preemption(group(taken))
    assert not _is_preemption(group(lost))
    assert not _is_preemption(lost)


class Silent:
    """A tracking view that nobody looks at."""

    def show(self, event: Event) -> None:
        """Nothing."""


@pytest.fixture
def recorder(tmp_path: Path, small_plan: Plan) -> Recorder:
    return Recorder(made(Storage(tmp_path), small_plan), cast(Any, Silent()), lambda event: None)


def test_a_stop_that_came_at_a_trial_s_last_report_does_not_kill_it_in_the_next_round(
    recorder: Recorder, tmp_path: Path, small_plan: Plan
) -> None:
    job = cast(TuneJob, SimpleNamespace(storage=Storage(tmp_path), plan=small_plan))
    trial = small_plan.trials[0].id

    def asked() -> dict[str, str]:
        ask_to_stop(job.storage, "made", trial)
        apply_requests(job, recorder)
        return recorder.stops

    recorder.record(TrialStarted(trial))
    assert asked() == {trial: "by mpdit stop"}
    recorder.record(ended(small_plan, 0, "preempted"))  # it goes on by itself, to its next report
    assert recorder.stops == {trial: "by mpdit stop"}
    recorder.record(ended(small_plan, 0))
    assert recorder.stops == {}
    assert asked() == {}  # it came even later
    other = small_plan.trials[1].id
    ask_to_stop(job.storage, "made", other)
    apply_requests(job, recorder)
    assert recorder.stops == {other: "by mpdit stop"}  # of a trial that waits, it is kept


def test_what_is_raised_under_ray_tune_is_kept_and_halts_the_sweep(recorder: Recorder, tmp_path: Path) -> None:
    @recorder.guarded
    def callback() -> None:
        raise no_space(tmp_path)

    for _ in range(2):
        with pytest.raises(DiskFull):
            callback()
    assert isinstance(recorder.problem, DiskFull)
    assert str(recorder.halt).startswith("no space is left")


def test_the_ledger_s_statuses_are_those_of_its_events(recorder: Recorder, small_plan: Plan) -> None:
    from sweeps.storage.ledger import Ledger, trial_statuses

    story = [TrialStarted(small_plan.trials[0].id), ended(small_plan, 0, "preempted"), ended(small_plan, 1, "stopped")]
    for event in [*story, TrialStarted(small_plan.trials[0].id)]:
        recorder.record(event)
        assert recorder.ledger.statuses == trial_statuses(recorder.ledger.events, alive=True)
    assert Ledger(recorder.ledger.path).statuses == recorder.ledger.statuses


class Scheduled:
    """A trial scheduler that hands out some names, and may have others that run elsewhere."""

    def __init__(self, *names: str, elsewhere: tuple[str, ...] = ()) -> None:
        self.names, self.waiting = list(names), list(elsewhere)
        self.is_done = self.is_waiting = False

    @property
    def has_no_other(self) -> bool:
        return self.is_done and not self.waiting

    def next(self) -> str | None:
        self.is_done = not self.names
        return self.names.pop(0) if self.names else None


class Job:
    """What the searcher needs of a TuneJob: rounds, one after the other."""

    def __init__(self, *rounds: Scheduled) -> None:
        self.scheduler, *self.rounds = rounds

    def advance(self) -> bool:
        if self.rounds:
            self.scheduler = self.rounds.pop(0)
            return True
        return False

    def trial_job(self, trial: str, gpus: float) -> str:
        return trial


def test_a_round_follows_in_the_same_workers_once_the_last_trial_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then Tune is told neither of another trial nor that there is none; the warm worker begins alone."""
    clock = [100.0]
    monkeypatch.setattr(ray_tune, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    searcher = _searcher(cast(Any, Job(Scheduled("a", "b"), Scheduled("c", "d", "e"), Scheduled())), 0.0)
    assert [searcher.suggest(at) for at in "12"] == [{"job": "a"}, {"job": "b"}]
    assert searcher.suggest("3") is None
    searcher.on_trial_complete("1")
    assert searcher.suggest("3") is None
    searcher.on_trial_complete("2", error=True)
    assert searcher.suggest("3") == {"job": "c"}
    assert searcher.suggest("4") is None
    searcher.on_trial_complete("3")
    assert searcher.suggest("4") == {"job": "d"}  # by the same worker
    clock[0] += ray_tune.WORKER_STARTS
    assert searcher.suggest("5") == {"job": "e"}  # by another one
    searcher.on_trial_complete("4")
    assert searcher.suggest("6") is None
    searcher.on_trial_complete("5")
    assert searcher.suggest("6") == "FINISHED"


def test_no_round_begins_before_trials_that_run_elsewhere_have_ended() -> None:
    """Tune ends, and the driver waits."""
    job = Job(Scheduled("a", elsewhere=("b",)), Scheduled("c"))
    searcher = _searcher(cast(Any, job), 0.0)
    assert searcher.suggest("1") == {"job": "a"}
    assert searcher.suggest("2") is None
    searcher.on_trial_complete("1")
    assert searcher.suggest("2") == "FINISHED"
    assert len(job.rounds) == 1
