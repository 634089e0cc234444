"""One image of a source, and what all sources check: names, sizes, classes.

Nothing here trusts its input: no file is read beyond MAX_BYTES, and an archive with a path that leads out of it is an
input error.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mpdit.errors import MpditError, input_error

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 2**28  # of one file
MAX_CLASSES = 100_000
LABELS = "dataset.json"  # EDM2's file of labels
IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # what systems put beside images

Class = str | int | None  # a folder's name, a number, or none where the set has no classes


@dataclass(frozen=True)
class Entry:
    """One image: the name that messages call it by, its class, and how to get its bytes (raises Unusable, OSError)."""

    name: str
    label: Class
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Problem:
    """Something that cannot be used, and why."""

    name: str
    reason: str


class Unusable(MpditError):
    """One image cannot be used; the text says why."""

    exit_code = 2


Listing = list[Entry | Problem] | Iterator[Entry | Problem]  # an iterator where the images come as a stream


def is_ignored(name: str) -> bool:
    """Whether a file is hidden, or one that systems put beside images."""
    return any(part.startswith(".") or part.lower() in IGNORED for part in PurePosixPath(name).parts)


def is_image(name: str) -> bool:
    """Whether a file is called as images are."""
    return name.lower().endswith(SUFFIXES)


def check_size(size: int) -> None:
    """Raise Unusable for a file of more bytes than are read."""
    if size > MAX_BYTES:
        raise Unusable(f"is {size:,} bytes large; {MAX_BYTES:,} at most are read")


def read_limited(file: IO[bytes]) -> bytes:
    """Read a file whose true size is unknown. Raises Unusable where it is too large."""
    data = file.read(MAX_BYTES + 1)
    check_size(len(data))
    return data


def labelled(
    files: list[tuple[str, Callable[[], bytes]]], root: str, labels: dict[str, int] | None
) -> Iterator[Entry | Problem]:
    """Make entries of files; a class is that of the file of labels, or the name of the first folder.

    Args:
        files: (name below the root, reader), sorted.
        root: how messages call the source.
        labels: those of the file of labels, if there is one.
    """
    folders = {PurePosixPath(name).parts[0] for name, _ in files if len(PurePosixPath(name).parts) > 1}
    same = _alike(folders)
    for name, read in files:
        shown, parts = f"{root}/{name}", PurePosixPath(name).parts
        if labels is not None:
            if name in labels:
                yield Entry(shown, labels[name], read)
            else:
                yield Problem(shown, f"has no label in {LABELS}")
        elif not folders:
            yield Entry(shown, None, read)
        elif len(parts) == 1:
            yield Problem(shown, "lies beside the class folders, so it has no class")
        elif parts[0] in same:
            yield Problem(shown, f"its class differs from {same[parts[0]]!r} only in how it is written")
        else:
            yield Entry(shown, parts[0], read)


def _alike(names: Iterable[str]) -> dict[str, str]:
    """Return the names that differ from an earlier one only in case or in Unicode form, with that one."""
    first: dict[str, str] = {}
    same = {}
    for name in sorted(names):
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in first:
            same[name] = first[folded]
        first.setdefault(folded, name)
    return same


def read_labels(text: bytes, name: str) -> dict[str, int] | None:
    """Read {file name: class} of EDM2's dataset.json, {"labels": [[name, class], …] or null}. Raises InputError."""
    try:
        rows = json.loads(text)["labels"]
        labels = None if rows is None else {str(file): checked_class(number) for file, number in rows}
    except (ValueError, KeyError, TypeError, Unusable) as error:
        raise input_error(
            f"{name} is not a file of labels", reason=error, allowed='{"labels": [[file, class], …]}'
        ) from None
    return labels


def checked_class(number: Any) -> int:
    """Return a class that is given as a number. Raises Unusable for anything else."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MAX_CLASSES:
        raise Unusable(f"its class is {number!r}, not a number from 0 to {MAX_CLASSES - 1:,}")
    return number


def check_stays_inside(archive: Path, name: str) -> None:
    """Raise InputError for a member of an archive whose path leads out of it."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or (len(plain) > 1 and plain[1] == ":"):
        raise input_error(
            f"{archive} is not safe to read: it holds a path that leads out of it",
            given=name,
            hint="get the archive from a source that you trust, or pack it anew",
        )
