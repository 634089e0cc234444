"""A zip of images, read in memory: class folders, or EDM2's file of labels."""

import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mpdit.data.image_entry import (
    LABELS,
    Entry,
    Listing,
    Problem,
    Unusable,
    check_size,
    check_stays_inside,
    is_ignored,
    is_image,
    labelled,
    read_labels,
    read_limited,
)
from mpdit.data.image_sources.registry import IMAGE_SOURCES, ImageSource
from mpdit.errors import input_error


@contextmanager
def _opened(source: str) -> Iterator[Listing]:
    with _archive(Path(source)) as archive:
        yield list(_entries(Path(source), archive))


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise input_error(f"{path} cannot be read as a zip", given=path, reason=error) from None


def _entries(path: Path, archive: zipfile.ZipFile) -> Iterator[Entry | Problem]:
    members = {}
    for member in archive.infolist():
        check_stays_inside(path, member.filename)
        if member.is_dir() or is_ignored(member.filename):
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
    images = []
    for name in sorted(members):
        if is_image(name):
            images.append(("/".join(PurePosixPath(name).parts[strip:]), _zip_reader(archive, members[name])))
        else:
            yield Problem(f"{path}/{name}", "is not a PNG, JPEG or WebP file")
    yield from labelled(images, str(path), labels)


def _common_folder(names: list[str]) -> int:
    """Count the leading folders that all names have in common and that are no class themselves.

    Such a folder has a folder below it for every name, or several: a file beside those, as a README, makes it no class.
    """
    depth, parts = 0, [PurePosixPath(name).parts for name in names]
    while parts and all(len(part) > depth + 1 for part in parts) and len({part[depth] for part in parts}) == 1:
        below = {part[depth + 1] for part in parts if len(part) > depth + 2}
        if len(below) < 2 and not all(len(part) > depth + 2 for part in parts):
            break
        depth += 1
    return depth


def _zip_reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        check_size(member.file_size)
        try:
            with archive.open(member) as file:
                return read_limited(file)  # whatever the zip claims of its size
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
            raise Unusable(str(error)) from None

    return read


IMAGE_SOURCES.register(ImageSource("zip", "a .zip", _opened, lambda path: path.suffix.lower() == ".zip"))
