"""Progress lines, by far the most of a ledger: their metrics stay in the file until someone asks for them."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from sweeps.storage.events import Event, Progress, check_time

MARK = b'"event": "progress"'
MARK_WITHIN = 80  # bytes from the beginning of a line, where it stands

log = logging.getLogger(__name__)


class _Head(Event, frozen=True, tag="progress"):
    """A progress event without its metrics."""

    trial: str
    step: int
    non_finite: list[str] = msgspec.field(default_factory=list)


class _Metrics(msgspec.Struct):
    metrics: dict[str, float | None]


_heads, _metrics = msgspec.json.Decoder(_Head), msgspec.json.Decoder(_Metrics)


class LedgerFile:
    """A ledger that stays open for as long as an event's metrics are in it; it is only appended to."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self._file)

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of it."""
        return os.pread(self._file, size, offset)


class StoredMetrics(Mapping[str, float | None]):
    """The metrics in a line of a ledger, read when they are first asked for."""

    __slots__ = ("_file", "_offset", "_size", "_values")

    def __init__(self, file: LedgerFile, offset: int, size: int) -> None:
        self._file: LedgerFile | None = file
        self._offset, self._size = offset, size
        self._values: dict[str, float | None] = {}

    def _read(self) -> dict[str, float | None]:
        if self._file is not None:
            try:
                self._values = _metrics.decode(self._file.read(self._offset, self._size)).metrics
            except (OSError, ValueError) as problem:
                log.warning("%s: the metrics at byte %d cannot be read: %s", self._file.path, self._offset, problem)
            self._file = None
        return self._values

    def __getitem__(self, name: str) -> float | None:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


def is_progress(line: bytes) -> bool:
    """Whether a line is one that `decode_progress` can try."""
    return line.find(MARK, 0, MARK_WITHIN) > 0


def decode_progress(line: bytes, file: LedgerFile, offset: int) -> Progress:
    """The event in a line at this offset of a ledger. Raises ValueError where it is damaged or of another version."""
    head = _heads.decode(line)
    check_time(head.time)
    metrics = StoredMetrics(file, offset, len(line))
    return Progress(
        trial=head.trial,
        step=head.step,
        metrics=metrics,
        non_finite=head.non_finite,
        time=head.time,
        origin=head.origin,
    )
