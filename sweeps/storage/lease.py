"""Leases in a bucket: an object that its holder renews, by the bucket's clock; only conditional requests write it.

An empty object is a lease that nobody holds: it is never removed, for what is removed may be another's by then.
"""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from mpdit.errors import InputError, input_error
from sweeps.storage.bucket import Bucket, BucketLost, Entry

RENEWED_EVERY = 10.0  # seconds
LASTS = 60.0  # seconds without renewal after which a holder counts as dead
LOOK_EVERY = 1.0  # seconds between two checks of a lease whose holder may be dead
TRIES = 3  # writes of our own lease that others get between
FILE = "lease.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class Busy(InputError):
    """Another live process holds the lock, or the lease."""


class Lease:
    """The right to write a folder of the bucket, which one process has at a time.

    Args:
        bucket: Where the storage is.
        place: The folder in the bucket that holds the lease.
        lock: The identity of the lock on this machine that the caller holds as well; see `lock_identity`.
    """

    def __init__(self, bucket: Bucket, place: str, lock: str) -> None:
        self.bucket, self.place, self.lock = bucket, place, lock
        self.id = uuid.uuid4().hex
        self.mark: str | None = None  # of the object as we wrote it last
        self.is_over = False  # given up, or taken by another
        self._writing = threading.Lock()

    def renew(self) -> bool:
        """Renew the lease; False where another has taken it. Raises BucketLost."""
        with self._writing:
            for _ in range(TRIES):
                if self.is_over or self._write(self._content()):
                    return not self.is_over
                entry, holder = _look(self.bucket, self.place)
                if entry and holder.get("id") != self.id:
                    self.is_over = True
                self.mark = entry.mark if entry else None  # ours, where the reply to a write was lost
            return not self.is_over

    def release(self) -> None:
        """Give the lease up, if it is still ours. Raises BucketLost."""
        with self._writing:
            if not self.is_over:
                self.is_over = True
                self._write(b"")

    def _write(self, content: bytes) -> bool:
        """Write the lease, unless another has written it since; returns whether that was so."""
        mark = self.bucket.replace(f"{self.place}/{FILE}", content, self.mark)
        self.mark = mark or self.mark
        return mark is not None

    def _content(self) -> bytes:
        content = {"id": self.id, "lock": self.lock, "process": os.getpid(), "host": os.uname().nodename}
        return json.dumps(content | {"renewed": time.time()}).encode()  # the time gives every renewal another mark


@contextmanager
def held(bucket: Bucket, place: str, what: str, lock: str, patience: float = 0.0) -> Iterator[Lease]:
    """Hold a lease while open; a thread of its own renews it, whatever else goes on or goes wrong.

    Args:
        bucket: Where the storage is.
        place: The folder in the bucket that holds the lease.
        what: What is leased, for the message.
        lock: The identity of this machine's lock on the same thing, which the caller holds.
        patience: How many seconds to wait for a holder that is alive.

    Raises:
        Busy: Another process holds it; the message names that process.
        BucketLost: The bucket does not answer.
    """
    lease, over = acquire(bucket, place, what, lock, patience), threading.Event()
    thread = threading.Thread(target=_renew_until, args=(lease, over), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        thread.join()
        with suppress(BucketLost):
            lease.release()


def acquire(bucket: Bucket, place: str, what: str, lock: str, patience: float = 0.0) -> Lease:
    """Take a lease, also from a dead holder; waits for at most LASTS seconds to see whether it is dead.

    A holder is dead when it does not renew its lease, or when it held this very lock. Arguments and errors as `held`.
    """
    lease, first = Lease(bucket, place, lock), _look(bucket, place)[0]
    deadline = time.monotonic() + patience
    while True:
        entry, holder = _look(bucket, place)
        lease.mark = entry.mark if entry else None
        if holder.get("id") == lease.id:  # the reply to our request was lost
            return lease
        if not holder or holder.get("lock") == lock or (entry and _is_old(bucket, entry)):
            if lease._write(lease._content()):
                return lease
            continue
        is_alive = first is None or first.mark != lease.mark
        if is_alive and time.monotonic() >= deadline:
            who = f"process {holder.get('process')} on {holder.get('host')}"
            headline = f"{what} is being run by another process"
            raise Busy(str(input_error(headline, holder=who, hint="wait for it, or stop it: mpdit stop")))
        time.sleep(LOOK_EVERY)


def is_held(bucket: Bucket, place: str) -> bool:
    """Whether a lease has been renewed within the last minute."""
    entry = bucket.entries(place).get(FILE)
    return entry is not None and entry.size > 0 and not _is_old(bucket, entry)


def trial_lease(trial: str) -> str:
    """The folder in the bucket for the lease of a trial; apart from the trial, which can be removed."""
    return f"leases/{trial}"


def lock_identity(path: Path) -> str:
    """A text for a lock file that no other file on any machine has, also not a copy of it.

    Two processes that find the same one see each other's locks: they share the file and the kernel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    facts = path.stat()
    boot = BOOT.read_text().strip() if BOOT.exists() else uuid.uuid4().hex  # where we cannot tell, it is another
    return f"{boot} {facts.st_dev} {facts.st_ino}"


def _renew_until(lease: Lease, over: threading.Event) -> None:
    while not over.wait(RENEWED_EVERY):
        try:
            if not lease.renew():
                return
        except Exception as problem:
            log.warning("the lease in %s is not renewed: %s; it is tried again", lease.place, problem)


def _look(bucket: Bucket, place: str) -> tuple[Entry | None, dict[str, Any]]:
    """The lease as it is, and who holds it; empty where nobody does."""
    entry = bucket.entries(place).get(FILE)
    if entry is None or entry.size == 0:
        return entry, {}
    content = bucket.read(f"{place}/{FILE}")
    try:
        holder = json.loads(content or b"{}")
    except ValueError:
        holder = {"host": "unknown"}
    return entry, dict(holder) if isinstance(holder, dict) else {"host": "unknown"}


def _is_old(bucket: Bucket, entry: Entry) -> bool:
    return bucket.now() - entry.written > timedelta(seconds=LASTS)
