"""Rows that have been computed so far, on disk, so that a stopped evaluation continues where it was."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpdit.errors import disk_is_full, no_space

WRITE_EVERY = 20.0  # seconds between two writes

log = logging.getLogger(__name__)


class FeatureCache:
    """Rows (count, …) of any type, as features or images, in one file that is named by a hash of what they depend on.

    A file that is damaged or cannot be read counts as none.

    Args:
        folder: where the file is.
        facts: all that the rows depend on.
        writing: whether this process writes the file; of several with the same rows, one does.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], writing: bool = True) -> None:
        self.writing = writing
        self.facts = json.dumps(facts, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(self.facts.encode()).hexdigest()[:16]}.safetensors"
        self.parts = self._read()
        self.written = time.monotonic()

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(part) for part in self.parts)

    def rows(self, count: int) -> Tensor:
        """The first `count` rows, on the CPU."""
        return torch.cat(self.parts)[:count]

    def add(self, rows: Tensor) -> None:
        """Append rows; all are written to disk at most every WRITE_EVERY seconds."""
        self.parts.append(rows.cpu())
        if time.monotonic() - self.written >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write all rows to disk, completely or not at all. Raises InputError when the disk is full."""
        if not self.parts or not self.writing:
            return
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"rows": torch.cat(self.parts)}, partial, metadata={"facts": self.facts})
            partial.replace(self.path)
        except (OSError, SafetensorError) as problem:
            with suppress(OSError):
                partial.unlink()
            if disk_is_full(problem):
                raise no_space(self.path.parent) from None
            log.warning("what is drawn cannot be kept in %s: %s", self.path.parent, problem)
        self.written = time.monotonic()

    @contextmanager
    def written_on_interrupt(self, keep: bool = False) -> Iterator[None]:
        """While open, an interruption by the user writes the rows; at a normal end they are written only to `keep`."""
        try:
            yield
        except KeyboardInterrupt:
            self.write()
            raise
        if keep:
            self.write()

    def remove(self) -> None:
        """Delete the file, and its folder when nothing else is in it."""
        if not self.writing or not self.path.exists():  # of a storage that can only be read
            return
        self.path.unlink()
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()

    def _read(self) -> list[Tensor]:
        if not self.path.exists():
            return []
        try:
            with safe_open(self.path, framework="pt") as file:
                if file.metadata()["facts"] != self.facts:
                    raise ValueError("it is of other samples")
                return [file.get_tensor("rows")]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as problem:
            log.warning("%s is not used: %s", self.path, problem)
            return []
