"""A data set of the Hugging Face hub; needs the package `datasets`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mpdit.data.image_entry import Entry, Listing, Problem, Unusable
from mpdit.data.image_sources.registry import IMAGE_SOURCES, ImageSource
from mpdit.errors import InputError, input_error

NAME = "hf"


@contextmanager
def _opened(name: str) -> Iterator[Listing]:
    yield _entries(name)


def _bytes_of(rows: Any, number: int, column: str) -> bytes:
    data: bytes | None = rows[number][column]["bytes"]
    if data is None:
        raise Unusable("has no bytes of its own in the data set")
    return data


def _entries(name: str) -> Iterator[Entry | Problem]:
    try:
        import datasets
    except ImportError:
        raise input_error(
            "reading from the Hugging Face hub needs the package `datasets`",
            given=f"{NAME}:{name}",
            hint="pip install datasets",
        ) from None
    try:
        rows = datasets.load_dataset(name, split="train")
    except Exception as error:  # whatever the hub, the network or the package says
        raise input_error(f"{name!r} cannot be loaded", given=f"{NAME}:{name}", reason=error) from None
    kinds = {column: type(feature).__name__ for column, feature in rows.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    if not images:
        raise InputError(f"{name!r} has no column of images\n  its columns: {', '.join(kinds)}")
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    rows = rows.cast_column(images[0], datasets.Image(decode=False))
    names = rows.features[labels[0]].names if labels else []
    for number in range(len(rows)):
        yield Entry(
            f"{NAME}:{name}/{number}",
            names[rows[number][labels[0]]] if labels else None,
            partial(_bytes_of, rows, number, images[0]),
        )


IMAGE_SOURCES.register(ImageSource(NAME, f"{NAME}:NAME of the Hugging Face hub", _opened))
