"""A sweep that is stopped at any moment, by any signal, ends as one that was not."""

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweeps.storage.events import Progress, SweepEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read
from sweeps.tracking.mlflow_view import CELL, TRIAL, tracking_uri
from tests.slow.conftest import end, mpdit, mpdit_json, ranking_of, settled, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SWEEP = """\
name: killed
recipe: {steps: 40, batch: 64, runtime: {device: cpu}}
axes:
  model.modulation: [scale+shift+gate, scale+rotation+gate, rotation+gate]
  ema.sigma_rel: [0.05, 0.1]
evaluation: {samples: 500, steps: 6}
"""
STOPS = [
    (signal.SIGINT, "progress", 5),
    (signal.SIGTERM, "progress", 25),
    (signal.SIGKILL, "progress", 12),
    (signal.SIGKILL, "cell", 1),
    (signal.SIGKILL, "trial_ended", 2),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "killed.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ranking_of(SWEEP, tmp_path_factory.mktemp("undisturbed"))


def runs_in_mlflow(storage: Storage) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.parametrize(("how", "kind", "count"), STOPS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_stopped_sweep_continues_to_the_undisturbed_ranking(
    how: signal.Signals, kind: str, count: int, file: Path, tmp_path: Path, undisturbed: Any
) -> None:
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", file, "--storage", storage.root)
    wait_for(storage.ledger("killed"), kind, count, driver)
    code = end(driver, how)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert settled(driver.pid) == []
    reported = read(storage.ledger("killed"))
    if how != signal.SIGKILL:
        assert isinstance(reported[-1], SweepEnded)
        assert reported[-1].outcome == "interrupted"
        assert not [run for run in runs_in_mlflow(storage) if run.info.status == "RUNNING"]

    mpdit("sweep", file, "--storage", storage.root)
    after = read(storage.ledger("killed"))
    assert after[: len(reported)] == reported
    assert mpdit_json("rank", "--storage", storage.root) == undisturbed
    once = Counter((line.trial, line.step) for line in after if isinstance(line, Progress))
    assert set(once.values()) == {1}
    shown = Counter((run.data.tags.get(TRIAL), run.data.tags.get(CELL)) for run in runs_in_mlflow(storage))
    assert set(shown.values()) == {1}
    assert len(shown) == 1 + 3 + 6
    assert {run.info.status for run in runs_in_mlflow(storage)} == {"FINISHED"}
    assert not list(Path("/tmp").glob(f"mpdit-ray-{driver.pid}"))


def test_a_worker_that_is_killed_is_tried_again_from_its_checkpoint(
    file: Path, tmp_path: Path, undisturbed: Any
) -> None:
    import psutil

    storage = Storage(tmp_path / "runs")
    driver = start("sweep", file, "--storage", storage.root)
    wait_for(storage.ledger("killed"), "progress", 15, driver)
    workers = [
        process
        for process in psutil.Process(driver.pid).children(recursive=True)
        if "ImplicitFunc" in " ".join(process.cmdline())
    ]
    assert workers
    workers[0].kill()
    _out, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    assert mpdit_json("rank", "--storage", storage.root) == undisturbed
