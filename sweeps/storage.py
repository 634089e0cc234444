"""The folder that holds sweeps, trials and the tracking database: its layout, its locks."""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mpdit.errors import BadInput, nearest, refusal
from mpdit.run_folder import EMA, RAW_WEIGHTS, RECIPE, is_bundle

LAYOUT = "1"
MOUNTS = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}
NETWORK_FILE_SYSTEMS |= {"fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"}


class Busy(BadInput):
    """Another live process holds the lock."""


class Storage:
    """Paths below one root. Nothing is created before `prepare`."""

    def __init__(self, root: Path) -> None:
        if re.match(r"[a-z][a-z0-9]+:/", str(root)):
            mend = "a folder, which may lie on a file system that several machines share"
            raise refusal("the storage is a folder, and no bucket yet", given=root, mend=mend)
        self.root = root.expanduser().resolve()
        self.sweeps, self.trials = self.root / "sweeps", self.root / "trials"
        self.database, self.artifacts = self.root / "mlflow.db", self.root / "artifacts"

    def prepare(self) -> None:
        """Create the folders. Raises BadInput where that cannot be, or where another layout's data lie."""
        try:
            for folder in (self.sweeps, self.trials, self.artifacts):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            if not (self.root / "VERSION").exists():
                (self.root / "VERSION").write_text(LAYOUT + "\n")
        except OSError as error:
            raise refusal(
                f"the storage {self.root} is not writable", reason=error.strerror, mend="--storage DIR or MPDIT_STORAGE"
            ) from None
        self.check()

    def check(self) -> None:
        """Raises BadInput where another version's layout lies here."""
        version = self.root / "VERSION"
        if version.exists() and version.read_text().strip() != LAYOUT:
            raise refusal(
                f"{self.root} has another layout",
                given=version.read_text().strip(),
                allowed=LAYOUT,
                mend="--storage DIR",
            )

    def sweep(self, name: str) -> Path:
        """A sweep's folder."""
        return self.sweeps / name

    def spec(self, name: str) -> Path:
        """A sweep's resolved file."""
        return self.sweep(name) / "sweep.yaml"

    def ledger(self, name: str) -> Path:
        """A sweep's ledger."""
        return self.sweep(name) / "ledger.jsonl"

    def lock(self, name: str) -> Path:
        """The lock that a sweep's driver holds."""
        return self.sweep(name) / "lock"

    def is_running(self, name: str) -> bool:
        """Whether a live driver runs the sweep."""
        return is_locked(self.lock(name))

    def trial(self, trial: str) -> Path:
        """A trial's folder."""
        return self.trials / trial

    def is_trained(self, trial: str) -> bool:
        """Whether a trial's last step has been taken and its weights are kept."""
        return (self.trial(trial) / EMA / RAW_WEIGHTS).exists()

    def sweep_names(self) -> list[str]:
        """The sweeps here, the one that was last active first."""
        ledgers = self.sweeps.glob("*/ledger.jsonl")
        newest_first = sorted(ledgers, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [path.parent.name for path in newest_first]

    def find_sweep(self, name: str | None) -> str:
        """The named sweep, or the newest. Raises BadInput where there is none."""
        self.check()
        names = self.sweep_names()
        if not names:
            raise refusal(f"there is no sweep in {self.root}", mend=f"mpdit sweep conditioning --storage {self.root}")
        if name is None:
            return names[0]
        if name not in names:
            raise refusal(
                f"there is no sweep {name!r} in {self.root}",
                given=name,
                nearest=nearest(name, names),
                allowed=", ".join(names),
            )
        return name

    def find_run(self, run: str) -> Path:
        """The folder of a trial's id, or the run's or bundle's folder that was named."""
        here = Path(run)
        if is_bundle(here) or (here / RECIPE).exists():
            return here
        if (self.trial(run) / RECIPE).exists():
            return self.trial(run)
        known = sorted(path.parent.name for path in self.trials.glob(f"*/{RECIPE}"))
        raise refusal(
            f"there is no run {run!r}",
            given=run,
            nearest=nearest(run, known),
            allowed="a trial's id, or the folder of a run or bundle",
        )


@contextmanager
def locked(path: Path, what: str, patience: float = 0) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends.

    patience: seconds to wait for a holder to let go. Raises Busy, naming the holder, when it does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with path.open("a+") as file:
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().strip()
                headline = f"{what} is being run by another process"
                raise Busy(str(refusal(headline, holder=holder, mend="wait for it, or stop it")))
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock."""
    if not path.exists():
        return False
    try:
        with locked(path, ""):
            return False
    except Busy:
        return True


def file_system(path: Path) -> str:
    """The kind of file system that a path lies, or would lie, on; empty where the system does not tell."""
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    holding = [
        (len(Path(place).parts), kind)
        for _device, place, kind, *_ in mounts
        if path.is_relative_to(place.replace("\\040", " "))
    ]
    return max(holding, key=lambda found: found[0], default=(0, ""))[1]
