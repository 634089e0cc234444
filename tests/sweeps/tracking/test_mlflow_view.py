import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mpdit.errors import InputError
from sweeps.execution.driver import run
from sweeps.planning.plan import Plan
from sweeps.spec.model import Tracking
from sweeps.storage import layout
from sweeps.storage.events import Event, Progress, SamplesDrawn, SweepEnded, SweepStarted, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from sweeps.storage.trial_status import TrialStatus
from sweeps.tracking.mlflow_view import (
    CELL,
    GROWTH,
    KIND,
    PARENT,
    TRIAL,
    MLflowWriter,
    check_place,
    create_database,
    open_writer,
    tracking_uri,
    without_password,
)
from sweeps.tracking.tracking_thread import TrackingThread
from tests.sweeps.conftest import ended, plan_of, scored

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    made = Storage(tmp_path_factory.mktemp("storage"))
    made.prepare()
    create_database(made)
    return made


def story(plan: Plan) -> list[Event]:
    trial = plan.trials[0].id
    return [
        SweepStarted("s1", 2, settings={"axes": plan.spec.axes}),
        TrialStarted(trial),
        Progress(trial, 10, {"loss": 0.5, "magnitude/block0/mlp/residual/mean": 1.1}),
        Progress(trial, 20, {"loss": 0.4, "magnitude/block0/mlp/residual/mean": 1.2}),
        scored(plan, 0, 0, 3.0),
        scored(plan, 0, 1, None),
        ended(plan, 0, machine={"host": "here"}, runtime={"threads": 1}),
        SweepEnded(TrialStatus.COMPLETED),
    ]


def mirror(storage: Storage, plan: Plan, past: list[Event], new: list[Event], sweep: str = "s1") -> None:
    thread = TrackingThread(storage, plan, sweep, past)
    thread.start()
    for line in new:
        thread.show(line)
    assert thread.close() is None


def runs(storage: Storage, sweep: str) -> list[Any]:
    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    experiment = client.get_experiment_by_name("made")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`mpdit.sweep` = '{sweep}'"))


def test_a_sweep_shows_as_parent_child_and_grandchildren(storage: Storage, small_plan: Plan) -> None:
    mirror(storage, small_plan, [], story(small_plan))
    found = runs(storage, "s1")
    parent = next(run for run in found if TRIAL not in run.data.tags)
    child = next(run for run in found if TRIAL in run.data.tags and CELL not in run.data.tags)
    cells = [run for run in found if CELL in run.data.tags]
    assert len(found) == 4
    assert child.data.tags[PARENT] == parent.info.run_id
    assert {cell.data.tags[PARENT] for cell in cells} == {child.info.run_id}
    assert parent.info.status == child.info.status == "FINISHED"
    assert sorted(cell.info.status for cell in cells) == ["FAILED", "FINISHED"]
    best = next(cell for cell in cells if cell.info.status == "FINISHED")
    assert best.data.metrics["fd_digits_2k"] == best.data.metrics["frechet"] == 3.0
    assert best.data.params["model.modulation"] == "scale"
    assert best.data.params["ema.sigma_rel"] == "0.05"
    assert best.data.params["evaluation.sampler"] == "dpm++2m"
    assert best.data.tags["provenance.extractor"] == "digits"
    assert child.data.metrics["loss"] == 0.4
    assert child.data.tags["machine.host"] == "here"


def test_a_thousand_classes_do_not_hide_what_was_measured(storage: Storage) -> None:
    plan = plan_of({"ema.sigma_rel": [0.05]})
    of_class = {f"frechet_by_class/{number}": 1.0 for number in range(1001)}  # more than MLflow takes at once
    cell = scored(plan, 0, 0, 3.0, more={"frechet_by_class": 1.0, **of_class})
    mirror(storage, plan, [], [SweepStarted("s9", 1), TrialStarted(plan.trials[0].id), cell], "s9")
    found = next(run for run in runs(storage, "s9") if CELL in run.data.tags)
    assert found.data.metrics["frechet_by_class"] == 1.0
    assert not [name for name in found.data.metrics if "/" in name]


