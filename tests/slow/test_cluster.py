"""A sweep on a cluster that runs already: two raylets on this machine, one of which is killed midway; and groups."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read
from tests.slow.conftest import mpdit_json, ranking_of, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SWEEP = """\
name: spread
recipe: {steps: 60, batch: 16, runtime: {device: cpu}}
axes:
  model.modulation: [scale+shift+gate, scale+rotation+gate, rotation+gate]
  ema.sigma_rel: [0.05, 0.1]
evaluation: {samples: 200, steps: 2}
"""
ONE = SWEEP.replace("spread", "shared").replace("scale+shift+gate, scale+rotation+gate, ", "")
IN_GROUPS = ONE + "resources: {workers_per_trial: 2}\n"


@contextmanager
def two_nodes(monkeypatch: pytest.MonkeyPatch, *variables: dict[str, str]) -> Iterator[Any]:
    """A head and a second node, a core each, started where our code is not on the path. variables: of each."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.chdir("/")
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # where Ray notes the newest cluster; it does not make the folder itself
    folder = tempfile.mkdtemp(prefix="mpdit-two-", dir="/tmp")
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    first, second = variables or ({}, {})
    head = {**node, "temp_dir": folder, "include_dashboard": False, "env_vars": first}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.second = made.add_node(**node, env_vars=second)
    try:
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with two_nodes(monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ranking_of(SWEEP, tmp_path_factory.mktemp("undisturbed"))


def test_a_node_that_dies_costs_nothing_but_time(cluster: Any, tmp_path: Path, undisturbed: Any) -> None:
    (tmp_path / "spread.yaml").write_text(SWEEP)
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", "spread.yaml", "--address", cluster.address, cwd=tmp_path)
    wait_for(storage.ledger("spread"), "progress", 10, driver)
    assert read(storage.ledger("spread"))[0]["max_concurrent"] == 2
    cluster.remove_node(cluster.second, allow_graceful=False)
    _, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    assert mpdit_json("rank", cwd=tmp_path) == undisturbed
    assert not (storage.sweep("spread") / "ray").exists()


def test_a_trial_of_two_workers_is_that_of_one_and_survives_a_worker(
    cluster: Any, tmp_path: Path, undisturbed: Any
) -> None:
    (tmp_path / "shared.yaml").write_text(IN_GROUPS)
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", "shared.yaml", "--address", cluster.address, cwd=tmp_path)
    wait_for(storage.ledger("shared"), "progress", 8, driver)
    assert read(storage.ledger("shared"))[0]["max_concurrent"] == 1
    members = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])]
    members[-1].kill()
    _, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    found = {row["trial"]: row["value"] for row in mpdit_json("rank", cwd=tmp_path)}
    assert len(found) == 1
    alone = {row["trial"]: row["value"] for row in undisturbed if row["trial"] in found}
    assert found == pytest.approx(alone, rel=1e-3)
    (log,) = (path.read_text() for path in storage.trials.glob("*/log.txt"))
    assert log.count("process 1 of 2") == 2
    assert int(re.findall(r"from step (\d+)", log)[-1]) > 0


def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "spread.yaml").write_text(SWEEP)
    more = ["--set", "resources.workers_per_trial=4"]
    process = start("sweep", "spread.yaml", "--address", cluster.address, *more, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "allowed:    workers_per_trial: 2" in err
    gpus = ["--set", "resources.gpus_per_trial=1"]
    process = start("sweep", "spread.yaml", "--address", cluster.address, *gpus, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "1 CPU cores and 0 GPUs, 1 CPU cores and 0 GPUs" in err
