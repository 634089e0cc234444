"""Stopping and taking up again, from another terminal; failures; a tracking server that is away."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpdit.training.cadence import report_gap
from sweeps.planning.plan import make_plan
from sweeps.spec.reading import read_spec
from sweeps.storage.events import RungScored
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read, trial_statuses
from tests.slow.conftest import (
    CELLS,
    LONG,
    SHORT,
    TRIALS,
    mpdit,
    mpdit_json,
    refused,
    settled,
    start,
    sweep_text,
    wait_for,
)
from tests.slow.mlflow_server import Server, assert_whole

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

HALVED = """\
name: halved
recipe: {steps: 60, batch: 16, runtime: {device: cpu}}
axes: {optimizer.lr: [0.02, 0.00001]}
evaluation: {samples: 100, steps: 2}
scheduler: {kind: asha, rungs: [0.5], samples: 250, reduction: 2}
resources: {workers_per_trial: 2}
confirm: {best: 0}
"""


def written(folder: Path, steps: int, more: str = "") -> Path:
    """The file of a sweep of so many steps."""
    path = folder / "held.yaml"
    path.write_text(sweep_text("held", steps) + more)
    return path


def statuses(storage: Path) -> dict[str, str]:
    return {row["trial"]: row["status"] for row in mpdit_json("status", "--storage", storage)["trials"]}


def test_a_trial_and_a_sweep_are_stopped_from_another_terminal_and_retried(
    tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    storage, file = Storage(tmp_path), written(tmp_path, LONG)
    driver = start("sweep", file, "--storage", tmp_path)
    first, *others = [trial.id for trial in make_plan(read_spec(file)).trials]
    wait_for(storage.ledger("held"), "progress", 3, driver, trial=first)  # at its steps 0, 1 and 2
    mpdit("stop", "held", first, "--storage", tmp_path)
    wait_for(storage.ledger("held"), "trial_ended", 1, driver)
    assert trial_statuses(read(storage.ledger("held")))[first] == "stopped"
    assert f"process {driver.pid}" in refused("sweep", file, "--storage", tmp_path)  # the second driver
    mpdit("stop", "held", "--storage", tmp_path)
    assert driver.wait(timeout=60) == 130
    assert settled(driver.pid) == []
    assert "is not running" in refused("stop", "held", "--storage", tmp_path)
    assert "completed" not in statuses(tmp_path).values()

    mpdit("sweep", file, "--max-concurrent", "1", "--storage", tmp_path)
    assert statuses(tmp_path) == {first: "stopped", **dict.fromkeys(others, "completed")}
    stopped_at = max(line.step for line in read(storage.ledger("held")) if line.trial == first and line.step)
    mpdit("retry", "--storage", tmp_path)
    assert set(statuses(tmp_path).values()) == {"completed"}
    assert mpdit_json("rank", "--storage", tmp_path) == undisturbed(LONG)
    continued = re.findall(r"from step (\d+)", (storage.trial(first) / "log.txt").read_text())
    assert int(continued[-1]) >= stopped_at - report_gap(stopped_at)
    assert "nothing to retry" in mpdit("retry", "--storage", tmp_path)


def test_fail_fast_ends_with_the_first_failure_and_retry_takes_only_that_up(tmp_path: Path) -> None:
    storage, file = Storage(tmp_path), written(tmp_path, SHORT)
    first, *others = [trial.id for trial in make_plan(read_spec(file)).trials]
    in_the_way = storage.trial(first) / "ema" / "step-00000001.safetensors"
    in_the_way.mkdir(parents=True)  # its first snapshot cannot be written
    mpdit("sweep", file, "--fail-fast", "--max-concurrent", "1", "--storage", tmp_path, expect=1)
    assert statuses(tmp_path)[first] == "failed"
    assert "completed" not in statuses(tmp_path).values()
    in_the_way.rmdir()
    mpdit("retry", "--failed", "--storage", tmp_path, expect=130)  # the others are still to do
    assert statuses(tmp_path)[first] == "completed"
    assert "completed" not in [statuses(tmp_path)[trial] for trial in others]


def test_a_scheduler_stops_a_trial_of_two_workers(tmp_path: Path) -> None:
    (tmp_path / "halved.yaml").write_text(HALVED)
    mpdit("sweep", "halved.yaml", cwd=tmp_path)
    assert list(statuses(tmp_path / "runs").values()) == ["completed", "stopped"]
    ledger = read(Storage(tmp_path / "runs").ledger("halved"))
    assert [line.step for line in ledger if isinstance(line, RungScored)] == [30, 30]
    assert len(mpdit_json("rank", cwd=tmp_path)) == 2


@pytest.mark.soak
def test_a_tracking_server_that_is_away_loses_nothing(
    tmp_path: Path, undisturbed: Callable[..., Any], free: Callable[[Server], None]
) -> None:
    """Adds to CI: a tracking server is killed in the middle of a sweep, and is brought up to date."""
    server = Server(tmp_path / "server")
    free(server)
    here = written(tmp_path, SHORT, f"tracking: {{uri: '{server.uri}'}}\n")
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", here, "--storage", storage.root)
    wait_for(storage.ledger("held"), "progress", 12, driver)
    server.kill()
    _, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err
    assert "mpdit sync held" in err
    assert mpdit_json("rank", "--storage", storage.root) == undisturbed()
    assert "does not" not in refused("sync", "--storage", storage.root).splitlines()[0]
    server.start()
    mpdit("sync", "--storage", storage.root)
    assert_whole(server.runs("held"), 1, TRIALS, CELLS)
    mpdit("sync", "--storage", storage.root)  # again: nothing is doubled
    assert_whole(server.runs("held"), 1, TRIALS, CELLS)
    server.kill()

    other = Server(tmp_path / "other")
    free(other)
    mpdit("sync", "held", "--tracking-uri", other.uri, "--storage", storage.root)
    assert_whole(other.runs("held"), 1, TRIALS, CELLS)


@pytest.fixture
def free() -> Any:
    """Servers named to it are killed at the end."""
    servers: list[Server] = []
    yield servers.append
    for server in servers:
        if server.process.poll() is None:
            server.kill()