def test_a_sweep_over_widths_shows_its_pictures_and_what_is_only_screened_apart(storage: Storage) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02], "ema.sigma_rel": [0.05, 0.1]}, screening={"samples": 250})
    cells = [scored(plan, trial, cell, 1.0 + trial + cell) for trial in range(2) for cell in range(2)]
    few = scored(plan, 0, 0, 9.0, samples=250)
    events = [SweepStarted("wide", 2), few, *cells, ended(plan, 0), ended(plan, 1)]
    storage.sweep("made").mkdir(parents=True)
    ledger = Ledger(storage.ledger("made"))
    for line in events:
        ledger.append(line)
    mirror(storage, plan, [], [*events, SweepEnded(TrialStatus.COMPLETED)], "wide")
    found = runs(storage, "wide")
    parent = next(run for run in found if TRIAL not in run.data.tags)
    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    pictures = [Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "figures")]
    assert sorted(pictures) == ["ema_width.png", "ema_width_map.png"]
    screened = [run for run in found if run.data.tags[KIND] == "screened"]
    assert [run.data.params["evaluation.samples"] for run in screened] == ["250"]
    assert "frechet" not in screened[0].data.metrics
    assert sum(run.data.tags[KIND] == "cell" for run in found) == 4
    ledger.path.unlink()


@pytest.mark.parametrize("shown", range(9))
def test_wherever_the_driver_was_killed_the_view_becomes_whole(shown: int, storage: Storage, small_plan: Plan) -> None:
    sweep, events = f"killed-{shown}", story(small_plan)
    mirror(storage, small_plan, [], events[:shown], sweep)
    mirror(storage, small_plan, events, [], sweep)
    mirror(storage, small_plan, events, [], sweep)
    found = runs(storage, sweep)
    assert len(found) == 4
    assert all(run.info.status in ("FINISHED", "FAILED") for run in found)
    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    child = next(run for run in found if TRIAL in run.data.tags and CELL not in run.data.tags)
    history = client.get_metric_history(child.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(10, 0.5), (20, 0.4)]


@pytest.mark.parametrize("sent", [3, 7])
def test_what_another_machine_reports_in_the_place_of_lost_events_is_shown(
    sent: int, storage: Storage, small_plan: Plan
) -> None:
    """The first driver showed more than it had sent to the bucket; the one that took over knows only what was sent."""
    lost, trial = story(small_plan), small_plan.trials[0].id
    mirror(storage, small_plan, [], lost, f"lost-{sent}")
    again = [*lost[:sent], SweepStarted("s1", 2), TrialStarted(trial)]
    again += [Progress(trial, step, {"loss": 0.1 * step}) for step in range(30, 30 + 10 * (len(lost) - sent), 10)]
    mirror(storage, small_plan, again, [], f"lost-{sent}")
    child = next(run for run in runs(storage, f"lost-{sent}") if TRIAL in run.data.tags and CELL not in run.data.tags)
    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    shown = {point.step for point in client.get_metric_history(child.info.run_id, "loss")}
    assert shown >= {event.step for event in again if isinstance(event, Progress)}
    uri = tracking_uri(storage, None)
    assert open_writer(storage, small_plan, f"lost-{sent}", uri).shown_count(again) == len(again)


