from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpdit.data.image_entry import Entry, Listing
from mpdit.data.image_sources.registry import IMAGE_SOURCES, ImageSource, open_images
from mpdit.errors import InputError


@contextmanager
def one_image(source: str) -> Iterator[Listing]:
    yield [Entry(source, None, lambda: b"")]


def test_a_source_of_a_plug_in_is_found_by_its_name_and_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ImageSource("theirs.album", "theirs.album:NAME", one_image)
    filed = ImageSource("theirs.parquet", "a .parquet", one_image, lambda path: path.suffix == ".parquet")
    for kind in (named, filed):
        monkeypatch.setitem(IMAGE_SOURCES._kinds, kind.name, kind)
    (tmp_path / "images.parquet").touch()
    for source, name in (
        ("theirs.album:summer", "summer"),
        (str(tmp_path / "images.parquet"), f"{tmp_path}/images.parquet"),
    ):
        with open_images(source) as entries:
            assert [entry.name for entry in entries] == [name]


def test_a_source_that_is_not_there_names_all_kinds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is nothing at(.*\n)*.*a folder or .*\.tar.* or a \.zip or hf:NAME"):
        open_images(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="the plug-in 'absent' is not installed"):
        open_images("absent.album:summer")
