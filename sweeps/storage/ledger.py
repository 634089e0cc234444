"""The append-only record of what happened in a sweep: the truth. One JSON object a line, flushed to disk."""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mpdit.errors import disk_is_full, no_space
from sweeps.storage.events import (
    KINDS,
    CellScored,
    Event,
    Progress,
    RungScored,
    SamplesDrawn,
    TrialEnded,
    TrialRetried,
    TrialStarted,
    UnknownEvent,
    decode,
    encode,
    from_plain,
)
from sweeps.storage.progress_lines import LedgerFile, decode_progress, is_progress
from sweeps.storage.trial_status import TrialStatus

Kind = TypeVar("Kind", bound=Event)
PIECE = 2**20  # bytes that are read at once

log = logging.getLogger(__name__)


def identity(event: Event) -> tuple[Any, ...] | None:
    """What makes a second report of the same thing a repetition; None for what can happen again."""
    match event:
        case Progress() | RungScored() | SamplesDrawn():
            return (event.kind, event.trial, event.step)
        case CellScored():
            return (event.kind, event.trial, event.key)
        case TrialStarted() | TrialEnded():  # sweeps of one storage copy each other's, and copies of copies
            return (event.kind, event.trial, event.time)
        case _:
            return None


class Ledger:
    """One sweep's ledger. Only the driver, which holds the sweep's lock, appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = read(path)
        self._known = {identity(event) for event in self.events}
        self.statuses = trial_statuses(self.events, alive=True)  # kept up to date by `append`
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """End a line that a kill left torn, so that the next one starts on its own."""
        if self.path.exists() and self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n":
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def append(self, event: Event) -> bool:
        """Write one event and flush it to disk; False when it only repeats one that is known. Raises DiskFull.

        In `events` it then stands as a reader of the file will find it: without numbers that are not finite.
        """
        known = identity(event)
        if known is not None and known in self._known:
            return False
        line = encode(event)
        self._write(json.dumps(line, allow_nan=False) + "\n")
        self._known.add(known)
        self.events.append(from_plain(line))
        if isinstance(event, TrialRetried) and event.afresh:
            self.events[:] = with_void(self.events)
            self._known = {identity(event) for event in self.events}
        fold_status(self.statuses, self.events[-1], alive=True)
        return True

    def _write(self, text: str) -> None:
        """Append and flush; on a full disk the ledger stays as it was. Raises DiskFull."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            if not disk_is_full(problem):
                raise
            if self.path.exists():
                os.truncate(self.path, size)
            raise no_space(self.path.parent) from None


def read(path: Path) -> list[Event]:
    """The events of a ledger, none where there is no file yet.

    A torn last line is normal after a kill; any other damaged one gets a warning.
    """
    events: list[Event] = []
    if not path.exists():
        return events
    file = LedgerFile(path)
    for number, (offset, line, is_whole) in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            event = _decoded(line, file, offset)
        except ValueError:
            if is_whole:
                log.warning("%s, line %d is damaged and is skipped", path, number)
            continue
        if isinstance(event, UnknownEvent) and event.kind in KINDS:
            log.warning("%s, line %d: this version of mpdit cannot read this %r event", path, number, event.kind)
        events.append(event)
    return with_void(events)


def with_void(events: list[Event]) -> list[Event]:
    """The events, as many as before; those from before a fresh start of their trial as events that nobody knows."""
    started: dict[str | None, int] = {
        event.trial: at for at, event in enumerate(events) if isinstance(event, TrialRetried) and event.afresh
    }
    if not started:
        return events
    return [
        UnknownEvent(time=event.time, line=encode(event)) if at < started.get(event.trial, 0) else event
        for at, event in enumerate(events)
    ]


def _lines(file: LedgerFile) -> Iterator[tuple[int, bytes, bool]]:
    """Each line with its offset, and whether its end is there; the file is read in pieces, as it may be large."""
    offset, rest = 0, b""
    while piece := file.read(offset + len(rest), PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield offset, line, True
            offset += len(line) + 1
    if rest:
        yield offset, rest, False


def _decoded(line: bytes, file: LedgerFile, offset: int) -> Event:
    if b'"time"' not in line:  # else each reading would give it another
        raise ValueError("a line without its time")
    if is_progress(line):
        try:
            return decode_progress(line, file, offset)
        except msgspec.ValidationError:
            pass  # of another version
    return decode(line)


def only(events: Iterable[Event], kind: type[Kind]) -> list[Kind]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def by_trial(events: Iterable[Event]) -> dict[str, list[Event]]:
    """The events of each trial, in their order; a trial without events has an empty list."""
    groups: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.trial is not None:
            groups[event.trial].append(event)
    return groups


def trial_statuses(events: Iterable[Event], alive: bool = False) -> dict[str, TrialStatus]:
    """Each trial's status; that of a trial without events is pending.

    alive: whether the sweep's driver lives; without it nothing is running.
    """
    statuses: dict[str, TrialStatus] = defaultdict(lambda: TrialStatus.PENDING)
    for event in events:
        fold_status(statuses, event, alive)
    return statuses


def fold_status(statuses: dict[str, TrialStatus], event: Event, alive: bool = False) -> None:
    """Update the statuses with one event."""
    if isinstance(event, TrialStarted):
        statuses[event.trial] = TrialStatus.RUNNING if alive else TrialStatus.INTERRUPTED
    elif isinstance(event, TrialRetried):
        statuses[event.trial] = TrialStatus.PENDING
    elif isinstance(event, TrialEnded):
        statuses[event.trial] = event.outcome
