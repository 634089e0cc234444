"""Copies of folders in a bucket, on a real server of the S3 protocol: what travels, and in which order."""

import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sweeps.execution.trial_job import TrialJob
from sweeps.execution.worker import run_trial
from sweeps.storage import folder_sync as copies
from sweeps.storage import lease
from sweeps.storage.bucket import BucketLost, open_bucket
from sweeps.storage.events import Event, Progress, SamplesDrawn, TrialEnded
from sweeps.storage.folder_sync import NOTED, pull, push, synced
from sweeps.storage.lease import Busy
from sweeps.storage.open_storage import local_copy, open_storage
from tests.bucket_server import Server, bucket_url, s3_server
from tests.conftest import SMALL

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a server that goes leaves its connections
fixtures = (bucket_url, s3_server)


def write(folder: Path, name: str, text: str = "x") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


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


def test_what_is_dropped_while_it_is_sent_arrives_whole(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an old checkpoint is, where sending takes longer than a few reports."""
    bucket, here, there = open_bucket(bucket_url), tmp_path / "a", tmp_path / "b"
    names = ("checkpoints/step-00000002/state.safetensors", "checkpoints/step-00000002/manifest.json")
    for name in names:
        write(here, name)
    send = bucket.send

    def slow(files: dict[str, Path]) -> None:
        shutil.rmtree(here / "checkpoints", ignore_errors=True)
        send(files)

    monkeypatch.setattr(bucket, "send", slow)
    push(bucket, "t", here)
    monkeypatch.undo()
    pull(bucket, "t", there)
    assert [(there / name).read_text() for name in names] == ["x", "x"]
    assert [path.name for path in here.iterdir()] == [NOTED]  # nothing is held any longer
    push(bucket, "t", here)
    assert bucket.entries("t") == {}


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
    with synced(bucket, "trials/t", here):
        write(here, "one")
        assert sent.wait(60)
        assert "one" in bucket.entries("trials/t")
        write(here, "two")
    assert set(bucket.entries("trials/t")) == {"one", "two"}
    assert "it is tried again" in caplog.text


def test_a_trial_is_written_by_one_machine_at_a_time(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_server: Server
) -> None:
    monkeypatch.setattr(copies, "PATIENCE", 0.0)
    monkeypatch.setattr(copies, "LOOK_EVERY", 600.0)
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.0)
    bucket, here, there = open_bucket(bucket_url), tmp_path / "a", tmp_path / "b"
    with pytest.raises(Busy, match="taken it over"), synced(bucket, "trials/t", here) as push_now:
        write(here, "one", "here")
        push_now()
        with monkeypatch.context() as patch:
            patch.setattr("time.sleep", lambda _: push_now())
            with pytest.raises(Busy, match="trial t is being run"), synced(bucket, "trials/t", there):
                pass
        s3_server.age(bucket_url.split("/")[2], "runs/leases/t/lease.json", lease.LASTS + 2)  # as after a long sleep
        with synced(bucket, "trials/t", there) as push_there:
            write(there, "one", "there")
            push_there()
            write(here, "one", "here, later")
            with pytest.raises(Busy, match="taken it over"):
                push_now()
    assert bucket.read("trials/t/one") == b"there"


def test_names_that_lead_out_of_the_folder_are_left_alone(bucket_url: str, tmp_path: Path) -> None:
    s3 = open_bucket(bucket_url).files  # type: ignore[attr-defined]
    name, inside = bucket_url.split("/")[2], ("trials/t/fine", "sweeps/made/sweep.yaml")
    outside = (
        "trials/t/../../../out",
        "trials/../../out",
        "trials/t//absolute",
        "sweeps/../sweep.yaml",
        "trials/t/./x",
    )
    for key in (*inside, *outside):
        s3.call_s3("put_object", Bucket=name, Key=f"runs/{key}", Body=b"x")
    bucket, folder = open_bucket(bucket_url), tmp_path / "deep" / "trials" / "t"
    pull(bucket, "trials/t", folder)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"deep/trials/t/fine", f"deep/trials/t/{NOTED}"}
    assert open_storage(bucket_url).trial_names() == ["t"]
    assert not (local_copy(bucket_url) / "sweep.yaml").exists()


def test_a_trial_goes_on_elsewhere_from_the_bucket(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one machine up to a rung, at which it is cut off; the other has it from there."""
    from pipelines.recipe import Recipe
    from pipelines.training.trainer import train
    from sweeps.execution.worker import train_within_memory

    recipe, cells = Recipe.model_validate(SMALL), []
    whole = tmp_path / "whole"
    train(recipe, whole, lambda _: None, 1)

    def cut_off(*given: object) -> Recipe:
        def report(line: dict[str, object]) -> None:
            if line["step"] == 8:
                raise SystemExit  # what Ray Tune does to a trial that is to end

        return train_within_memory(*given[:2], report, *given[3:])  # type: ignore[arg-type]

    first, told = local_copy(bucket_url) / "trials" / "t", list[Event]()
    bucket = open_bucket(bucket_url)

    def tell(line: Event) -> None:
        assert not isinstance(line, SamplesDrawn) or f"samples/{line.picture}" in bucket.entries("trials/t")
        told.append(line)

    with pytest.raises(SystemExit):
        run_trial(
            TrialJob(trial="t", recipe=recipe, folder=first, cells=cells, threads=1, bucket=bucket_url),
            tell,
            training=cut_off,
        )
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "other"))
    second = local_copy(bucket_url) / "trials" / "t"
    assert second != first
    run_trial(TrialJob(trial="t", recipe=recipe, folder=second, cells=cells, threads=1, bucket=bucket_url), tell)
    assert isinstance(told[-1], TrialEnded) and told[-1].outcome == "completed"
    assert next(line.step for line in told if isinstance(line, Progress)) == 8
    raw = "ema/raw.safetensors"
    once, twice = load_file(whole / raw), load_file(second / raw)
    assert once and all(torch.equal(tensor, twice[name]) for name, tensor in once.items())
    assert raw in open_bucket(bucket_url).entries("trials/t")


def test_a_trial_whose_bucket_is_lost_is_interrupted(bucket_url: str, tmp_path: Path) -> None:
    from pipelines.recipe import Recipe

    told = list[Event]()
    run_trial(
        TrialJob(
            trial="t",
            recipe=Recipe.model_validate(SMALL),
            folder=tmp_path / "t",
            cells=[],
            threads=1,
            bucket="s3://nowhere/runs",
        ),
        told.append,
    )
    (end,) = told
    assert isinstance(end, TrialEnded)
    assert (end.outcome, end.bucket_lost) == ("interrupted", True)
    assert "there is no such bucket" in str(end.reason)
