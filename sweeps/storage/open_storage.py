"""Open a storage: a folder, or a bucket whose sweep files and ledgers are then copied to this machine."""

import hashlib
import logging
import os
import re
import shutil
import uuid
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from mpdit.errors import input_error
from pipelines.known_facts import cache_folder
from sweeps.storage.bucket import BUCKETS, Bucket, bucket_kind, open_bucket
from sweeps.storage.folder_sync import pull
from sweeps.storage.layout import Storage, is_locked, locked
from sweeps.storage.lease import Busy

SEGMENTS = "ledger"  # the folder of a ledger's pieces in a bucket, where nothing can be appended to an object
PATIENCE = 60.0  # seconds for another process of this machine to fetch a sweep's records

log = logging.getLogger(__name__)


def open_storage(place: str | Path) -> Storage:
    """Open the storage in a folder, or in a bucket (`s3://bucket/prefix`).

    Raises:
        InputError: There is no such bucket, it refuses access, or it does not answer.
    """
    scheme, _, rest = str(place).partition(":/")
    if not rest or not re.fullmatch(r"[a-z][a-z0-9+.-]+", scheme):
        return Storage(Path(place))
    if "." not in scheme and scheme not in BUCKETS:
        allowed = ", or ".join(["a folder", *(kind.example for kind in BUCKETS)])
        raise input_error("this is no storage", given=place, allowed=allowed)
    url = f"{scheme}://" + rest.strip("/")
    bucket = open_bucket(url)
    storage = Storage(local_copy(url), bucket)
    version = bucket.read("VERSION")
    if version is not None:
        storage.root.mkdir(parents=True, exist_ok=True)
        (storage.root / "VERSION").write_bytes(version)
    sweeps = {name.split("/")[0] for name in bucket.entries("sweeps") if name.endswith("/sweep.yaml")}
    for name in sweeps:
        refresh(storage, name)
    for folder in storage.sweeps.glob("*"):
        if folder.name not in sweeps and (folder / SEGMENTS).exists():
            _forget(storage, bucket, folder.name)
    return storage


def local_copy(url: str) -> Path:
    """The folder in which this machine keeps its copy of a storage in a bucket."""
    mark = hashlib.sha256(bucket_kind(url).identity(url).encode()).hexdigest()[:8]
    return cache_folder() / "storages" / f"{url.partition('://')[2].replace('/', '-')}-{mark}"


def _forget(storage: Storage, bucket: Bucket, sweep: str) -> None:
    """Remove the copy of a sweep that has been removed from the bucket, unless its driver runs here."""
    with suppress(Busy), locked(storage.lock(sweep), f"sweep {sweep}"):
        if bucket.read(f"sweeps/{sweep}/sweep.yaml") is None:
            shutil.rmtree(storage.sweep(sweep))


def refresh(storage: Storage, sweep: str) -> None:
    """Fetch a sweep's file and ledger from the bucket, unless its driver runs here and so has the newest ones."""
    with _fetching(storage, sweep):
        if storage.bucket and not is_locked(storage.lock(sweep)):
            _fetch_records(storage, storage.bucket, sweep)


def fetch_records(storage: Storage, sweep: str) -> int:
    """Fetch a sweep's file and ledger from the bucket; events that only this machine has recorded are kept.

    Returns:
        How many bytes of the ledger the bucket has.
    """
    if storage.bucket is None:
        return 0
    with _fetching(storage, sweep):
        return _fetch_records(storage, storage.bucket, sweep)


def _fetching(storage: Storage, sweep: str) -> AbstractContextManager[None]:
    """Let one process fetch at a time; a driver that starts waits for those that began when it did not run."""
    if storage.bucket is None:
        return nullcontext()
    return locked(storage.sweep(sweep) / ".fetching", f"the copy of sweep {sweep}", patience=PATIENCE)


def _fetch_records(storage: Storage, bucket: Bucket, sweep: str) -> int:
    place, folder, ledger = f"sweeps/{sweep}", storage.sweep(sweep), storage.ledger(sweep)
    entries = bucket.entries(place)
    records = {name: entry for name, entry in entries.items() if name.startswith((f"{SEGMENTS}/", "sweep.yaml"))}
    pull(bucket, place, folder, records)
    sent = joined(sorted((folder / SEGMENTS).glob("*.jsonl")))
    own = ledger.read_bytes() if ledger.exists() else b""
    if own.startswith(sent):
        return len(sent)
    if not sent.startswith(own):
        aside = ledger.with_name(f"ledger-unsent-{uuid.uuid4().hex[:8]}.jsonl")
        ledger.replace(aside)
        log.warning("%s went on elsewhere; what this machine alone had reported is in %s", sweep, aside)
    partial = ledger.with_suffix(".partial")
    partial.write_bytes(sent)
    newest = max(records[name].written for name in records if name.startswith(SEGMENTS)).timestamp()
    os.utime(partial, (newest, newest))  # by which the sweeps are ordered
    partial.replace(ledger)
    return len(sent)


def joined(segments: list[Path]) -> bytes:
    """A ledger from its segments, each named by the position of its first byte; what follows a gap is left out."""
    ledger = b""
    for path in segments:
        if int(path.stem) != len(ledger):
            log.warning("%s does not follow what is before it; it and what follows is left out", path)
            break
        ledger += path.read_bytes()
    return ledger
