"""A storage in a bucket, against a real server of the protocol on loopback: refusals, copies, leases, segments."""

import logging
import os
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpdit.errors import BadInput
from pipelines.yaml_file import write_yaml
from sweeps import copies, lease
from sweeps.bucket import BucketLost, open_bucket
from sweeps.copies import kept_up, pull, push
from sweeps.lease import Busy, acquire, is_held
from sweeps.ledger import Ledger, event, read
from sweeps.place import copy_of, open_storage
from sweeps.requests import EVERYTHING, ask_to_stop, asked_to_stop
from sweeps.retention import drop_losers, removable, remove
from sweeps.storage import Storage, locked
from sweeps.trial import run_trial
from sweeps.uplink import uplinked
from tests.bucket_server import Server, bucket_url, s3_server
from tests.conftest import SMALL
from tests.sweeps.conftest import ended, plan_of, scored

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a server that goes leaves its connections
fixtures = (bucket_url, s3_server)

PLAN = plan_of({"optimizer.lr": [0.01, 0.02]}, retention={"best": 1})


def write(folder: Path, name: str, text: str = "x") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def elsewhere(storage: Storage, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Storage:
    """The same storage on a machine that has no copy of it yet."""
    monkeypatch.setenv("MPDIT_CACHE", str(cache))
    return open_storage(storage.name)


# who is let in


def test_a_bucket_that_is_not_there_is_refused(bucket_url: str) -> None:
    with pytest.raises(BadInput, match=r"there is no such bucket(.|\n)*s3://nowhere/runs(.|\n)*AWS_ENDPOINT_URL"):
        open_storage("s3://nowhere/runs")


def test_wrong_credentials_are_refused(bucket_url: str, s3_server: Server) -> None:
    s3_server.check_credentials(0)
    try:
        with pytest.raises(BadInput, match=r"the bucket does not let us in(.|\n)*AWS_ACCESS_KEY_ID"):
            open_storage(bucket_url)
    finally:
        s3_server.check_credentials(float("inf"))


def test_no_credentials_are_refused(bucket_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="there are no credentials for the bucket"):
        open_storage(bucket_url)


def test_an_endpoint_where_nobody_answers_is_refused(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(BadInput, match=r"the bucket does not answer(.|\n)*endpoint: +http://127\.0\.0\.1:9"):
        open_storage(bucket_url)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=r"pip install 'mpdit\[s3\]'"):
        open_storage("s3://bucket/runs")


@pytest.mark.parametrize("place", ["gs://bucket/runs", "s3://"])
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(BadInput, match="s3://BUCKET/PREFIX"):
        open_storage(place)


def test_a_folder_is_a_storage_as_it_was(tmp_path: Path) -> None:
    assert open_storage(tmp_path).root == tmp_path
    assert open_storage(str(tmp_path)).bucket is None


def test_a_database_cannot_lie_in_a_bucket(bucket_url: str) -> None:
    with pytest.raises(BadInput, match=r"no MLflow database(.|\n)*mlflow server"):
        _ = open_storage(bucket_url).database


def test_another_layout_in_a_bucket_is_refused(bucket_url: str) -> None:
    open_bucket(bucket_url).write("VERSION", b"99\n")
    with pytest.raises(BadInput, match="has another layout"):
        open_storage(bucket_url).prepare()


# copies


def test_a_folder_comes_back_as_it_was_sent(bucket_url: str, tmp_path: Path) -> None:
    bucket, here, there = open_bucket(bucket_url), tmp_path / "a", tmp_path / "b"
    for name in ("recipe.yaml", "checkpoints/step-00000002/manifest.json", "ema/raw.safetensors", "samples/1.png"):
        write(here, name, name)
    for name in ("lock", "ema/step-1.partial", "checkpoints/partial-00000003/state.safetensors", ".hidden"):
        write(here, name)
    push(bucket, "trials/t", here)
    pull(bucket, "trials/t", there)
    found = {path.relative_to(there).as_posix(): path.read_text() for path in there.rglob("*") if path.is_file()}
    assert found.pop(".synced.json")
    assert found == {
        name: name
        for name in ("recipe.yaml", "checkpoints/step-00000002/manifest.json", "ema/raw.safetensors", "samples/1.png")
    }


def test_only_what_has_changed_travels_and_what_is_gone_goes(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, here, there = open_bucket(bucket_url), tmp_path / "a", tmp_path / "b"
    write(here, "one", "1")
    write(here, "two", "2")
    push(bucket, "t", here)
    pull(bucket, "t", there)
    (here / "one").unlink()
    write(here, "two", "three")
    sent: list[str] = []
    fetched: list[str] = []
    monkeypatch.setattr(bucket, "send", lambda files, real=bucket.send: (sent.extend(files), real(files)))
    monkeypatch.setattr(bucket, "fetch", lambda files, real=bucket.fetch: (fetched.extend(files), real(files)))
    push(bucket, "t", here)
    push(bucket, "t", here)
    pull(bucket, "t", there)
    pull(bucket, "t", there)
    assert (sent, fetched) == (["t/two"], ["t/two"])
    assert not (there / "one").exists()
    assert (there / "two").read_text() == "three"


def test_what_was_not_sent_yet_is_not_lost_and_what_changed_on_both_sides_is_the_bucket_s(
    bucket_url: str, tmp_path: Path
) -> None:
    bucket, here, there = open_bucket(bucket_url), tmp_path / "a", tmp_path / "b"
    write(here, "both", "first")
    write(here, "mine", "first")
    push(bucket, "t", here)
    pull(bucket, "t", there)
    write(here, "both", "sent")
    push(bucket, "t", here)
    write(there, "both", "changed too")
    write(there, "mine", "unsent")
    write(there, "new", "unsent")
    pull(bucket, "t", there)
    assert [(there / name).read_text() for name in ("both", "mine", "new")] == ["sent", "unsent", "unsent"]


def test_a_send_that_breaks_off_leaves_no_checkpoint_that_looks_whole(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = open_bucket(bucket_url)
    for name in ("checkpoints/step-00000002/state.safetensors", "checkpoints/step-00000002/manifest.json"):
        write(tmp_path, name)
    write(tmp_path, "ema/step-00000002.safetensors")
    write(tmp_path, "ema/raw.safetensors")
    send, calls = bucket.send, list[int]()

    def breaking(files: dict[str, Path]) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise BucketLost("gone")
        send(files)

    monkeypatch.setattr(bucket, "send", breaking)
    with pytest.raises(BucketLost):
        push(bucket, "t", tmp_path)
    assert set(bucket.entries("t")) == {"checkpoints/step-00000002/state.safetensors", "ema/step-00000002.safetensors"}
    push(bucket, "t", tmp_path)
    assert len(bucket.entries("t")) == 4


def test_a_thread_sends_while_a_training_goes_on_and_a_bucket_that_is_away_is_tried_again(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(copies, "LOOK_EVERY", 0.01)
    bucket, here = open_bucket(bucket_url), tmp_path / "a"
    real, failed, sent = copies.push, threading.Event(), threading.Event()

    def watched(*given: object) -> None:
        if (here / "one").exists() and not failed.is_set():
            failed.set()
            raise BucketLost("the bucket does not answer")
        real(*given)  # type: ignore[arg-type]
        if (here / "one").exists():
            sent.set()

    monkeypatch.setattr(copies, "push", watched)
    with kept_up(bucket, "t", here):
        write(here, "one")
        assert sent.wait(60)
        assert "one" in bucket.entries("t")
        write(here, "two")
    assert set(bucket.entries("t")) == {"one", "two"}
    assert "it is tried again" in caplog.text


# a trial


def test_a_trial_goes_on_elsewhere_from_the_bucket(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one machine up to a rung, at which it is cut off; the other has it from there."""
    from pipelines.recipe import Recipe
    from pipelines.training import train
    from sweeps.trial import train_with_room

    recipe, cells = Recipe.model_validate(SMALL), []
    whole = tmp_path / "whole"
    train(recipe, whole, lambda _: None, 1)

    def cut_off(*given: object) -> Recipe:
        def report(line: dict[str, object]) -> None:
            if line["step"] == 8:
                raise SystemExit  # what Ray Tune does to a trial that is to end

        return train_with_room(*given[:2], report, *given[3:])  # type: ignore[arg-type]

    first, told = copy_of(bucket_url) / "trials" / "t", list[dict[str, object]]()
    with pytest.raises(SystemExit):
        run_trial("t", recipe, first, cells, 1, told.append, training=cut_off, bucket=bucket_url)
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "other"))
    second = copy_of(bucket_url) / "trials" / "t"
    assert second != first
    run_trial("t", recipe, second, cells, 1, told.append, bucket=bucket_url)
    assert told[-1]["outcome"] == "completed"
    assert next(line["step"] for line in told if line["event"] == "progress") == 8
    raw = "ema/raw.safetensors"
    once, twice = load_file(whole / raw), load_file(second / raw)
    assert once and all(torch.equal(tensor, twice[name]) for name, tensor in once.items())
    assert raw in open_bucket(bucket_url).entries("trials/t")


def test_a_trial_whose_bucket_is_lost_is_interrupted(bucket_url: str, tmp_path: Path) -> None:
    from pipelines.recipe import Recipe

    told = list[dict[str, object]]()
    run_trial("t", Recipe.model_validate(SMALL), tmp_path / "t", [], 1, told.append, bucket="s3://nowhere/runs")
    assert [(line["event"], line["outcome"], line["bucket_lost"]) for line in told] == [
        ("trial_ended", "interrupted", True)
    ]
    assert "there is no such bucket" in str(told[0]["reason"])


# records


def made(storage: Storage) -> Ledger:
    storage.prepare()
    storage.sweep("made").mkdir(exist_ok=True)
    write_yaml(storage.spec("made"), PLAN.spec.model_dump())
    return Ledger(storage.ledger("made"))


def test_a_ledger_goes_up_in_segments_and_is_the_same_elsewhere(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(bucket_url)
    with uplinked(storage, "made") as link:
        assert link
        ledger = made(storage)
        for value in range(3):
            ledger.append(event("progress", "t", value, metrics={}))
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
    with uplinked(storage, "made"):
        ledger = made(storage)
    ledger.append(event("progress", "t", 1, metrics={}))  # by a driver that was killed before it could send it
    assert len(read(open_storage(bucket_url).ledger("made"))) == 1
    with uplinked(open_storage(bucket_url), "made"):
        pass
    assert len(open_bucket(bucket_url).entries("sweeps/made/ledger")) == 1


def test_a_sweep_that_went_on_elsewhere_leaves_what_was_not_sent_aside(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(bucket_url)
    with uplinked(storage, "made") as link:
        ledger = made(storage)
        ledger.append(event("progress", "t", 1, metrics={}))
    link = None
    ledger.append(event("progress", "t", 2, metrics={"here": 1}))
    with monkeypatch.context() as patch:
        other = elsewhere(storage, patch, tmp_path)
        with uplinked(other, "made") as link:
            assert link
            made(other).append(event("progress", "t", 1, metrics={"there": 1}))
            link.finish()
    with caplog.at_level(logging.WARNING):
        again = open_storage(bucket_url)
    assert [line["metrics"] for line in read(again.ledger("made"))] == [{"there": 1}]
    assert "went on elsewhere" in caplog.text
    (aside,) = again.sweep("made").glob("ledger-unsent-*.jsonl")
    assert len(read(aside)) == 2


def test_a_sweep_that_is_gone_from_the_bucket_is_gone_here(bucket_url: str) -> None:
    storage = open_storage(bucket_url)
    with uplinked(storage, "made") as link:
        assert link
        made(storage).append(event("progress", "t", 1, metrics={}))
        link.finish()
    assert open_storage(bucket_url).sweep_names() == ["made"]
    open_bucket(bucket_url).remove_folder("sweeps/made")
    assert open_storage(bucket_url).sweep_names() == []


# drivers


def test_a_second_driver_elsewhere_is_refused_and_one_here_takes_a_dead_one_s_place(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.0)
    bucket = open_bucket(bucket_url)
    first = acquire(bucket, "made", "here")
    assert is_held(bucket, "made")
    entry = lease._entry

    def renewing(*given: object) -> object:
        assert first.renew()
        return entry(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(lease, "_entry", renewing)
    with pytest.raises(Busy, match=rf"sweep made is being run(.|\n)*process {os.getpid()} on {os.uname().nodename}"):
        acquire(bucket, "made", "there")
    monkeypatch.setattr(lease, "_entry", entry)
    second = acquire(bucket, "made", "here")  # who holds the lock of the same copy
    assert not first.renew()
    first.release()
    assert is_held(bucket, "made")
    second.release()
    assert not is_held(bucket, "made")


def test_a_lease_that_is_not_renewed_ends(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(lease, "LASTS", -1.0)  # what was written a moment ago is old
    bucket = open_bucket(bucket_url)
    acquire(bucket, "made", "here")
    assert not is_held(bucket, "made")
    assert acquire(bucket, "made", "there").renew()


def test_a_driver_that_has_lost_its_place_writes_no_more(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder:
        halt = fault = None

    monkeypatch.setattr(lease, "LASTS", -1.0)
    storage = open_storage(bucket_url)
    with uplinked(storage, "made") as link:
        assert link
        link.recorder = Recorder()  # type: ignore[assignment]
        made(storage).append(event("progress", "t", 1, metrics={}))
        acquire(link.bucket, "made", "elsewhere")
        link.keep_up()
        assert "another driver has taken made over" in str(link.recorder.fault)
        assert not open_bucket(bucket_url).entries("sweeps/made/ledger")


def test_a_driver_hears_from_elsewhere_that_it_is_to_stop(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(bucket_url)
    with locked(storage.lock("made"), "sweep made"), uplinked(storage, "made") as link:
        assert link
        made(storage)
        with monkeypatch.context() as patch:
            other = elsewhere(storage, patch, tmp_path)
            assert other.is_running("made")
            ask_to_stop(other, "made")
            ask_to_stop(other, "made", "some-trial")
        link.keep_up()
        assert asked_to_stop(storage, "made") == {EVERYTHING, "some-trial"}
        link.keep_up()
        assert asked_to_stop(storage, "made") == set()


# what goes


def test_what_can_go_goes_in_the_bucket_too(bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(bucket_url)
    best, loser = (trial.id for trial in PLAN.trials)
    with uplinked(storage, "made") as link:
        assert link
        ledger = made(storage)
        ledger.append(event("sweep_started", sweep="s", max_concurrent=1))
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
    assert drop_losers(PLAN, other, events) == [loser]
    assert f"{loser}/ema/raw.safetensors" not in bucket.entries("trials")
    assert drop_losers(PLAN, other, [*events, event("weights_dropped", loser)]) == []


def test_a_run_is_brought_when_it_is_asked_for(bucket_url: str, tmp_path: Path) -> None:
    bucket = open_bucket(bucket_url)
    bucket.write("trials/known/recipe.yaml", b"steps: 1\n")
    bucket.write("trials/known/ema/raw.safetensors", b"12345")
    storage = open_storage(bucket_url)
    with pytest.raises(BadInput, match=r"there is no run 'knwon'(.|\n)*nearest: +known"):
        storage.find_run("knwon")
    storage.bring("known", small=True)
    assert not (storage.trial("known") / "ema").exists()
    assert (storage.find_run("known") / "ema/raw.safetensors").read_bytes() == b"12345"
