"""Records in a bucket, and which driver may write them."""

import logging
import threading
import time
from pathlib import Path

import pytest

from sweeps.execution.driver_sync import driver_sync
from sweeps.storage import lease
from sweeps.storage.bucket import open_bucket
from sweeps.storage.events import Progress
from sweeps.storage.layout import locked
from sweeps.storage.lease import acquire
from sweeps.storage.ledger import read
from sweeps.storage.open_storage import open_storage
from sweeps.storage.stop_requests import EVERYTHING, ask_driver_here, ask_to_stop, take_requests
from tests.bucket_server import bucket_url, elsewhere, s3_server
from tests.sweeps.conftest import made, plan_of

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a server that goes leaves its connections
fixtures = (bucket_url, s3_server)

PLAN = plan_of({"optimizer.lr": [0.01, 0.02]}, retention={"best": 1})


class Recorder:
    halt = fault = None


def test_a_ledger_goes_up_in_segments_and_is_the_same_elsewhere(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(bucket_url)
    with driver_sync(storage, "made") as link:
        assert link
        ledger = made(storage, PLAN)
        for value in range(3):
            ledger.append(Progress("t", value, {}))
            link.keep_up()
        link.keep_up()
        with storage.ledger("made").open("a") as file:
            file.write('{"torn')
        assert link.finish() is None
    bucket = open_bucket(bucket_url)
    assert len(bucket.entries("sweeps/made/ledger")) == 3
    other = elsewhere(storage, monkeypatch, tmp_path)
    assert other.find_sweep(None) == "made"
    assert read(other.ledger("made")) == ledger.events
    assert other.spec("made").read_text() == storage.spec("made").read_text()
    assert not other.is_running("made")


def test_what_a_machine_alone_has_reported_is_sent_by_its_next_start(bucket_url: str) -> None:
    storage = open_storage(bucket_url)
    with driver_sync(storage, "made"):
        ledger = made(storage, PLAN)
    ledger.append(Progress("t", 1, {}))  # by a driver that was killed before it could send it
    assert len(read(open_storage(bucket_url).ledger("made"))) == 1
    with driver_sync(open_storage(bucket_url), "made"):
        pass
    assert len(open_bucket(bucket_url).entries("sweeps/made/ledger")) == 1


def test_a_sweep_that_went_on_elsewhere_leaves_what_was_not_sent_aside(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(bucket_url)
    with driver_sync(storage, "made") as link:
        ledger = made(storage, PLAN)
        ledger.append(Progress("t", 1, {}))
    link = None
    ledger.append(Progress("t", 2, {"here": 1}))
    with monkeypatch.context() as patch:
        other = elsewhere(storage, patch, tmp_path)
        with driver_sync(other, "made") as link:
            assert link
            made(other, PLAN).append(Progress("t", 1, {"there": 1}))
            link.finish()
    with caplog.at_level(logging.WARNING):
        again = open_storage(bucket_url)
    assert [line.metrics for line in read(again.ledger("made"))] == [{"there": 1}]
    assert "went on elsewhere" in caplog.text
    (aside,) = again.sweep("made").glob("ledger-unsent-*.jsonl")
    assert len(read(aside)) == 2


def test_a_sweep_that_is_gone_from_the_bucket_is_gone_here(bucket_url: str) -> None:
    storage = open_storage(bucket_url)
    with driver_sync(storage, "made") as link:
        assert link
        made(storage, PLAN).append(Progress("t", 1, {}))
        link.finish()
    assert open_storage(bucket_url).sweep_names() == ["made"]
    open_bucket(bucket_url).remove_folder("sweeps/made")
    assert open_storage(bucket_url).sweep_names() == []


def test_a_driver_that_has_lost_its_place_writes_no_more(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LASTS", -1.0)
    storage = open_storage(bucket_url)
    with driver_sync(storage, "made") as link:
        assert link
        link.recorder = Recorder()  # type: ignore[assignment]
        made(storage, PLAN).append(Progress("t", 1, {}))
        acquire(link.bucket, "sweeps/made", "sweep made", "elsewhere")
        link.keep_up()
        assert "another driver has taken made over" in str(link.recorder.fault)
        assert not open_bucket(bucket_url).entries("sweeps/made/ledger")


def test_a_driver_hears_from_elsewhere_that_it_is_to_stop(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(bucket_url)
    with locked(storage.lock("made"), "sweep made"), driver_sync(storage, "made") as link:
        assert link
        made(storage, PLAN)
        with monkeypatch.context() as patch:
            other = elsewhere(storage, patch, tmp_path)
            assert other.is_running("made")
            ask_to_stop(other, "made")
            ask_to_stop(other, "made", "some-trial")
        link.keep_up()
        assert take_requests(storage, "made") == {EVERYTHING, "some-trial"}
        link.keep_up()
        assert take_requests(storage, "made") == set()


def test_a_driver_keeps_its_place_while_it_prepares_and_whatever_else_fails(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Data and Ray may take longer than a lease lasts; the disk may be full; a stop request may be no trial's name."""
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.01)
    monkeypatch.setattr("sweeps.execution.driver_sync.RENEWED_EVERY", 0.01)
    storage, marks = open_storage(bucket_url), set[str]()

    def renewals(wanted: int) -> None:
        marks.clear()
        for _ in range(600):
            marks.add(storage_bucket.entries("sweeps/made")["lease.json"].mark)
            if len(marks) > wanted:
                return
            time.sleep(0.01)
        raise AssertionError("the lease is not renewed")

    storage_bucket = open_bucket(bucket_url)
    with locked(storage.lock("made"), "sweep made"), driver_sync(storage, "made") as link:
        assert link
        renewals(2)  # before there is a recorder
        made(storage, PLAN)
        broken = [OSError(28, "No space left on device"), ValueError("anything")]
        real, heard = link._send, threading.Event()

        def send() -> bool:
            if broken:
                raise broken.pop()
            return real()

        def ask(*given: object) -> None:
            ask_driver_here(*given)  # type: ignore[arg-type]
            heard.set()

        monkeypatch.setattr(link, "_send", send)
        monkeypatch.setattr("sweeps.execution.driver_sync.ask_driver_here", ask)
        for name in ("a/b", "../../../x", "some-trial"):
            key = f"runs/sweeps/made/stop/{name}"
            storage_bucket.files.call_s3("put_object", Bucket=bucket_url.split("/")[2], Key=key, Body=b"x")  # type: ignore[attr-defined]
        link.follow(Recorder())  # type: ignore[arg-type]
        assert heard.wait(60)
        renewals(2)
        assert take_requests(storage, "made") == {"some-trial"}
        assert link.is_alive()
    assert "No space left" in caplog.text
    assert not lease.is_held(storage_bucket, "sweeps/made")


def test_the_copy_of_a_sweep_that_runs_here_stays_when_the_bucket_loses_it(bucket_url: str) -> None:
    storage = open_storage(bucket_url)
    with driver_sync(storage, "made") as link:
        assert link
        made(storage, PLAN).append(Progress("t", 1, {}))
        link.finish()
    open_storage(bucket_url)
    with locked(storage.lock("made"), "sweep made"):
        open_bucket(bucket_url).remove_folder("sweeps/made")
        open_storage(bucket_url)
        assert len(read(storage.ledger("made"))) == 1
    assert open_storage(bucket_url).sweep_names() == []
