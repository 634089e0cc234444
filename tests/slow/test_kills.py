"""A sweep that is stopped at any moment, by any signal, ends as one that was not."""

import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.storage.events import Progress, SweepEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read, trial_statuses
from sweeps.tracking.mlflow_view import CELL, TRIAL, tracking_uri
from tests.slow.conftest import (
    CELLS,
    TRIALS,
    count_of,
    end,
    mpdit,
    mpdit_json,
    settled,
    start,
    sweep_text,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STOPS = [  # what is stopped how, and after how many more events; 36 reports and 9 cells are to come in all
    ("driver", signal.SIGINT, "progress", 5),
    ("driver", signal.SIGKILL, "progress", 6),
    ("raylet", signal.SIGKILL, "progress", 5),
    ("driver", signal.SIGTERM, "cell", 1),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "killed.yaml"
    path.write_text(sweep_text("killed"))
    return path


def runs_in_mlflow(storage: Storage) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(storage, None))
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def part_of(driver: int, name: str) -> psutil.Process | None:
    """A living part of the driver's Ray: its raylet, or one of the workers that run trials."""
    mark = {"raylet": "raylet", "worker": "ImplicitFunc"}[name]
    for process in psutil.Process(driver).children(recursive=True):
        found = process.name() if name == "raylet" else " ".join(process.cmdline())
        if mark in found:
            return process
    return None


def kill_raylet(driver: subprocess.Popen[str]) -> None:
    """Kill the driver's raylet; the driver ends and says so."""
    raylet = part_of(driver.pid, "raylet")
    assert raylet is not None
    raylet.kill()
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "raylet on this machine has died" in err
    assert "Traceback" not in err


def assert_little_is_redone(folder: Path, told: list[Any]) -> None:
    """Every start of a training goes on no further back than the report before the last one that was out by then."""
    starts = [line for line in (folder / "log.txt").read_text().splitlines() if "from step" in line]
    for line in starts:
        began = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone(UTC)
        reported = sorted({0, *(e.step for e in told if isinstance(e, Progress) and e.moment < began)})
        step = int(line.split("from step ")[1].split()[0])
        assert step >= reported[-2:][0], line


def test_a_sweep_that_is_stopped_again_and_again_ends_as_the_undisturbed_one(
    file: Path, tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    storage, drivers = Storage(tmp_path / "runs"), list[int]()
    ledger = storage.ledger("killed")
    for victim, how, kind, more in STOPS:
        before = count_of(ledger, kind)
        reported = read(ledger) if ledger.exists() else []
        driver = start("sweep", file, "--storage", storage.root)
        drivers.append(driver.pid)
        wait_for(ledger, kind, before + more, driver)
        if victim == "raylet":
            kill_raylet(driver)
        else:
            assert end(driver, how) == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        assert settled(driver.pid) == []
        after = read(ledger)
        assert after[: len(reported)] == reported  # nothing that was reported is lost
        statuses = trial_statuses(after)
        assert len(statuses) < 3 or set(statuses.values()) - {"completed"}, (victim, how, kind)  # it was not too late
        if kind == "progress":
            assert "interrupted" in statuses.values(), (victim, how)  # in the middle of a training
        if how != signal.SIGKILL:
            assert isinstance(after[-1], SweepEnded)
            assert after[-1].outcome == "interrupted"
            assert not [run for run in runs_in_mlflow(storage) if run.info.status == "RUNNING"]

    reported = after
    mpdit("sweep", file, "--storage", storage.root)
    after = read(ledger)
    assert after[: len(reported)] == reported
    assert mpdit_json("rank", "--storage", storage.root) == undisturbed()
    once = Counter((line.trial, line.step) for line in after if isinstance(line, Progress))
    assert set(once.values()) == {1}
    for folder in storage.trials.iterdir():
        assert_little_is_redone(folder, [line for line in after if line.trial == folder.name])
    shown = Counter((run.data.tags.get(TRIAL), run.data.tags.get(CELL)) for run in runs_in_mlflow(storage))
    assert set(shown.values()) == {1}
    assert len(shown) == 1 + TRIALS + CELLS
    assert {run.info.status for run in runs_in_mlflow(storage)} == {"FINISHED"}
    assert not [pid for pid in drivers if list(Path("/tmp").glob(f"mpdit-ray-{pid}-*"))]


def test_a_worker_that_is_killed_is_tried_again_from_its_checkpoint(
    file: Path, tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", file, "--storage", storage.root)
    wait_for(storage.ledger("killed"), "progress", 15, driver)
    worker = part_of(driver.pid, "worker")
    assert worker is not None
    worker.kill()
    _out, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    assert mpdit_json("rank", "--storage", storage.root) == undisturbed()
