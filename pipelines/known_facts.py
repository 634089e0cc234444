"""Facts that take torch and seconds to find, kept on this machine: what a data set holds, how large a network is.

They lie in `facts.json` of the cache folder, each under a hash of all that it follows from, the code of mpdit/ too. The
file may be removed at any time; one that is damaged is made anew.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mpdit
from mpdit.data.registry import open_dataset
from mpdit.registry import as_fields

KEPT = 1000  # facts; the oldest are forgotten first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetFacts:
    """What a plan needs to know of a data set; the fields are those of `mpdit.data.dataset.Dataset`."""

    name: str
    count: int
    classes: int
    channels: int
    resolution: int
    std: float
    fingerprint: str
    is_pixels: bool

    def __len__(self) -> int:
        return self.count


def cache_folder() -> Path:
    """The folder of what can be computed again: MPDIT_CACHE, or `mpdit` in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MPDIT_CACHE") or base / "mpdit")


def known_fact(what: str, of: Any, find: Callable[[], Any]) -> Any:
    """A fact as plain values: the one that is kept, or else the one that `find` finds, which is kept from now on.

    Args:
        what: The name of the fact.
        of: All that it follows from besides the code, as plain values.
        find: Finds it; what it raises is passed on.
    """
    key = hashlib.sha256(json.dumps([what, of, _code()], sort_keys=True).encode()).hexdigest()[:32]
    facts = _facts(cache_folder() / "facts.json")
    if key not in facts:
        facts[key] = find()
        _write(cache_folder() / "facts.json", facts)
    return facts[key]


@cache
def dataset_facts(kind: Any) -> DatasetFacts:
    """The facts of the data set of a kind with its settings (a `DatasetKind`). Raises InputError where there is none.

    The set is opened where its kind does not say which files it reads, or one of them has changed.
    """

    def find() -> dict[str, Any]:
        dataset = open_dataset(kind)
        names = DatasetFacts.__dataclass_fields__
        return {name: len(dataset) if name == "count" else getattr(dataset, name) for name in names}

    files: Callable[[], Iterable[Path]] | None = getattr(kind, "files", None)
    if files is None:
        return DatasetFacts(**find())
    return DatasetFacts(**known_fact("data set", [as_fields(kind), [_state(path) for path in files()]], find))


def _state(path: Path) -> list[Any]:
    """What changes when a file does; a folder's is that of the files in it."""
    if path.is_dir():
        return [_state(file) for file in sorted(path.iterdir()) if file.is_file()]
    status = path.stat() if path.exists() else None
    return [str(path), status and status.st_size, status and status.st_mtime_ns]


@cache
def _code() -> str:
    """A hash of the state of the files of mpdit/."""
    states = [_state(path) for path in sorted(Path(mpdit.__file__).parent.rglob("*.py"))]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


@cache
def _facts(path: Path) -> dict[str, Any]:
    """The facts in a file, read once a process."""
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_bytes())
        facts: dict[str, Any] = stored["facts"]
        if stored["sha256"] != _checksum(facts):
            raise ValueError("its content is not what it was")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        log.warning("%s is not used (%s); it is made anew", path, problem)
        return {}
    return facts


def _checksum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Write the facts beside those of other processes, completely or not at all; a failure only costs time."""
    facts |= {key: fact for key, fact in _read(path).items() if key not in facts}
    for oldest in list(facts)[:-KEPT]:
        del facts[oldest]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"sha256": _checksum(facts), "facts": facts}))
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
