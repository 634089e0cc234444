"""The append-only record of what happened in a sweep: the truth. One JSON object a line, flushed to disk."""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mpdit.errors import disk_is_full, no_space

Event = dict[str, Any]

log = logging.getLogger(__name__)


def event(kind: str, trial: str | None = None, step: int | None = None, **facts: Any) -> Event:
    """A ledger line: when, what, of which trial, at which training step, and the rest."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return {"time": now, "event": kind, "trial": trial, "step": step, **facts}


def identity(line: Event) -> tuple[Any, ...] | None:
    """What makes a second report of the same thing a repetition; None for what may be said again."""
    match line["event"]:
        case "progress":
            return ("progress", line["trial"], line["step"])
        case "rung":
            return ("rung", line["trial"], line["step"])
        case "growth":
            return ("growth", line["trial"], line["step"])
        case "cell":
            return ("cell", line["trial"], line["cell"])
        case _:
            return None


class Ledger:
    """One sweep's ledger. Only the driver, which holds the sweep's lock, appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = read(path) if path.exists() else []
        self._known = {identity(line) for line in self.events}
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """End a line that a kill left torn, so that the next one starts on its own."""
        if self.path.exists() and self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n":
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def append(self, line: Event) -> bool:
        """Write one event and flush it to disk; False when it only repeats one that is known. Raises DiskFull."""
        known = identity(line)
        if known is not None and known in self._known:
            return False
        self._write(json.dumps(line, allow_nan=False) + "\n")
        self._known.add(known)
        self.events.append(line)
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
    """The events of a ledger. A torn last line is normal after a kill; any other damaged one gets a warning."""
    return [line for _, line in _lines(path)]


def trial_statuses(events: Iterable[Event], alive: bool = False) -> dict[str, str]:
    """Each trial's status: completed, stopped, diverged, failed, out_of_memory, interrupted, running or pending.

    alive: whether the sweep's driver lives; without it nothing is running.
    """
    statuses: dict[str, str] = defaultdict(lambda: "pending")
    for line in events:
        if line["event"] == "trial_started":
            statuses[line["trial"]] = "running" if alive else "interrupted"
        elif line["event"] == "trial_retried":
            statuses[line["trial"]] = "pending"
        elif line["event"] == "trial_ended":
            statuses[line["trial"]] = line["outcome"]
    return statuses


def _lines(path: Path) -> Iterator[tuple[int, Event]]:
    raw = path.read_bytes().split(b"\n")
    for number, text in enumerate(raw, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or "event" not in line:
                raise ValueError("not an event")
        except ValueError:
            if number < len(raw):
                log.warning("%s, line %d is damaged and is skipped", path, number)
            continue
        yield number, line
