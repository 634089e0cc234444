"""The storage that a place names: a folder, or a bucket, of which this machine then has the records."""

import hashlib
import logging
import os
import re
import shutil
import uuid
from pathlib import Path

from mpdit.errors import input_error
from pipelines.scoring.reference import cache_folder
from sweeps.storage.bucket import SCHEME, identity, open_bucket
from sweeps.storage.folder_sync import pull
from sweeps.storage.layout import Storage, is_locked

SEGMENTS = "ledger"  # below a sweep in a bucket: pieces of its ledger, since objects cannot be appended to

log = logging.getLogger(__name__)


def open_storage(place: str | Path) -> Storage:
    """The storage in a folder or, `s3://bucket/prefix`, in a bucket.

    Raises InputError where there is no such bucket, where it does not let us in or does not answer.
    """
    scheme, _, rest = str(place).partition(":/")
    if not rest or not re.fullmatch(r"[a-z][a-z0-9+]+", scheme):
        return Storage(Path(place))
    if scheme != "s3":
        raise input_error("this is no storage", given=place, allowed="a folder, or s3://BUCKET/PREFIX")
    url = SCHEME + rest.strip("/")
    bucket = open_bucket(url)
    storage = Storage(copy_of(url), bucket)
    version = bucket.read("VERSION")
    if version is not None:
        storage.root.mkdir(parents=True, exist_ok=True)
        (storage.root / "VERSION").write_bytes(version)
    there = {name.split("/")[0] for name in bucket.entries("sweeps") if name.endswith("/sweep.yaml")}
    for name in there:
        look_again(storage, name)
    for folder in storage.sweeps.glob("*"):
        if folder.name not in there and (folder / SEGMENTS).exists():
            shutil.rmtree(folder)  # it was in the bucket, and is there no longer
    return storage


def copy_of(url: str) -> Path:
    """Where this machine keeps its copy of a storage in a bucket."""
    mark = hashlib.sha256(identity(url).encode()).hexdigest()[:8]
    return cache_folder() / "storages" / f"{url.removeprefix(SCHEME).replace('/', '-')}-{mark}"


def look_again(storage: Storage, sweep: str) -> None:
    """Bring what is known of a sweep up to date, unless its driver is on this machine: nobody knows more."""
    if not is_locked(storage.lock(sweep)):
        bring_records(storage, sweep)


def bring_records(storage: Storage, sweep: str) -> int:
    """Bring a sweep's spec and ledger up to date from the bucket; what only this machine has reported stays.

    Returns the bytes of the ledger that the bucket has.
    """
    if storage.bucket is None:
        return 0
    place, folder, ledger = f"sweeps/{sweep}", storage.sweep(sweep), storage.ledger(sweep)
    entries = storage.bucket.entries(place)
    there = {name: entry for name, entry in entries.items() if name.startswith((f"{SEGMENTS}/", "sweep.yaml"))}
    pull(storage.bucket, place, folder, there)
    told = joined(sorted((folder / SEGMENTS).glob("*.jsonl")))
    own = ledger.read_bytes() if ledger.exists() else b""
    if own.startswith(told):
        return len(told)
    if not told.startswith(own):
        aside = ledger.with_name(f"ledger-unsent-{uuid.uuid4().hex[:8]}.jsonl")
        ledger.replace(aside)
        log.warning("%s went on elsewhere; what this machine alone had reported is in %s", sweep, aside)
    partial = ledger.with_suffix(".partial")
    partial.write_bytes(told)
    newest = max(there[name].written for name in there if name.startswith(SEGMENTS)).timestamp()
    os.utime(partial, (newest, newest))  # by which the sweeps are ordered
    partial.replace(ledger)
    return len(told)


def joined(segments: list[Path]) -> bytes:
    """A ledger from its segments, each named for the place of its first byte; what follows a gap is left out."""
    told = b""
    for path in segments:
        if int(path.stem) != len(told):
            log.warning("%s does not follow what is before it; it and what follows is left out", path)
            break
        told += path.read_bytes()
    return told
