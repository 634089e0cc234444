"""What another terminal asks of a running sweep: small files in the sweep's folder, which its driver takes away."""

from pathlib import Path

from sweeps.storage import Storage

EVERYTHING = "everything"


def ask_to_stop(storage: Storage, sweep: str, trial: str | None = None) -> None:
    """Ask the sweep's driver to stop one trial at its next report, or the sweep at once."""
    folder = _folder(storage, sweep)
    folder.mkdir(exist_ok=True)
    (folder / (trial or EVERYTHING)).touch()


def asked_to_stop(storage: Storage, sweep: str) -> set[str]:
    """What was asked since the last call: trials' ids, or `EVERYTHING`."""
    folder, asked = _folder(storage, sweep), set()
    if folder.exists():
        for path in folder.iterdir():
            asked.add(path.name)
            path.unlink(missing_ok=True)
    return asked


def _folder(storage: Storage, sweep: str) -> Path:
    return storage.sweep(sweep) / "stop"
