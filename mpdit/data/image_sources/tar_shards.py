"""WebDataset: a tar of images, or a folder of them, read as a stream."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mpdit.data.image_entry import (
    SUFFIXES,
    Class,
    Entry,
    Listing,
    Problem,
    Unusable,
    check_size,
    check_stays_inside,
    checked_class,
    is_ignored,
)
from mpdit.data.image_sources.registry import IMAGE_SOURCES, ImageSource
from mpdit.errors import input_error


@contextmanager
def _opened(source: str) -> Iterator[Listing]:
    path = Path(source)
    yield _entries([path] if path.is_file() else sorted(path.glob("*.tar")))


def _takes(path: Path) -> bool:
    """Take any file that is of no other kind, and a folder of tars."""
    return path.is_file() or any(path.glob("*.tar"))


def _entries(shards: list[Path]) -> Iterator[Entry | Problem]:
    """Read samples: files with one name up to its first dot, which follow each other; `.cls` is the class."""
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
        check_stays_inside(shard, member.name)
        name = f"{shard}/{member.name}"
        if member.isdir() or is_ignored(member.name.removeprefix("./")):
            continue
        if not member.isreg():
            yield Problem(name, "is a link or a special file")
            continue
        try:
            check_size(member.size)
        except Unusable as error:
            yield Problem(name, str(error))
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


IMAGE_SOURCES.register(ImageSource("tar", "a .tar or a folder of .tar shards", _opened, _takes, order=90))
