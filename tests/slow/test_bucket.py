"""Whole sweeps whose storage is in a bucket, on a real server of the S3 protocol: kills, other machines, no server."""

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.storage import lease
from sweeps.storage.bucket import open_bucket
from sweeps.storage.events import SweepStarted, TrialEnded
from sweeps.storage.ledger import read
from sweeps.storage.open_storage import local_copy, open_storage
from tests.bucket_server import Server
from tests.slow.conftest import (
    LONG,
    PATIENCE,
    end,
    mpdit,
    mpdit_json,
    refused,
    settled,
    start,
    sweep_text,
    wait_for,
)
from tests.slow.ray_cluster import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ON_THE_CLUSTER = pytest.mark.xdist_group("cluster")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket_url: str) -> Iterator[Path]:
    """A folder with the sweep's file, on a machine with a cache of its own; every command's storage is the bucket."""
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "afar.yaml").write_text(sweep_text("afar") + f"tracking: {{uri: 'sqlite:///{tmp_path}/mlflow.db'}}\n")
    yield tmp_path


def ledger_of(url: str) -> Path:
    return local_copy(url) / "sweeps/afar/ledger.jsonl"


def eventually(look: Callable[[], list[str]], process: Any) -> list[str]:
    """What there is to see as soon as there is anything."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, commands run as on another machine."""
    monkeypatch.setenv("MPDIT_CACHE", str(here / "elsewhere"))


