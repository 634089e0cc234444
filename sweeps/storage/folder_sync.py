"""Keep a folder on this machine and its original in a bucket the same: what is fetched, what is sent, in which order.

A file beside the copy notes, for each object, its mark in the bucket and the size and time of the file when the two
were last the same. A change on one side goes to the other; where both have changed, the bucket's version is taken.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mpdit.errors import InputError
from mpdit.run_folder import RAW_WEIGHTS
from pipelines.training.checkpoint import MANIFEST
from sweeps.storage.bucket import Bucket, Entry
from sweeps.storage.lease import Busy, Lease, held, lock_identity, trial_lease

NOTED = ".synced.json"
LOOK_EVERY = 5.0  # seconds between two checks for new files of a training
TRIES = 3  # attempts: a file may be removed meanwhile, as old checkpoints are
PATIENCE = 5.0  # seconds to wait for a machine that runs the trial; the sweep has others to run
LOCK = "lock"  # of a trial, on one machine
HELD = ".sending"  # hard links to the files that are being sent

Push = Callable[[], None]
Known = dict[str, list[str | int]]  # name → mark in the bucket, the file's bytes, its time in ns

log = logging.getLogger(__name__)


def pull(bucket: Bucket, place: str, folder: Path, chosen: Mapping[str, Entry] | None = None) -> None:
    """Fetch what is new in a folder of the bucket, and remove here what was removed there.

    Files that the bucket has never had are kept. Files whose presence says that others are complete come last.

    Args:
        bucket: Where the original is.
        place: The folder in the bucket.
        folder: The copy here.
        chosen: The objects to fetch; None: all of the folder.
    """
    known = _known(folder)
    for attempt in range(TRIES):
        listed = bucket.entries(place) if chosen is None else chosen
        new = [name for name, at in listed.items() if _is_ours(name) and _is_new(folder / name, at, known.get(name))]
        try:
            for names in _in_order(new):
                bucket.fetch({f"{place}/{name}": folder / name for name in names})
                known |= {name: [listed[name].mark, *_stamp(folder / name)] for name in names}
            break
        except FileNotFoundError:  # a training elsewhere has dropped an old checkpoint
            if attempt == TRIES - 1:
                raise
    for name in [name for name in known if chosen is None and name not in listed]:
        if _is_unchanged(folder / name, known[name]):
            (folder / name).unlink(missing_ok=True)
        del known[name]
    if known or new:
        _note(folder, known)


def push(bucket: Bucket, place: str, folder: Path) -> None:
    """Send what is new here, and remove in the bucket what was removed here.

    Files whose presence says that others are complete are sent last and removed first.
    """
    known, held = _known(folder), folder / HELD
    shutil.rmtree(held, ignore_errors=True)  # left by a killed process
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
    entries = bucket.entries(place)
    known = {name: facts for name, facts in known.items() if name in here and name not in stamps}
    _note(folder, known | {name: [entries[name].mark, *stamp] for name, stamp in stamps.items() if name in entries})


@contextmanager
def synced(bucket: Bucket | None, place: str, folder: Path) -> Iterator[Push]:
    """Keep a trial's folder in step with the bucket while the block runs: fetch it, then send changes from a thread.

    The trial's lease is held meanwhile, so that no other machine writes it; needs the folder's lock. What has changed
    last is sent at the end, also after an exception. Without a bucket nothing happens.

    Args:
        bucket: Where the original is.
        place: The folder in the bucket, which has the trial's name.
        folder: The copy here.

    Yields:
        A function that sends the changes at once.

    Raises:
        Busy: Another machine has the trial, or has taken it over.
        BucketLost: The last changes could not be sent.
    """
    if bucket is None:
        yield lambda: None
        return
    trial, lock = place.rpartition("/")[2], lock_identity(folder / LOCK)
    with (
        held(bucket, trial_lease(trial), f"trial {trial}", lock, patience=PATIENCE) as lease,
        _sending(bucket, place, folder, lease) as push_now,
    ):
        yield push_now


@contextmanager
def _sending(bucket: Bucket, place: str, folder: Path, lease: Lease) -> Iterator[Push]:
    sending, over = threading.Lock(), threading.Event()

    def send() -> None:
        with sending:
            if not lease.renew():
                raise Busy(f"{place} is being run on another machine, which has taken it over")
            push(bucket, place, folder)

    def send_repeatedly() -> None:
        while not over.wait(LOOK_EVERY):
            try:
                send()
            except Exception as problem:
                log.warning("%s; it is tried again", problem)

    pull(bucket, place, folder)
    send()
    thread = threading.Thread(target=send_repeatedly, name="bucket", daemon=True)
    thread.start()
    try:
        yield send
    except BaseException:
        over.set()
        with suppress(InputError, OSError):
            send()
        raise
    finally:
        over.set()
        thread.join()
    send()


def _hold(path: Path, held: Path) -> Path:
    """Link a file under another name, so that it can be sent although the training removes it meanwhile."""
    held.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, held)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        return path
    return held


def _names(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if _is_ours(name))


def _is_ours(name: str) -> bool:
    """Whether a file belongs to the storage: neither half-written, nor a lock or a note of this machine."""
    parts = name.split("/")
    half = any(part.startswith((".", "partial-")) for part in parts) or name.endswith(".partial")
    return not half and parts[-1] != LOCK


def _in_order(names: list[str]) -> list[list[str]]:
    """Two lists: files that may be there alone, then those whose presence says that the rest is complete."""
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