def test_a_store_that_is_away_does_not_hold_the_sweep_up(
    tmp_path: Path, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.tracking_thread.PATIENCE", 0.2)
    away = small_plan.spec.model_copy(update={"tracking": Tracking(uri="http://127.0.0.1:9")})
    thread = TrackingThread(Storage(tmp_path), dataclasses.replace(small_plan, spec=away), "s1", [])
    thread.start()
    thread.show(story(small_plan)[0])
    assert thread.close() is not None


def test_a_database_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    (tmp_path / ".mlflow.db.partial").write_bytes(b"left by a kill")
    create_database(storage)
    assert not (tmp_path / ".mlflow.db.partial").exists()
    assert MlflowClient(tracking_uri=tracking_uri(storage, None)).search_experiments()


def test_a_database_that_found_no_room_is_made_once_there_is(tmp_path: Path) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.exc import SQLAlchemyError

    def limit(connection: Any, record: Any) -> None:  # SQLite's own error of a full disk, without filling one
        connection.execute("PRAGMA max_page_count = 40")

    storage = Storage(tmp_path)
    storage.prepare()
    event.listen(Engine, "connect", limit)
    try:
        with pytest.raises(SQLAlchemyError, match="full"):
            create_database(storage)
    finally:
        event.remove(Engine, "connect", limit)
    assert not storage.database.exists()
    create_database(storage)  # in the same process, where MLflow remembers what it has opened
    assert MlflowClient(tracking_uri=tracking_uri(storage, None)).search_experiments()
    assert not list(tmp_path.glob(".mlflow.db.*partial*"))


def test_two_sweeps_that_start_at_once_make_one_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    storage, first, second = Storage(tmp_path), threading.Event(), threading.Event()
    storage.prepare()
    made: list[str] = []
    real, try_lock = SqlAlchemyStore.__init__, layout._try_lock

    def slow(*given: Any) -> None:
        made.append(given[1])
        (first if len(made) == 1 else second).set()
        assert second.wait(60)  # the other has come, too: to here, or to the lock
        real(*given)

    def watched(*given: Any) -> bool:
        got = try_lock(*given)
        if not got:
            second.set()
        return got

    monkeypatch.setattr(SqlAlchemyStore, "__init__", slow)
    monkeypatch.setattr(layout, "_try_lock", watched)
    problems: list[Exception] = []

    def create() -> None:
        try:
            create_database(storage)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=create) for _ in range(2)]
    threads[0].start()
    assert first.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert (problems, len(made)) == ([], 1)
    assert MlflowClient(tracking_uri=tracking_uri(storage, None)).search_experiments()


@pytest.mark.parametrize("uri", ["mlruns", "sqlite:///mlflow.db", "file:///tmp/mlruns", "htp://host"])
def test_a_uri_that_would_differ_between_processes_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        tracking_uri(Storage(tmp_path), uri)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite:////abs/mlflow.db"])
def test_an_absolute_uri_is_taken_as_it_is(uri: str, tmp_path: Path) -> None:
    assert tracking_uri(Storage(tmp_path), uri) == uri


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/local tmpfs rw 0 0
server:/odd /mnt/with\\040space nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("root", "uri", "refused"),
    [
        ("/var/runs", None, False),
        ("/home/me/runs", None, True),
        ("/home/local/runs", None, False),
        ("/mnt/with space/runs", None, True),
        ("/home/me/runs", "http://host:5000", False),
        ("/home/me/runs", "sqlite:////var/mlflow.db", False),
        ("/var/runs", "sqlite:////home/me/mlflow.db", True),
    ],
)
def test_sqlite_on_a_network_file_system_is_refused(
    root: str, uri: str | None, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)  # the machine's edge: what Linux tells of a machine with such mounts
    monkeypatch.setattr("sweeps.storage.layout.MOUNTS", tmp_path / "mounts")
    storage = Storage(tmp_path)
    storage.root = Path(root)
    if refused:
        with pytest.raises(InputError, match="mlflow server"):
            check_place(storage, uri)
    else:
        check_place(storage, uri)


