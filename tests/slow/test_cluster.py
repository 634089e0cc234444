"""A sweep on a cluster that runs already: two raylets on this machine, one of which is killed midway; and groups."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.storage.events import TrialEnded, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only, read, trial_statuses
from tests.slow.conftest import mpdit_json, refused, start, sweep_text, wait_for
from tests.slow.ray_cluster import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster"), pytest.mark.filterwarnings("ignore")]

IN_GROUPS = sweep_text("shared").replace("scale+shift+gate, scale+rotation+gate, ", "")
IN_GROUPS += "resources: {workers_per_trial: 2}\nconfirm: {best: 0}\n"


@pytest.mark.soak
def test_a_node_that_dies_costs_nothing_but_time(
    cluster: Nodes, tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    """Adds to CI: a node of a cluster is killed without a notice."""
    (tmp_path / "spread.yaml").write_text(sweep_text("spread"))
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", "spread.yaml", "--address", cluster.address, cwd=tmp_path)
    wait_for(storage.ledger("spread"), "progress", 10, driver)
    assert read(storage.ledger("spread"))[0].max_concurrent == 2
    cluster.kill_second()
    _, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    assert mpdit_json("rank", cwd=tmp_path) == undisturbed()
    assert not (storage.sweep("spread") / "ray").exists()


def test_a_node_that_is_taken_back_counts_against_no_trial(
    cluster: Nodes, tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    (tmp_path / "spot.yaml").write_text(sweep_text("spot"))
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", "spot.yaml", "--address", cluster.address, cwd=tmp_path)
    wait_for(storage.ledger("spot"), "progress", 10, driver)
    cluster.take_second_back()
    _, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    events = read(storage.ledger("spot"))
    (end,) = [line for line in only(events, TrialEnded) if line.outcome == "preempted"]
    own = [line for line in events if line.trial == end.trial and isinstance(line, (TrialStarted, TrialEnded))]
    told = [line.outcome if isinstance(line, TrialEnded) else line.kind for line in own]
    assert told[:4] == ["trial_started", "preempted", "trial_started", "completed"]  # it may be confirmed after that
    assert trial_statuses(events)[end.trial] == "completed"
    assert mpdit_json("rank", cwd=tmp_path) == undisturbed()


def test_a_trial_of_two_workers_is_that_of_one_and_survives_a_worker(
    cluster: Nodes, tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    (tmp_path / "shared.yaml").write_text(IN_GROUPS)
    storage = Storage(tmp_path / "runs")
    driver = start("sweep", "shared.yaml", "--address", cluster.address, cwd=tmp_path)
    wait_for(storage.ledger("shared"), "progress", 8, driver)
    assert read(storage.ledger("shared"))[0].max_concurrent == 1
    cluster.members()[-1].kill()
    _, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    found = {row["trial"]: row["value"] for row in mpdit_json("rank", cwd=tmp_path)}
    assert len(found) == 1
    alone = {row["trial"]: row["value"] for row in undisturbed() if row["trial"] in found}
    assert found == pytest.approx(alone, rel=1e-3)
    (log,) = (path.read_text() for path in storage.trials.glob("*/log.txt"))
    assert log.count("process 1 of 2") == 2
    assert int(re.findall(r"from step (\d+)", log)[-1]) > 0


def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster: Nodes, tmp_path: Path) -> None:
    (tmp_path / "spread.yaml").write_text(sweep_text("spread"))
    more = ["--set", "resources.workers_per_trial=4"]
    err = refused("sweep", "spread.yaml", "--address", cluster.address, *more, cwd=tmp_path)
    assert "allowed:    workers_per_trial: 2" in err
    gpus = ["--set", "resources.gpus_per_trial=1"]
    err = refused("sweep", "spread.yaml", "--address", cluster.address, *gpus, cwd=tmp_path)
    assert "1 CPU cores and 0 GPUs, 1 CPU cores and 0 GPUs" in err
