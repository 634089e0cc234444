"""A storage in a bucket: who is let in, what can go, what is brought."""

import sys
from pathlib import Path

import pytest

from mpdit.errors import InputError
from sweeps.execution.driver_sync import driver_sync
from sweeps.execution.retention import drop_losers, removable, remove
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.results.contest import Contest
from sweeps.storage.bucket import open_bucket
from sweeps.storage.events import SweepStarted, WeightsDropped
from sweeps.storage.ledger import read
from sweeps.storage.open_storage import open_storage
from tests.bucket_server import Server, bucket_url, elsewhere, s3_server
from tests.sweeps.conftest import ended, made, plan_of, scored

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a server that goes leaves its connections
fixtures = (bucket_url, s3_server)

PLAN = plan_of({"optimizer.lr": [0.01, 0.02]}, retention={"best": 1})


def write(folder: Path, name: str, text: str = "x") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_bucket_that_is_not_there_is_refused(bucket_url: str) -> None:
    with pytest.raises(InputError, match=r"there is no such bucket(.|\n)*s3://nowhere/runs(.|\n)*AWS_ENDPOINT_URL"):
        open_storage("s3://nowhere/runs")


def test_wrong_credentials_are_refused(bucket_url: str, s3_server: Server) -> None:
    s3_server.check_credentials(0)
    try:
        with pytest.raises(InputError, match=r"the bucket does not let us in(.|\n)*AWS_ACCESS_KEY_ID"):
            open_storage(bucket_url)
    finally:
        s3_server.check_credentials(float("inf"))


def test_no_credentials_are_refused(bucket_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="there are no credentials for the bucket"):
        open_storage(bucket_url)


def test_an_endpoint_where_nobody_answers_is_refused(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match=r"the bucket does not answer(.|\n)*endpoint: +http://127\.0\.0\.1:9"):
        open_storage(bucket_url)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"pip install 'mpdit\[s3\]'"):
        open_storage("s3://bucket/runs")


@pytest.mark.parametrize("place", ["gs://bucket/runs", "s3://"])
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(InputError, match="s3://BUCKET/PREFIX"):
        open_storage(place)


def test_a_folder_is_a_storage_as_it_was(tmp_path: Path) -> None:
    assert open_storage(tmp_path).root == tmp_path
    assert open_storage(str(tmp_path)).bucket is None


def test_a_database_cannot_lie_in_a_bucket(bucket_url: str) -> None:
    with pytest.raises(InputError, match=r"no MLflow database(.|\n)*mlflow server"):
        _ = open_storage(bucket_url).database


def test_another_layout_in_a_bucket_is_refused(bucket_url: str) -> None:
    open_bucket(bucket_url).write("VERSION", b"99\n")
    with pytest.raises(InputError, match="has another layout"):
        open_storage(bucket_url).prepare()


def test_what_can_go_goes_in_the_bucket_too(bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(bucket_url)
    best, loser = (trial.id for trial in PLAN.trials)
    with driver_sync(storage, "made") as link:
        assert link
        ledger = made(storage, PLAN)
        ledger.append(SweepStarted("s", 1))
        for trial in (0, 1):
            ledger.append(scored(PLAN, trial, 0, 1.0 + trial))
            ledger.append(ended(PLAN, trial))
        link.finish()
    bucket = open_bucket(bucket_url)
    for trial in (best, loser, "of-nobody"):
        for name in ("recipe.yaml", "ema/raw.safetensors"):
            bucket.write(f"trials/{trial}/{name}", b"12345")
    other = elsewhere(storage, monkeypatch, tmp_path)
    assert other.is_trained(loser)
    found = {removal.path.relative_to(other.trials).as_posix(): removal.bytes for removal in removable(other)}
    assert found == {f"{loser}/ema": 5, "of-nobody": 10}
    remove(other, removable(other))
    assert set(bucket.entries("trials")) == {
        f"{best}/ema/raw.safetensors",
        f"{best}/recipe.yaml",
        f"{loser}/recipe.yaml",
    }

    bucket.write(f"trials/{loser}/ema/raw.safetensors", b"12345")
    events = read(other.ledger("made"))
    others = OtherSweeps(other, "made")
    assert drop_losers(Contest(PLAN, events), other, others) == [loser]
    assert f"{loser}/ema/raw.safetensors" not in bucket.entries("trials")
    assert drop_losers(Contest(PLAN, [*events, WeightsDropped(loser)]), other, others) == []


def test_a_run_is_brought_when_it_is_asked_for(bucket_url: str, tmp_path: Path) -> None:
    bucket = open_bucket(bucket_url)
    bucket.write("trials/known/recipe.yaml", b"steps: 1\n")
    bucket.write("trials/known/ema/raw.safetensors", b"12345")
    storage = open_storage(bucket_url)
    with pytest.raises(InputError, match=r"there is no run 'knwon'(.|\n)*nearest: +known"):
        storage.find_run("knwon")
    storage.bring("known", small=True)
    assert not (storage.trial("known") / "ema").exists()
    assert (storage.find_run("known") / "ema/raw.safetensors").read_bytes() == b"12345"
