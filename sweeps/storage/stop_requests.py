"""Requests from another terminal to stop a sweep or a trial: small files in the sweep's folder."""

from pathlib import Path

from sweeps.storage.layout import Storage, is_locked

EVERYTHING = "everything"


def ask_to_stop(storage: Storage, sweep: str, trial: str | None = None) -> None:
    """Ask the sweep's driver, on any machine, to stop one trial at its next report, or the sweep at once."""
    if storage.bucket and not is_locked(storage.lock(sweep)):
        storage.bucket.write(f"sweeps/{sweep}/stop/{trial or EVERYTHING}", b"\n")
    else:
        ask_driver_here(storage, sweep, trial or EVERYTHING)


def ask_driver_here(storage: Storage, sweep: str, what: str) -> None:
    """Ask a driver on this machine: a trial's id, or `EVERYTHING`."""
    folder = _folder(storage, sweep)
    folder.mkdir(exist_ok=True)
    (folder / what).touch()


def take_requests(storage: Storage, sweep: str) -> set[str]:
    """The requests since the last call, which are removed: trials' ids, or `EVERYTHING`."""
    folder, asked = _folder(storage, sweep), set()
    if folder.exists():
        for path in folder.iterdir():
            asked.add(path.name)
            path.unlink(missing_ok=True)
    return asked


def _folder(storage: Storage, sweep: str) -> Path:
    return storage.sweep(sweep) / "stop"
