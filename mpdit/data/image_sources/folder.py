"""A folder of images, with a folder for each class. Links are followed only inside the tree."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mpdit.data.image_entry import (
    LABELS,
    Entry,
    Listing,
    Problem,
    check_size,
    is_ignored,
    is_image,
    labelled,
    read_labels,
)
from mpdit.data.image_sources.registry import IMAGE_SOURCES, ImageSource


@contextmanager
def _opened(source: str) -> Iterator[Listing]:
    yield list(_entries(Path(source)))


def _entries(root: Path) -> Iterator[Entry | Problem]:
    real_root = root.resolve()
    images: list[tuple[str, Callable[[], bytes]]] = []
    problems: list[Problem] = []
    labels = None
    unreadable: list[OSError] = []
    for place, subfolders, files in os.walk(root, onerror=unreadable.append):
        folder = Path(place)
        subfolders[:] = sorted(name for name in subfolders if not is_ignored(name))
        for name in [name for name in subfolders if (folder / name).is_symlink()]:
            subfolders.remove(name)
            problems.append(Problem(str(folder / name), "is a link to a folder; links to folders are not followed"))
        names = [name for name in sorted(files) if not is_ignored(name)]
        if folder != root and not names and not subfolders:
            problems.append(Problem(str(folder), "is an empty class"))
        for name in names:
            path = folder / name
            relative = path.relative_to(root).as_posix()
            if relative == LABELS and not path.is_symlink():
                labels = read_labels(path.read_bytes(), str(path))
            elif path.is_symlink() and not path.resolve().is_relative_to(real_root):
                problems.append(Problem(str(path), f"is a link out of {root}"))
            elif not path.is_file():
                problems.append(Problem(str(path), "is not a file"))
            elif not is_image(name):
                problems.append(Problem(str(path), "is not a PNG, JPEG or WebP file"))
            else:
                images.append((relative, _reader(path)))
    yield from problems
    yield from (Problem(str(error.filename), f"cannot be read: {error.strerror}") for error in unreadable)
    yield from labelled(images, str(root), labels)


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        check_size(path.stat().st_size)
        return path.read_bytes()

    return read


IMAGE_SOURCES.register(ImageSource("folder", "a folder", _opened, Path.is_dir, order=100))
