"""What a driver exchanges with a bucket while its sweep runs: its lease, the ledger in segments, stop requests."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sweeps.execution.recorder import Recorder
from sweeps.storage.bucket import Bucket, BucketLost
from sweeps.storage.layout import Storage
from sweeps.storage.lease import RENEWED_EVERY, Lease, acquire
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
    lease = acquire(storage.bucket, sweep, storage.copy)
    try:
        link = DriverSync(storage, storage.bucket, lease, fetch_records(storage, sweep))
        link.keep_up()
        try:
            yield link
        finally:
            link.over.set()
    finally:
        with suppress(BucketLost):
            lease.release()


class DriverSync(threading.Thread):
    """Renews the lease and sends the ledger every few seconds, on a thread of its own: the sweep never waits for it."""

    def __init__(self, storage: Storage, bucket: Bucket, lease: Lease, sent: int) -> None:
        super().__init__(name="driver-sync", daemon=True)
        self.storage, self.bucket, self.sweep, self.lease = storage, bucket, lease.sweep, lease
        self.over = threading.Event()
        self.recorder: Recorder | None = None
        self._sent = sent  # bytes of the ledger that the bucket has
        self._spec: bytes | None = None

    def follow(self, recorder: Recorder) -> None:
        """Start to send what this recorder writes; it is halted where another driver takes over the sweep."""
        self.recorder = recorder
        self.start()

    def run(self) -> None:
        """Synchronise until `finish` is called or another driver takes over."""
        while not self.over.wait(RENEWED_EVERY):
            try:
                self.keep_up()
            except BucketLost as problem:
                log.warning("%s; it is tried again", problem)

    def finish(self) -> str | None:
        """Send the rest; returns the reason where that fails."""
        self.over.set()
        if self.is_alive():
            self.join()
        try:
            self.keep_up()
        except BucketLost as problem:
            return f"the bucket has not got everything that was reported: {problem}"
        return None

    def keep_up(self) -> None:
        """Renew the lease, send new events, fetch requests to stop. Raises BucketLost."""
        if not self.lease.renew() or not self._send():
            self._give_way()
            return
        place = f"sweeps/{self.sweep}/stop"
        for asked in self.bucket.entries(place):
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
