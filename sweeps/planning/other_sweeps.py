"""What the other sweeps of a storage have recorded, read once: later looks read only what was added since."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from sweeps.planning.plan import Trial
from sweeps.planning.reuse import Reuse
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    RungScored,
    SamplesDrawn,
    TrialEnded,
    TrialRetried,
    TrialStarted,
    decode,
)
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import fold_status
from sweeps.storage.trial_status import TrialStatus

REUSED = (TrialStarted, Progress, RungScored, SamplesDrawn, CellScored, TrialEnded)  # what is copied of a trial


class OtherSweeps:
    """The trials of all sweeps of a storage but one, as they stand in the ledgers now."""

    def __init__(self, storage: Storage, name: str, reuse: Reuse = Reuse.ANY) -> None:
        self.storage, self.name, self.reuse = storage, name, reuse
        self._ledgers: dict[str, _Followed] = {}

    def trials(self) -> set[str]:
        """The trials that any of them has an event of."""
        self._look()
        return {trial for ledger in self._ledgers.values() for trial in ledger.places}

    def lengths(self) -> set[int]:
        """The numbers of steps of the trainings that they have scored."""
        self._look()
        return {steps for ledger in self._ledgers.values() for steps in ledger.lengths}

    def finished(self, trials: Iterable[Trial]) -> list[Event]:
        """Copy the events of trials that they have finished and that are to be reused, with their origin."""
        wanted = {trial.id: trial for trial in trials}
        found: list[Event] = []
        if not wanted:
            return found
        self._look()
        for other, ledger in self._ledgers.items():
            here = {id_ for id_ in wanted if ledger.is_final(id_) and self.reuse.takes(wanted[id_], ledger.codes[id_])}
            found += [replace(event, origin=other) for event in ledger.events_of(here) if isinstance(event, REUSED)]
            wanted = {id_: trial for id_, trial in wanted.items() if id_ not in here}
        return found

    def _look(self) -> None:
        for other in self.storage.sweep_names():
            if other != self.name:
                path = self.storage.ledger(other)
                self._ledgers.setdefault(other, _Followed(path)).look()


class _Followed:
    """A ledger that another driver may append to: the status of each trial, and where its lines are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.read = 0  # bytes
        self.statuses: dict[str, TrialStatus] = {}
        self.codes: dict[str, str | None] = {}  # what has trained the trials that have ended
        self.lengths = set[int]()  # of the trainings with scored cells, in steps
        self.places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # (first byte, length) of a trial's lines

    def look(self) -> None:
        """Read the complete lines that are new."""
        size = self.path.stat().st_size
        if size == self.read:
            return
        if size < self.read:  # a line that did not fit on the disk was taken back
            self._forget()
        with self.path.open("rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._take(line)
                self.read += len(line)

    def _take(self, line: bytes) -> None:
        event = _decoded(line)
        if event is None or event.trial is None:
            return
        if isinstance(event, TrialRetried) and event.afresh:
            for known in (self.codes, self.places):
                known.pop(event.trial, None)
        if isinstance(event, TrialEnded):
            self.codes[event.trial] = event.code or self.codes.get(event.trial)
        if isinstance(event, CellScored):
            self.lengths.add(event.step)
        fold_status(self.statuses, event)
        self.places[event.trial].append((self.read, len(line)))

    def is_final(self, trial: str) -> bool:
        """Whether a trial has ended as it would end again."""
        return trial in self.statuses and self.statuses[trial].is_final

    def events_of(self, trials: Iterable[str]) -> list[Event]:
        """The events of some trials, in their order."""
        places = sorted(place for trial in trials for place in self.places[trial])
        found: list[Event] = []
        if places:
            with self.path.open("rb") as file:
                for start, length in places:
                    file.seek(start)
                    if event := _decoded(file.read(length)):
                        found.append(event)
        return found


def _decoded(line: bytes) -> Event | None:
    """The event in a line; None where it is damaged: who reads that ledger for itself says so."""
    try:
        return decode(line) if line.strip() else None
    except ValueError:
        return None
