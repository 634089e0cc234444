"""Images as people have them: class folders, a zip, WebDataset tar shards, a Hugging Face data set.

Nothing here trusts its input. Links are followed only inside the tree, archives are read in memory and never
unpacked, an archive with a path that leads out of it is refused, and no file is read beyond MAX_BYTES.
"""

import json
import os
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mpdit.errors import InputError, input_error

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 2**28  # of one file
MAX_CLASSES = 100_000
LABELS = "dataset.json"  # EDM2's file of labels
LEFT_BEHIND = ("thumbs.db", "desktop.ini", "__macosx")  # what systems put beside images
HUGGING_FACE = "hf:"

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


class Unusable(Exception):
    """One image cannot be used; the text says why."""


@contextmanager
def open_images(source: str) -> Iterator[list[Entry | Problem] | Iterator[Entry | Problem]]:
    """All images of a source in a fixed order: listed, or one by one where they come as a stream.

    While open, the entries can be read. Raises InputError for a source that cannot be used at all.
    """
    path = Path(source)
    if source.startswith(HUGGING_FACE):
        yield _hugging_face(source.removeprefix(HUGGING_FACE))
    elif not path.exists():
        raise input_error(
            f"there is nothing at {path}",
            given=path,
            allowed=f"a folder, a .zip, a .tar, a folder of .tar shards, or {HUGGING_FACE}NAME",
        )
    elif path.suffix.lower() == ".zip":
        with _opened_zip(path) as archive:
            yield list(_zipped(path, archive))
    elif path.is_file():
        yield _sharded([path])
    else:
        shards = sorted(path.glob("*.tar"))
        yield _sharded(shards) if shards else list(_folder(path))


def _ignored(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in LEFT_BEHIND for part in PurePosixPath(name).parts)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _limited(size: int) -> None:
    if size > MAX_BYTES:
        raise Unusable(f"is {size:,} bytes large; {MAX_BYTES:,} at most are read")


def _labelled(
    found: list[tuple[str, Callable[[], bytes]]], root: str, labels: dict[str, int] | None
) -> Iterator[Entry | Problem]:
    """Entries of (name below the root, reader), sorted: classes from a file of labels, or from the first folder."""
    folders = {PurePosixPath(name).parts[0] for name, _ in found if len(PurePosixPath(name).parts) > 1}
    same = _differ_in_case_only(folders)
    for name, read in found:
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


def _differ_in_case_only(names: Iterable[str]) -> dict[str, str]:
    """Names that some file systems and readers would take for an earlier one."""
    first: dict[str, str] = {}
    same = {}
    for name in sorted(names):
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in first:
            same[name] = first[folded]
        first.setdefault(folded, name)
    return same


def read_labels(text: bytes, name: str) -> dict[str, int] | None:
    """{file name: class} of EDM2's dataset.json, {"labels": [[name, class], …] or null}. Raises InputError."""
    try:
        rows = json.loads(text)["labels"]
        labels = None if rows is None else {str(file): checked_class(number) for file, number in rows}
    except (ValueError, KeyError, TypeError, Unusable) as error:
        raise input_error(
            f"{name} is not a file of labels", reason=error, allowed='{"labels": [[file, class], …]}'
        ) from None
    return labels


