"""What a source of images is, the registry of all of them, and how one is opened."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mpdit.data.image_entry import Listing
from mpdit.errors import input_error
from mpdit.registry import Registry


def no_path(_path: Path) -> bool:
    """Take no path: for a source that is named as NAME:…"""
    return False


@dataclass(frozen=True)
class ImageSource:
    """One way to have images.

    Attributes:
        name: of the kind. Sources that take no path are given as NAME:….
        doc: what a person gives, as messages say it.
        open: from the path, or from what follows NAME:, to all images in a fixed order; the entries can be read while
            it is open. Raises InputError for a source that cannot be used at all.
        takes: whether a path that exists is a source of this kind.
        order: of several that take a path, the lowest is asked.
    """

    name: str
    doc: str
    open: Callable[[str], AbstractContextManager[Listing]]
    takes: Callable[[Path], bool] = no_path
    order: int = 0


IMAGE_SOURCES: Registry[ImageSource] = Registry("source of images", __package__)


def open_images(source: str) -> AbstractContextManager[Listing]:
    """Open a source of images: a path, or NAME:… of a kind that takes no path.

    Returns:
        A context manager that gives all images in a fixed order: listed, or one by one where they come as a stream.

    Raises:
        InputError: there is no such source, or it cannot be used at all.
    """
    path = Path(source)
    name, colon, rest = source.partition(":")
    if colon and name in IMAGE_SOURCES and IMAGE_SOURCES[name].takes is no_path:
        return IMAGE_SOURCES[name].open(rest)
    if path.exists():
        kinds = sorted((kind for kind in IMAGE_SOURCES if kind.takes(path)), key=lambda kind: kind.order)
        return kinds[0].open(source)
    if colon and "." in name and "/" not in name:
        return IMAGE_SOURCES[name].open(rest)  # of a plug-in
    kinds = sorted(IMAGE_SOURCES, key=lambda kind: kind.takes is no_path)
    raise input_error(f"there is nothing at {path}", given=path, allowed=" or ".join(kind.doc for kind in kinds))
