"""The lease of a sweep in a bucket: an object that the driver which runs the sweep renews, by the bucket's clock."""

import json
import os
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mpdit.errors import InputError, input_error
from sweeps.storage.bucket import Bucket, Entry

RENEWED_EVERY = 10.0  # seconds
LASTS = 60.0  # seconds without renewal after which a driver counts as dead
LOOK_EVERY = 1.0  # seconds between two checks of a lease whose driver may be dead


class Busy(InputError):
    """Another live process holds the lock, or the lease."""


def _name(sweep: str) -> str:
    return f"sweeps/{sweep}/lease.json"


def _entry(bucket: Bucket, sweep: str) -> Entry | None:
    return bucket.entries(f"sweeps/{sweep}").get("lease.json")


def _holder(bucket: Bucket, sweep: str) -> dict[str, Any]:
    return dict(json.loads(bucket.read(_name(sweep)) or b"{}"))


def is_held(bucket: Bucket, sweep: str) -> bool:
    """Whether a driver has renewed its lease within the last minute."""
    entry = _entry(bucket, sweep)
    return entry is not None and not _is_old(bucket, entry)


def _is_old(bucket: Bucket, entry: Entry) -> bool:
    return bucket.now() - entry.written > timedelta(seconds=LASTS)


@dataclass(frozen=True)
class Lease:
    """One driver's right to write a sweep's ledger.

    copy: the identity of this machine's copy of the storage, whose lock the driver holds.
    """

    bucket: Bucket
    sweep: str
    copy: str
    id: str

    def renew(self) -> bool:
        """Renew the lease; False where another driver has taken it."""
        if _holder(self.bucket, self.sweep).get("id") not in (self.id, None):
            return False
        self.bucket.write(_name(self.sweep), self._content())
        return True

    def release(self) -> None:
        """Give the lease up, if it is still ours."""
        if _holder(self.bucket, self.sweep).get("id") == self.id:
            self.bucket.remove([_name(self.sweep)])

    def _content(self) -> bytes:
        content = {"id": self.id, "copy": self.copy, "process": os.getpid(), "host": os.uname().nodename}
        return json.dumps(content | {"renewed": time.time()}).encode()  # the time gives every renewal another mark


def acquire(bucket: Bucket, sweep: str, copy: str) -> Lease:
    """Take the lease of a sweep, also from a dead driver; waits for at most LASTS seconds to see whether it is dead.

    A driver is dead when it does not renew its lease, or when it had this very copy: the caller holds the copy's lock.

    Args:
        bucket: Where the storage is.
        sweep: The sweep's name.
        copy: The identity of this machine's copy of the storage.

    Raises:
        Busy: Another driver is alive; the message names it.
    """
    lease, first = Lease(bucket, sweep, copy, uuid.uuid4().hex), _entry(bucket, sweep)
    while entry := _entry(bucket, sweep):
        holder = _holder(bucket, sweep)
        if holder.get("copy") != copy and not _is_old(bucket, entry):
            if first is None or entry.mark != first.mark:
                raise _busy(sweep, holder)
            time.sleep(LOOK_EVERY)
            continue
        bucket.remove([_name(sweep)])
        break
    if not bucket.create(_name(sweep), lease._content()):
        raise _busy(sweep, _holder(bucket, sweep))
    return lease


def _busy(sweep: str, holder: dict[str, Any]) -> Busy:
    who = f"process {holder.get('process')} on {holder.get('host')}"
    headline = f"sweep {sweep} is being run by another process"
    return Busy(str(input_error(headline, holder=who, hint="wait for it, or stop it: mpdit stop")))