def checked_class(number: Any) -> int:
    """A class given as a number. Raises Unusable."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MAX_CLASSES:
        raise Unusable(f"its class is {number!r}, not a number from 0 to {MAX_CLASSES - 1:,}")
    return number


def _folder(root: Path) -> Iterator[Entry | Problem]:
    inside = root.resolve()
    found: list[tuple[str, Callable[[], bytes]]] = []
    problems: list[Problem] = []
    labels = None
    unreadable: list[OSError] = []
    for folder, below, files in os.walk(root, onerror=unreadable.append):
        here = Path(folder)
        below[:] = sorted(name for name in below if not _ignored(name))
        for name in [name for name in below if (here / name).is_symlink()]:
            below.remove(name)
            problems.append(Problem(str(here / name), "is a link to a folder; links to folders are not followed"))
        kept = [name for name in sorted(files) if not _ignored(name)]
        if here != root and not kept and not below:
            problems.append(Problem(str(here), "is an empty class"))
        for name in kept:
            path = here / name
            relative = path.relative_to(root).as_posix()
            if relative == LABELS and not path.is_symlink():
                labels = read_labels(path.read_bytes(), str(path))
            elif path.is_symlink() and not path.resolve().is_relative_to(inside):
                problems.append(Problem(str(path), f"is a link out of {root}"))
            elif not path.is_file():
                problems.append(Problem(str(path), "is not a file"))
            elif not _is_image(name):
                problems.append(Problem(str(path), "is not a PNG, JPEG or WebP file"))
            else:
                found.append((relative, _reader(path)))
    yield from problems
    yield from (Problem(str(error.filename), f"cannot be read: {error.strerror}") for error in unreadable)
    yield from _labelled(found, str(root), labels)


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        _limited(path.stat().st_size)
        return path.read_bytes()

    return read


def _leads_out(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or (len(plain) > 1 and plain[1] == ":")


def _refuse_leading_out(archive: Path, name: str) -> None:
    if _leads_out(name):
        raise input_error(
            f"{archive} is not safe to read: it holds a path that leads out of it",
            given=name,
            hint="get the archive from a source that you trust, or pack it anew",
        )


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise input_error(f"{path} cannot be read as a zip", given=path, reason=error) from None


def _zipped(path: Path, archive: zipfile.ZipFile) -> Iterator[Entry | Problem]:
    members = {}
    for member in archive.infolist():
        _refuse_leading_out(path, member.filename)
        if member.is_dir() or _ignored(member.filename):
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            yield Problem(f"{path}/{member.filename}", "is a link")
        elif member.filename in members:
            yield Problem(f"{path}/{member.filename}", "is in the zip twice")
        else:
            members[member.filename] = member
    labels = None
    if LABELS in members:
        labels = read_labels(_zip_reader(archive, members.pop(LABELS))(), f"{path}/{LABELS}")
    strip = _common_folder(list(members)) if labels is None else 0
    found = []
    for name in sorted(members):
        if _is_image(name):
            found.append(("/".join(PurePosixPath(name).parts[strip:]), _zip_reader(archive, members[name])))
        else:
            yield Problem(f"{path}/{name}", "is not a PNG, JPEG or WebP file")
    yield from _labelled(found, str(path), labels)


def _common_folder(names: list[str]) -> int:
    """How many leading folders all names share while each still has a class folder below them."""
    depth, parts = 0, [PurePosixPath(name).parts for name in names]
    while parts and all(len(part) > depth + 2 for part in parts) and len({part[depth] for part in parts}) == 1:
        depth += 1
    return depth


def _zip_reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        _limited(member.file_size)
        try:
            with archive.open(member) as file:
                data = file.read(MAX_BYTES + 1)  # whatever the zip claims of its size
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
            raise Unusable(str(error)) from None
        _limited(len(data))
        return data

    return read


def _sharded(shards: list[Path]) -> Iterator[Entry | Problem]:
    """WebDataset: files of one sample share the name up to its first dot and follow each other; `.cls` is the class."""
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                yield from _samples(shard, archive)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise input_error(f"{shard} cannot be read as a tar", given=shard, reason=error) from None


def _samples(shard: Path, archive: tarfile.TarFile) -> Iterator[Entry | Problem]:
    key = ""
    sample: dict[tuple[str, str], bytes] = {}
    for member in archive:
        _refuse_leading_out(shard, member.name)
        name = f"{shard}/{member.name}"
        if member.isdir() or _ignored(member.name.removeprefix("./")):
            continue
        if not member.isreg():
            yield Problem(name, "is a link or a special file")
            continue
        if member.size > MAX_BYTES:
            yield Problem(name, f"is {member.size:,} bytes large; {MAX_BYTES:,} at most are read")
            continue
        folder, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if f"{folder}/{stem}" != key:
            yield from _sample(f"{shard}/", sample)
            key, sample = f"{folder}/{stem}", {}
        file = archive.extractfile(member)
        assert file is not None
        sample[member.name, "." + suffix.lower()] = file.read()
    yield from _sample(f"{shard}/", sample)


def _sample(shown: str, sample: dict[tuple[str, str], bytes]) -> Iterator[Entry | Problem]:
    images = [(name, data) for (name, suffix), data in sample.items() if suffix in SUFFIXES]
    classes = [data for (_, suffix), data in sample.items() if suffix == ".cls"]
    if not images:
        for name, _ in sample:
            yield Problem(shown + name, "has no PNG, JPEG or WebP file beside it")
        return
    name, data = images[0]
    folders = PurePosixPath(name).parts[:-1]
    label: Class = folders[-1] if folders and folders[-1] != "." else None
    try:
        if classes:
            label = checked_class(int(classes[0]))
    except (ValueError, Unusable):
        yield Problem(shown + name, f"its class is {classes[0][:40]!r}, not a number from 0")
        return
    yield Entry(shown + name, label, lambda: data)


def _bytes_of(rows: Any, number: int, column: str) -> bytes:
    data: bytes | None = rows[number][column]["bytes"]
    if data is None:
        raise Unusable("has no bytes of its own in the data set")
    return data


def _hugging_face(name: str) -> Iterator[Entry | Problem]:
    try:
        import datasets
    except ImportError:
        raise input_error(
            "reading from the Hugging Face hub needs the package `datasets`",
            given=HUGGING_FACE + name,
            hint="pip install datasets",
        ) from None
    try:
        rows = datasets.load_dataset(name, split="train")
    except Exception as error:  # whatever the hub, the network or the package says
        raise input_error(f"{name!r} cannot be loaded", given=HUGGING_FACE + name, reason=error) from None
    kinds = {column: type(feature).__name__ for column, feature in rows.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    if not images:
        raise InputError(f"{name!r} has no column of images\n  its columns: {', '.join(kinds)}")
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    rows = rows.cast_column(images[0], datasets.Image(decode=False))
    names = rows.features[labels[0]].names if labels else []
    for number in range(len(rows)):
        yield Entry(
            f"{HUGGING_FACE}{name}/{number}",
            names[rows[number][labels[0]]] if labels else None,
            partial(_bytes_of, rows, number, images[0]),
        )
