"""A folder on this machine as the copy of one in a bucket: what is brought here, what is sent there, in which order.

Beside a copy, a file notes each object's mark and what the file was when the two were the same. What has changed on one
side only goes to the other; what has changed on both is taken from the bucket.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mpdit.run_folder import RAW_WEIGHTS
from pipelines.training.checkpoint import MANIFEST
from sweeps.storage.bucket import Bucket, BucketLost, Entry

NOTED = ".synced.json"
LOOK_EVERY = 5.0  # seconds between two looks at what a training has written
TRIES = 3  # a file may go, as old checkpoints do, before it is held or fetched
HELD = ".sending"

Push = Callable[[], None]
Known = dict[str, list[str | int]]  # name → mark in the bucket, the file's bytes, its time in ns

log = logging.getLogger(__name__)


def pull(bucket: Bucket, place: str, folder: Path, there: Mapping[str, Entry] | None = None) -> None:
    """Bring a folder of the bucket up to date here; files that it has never had stay, those it has lost go.

    there: which of its objects to look at; None: all. Files whose presence says that others are whole come last.
    """
    known = _known(folder)
    for attempt in range(TRIES):
        listed = bucket.entries(place) if there is None else there
        new = [name for name, at in listed.items() if _is_ours(name) and _is_new(folder / name, at, known.get(name))]
        try:
            for names in _in_order(new):
                bucket.fetch({f"{place}/{name}": folder / name for name in names})
                known |= {name: [listed[name].mark, *_stamp(folder / name)] for name in names}
            break
        except FileNotFoundError:  # a training elsewhere has dropped an old checkpoint
            if attempt == TRIES - 1:
                raise
    for name in [name for name in known if there is None and name not in listed]:
        if _is_unchanged(folder / name, known[name]):
            (folder / name).unlink(missing_ok=True)
        del known[name]
    if known or new:
        _note(folder, known)


def push(bucket: Bucket, place: str, folder: Path) -> None:
    """Send what the bucket lacks; files whose presence says that others are whole go last, and are removed first."""
    known, held = _known(folder), folder / HELD
    shutil.rmtree(held, ignore_errors=True)  # what a killed process held
    for attempt in range(TRIES):
        here = _names(folder)
        new = [name for name in here if not _is_unchanged(folder / name, known.get(name))]
        try:
            stamps = {name: _stamp(folder / name) for name in new}
            paths = {name: _hold(folder / name, held / name) for name in new}
            for names in _in_order(new):
                bucket.send({f"{place}/{name}": paths[name] for name in names})
            break
        except FileNotFoundError:
            if attempt == TRIES - 1:
                raise
        finally:
            shutil.rmtree(held, ignore_errors=True)
    gone = [name for name in known if name not in here]
    if not new and not gone:
        return
    for names in reversed(_in_order(gone)):
        bucket.remove(f"{place}/{name}" for name in names)
    there = bucket.entries(place)
    known = {name: facts for name, facts in known.items() if name in here and name not in stamps}
    _note(folder, known | {name: [there[name].mark, *stamp] for name, stamp in stamps.items() if name in there})


@contextmanager
def kept_up(bucket: Bucket | None, place: str, folder: Path) -> Iterator[Push]:
    """Work on a copy that is up to date, and send what is new, by a thread and at the end, however it ends.

    Gives what sends it at once. Raises BucketLost where the end cannot be sent.
    """
    if bucket is None:
        yield lambda: None
        return
    here, sending, over = bucket, threading.Lock(), threading.Event()

    def send() -> None:
        with sending:
            push(here, place, folder)

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            try:
                send()
            except (BucketLost, OSError) as problem:
                log.warning("%s; it is tried again", problem)

    pull(here, place, folder)
    send()
    thread = threading.Thread(target=look, name="bucket", daemon=True)
    thread.start()
    try:
        yield send
    except BaseException:
        over.set()
        with suppress(BucketLost, OSError):
            send()
        raise
    finally:
        over.set()
        thread.join()
    send()


def _hold(path: Path, held: Path) -> Path:
    """Another name for a file, which an old checkpoint keeps while it is sent and dropped, however long that takes."""
    held.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, held)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        return path
    return held


def _names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if _is_ours(name))


def _is_ours(name: str) -> bool:
    """Whether a file belongs to the storage, and is neither half-written nor of this machine alone."""
    parts = name.split("/")
    half = any(part.startswith((".", "partial-")) for part in parts) or name.endswith(".partial")
    return not half and parts[-1] != "lock"


def _in_order(names: list[str]) -> list[list[str]]:
    """What may lie there alone, then what says that the rest is there."""
    last = [name for name in names if name.endswith((f"/{MANIFEST}", f"/{RAW_WEIGHTS}"))]
    return [[name for name in names if name not in last], last]


def _is_new(path: Path, entry: Entry, known: list[str | int] | None) -> bool:
    return known is None or known[0] != entry.mark or not path.exists()


def _is_unchanged(path: Path, known: list[str | int] | None) -> bool:
    return known is not None and path.exists() and known[1:] == _stamp(path)


def _stamp(path: Path) -> list[str | int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _known(folder: Path) -> Known:
    try:
        return dict(json.loads((folder / NOTED).read_text()))
    except (OSError, ValueError):
        return {}


def _note(folder: Path, known: Known) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{NOTED}.partial"
    partial.write_text(json.dumps(known))
    partial.replace(folder / NOTED)
