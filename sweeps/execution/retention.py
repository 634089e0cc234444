"""What can be removed from a storage: weights of trials that cannot win, and files that killed processes have left."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mpdit.run_folder import EMA, RECIPE
from pipelines.scoring.evaluation import SCORES
from pipelines.yaml_file import read_yaml, validate
from sweeps.execution.cluster import dead_folders
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import make_plan
from sweeps.results.contest import Contest, losers
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import Event
from sweeps.storage.folder_sync import LOCK
from sweeps.storage.layout import Storage, is_locked, locked
from sweeps.storage.lease import Busy, held, lock_identity, trial_lease
from sweeps.storage.ledger import read
from sweeps.storage.open_storage import open_storage

CHECKPOINTS = "checkpoints"
WEIGHTS = (EMA, CHECKPOINTS, SCORES)


@dataclass(frozen=True)
class Removal:
    """A file or folder that can be removed, and why."""

    path: Path
    why: str
    bytes: int


def drop_losers(contest: Contest, storage: Storage, others: OtherSweeps) -> list[str]:
    """Remove the weights of the sweep's losers, where `retention` asks for it; returns their trials."""
    best = contest.plan.spec.retention.best
    lost = contest.losers(best) if best is not None else []
    elsewhere = others.trials() if lost else set()
    gone = []
    for trial in lost:
        folders = [storage.trial(trial) / name for name in WEIGHTS]
        if trial not in elsewhere and (storage.bucket or any(path.exists() for path in folders)):
            gone.append(trial)
            for path in folders:
                storage.remove(path)
    return gone


def removable(storage: Storage, best: int | None = None, ours: Collection[str] = ()) -> list[Removal]:
    """Everything that no sweep needs.

    Args:
        storage: Where to look.
        best: How many points of each sweep keep their weights; None: what its own file says.
        ours: Trials whose locks the caller holds; another's locks say that a trial runs.
    """
    found, known = list[Removal](), set[str]()
    for name in storage.sweep_names():
        events = read(storage.ledger(name))
        known |= {event.trial for event in events if event.trial}
        if not storage.is_running(name):
            found += _of_sweep(storage, name, events, best)
    # a driver elsewhere may have trials that it has not told of yet
    elsewhere = bool(storage.bucket) and any(storage.is_running(name) for name in storage.sweep_names())
    for name in storage.trial_names():
        if name in ours or not is_locked(storage.trial(name) / LOCK):
            found += _of_trial(storage, storage.trial(name), name in known or elsewhere)
    found += [_removal(storage, folder, "left by a driver that was killed") for folder in dead_folders()]
    return list({removal.path: removal for removal in found}.values())


def remove(storage: Storage, removals: list[Removal], best: int | None = None) -> list[Removal]:
    """Remove what can still go, now that its locks are held: since the user was asked, a sweep may have begun.

    Args:
        storage: Where they were found.
        removals: What `removable` has found.
        best: As it was given to `removable`.

    Returns:
        What is left, because it runs or is needed by now.
    """
    trials = {trial for removal in removals if (trial := _trial_of(storage, removal))}
    with ExitStack() as locks:
        ours = {trial for trial in sorted(trials) if _hold(storage, trial, locks)}
        still = {removal.path for removal in removable(open_storage(storage.name), best, ours)}
        free = [removal for removal in removals if _trial_of(storage, removal) in {None, *ours}]
        gone = [removal for removal in free if removal.path in still]
        for removal in gone:
            storage.remove(removal.path)
    return [removal for removal in removals if removal not in gone]


def _trial_of(storage: Storage, removal: Removal) -> str | None:
    inside = removal.path.is_relative_to(storage.trials)
    return removal.path.relative_to(storage.trials).parts[0] if inside else None


def _hold(storage: Storage, trial: str, locks: ExitStack) -> bool:
    """Take a trial's lock, in a bucket its lease too; False where another process has it."""
    try:
        _lock(storage, trial, locks)
    except Busy:
        return False
    return True


def _lock(storage: Storage, trial: str, locks: ExitStack) -> None:
    lock, what = storage.trial(trial) / LOCK, f"trial {trial}"
    locks.enter_context(locked(lock, what, patience=1))
    if storage.bucket:
        locks.enter_context(held(storage.bucket, trial_lease(trial), what, lock_identity(lock)))


def forget_trial(storage: Storage, trial: str) -> None:
    """Remove the folder of a trial that is to begin afresh. Raises Busy where another process runs it."""
    with ExitStack() as locks:
        _lock(storage, trial, locks)
        storage.remove(storage.trial(trial))


def _of_sweep(storage: Storage, name: str, events: list[Event], best: int | None) -> Iterator[Removal]:
    spec = validate(SweepSpec, read_yaml(storage.spec(name)))
    keep = spec.retention.best if best is None else best
    if keep is None:
        return
    elsewhere = OtherSweeps(storage, name).trials()
    for trial in losers(make_plan(spec, events), events, keep):
        if trial not in elsewhere:
            for path in _weights(storage, trial):
                yield _removal(storage, path, f"not among the best {keep} of {name}")


def _of_trial(storage: Storage, folder: Path, known: bool) -> Iterator[Removal]:
    if not known:
        if storage.holds(folder / RECIPE) or (folder / LOCK).exists():
            yield _removal(storage, folder, "of no sweep here")
        return
    partial = [*folder.glob(f"{CHECKPOINTS}/partial-*"), *folder.glob(f"{EMA}/*.partial")]
    for path in partial:
        yield _removal(storage, path, "half-written when its process was killed")


def _weights(storage: Storage, trial: str) -> list[Path]:
    folder = storage.trial(trial)
    return [path for name in WEIGHTS if storage.holds(path := folder / name)]


def _removal(storage: Storage, path: Path, why: str) -> Removal:
    return Removal(path, why, storage.size(path))