def test_a_run_that_was_created_without_its_parameters_gets_them(storage: Storage, small_plan: Plan) -> None:
    events = story(small_plan)
    writer = open_writer(storage, small_plan, "bare", tracking_uri(storage, None))
    writer.show(events[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MLflowWriter, "_params", lambda *_: (_ for _ in ()).throw(ConnectionError("killed here")))
        for _ in range(2):  # the run is there at the second attempt, and is not taken for complete
            with pytest.raises(ConnectionError):
                writer.show(events[1])
    mirror(storage, small_plan, events, [], "bare")
    found = runs(storage, "bare")
    assert len(found) == 4
    assert all(run.data.params for run in found if TRIAL in run.data.tags)


def test_the_samples_of_a_training_are_one_row_of_the_viewer_and_are_not_doubled(storage: Storage) -> None:
    from PIL import Image

    plan = plan_of({"optimizer.lr": [0.01]}, name="grown")
    trial = plan.trials[0].id
    pictures = storage.trial(trial) / "samples"
    pictures.mkdir(parents=True)
    for step in (0, 600):
        Image.new("L", (8, 8), step % 256).save(pictures / f"step-{step}.png")
    events = [SweepStarted("grown", 1), TrialStarted(trial)]
    events += [SamplesDrawn(trial, at, f"step-{at}.png") for at in (0, 300, 600)]  # one has been removed
    events.append(ended(plan, 0, energy_joules=7200.0))
    mirror(storage, plan, [], events, "grown")
    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    for line in events:  # shown again, as after a kill
        open_writer(storage, plan, "grown", tracking_uri(storage, None)).show(line)
    experiment = client.get_experiment_by_name("grown")
    assert experiment is not None
    (child,) = client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = 'trial'")
    names = [Path(file.path).name for file in client.list_artifacts(child.info.run_id, "images")]
    assert sorted(name.split("+timestamp")[0] for name in names if name.endswith(".png")) == [
        f"{GROWTH}+step+{step}" for step in (0, 600)
    ]
    assert child.data.params == {"optimizer.lr": "0.01"}  # MLflow writes all of them above each picture
    assert child.data.metrics["energy_joules"] == 7200.0


def test_a_password_is_not_shown() -> None:
    assert without_password("http://me:secret@host:5000/x") == "http://host:5000/x"
    assert without_password("sqlite:////a@b/mlflow.db") == "sqlite:////a@b/mlflow.db"
    assert without_password("http://host:5000/a@b") == "http://host:5000/a@b"
    assert without_password("https://token@host/") == "https://host/"
    assert without_password("postgresql://me:sec/ret@host/db") == "postgresql://me@host/db"
    assert without_password("postgresql://me@host/db?sslmode=require") == "postgresql://me@host/db?sslmode=require"
    assert without_password("mysql://host/db?user=me&password=secret&a=b") == "mysql://host/db?user=me&a=b"


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("http://me:secret@127.0.0.1:9", "MLFLOW_TRACKING_PASSWORD"),
        ("https://secret@127.0.0.1:9", "MLFLOW_TRACKING_TOKEN"),
        ("postgresql://me:secret@127.0.0.1:9/db", "PGPASSWORD"),
    ],
)
def test_a_sweep_with_a_password_in_its_uri_is_refused_before_anything_is_written(
    uri: str, hint: str, tmp_path: Path
) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, tracking={"uri": uri})
    with pytest.raises(InputError, match=hint) as refusal:
        run(plan, Storage(tmp_path / "runs"), lambda event: None)
    assert "secret" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


def test_the_description_of_a_sweep_is_its_summary(storage: Storage) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.03], "ema.sigma_rel": [0.05, 0.1]}, name="told")
    events = [SweepStarted("told", 2), scored(plan, 0, 0, 3.0), scored(plan, 0, 1, 4.0)]
    events += [scored(plan, 1, 0, 2.0), scored(plan, 1, 1, 5.0), ended(plan, 0), ended(plan, 1)]
    storage.sweep("told").mkdir(parents=True, exist_ok=True)
    ledger = Ledger(storage.ledger("told"))
    for line in events:
        ledger.append(line)
    mirror(storage, plan, [], [*events, SweepEnded(TrialStatus.COMPLETED)], "told")
    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    experiment = client.get_experiment_by_name("told")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    parent = next(run for run in found if run.data.tags[KIND] == "sweep")
    note = parent.data.tags["mlflow.note.content"]
    assert "Best is lr 0.03, σ_rel 0.05, with fd_digits_2k 2 ±" in note
    assert f"| 1 | 0.03 | 0.05 | 2 | 0.2262 | {plan.trials[1].id} |" in note
    assert "- lr: 0.01–0.03 equal, at the end of the axis: a larger one may be better" in note
    assert f"    mpdit sweep {storage.spec('told')} --set 'axes.ema.sigma_rel=[0.025, 0.05, 0.1]'" in note
    assert "Trials: 2 completed." in note
    assert {run.info.run_name for run in found if run.data.tags[KIND] == "cell"} >= {"lr 0.03, σ_rel 0.05"}
    assert client.search_registered_models() == []  # its weights are not here
    ledger.path.unlink()
