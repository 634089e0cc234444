"""Pictures of curves: long names take room, and no warning of matplotlib's (here, warnings are errors)."""

from pathlib import Path

import pytest
from PIL import Image

from pipelines.scoring.pictures import write_bands, write_curves


@pytest.mark.parametrize("write", [write_curves, write_bands])
def test_long_titles_and_names_leave_room_for_the_curves(write: object, tmp_path: Path) -> None:
    assert callable(write)
    path = tmp_path / "deep" / "a.png"
    panels = {f"design {'scale+shift+rotation+gate ' * 4}{at}": {"a long name " * 4: [(1, 2), (2, 3)]} for at in (0, 1)}
    write(path, panels, "width", "change")
    with Image.open(path) as picture:
        assert picture.width > picture.height > 300
