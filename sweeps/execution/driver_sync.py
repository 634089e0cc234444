"""What a driver exchanges with a bucket while its sweep runs: its lease, the ledger in segments, stop requests."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.execution.recorder import Recorder
from sweeps.storage.bucket import BucketLost
from sweeps.storage.layout import Storage
from sweeps.storage.lease import RENEWED_EVERY, Lease, held, lock_identity
from sweeps.storage.open_storage import SEGMENTS, fetch_records
from sweeps.storage.stop_requests import ask_driver_here

log = logging.getLogger(__name__)


@contextmanager
def driver_sync(storage: Storage, sweep: str) -> Iterator["DriverSync | None"]:
    """Hold the lease of a sweep in a bucket while open; gives None for a sweep in a folder. Needs the sweep's lock.

    The local spec and ledger are then the newest, and the bucket has them. Raises Busy where another driver runs the
    sweep, and BucketLost.
    """
    if storage.bucket is None:
        yield None
        return
    lock = lock_identity(storage.lock(sweep))
    with held(storage.bucket, f"sweeps/{sweep}", f"sweep {sweep}", lock) as lease:
        link = DriverSync(storage, sweep, lease, fetch_records(storage, sweep))
        link.keep_up()
        try:
            yield link
        finally:
            link.end()


class DriverSync(threading.Thread):
    """Sends the ledger every few seconds, on a thread of its own: the sweep never waits for it."""

    def __init__(self, storage: Storage, sweep: str, lease: Lease, sent: int) -> None:
        super().__init__(name="driver-sync", daemon=True)
        self.storage, self.bucket, self.sweep, self.lease = storage, lease.bucket, sweep, lease
        self.over = threading.Event()
        self.recorder: Recorder | None = None
        self._sent = sent  # bytes of the ledger that the bucket has
        self._spec: bytes | None = None

    def follow(self, recorder: Recorder) -> None:
        """Start to send what this recorder writes; it is halted where another driver takes over the sweep."""
        self.recorder = recorder
        if self.over.is_set():  # it has been taken over already
            self._give_way()
        self.start()

    def run(self) -> None:
        """Synchronise until `end` is called or another driver takes over; whatever fails is tried again."""
        while not self.over.wait(RENEWED_EVERY):
            try:
                self.keep_up()
            except Exception as problem:
                log.warning("%s; it is tried again", problem)

    def end(self) -> None:
        """Stop to synchronise."""
        self.over.set()
        if self.is_alive():
            self.join()

    def finish(self) -> str | None:
        """Send the rest; returns the reason where that fails."""
        self.end()
        try:
            self.keep_up()
        except BucketLost as problem:
            return f"the bucket has not got everything that was reported: {problem}"
        return None

    def keep_up(self) -> None:
        """See that the lease is ours, send new events, fetch requests to stop. Raises BucketLost."""
        if not self.lease.renew() or not self._send():
            self._give_way()
            return
        place = f"sweeps/{self.sweep}/stop"
        for asked in self.bucket.entries(place):
            if "/" not in asked:  # what is not ours would stay for ever
                ask_driver_here(self.storage, self.sweep, asked)
            self.bucket.remove([f"{place}/{asked}"])

    def _send(self) -> bool:
        """Send the spec and the ledger's new complete lines; False where another driver has written there."""
        spec, ledger = self.storage.spec(self.sweep), self.storage.ledger(self.sweep)
        if spec.exists() and (text := spec.read_bytes()) != self._spec:
            self.bucket.write(f"sweeps/{self.sweep}/{spec.name}", text)
            self._spec = text
        if not ledger.exists():
            return True
        with ledger.open("rb") as file:
            file.seek(self._sent)
            news = file.read()
        news = news[: news.rfind(b"\n") + 1]
        if news and not self.bucket.create(f"sweeps/{self.sweep}/{SEGMENTS}/{self._sent:012d}.jsonl", news):
            return False
        self._sent += len(news)
        return True

    def _give_way(self) -> None:
        self.over.set()
        if self.recorder and not self.recorder.fault:
            self.recorder.halt = self.recorder.fault = f"another driver has taken {self.sweep} over"
