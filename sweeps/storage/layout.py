"""The layout and the locks of a storage: the folder (or the copy of a bucket) with sweeps, trials and the database."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from mpdit.errors import input_error, nearest
from mpdit.run_folder import EMA, RAW_WEIGHTS, RECIPE, is_bundle
from sweeps.storage.bucket import Bucket, Entry
from sweeps.storage.folder_sync import pull
from sweeps.storage.lease import Busy, is_held

LAYOUT = "1"
MOUNTS = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}
NETWORK_FILE_SYSTEMS |= {"fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"}

SMALL = ("samples/", RECIPE, "log.txt", "code.json")  # the files of a trial besides its weights that people look at


class Storage:
    """The paths of a storage below its root. Nothing is created before `prepare`.

    Args:
        root: The folder.
        bucket: The bucket of which the root is this machine's copy: sweep files and ledgers are fetched when it is
            opened (sweeps/storage/open_storage.py), trials by `bring`. None: the root is the storage itself.
    """

    def __init__(self, root: Path, bucket: Bucket | None = None) -> None:
        self.root, self.bucket = root.expanduser().resolve(), bucket
        self.name = bucket.url if bucket else str(self.root)
        self.sweeps, self.trials = self.root / "sweeps", self.root / "trials"
        self.artifacts = self.root / "artifacts"

    @property
    def database(self) -> Path:
        """The file of MLflow's database. Raises InputError for a bucket, which cannot hold one."""
        if self.bucket:
            hint = "start `mlflow server` and name it: tracking: {uri: http://HOST:5000}"
            raise input_error("a storage in a bucket has no MLflow database of its own", given=self.name, hint=hint)
        return self.root / "mlflow.db"

    def prepare(self) -> None:
        """Create the folders. Raises InputError where that fails, or where the storage has another layout."""
        try:
            for folder in (self.sweeps, self.trials, self.artifacts):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            if not (self.root / "VERSION").exists():
                (self.root / "VERSION").write_text(LAYOUT + "\n")
                if self.bucket:
                    self.bucket.create("VERSION", f"{LAYOUT}\n".encode())
        except OSError as error:
            raise input_error(
                f"the storage {self.root} is not writable", reason=error.strerror, hint="--storage DIR or MPDIT_STORAGE"
            ) from None
        self.check()
        if self.bucket:
            _check_conditions(self.bucket)

    def check(self) -> None:
        """Raise InputError where the storage has the layout of another version."""
        version = self.root / "VERSION"
        if version.exists() and version.read_text().strip() != LAYOUT:
            raise input_error(
                f"{self.name} has another layout",
                given=version.read_text().strip(),
                allowed=LAYOUT,
                hint="--storage DIR",
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
        return is_locked(self.lock(name)) or (self.bucket is not None and is_held(self.bucket, f"sweeps/{name}"))

    def trial(self, trial: str) -> Path:
        """A trial's folder."""
        return self.trials / trial

    def is_trained(self, trial: str) -> bool:
        """Whether a trial was trained to its last step and its weights are kept."""
        return self.holds(self.trial(trial) / EMA / RAW_WEIGHTS)

    def sweep_names(self) -> list[str]:
        """The names of the sweeps, the last active one first."""
        ledgers = self.sweeps.glob("*/ledger.jsonl")
        newest_first = sorted(ledgers, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [path.parent.name for path in newest_first]

    def find_sweep(self, name: str | None) -> str:
        """The named sweep, or the newest. Raises InputError where there is none."""
        self.check()
        names = self.sweep_names()
        if not names:
            raise input_error(
                f"there is no sweep in {self.name}", hint=f"mpdit sweep conditioning --storage {self.name}"
            )
        if name is None:
            return names[0]
        if name not in names:
            raise input_error(
                f"there is no sweep {name!r} in {self.name}",
                given=name,
                nearest=nearest(name, names),
                allowed=", ".join(names),
            )
        return name

    def find_run(self, run: str) -> Path:
        """The folder of a run: of a trial's id, or the folder of a run or bundle itself."""
        here = Path(run)
        if is_bundle(here) or (here / RECIPE).exists():
            return here
        if run == here.name and self.holds(self.trial(run) / RECIPE):
            self.bring(run)
            return self.trial(run)
        known = [trial for trial in self.trial_names() if self.holds(self.trial(trial) / RECIPE)]
        raise input_error(
            f"there is no run {run!r}",
            given=run,
            nearest=nearest(run, known),
            allowed="a trial's id, or the folder of a run or bundle",
        )

    def trial_names(self) -> list[str]:
        """The trials that have a folder, here or in the bucket."""
        here = {path.name for path in self.trials.glob("*") if path.is_dir()}
        return sorted(here | {name.split("/")[0] for name in self._listed})

    @cached_property
    def _listed(self) -> dict[str, Entry]:
        """What the bucket holds of trials, as it was when it was first asked for."""
        return self.bucket.entries("trials") if self.bucket else {}

    def _below(self, name: str) -> list[Entry]:
        if name in self._listed:
            return [self._listed[name]]
        return [entry for known, entry in self._listed.items() if known.startswith(f"{name}/")]

    def holds(self, path: Path) -> bool:
        """Whether a trial's file or folder is here, or is in the bucket (as it was first listed)."""
        name = path.relative_to(self.trials).as_posix()
        return path.exists() or bool(self._below(name))

    def size(self, path: Path) -> int:
        """The bytes of a file or folder: those in the bucket, or else those here."""
        entries = self._below(path.relative_to(self.trials).as_posix()) if path.is_relative_to(self.trials) else []
        if entries:
            return sum(entry.size for entry in entries)
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def bring(self, trial: str, small: bool = False) -> None:
        """Fetch what is new of a trial from the bucket, unless a worker of this machine holds the trial.

        small: only samples, recipe and log, not the weights.
        """
        if self.bucket is None or is_locked(self.trial(trial) / "lock"):
            return
        place = f"trials/{trial}"
        small_files = {name: entry for name, entry in self.bucket.entries(place).items() if name.startswith(SMALL)}
        pull(self.bucket, place, self.trial(trial), small_files if small else None)

    def remove(self, path: Path) -> None:
        """Remove a file or folder, here and in the bucket."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if self.bucket and path.is_relative_to(self.root):
            self.bucket.remove_folder(path.relative_to(self.root).as_posix())


def _check_conditions(bucket: Bucket) -> None:
    """Raise InputError where the server writes whatever the condition: two drivers could then take one lease."""
    if bucket.replace("VERSION", f"{LAYOUT}\n".encode(), '"00000000000000000000000000000000"') is not None:
        raise input_error(
            "this bucket's server ignores conditions on writes (If-Match), so that two sweeps could harm each other",
            given=bucket.url,
            hint="a newer server",
        )


@contextmanager
def locked(path: Path, what: str, patience: float = 0) -> Iterator[None]:
    """Hold a lock, which also ends when the process dies.

    Args:
        path: The lock's file.
        what: What is locked, for the message.
        patience: How many seconds to wait for another holder.

    Raises:
        Busy: Another process holds it; the message names that process.
    """
    deadline = time.monotonic() + patience
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            if _try_lock(file, fcntl.LOCK_EX):
                if not _is_file_at(file, path):  # who held it has removed it, and another may have made a new one
                    continue
                file.truncate(0)
                file.write(f"process {os.getpid()} on {os.uname().nodename}")
                file.flush()
                yield
                return
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().strip()
                headline = f"{what} is being run by another process"
                raise Busy(str(input_error(headline, holder=holder, hint="wait for it, or stop it")))
        time.sleep(0.2)


def _try_lock(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock; nothing is written, and two that look do not see each other."""
    try:
        with path.open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def file_system(path: Path) -> str:
    """The kind of the file system that a path is, or would be, on; empty where it is not known."""
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    holding = [
        (len(Path(place).parts), kind)
        for _device, place, kind, *_ in mounts
        if path.is_relative_to(place.replace("\\040", " "))
    ]
    return max(holding, key=lambda mount: mount[0], default=(0, ""))[1]