def test_a_sweep_ranks_as_in_a_folder_and_every_command_finds_it_elsewhere(
    here: Path, bucket_url: str, undisturbed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, expected = ("--storage", bucket_url), undisturbed()
    told = mpdit("sweep", "afar.yaml", "--max-concurrent", "1", *place, cwd=here)
    assert f"rank afar --storage {bucket_url}" in told
    assert mpdit_json("rank", *place, cwd=here) == expected
    kept = set(open_bucket(bucket_url).entries())
    assert not {name for name in kept if name.endswith(("lock", "mlflow.db", ".partial"))}
    leases = [name for name in kept if name.endswith("lease.json")]
    assert len(leases) == 1 + len({row["trial"] for row in expected})
    assert {open_bucket(bucket_url).read(name) for name in leases} == {b""}  # nobody holds one

    elsewhere(here, monkeypatch)
    assert mpdit_json("rank", *place, cwd=here) == expected
    trial = expected[0]["trial"]
    states = mpdit_json("status", *place, cwd=here)
    assert (states["running"], {row["status"] for row in states["trials"]}) == (False, {"completed"})
    planned = mpdit_json("plan", "afar.yaml", *place, cwd=here)
    assert sorted(planned["reused"]) == sorted(row["trial"] for row in states["trials"])
    mpdit("best", "--export", *place, cwd=here)
    assert (here / "bundles/afar/model.safetensors").exists()
    last = local_copy(bucket_url) / "trials" / expected[-1]["trial"]
    assert not (last / "ema").exists()  # only what was asked for
    known = {row["params"]["ema.sigma_rel"]: row["value"] for row in expected if row["trial"] == trial}
    again = mpdit_json("evaluate", trial, "--ema", "0.1", "--samples", "200", *place, cwd=here)
    assert again[0]["params"]["ema.sigma_rel"] in known
    mpdit("sample", trial, "--rows", "1", *place, cwd=here)
    mpdit("report", *place, cwd=here)
    assert "data:image/png" in (here / "afar-report.html").read_text()
    assert "nothing to retry" in mpdit("retry", *place, cwd=here)
    assert "afar: 0 events shown" in mpdit("sync", *place, cwd=here)
    mpdit("stop", "afar", *place, cwd=here, expect=2)
    mpdit("clean", "--best", "1", "--yes", *place, cwd=here)
    loser = next(row["trial"] for row in expected if row["trial"] != trial)
    left = open_bucket(bucket_url).entries("trials")
    assert not [name for name in left if name.startswith(f"{loser}/ema/")]
    assert [name for name in left if name.startswith(f"{trial}/ema/")]
    mpdit("sweep", "afar.yaml", *place, cwd=here)
    assert mpdit_json("rank", *place, cwd=here) == expected


@pytest.mark.soak
def test_a_killed_driver_s_sweep_goes_on_on_another_machine(
    here: Path,
    bucket_url: str,
    undisturbed: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    s3_server: Server,
) -> None:
    """Adds to CI: a driver that is killed, whose sweep in a bucket goes on on another machine."""
    driver = start("sweep", "afar.yaml", "--storage", bucket_url, "--max-concurrent", "1", cwd=here)
    wait_for(ledger_of(bucket_url), "trial_ended", 1, driver)
    wait_for(ledger_of(bucket_url), "progress", 35, driver)
    bucket = open_bucket(bucket_url)
    end(driver, signal.SIGKILL)
    assert settled(driver.pid) == []
    unsent = read(ledger_of(bucket_url))
    elsewhere(here, monkeypatch)
    storage = open_storage(bucket_url)
    sent = read(storage.ledger("afar"))
    assert sent == unsent[: len(sent)]
    assert len([name for name in bucket.entries("trials") if name.endswith("raw.safetensors")]) >= 1
    assert lease.is_held(bucket, "sweeps/afar")
    s3_server.age(bucket_url.split("/")[2], "runs/sweeps/afar/lease.json", lease.LASTS)  # as it is a minute later
    mpdit("sweep", "afar.yaml", "--storage", bucket_url, cwd=here)
    assert mpdit_json("rank", "--storage", bucket_url, cwd=here) == undisturbed()
    whole = read(ledger_of(bucket_url))
    assert whole[: len(sent)] == sent
    assert len({line.sweep for line in whole if isinstance(line, SweepStarted)}) == 1
    shutil.rmtree(here / "cache")
    monkeypatch.setenv("MPDIT_CACHE", str(here / "cache"))
    assert mpdit_json("rank", "--storage", bucket_url, cwd=here) == undisturbed()


@pytest.mark.soak
def test_a_sweep_that_runs_is_seen_guarded_and_stopped_from_elsewhere(
    here: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adds to CI: a sweep in a bucket, seen, guarded and stopped from another machine."""
    place = ("--storage", bucket_url)
    long = ("sweep", "afar.yaml", *place, "--set", "recipe.steps=100000")
    driver = start(*long, cwd=here)
    wait_for(ledger_of(bucket_url), "trial_started", 1, driver)
    with monkeypatch.context() as patch:
        elsewhere(here, patch)
        err = refused(*long, cwd=here)
        assert "sweep afar is being run by another process" in err
        assert f"process {driver.pid} on" in err
        assert mpdit_json("status", *place, cwd=here)["running"]
        mpdit("stop", "afar", *place, cwd=here)
    driver.communicate(timeout=300)
    assert driver.returncode == 130
    states = mpdit_json("status", *place, cwd=here)
    assert not states["running"]
    assert "interrupted" in {row["status"] for row in states["trials"]}


@pytest.mark.soak
def test_a_server_that_goes_away_loses_nothing(
    here: Path, bucket_url: str, undisturbed: Callable[..., Any], s3_server: Server
) -> None:
    """Adds to CI: a bucket that goes away in the middle of a sweep."""
    place = ("--storage", bucket_url)
    driver = start("sweep", "afar.yaml", *place, cwd=here)
    wait_for(ledger_of(bucket_url), "progress", 8, driver)
    s3_server.stop()
    try:
        _, err = driver.communicate(timeout=600)
    finally:
        s3_server.start()
    assert driver.returncode == 1, err
    assert "the bucket does not answer" in err
    assert "Traceback" not in err
    told = read(ledger_of(bucket_url))
    assert {line.outcome for line in told if isinstance(line, TrialEnded)} == {"interrupted"}
    mpdit("sweep", "afar.yaml", *place, cwd=here)
    assert mpdit_json("rank", *place, cwd=here) == undisturbed()
    whole = read(ledger_of(bucket_url))
    assert whole[: len(told)] == told


def test_a_storage_in_a_bucket_wants_a_tracking_server_named(here: Path, bucket_url: str) -> None:
    (here / "bare.yaml").write_text(sweep_text("bare"))
    err = refused("sweep", "bare.yaml", "--storage", bucket_url, cwd=here)
    assert "a storage in a bucket has no MLflow database of its own" in err
    assert "tracking: {uri: http://HOST:5000}" in err
    assert open_bucket(bucket_url).entries() == {}


@ON_THE_CLUSTER
def test_two_nodes_without_a_common_folder_and_one_dies(
    here: Path, bucket_url: str, cluster: Nodes, undisturbed: Callable[..., Any]
) -> None:
    """Driver and nodes each have a copy of their own; the dead node's trial goes on from what it had sent."""
    place, bucket = ("--storage", bucket_url), open_bucket(bucket_url)
    longer = ("--set", f"recipe.steps={LONG}")  # time to die in
    first, second = (cache / "storages" / local_copy(bucket_url).name / "trials" for cache in cluster.caches)
    driver = start("sweep", "afar.yaml", *longer, *place, "--address", cluster.address, cwd=here)
    wait_for(ledger_of(bucket_url), "trial_started", 2, driver)
    (lost,) = eventually(lambda: [path.name for path in second.glob("*")], driver)
    marks = (f"{lost}/checkpoints/", "manifest.json")
    eventually(lambda: [n for n in bucket.entries("trials") if n.startswith(marks[0]) and n.endswith(marks[1])], driver)
    cluster.kill_second()
    _, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err
    ranking = mpdit_json("rank", *place, cwd=here)
    assert ranking == undisturbed(LONG)
    log = (first / lost / "log.txt").read_text()
    assert int(re.findall(r"from step (\d+)", log)[-1]) > 0
    assert not [name for name in bucket.entries("sweeps") if name.startswith("afar/ray/")]
    fetched = {path.parent.name for path in (here / "cache").glob("storages/*/trials/*/ema")}
    assert fetched <= {ranking[0]["trial"]}  # for MLflow's registry; the driver needs no other weights


@ON_THE_CLUSTER
@pytest.mark.soak
def test_a_trial_of_two_workers_on_two_nodes_without_a_common_folder(
    here: Path, bucket_url: str, cluster: Nodes, undisturbed: Callable[..., Any]
) -> None:
    """Adds to CI: a trial of two workers on two nodes that share only a bucket; its driver is killed."""
    place, bucket = ("--storage", bucket_url), open_bucket(bucket_url)
    one = ("--set", f"recipe.steps={LONG}", "--set", "axes.model.modulation=[scale+shift+gate]")
    command = ("sweep", "afar.yaml", *one, "--set", "resources.workers_per_trial=2", "--address", cluster.address)
    driver = start(*command, *place, cwd=here)
    wait_for(ledger_of(bucket_url), "progress", 3, driver)
    eventually(lambda: [name for name in bucket.entries("trials") if name.endswith("manifest.json")], driver)
    end(driver, signal.SIGKILL)
    mpdit(*command, *place, cwd=here)
    found, alone = (
        {(row["trial"], row["params"]["ema.sigma_rel"]): row["value"] for row in rows}
        for rows in (mpdit_json("rank", *place, cwd=here), undisturbed(LONG))
    )
    assert len(found) == 2
    assert found == pytest.approx({cell: alone[cell] for cell in found}, rel=1e-3)
    text = bucket.read(f"trials/{next(iter(found))[0]}/log.txt") or b""
    assert int(re.findall(r"from step (\d+)", text.decode())[-1]) > 0
