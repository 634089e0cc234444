"""Leases in a bucket, on a real server of the S3 protocol: one holder, whoever is fast, slow, dead, or a copy."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.storage import lease
from sweeps.storage.bucket import Bucket, BucketLost, open_bucket
from sweeps.storage.buckets.s3 import S3Bucket
from sweeps.storage.lease import Busy, Lease, acquire, held, is_held, lock_identity
from tests.bucket_server import Server, bucket_url, s3_server

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a server that goes leaves its connections
fixtures = (bucket_url, s3_server)

PLACE, WHAT = "sweeps/made", "sweep made"


@pytest.fixture
def bucket(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.0)
    return open_bucket(bucket_url)


@pytest.fixture
def minute_later(s3_server: Server, bucket_url: str) -> Callable[[], None]:
    """Makes the lease a minute older (and two seconds: the bucket's clock counts whole ones)."""
    return lambda: s3_server.age(bucket_url.split("/")[2], f"runs/{PLACE}/lease.json", lease.LASTS + 2)


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, first: Callable[[], object]) -> None:
    """Have something happen once, just before the next call of a method."""
    real, done = getattr(owner, name), list[int]()

    def call(*given: object) -> object:
        if not done:
            done.append(1)
            first()
        return real(*given)

    monkeypatch.setattr(owner, name, call)


def test_a_second_holder_elsewhere_is_refused_and_one_here_takes_a_dead_one_s_place(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = acquire(bucket, PLACE, WHAT, "here")
    assert is_held(bucket, PLACE)
    with monkeypatch.context() as patch:
        before(patch, bucket, "read", first.renew)  # between two looks
        with pytest.raises(
            Busy, match=rf"sweep made is being run(.|\n)*process {os.getpid()} on {os.uname().nodename}"
        ):
            acquire(bucket, PLACE, WHAT, "there")
    second = acquire(bucket, PLACE, WHAT, "here")  # who holds the same lock
    assert not first.renew()
    first.release()
    assert is_held(bucket, PLACE)
    second.release()
    assert not is_held(bucket, PLACE)
    assert acquire(bucket, PLACE, WHAT, "there").renew()


def test_a_lease_that_is_not_renewed_ends(bucket: Bucket, minute_later: Callable[[], None]) -> None:
    first = acquire(bucket, PLACE, WHAT, "here")
    minute_later()
    assert not is_held(bucket, PLACE)
    assert acquire(bucket, PLACE, WHAT, "there").renew()
    assert not first.renew()


def test_of_two_that_find_a_dead_holder_at_once_one_has_the_lease(
    bucket: Bucket, minute_later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(bucket, PLACE, WHAT, "dead")
    minute_later()
    faster: list[Lease] = []
    before(monkeypatch, bucket, "replace", lambda: faster.append(acquire(bucket, PLACE, WHAT, "faster")))
    with pytest.raises(Busy):
        acquire(bucket, PLACE, WHAT, "slower")
    assert faster[0].renew()


@pytest.mark.parametrize("act", ["renew", "release"])
def test_a_holder_that_slept_harms_no_lease_that_is_taken_while_it_writes(
    act: str, bucket: Bucket, minute_later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept, taken = acquire(bucket, PLACE, WHAT, "slept"), list[Lease]()
    minute_later()
    with monkeypatch.context() as patch:
        before(patch, bucket, "replace", lambda: taken.append(acquire(bucket, PLACE, WHAT, "other")))
        assert not getattr(slept, act)()
    assert slept.is_over
    assert is_held(bucket, PLACE)
    assert taken[0].renew()


@pytest.mark.parametrize("act", ["acquire", "renew"])
def test_a_reply_that_is_lost_costs_no_lease(act: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks again, and its own first request is in the way."""
    mine = acquire(bucket, PLACE, WHAT, "here") if act == "renew" else None
    real, sent = bucket.replace, list[str | None]()

    def sent_twice(*given: Any) -> str | None:
        if not sent:
            sent.append(real(*given))
            assert sent[0]
        return real(*given)

    monkeypatch.setattr(bucket, "replace", sent_twice)
    assert (mine or acquire(bucket, PLACE, WHAT, "here")).renew()


def test_a_lease_that_was_removed_is_made_again_unless_another_is_there(bucket: Bucket) -> None:
    first = acquire(bucket, PLACE, WHAT, "here")
    bucket.remove([f"{PLACE}/lease.json"])
    assert first.renew()
    assert is_held(bucket, PLACE)
    bucket.remove([f"{PLACE}/lease.json"])
    acquire(bucket, PLACE, WHAT, "there")
    assert not first.renew()


def test_a_lease_is_renewed_whatever_goes_wrong(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.0)
    problems = [BucketLost("away"), OSError(28, "no space left"), ValueError("anything"), MemoryError()]
    real, renewed = bucket.replace, threading.Event()

    def failing(*given: Any) -> str | None:
        if problems:
            raise problems.pop(0)
        mark = real(*given)
        renewed.set()
        return mark

    with held(bucket, PLACE, WHAT, "here"):
        monkeypatch.setattr(bucket, "replace", failing)
        assert renewed.wait(60)
    assert not is_held(bucket, PLACE)


def test_what_is_in_the_place_of_a_lease_and_is_none_is_waited_for(
    bucket: Bucket, minute_later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (b"{torn", b"[]", json.dumps({"id": "old", "copy": "made by 0.1.0"}).encode()):
        bucket.write(f"{PLACE}/lease.json", content)
        with monkeypatch.context() as patch:
            patch.setattr("time.sleep", lambda _: minute_later())
            acquire(bucket, PLACE, WHAT, "here").release()


def test_a_copied_lock_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage's copy that was cloned with its machine, or with the folder, is not taken for the lease's holder."""
    here = tmp_path / "here" / "lock"
    first = lock_identity(here)
    assert lock_identity(here) == first
    shutil.copytree(tmp_path / "here", tmp_path / "clone")
    assert lock_identity(tmp_path / "clone" / "lock") != first
    (tmp_path / "boot").write_text("another boot, or another machine\n")
    monkeypatch.setattr(lease, "BOOT", tmp_path / "boot")
    assert lock_identity(here) != first
    monkeypatch.setattr(lease, "BOOT", tmp_path / "none")
    assert lock_identity(here) != lock_identity(here)


def test_a_server_that_ignores_conditions_is_refused(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpdit.errors import InputError
    from sweeps.storage.open_storage import open_storage

    def ignoring(bucket: S3Bucket, name: str, content: bytes, mark: str | None) -> str:
        bucket.write(name, content)
        return bucket.entries()[name].mark

    open_storage(bucket_url).prepare()
    monkeypatch.setattr(S3Bucket, "replace", ignoring)
    with pytest.raises(InputError, match="ignores conditions"):
        open_storage(bucket_url).prepare()
